"""Our families and models keep their contracts, and the tools that check it work."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
from broken_families import Blind
from contract_cases import MODELS, PAIRS, loader_of, model_of

import earmark
from earmark.errors import UsageError
from earmark.registry import registry
from earmark.testing import FAMILY_CONTRACTS, LOADER_CONTRACTS, MODEL_CONTRACTS, check_family, check_model
from earmark.testing.bench import default_clips, require
from earmark.verifiers.autoregressive import AutoregressiveFamily


@pytest.mark.parametrize("contract", FAMILY_CONTRACTS)
@pytest.mark.parametrize(("family", "name"), PAIRS)
def test_families_keep_their_contracts(family, name, contract):
    check_family(registry("family").get(family), model_of(name), contracts=[contract])


@pytest.mark.parametrize("contract", [*MODEL_CONTRACTS, *LOADER_CONTRACTS])
@pytest.mark.parametrize("name", [name for _, name in PAIRS])
def test_models_keep_their_contracts(name, contract):
    model = model_of(name)
    loader, folder = loader_of(name)
    check_model(model, loader=loader, folder=folder, contracts=[contract])


@pytest.mark.parametrize(
    ("dtype", "contract"),
    [
        ("float16", "round trip"),
        ("bfloat16", "round trip"),
        ("bfloat16", "bound to ids"),
        ("float16", "grows with noise"),
    ],
)
def test_contracts_hold_at_16_bits(dtype, contract):
    model = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype)
    check_family(AutoregressiveFamily(), model, contracts=[contract])
    check_model(model, contracts=["float32"])


def test_every_registered_family_is_checked():
    assert set(registry("family").names()) <= set(MODELS)


# The tools


def test_a_family_under_test_leaves_the_registry_as_it_was():
    before = registry("family").get("autoregressive")
    with pytest.raises(AssertionError):
        check_family(Blind(), model_of("whisper-nano"), contracts=["grows with noise"])
    assert registry("family").get("autoregressive") is before
    with registry("family").standing_in("brand-new", before):
        assert "brand-new" in registry("family").names()
    assert "brand-new" not in registry("family").names()


def test_unknown_contracts_are_refused():
    with pytest.raises(UsageError, match="unknown contract 'speed'; known: describes itself"):
        check_family(AutoregressiveFamily(), model_of("whisper-nano"), contracts=["speed"])
    with pytest.raises(UsageError, match="unknown contract 'speed'"):
        check_model(model_of("whisper-nano"), contracts=["speed"])


def test_nothing_to_check_is_told():
    with pytest.raises(AssertionError, match="neither a model nor a loader"):
        check_model()


def test_contracts_need_no_test_tool():
    import subprocess
    import sys

    code = "import sys, earmark.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_default_clips_have_different_words():
    assert len({clip.request.nonce for clip in default_clips(6)}) == 6
    require(holds=True, found=SimpleNamespace(), expected=None, advice="")


def test_noise_leaves_the_network_as_it_was():
    model = model_of("whisper-nano")
    before = copy.deepcopy(model.module.state_dict())
    check_family(AutoregressiveFamily(), model, contracts=["grows with noise"])
    assert all((before[name] == tensor).all() for name, tensor in model.module.state_dict().items())
