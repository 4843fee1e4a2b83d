"""Negative controls of the contracts of models and loaders: each broken one is told by the right contract."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from contract_cases import loader_of, model_of

import earmark
from earmark.testing import check_model


def _altered(**changes):
    """Return a model of which some members are replaced."""
    model = model_of("whisper-nano")
    kind = type("Altered", (type(model),), changes)
    return kind(model.info, model.module, model.extractor, model.tokenizer, model.settings)


def _info(**changes):
    model = _altered()
    model.info = dataclasses.replace(model.info, **changes)
    return model


def _chatty():
    texts = iter(range(10**6))
    return _altered(detokenise=lambda _self, _ids: f"text {next(texts)}")


def _unrounded():
    model = _info(precision="bf16")
    model.in_float32 = lambda: model
    return model


BROKEN_MODELS = {
    "family nobody knows": ("describes itself", lambda: _info(family="telepathy"), "telepathy.*register it"),
    "digest cut off": ("describes itself", lambda: _info(weights="abc"), "64 hex digits"),
    "no window": ("describes itself", lambda: _info(window_samples=0), "16000 or more"),
    "chatty detokeniser": ("text", _chatty, "detokenise from the ids alone"),
    "no words": ("words", lambda: _altered(word_index=lambda _self, _ids: [0]), "one per id"),
    "words from 1": (
        "words",
        lambda: _altered(word_index=lambda _self, ids: list(range(1, len(ids) + 1))),
        "count words from 0",
    ),
    "positions of another hop": (
        "positions",
        lambda: _altered(encoder_positions=lambda _self, samples: max(1, samples // 640)),
        "as the encoder gives",
    ),
    "with_module that ignores it": (
        "copies",
        lambda: _altered(with_module=lambda self, _module: self),
        "use the network",
    ),
    "weights not rounded": ("float32", _unrounded, "not rounded to torch.bfloat16"),
}


@pytest.mark.parametrize("name", BROKEN_MODELS)
def test_broken_models_are_told(name):
    contract, make, message = BROKEN_MODELS[name]
    with pytest.raises(AssertionError, match=rf"(?s)contract '{contract}' of model.*{message}"):
        check_model(make(), contracts=[contract])


def test_a_model_that_fails_its_own_evidence_is_told():
    model = _altered(forced_states=lambda *_: 1 / 0)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        check_model(model, contracts=["verifies itself"])


def _loader_with(**changes):
    loader, folder = loader_of("whisper-nano")
    return type("Broken", (type(loader),), changes)(), folder


def _unpickles(_, folder: Path) -> bool:
    import pickle

    pickle.loads((folder / "pytorch_model.bin").read_bytes())  # noqa: S301 - what a careless loader would do
    return False


def _executes(_self, folder, **_):
    exec((folder / "modeling.py").read_text(), {})  # noqa: S102 - what a careless loader would do
    raise earmark.errors.ModelError("no weights")


@pytest.mark.parametrize(
    ("contract", "changes", "message"),
    [
        ("knows its own", {"recognises": lambda _self, _folder: False}, "not recognised"),
        ("leaves others", {"recognises": lambda _self, _folder: True}, "'bert'.*recognised"),
        ("leaves others", {"recognises": lambda _self, folder: (folder / "setup.py").exists()}, "recognised"),
        ("leaves others", {"recognises": _unpickles}, "code of a folder with"),
        ("runs nothing", {"load": _executes}, "code of the checkpoint run"),
    ],
)
def test_broken_loaders_are_told(contract, changes, message):
    loader, folder = _loader_with(**changes)
    with pytest.raises(AssertionError, match=rf"(?s)contract '{contract}' of loader.*{message}"):
        check_model(model_of("whisper-nano"), loader=loader, folder=folder, contracts=[contract])
