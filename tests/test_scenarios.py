"""Simulated providers: each does what it says, claims the reference, and is caught."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import earmark
from earmark import Case
from earmark.errors import UnknownNameError, UsageError
from earmark.scenarios import scenario
from earmark.scenarios.audio import without_end
from earmark.scenarios.grids import NF4, float8_grid, integer_grid, normal_float_grid, rotated
from earmark.scenarios.honest import honest_scenarios
from earmark.scenarios.weights import changed_copy


def _verdicts(reference, clips, evidence):
    cases = [
        Case(evidence=e, audio=c.audio, request=c.request, receipt=e.receipt)
        for e, c in zip(evidence, clips, strict=True)
    ]
    return list(earmark.verify_many(cases, reference, profile="provisional"))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [None, 7, 64])
@pytest.mark.parametrize("symmetric", [True, False])
def test_integer_grid_is_near_the_weight(bits, group, symmetric):
    torch.manual_seed(0)
    weight = torch.randn(5, 60)
    rounded = integer_grid(weight, bits=bits, group=group, symmetric=symmetric)
    assert rounded.shape == weight.shape
    assert len(rounded[0].unique()) <= 2**bits * (1 if group is None else -(-60 // group))
    step = weight.abs().amax() * 2 / (2**bits - 2)
    assert (rounded - weight).abs().max() <= step / 2 + 1e-6
    assert torch.equal(integer_grid(torch.zeros(2, 4), bits=bits, group=group, symmetric=symmetric), torch.zeros(2, 4))


def test_stochastic_rounding_is_unbiased_and_repeatable():
    weight = torch.full((1, 20_001), 0.3)
    weight[0, 0] = 127.0
    rounded = integer_grid(weight, bits=8, rounding="stochastic")
    assert set(rounded[0, 1:].unique().tolist()) == {0.0, 1.0}
    assert abs(float(rounded[0, 1:].mean()) - 0.3) < 0.015
    assert torch.equal(rounded, integer_grid(weight, bits=8, rounding="stochastic"))


def test_normal_floats_and_float8_take_the_nearest_value():
    torch.manual_seed(1)
    weight = torch.randn(3, 200)
    scale = weight.abs().amax(dim=1, keepdim=True)
    nearest = (weight / scale)[..., None].sub(torch.tensor(NF4)).abs().amin(dim=-1)
    assert torch.allclose((normal_float_grid(weight, group=200) - weight).abs() / scale, nearest, atol=1e-6)
    assert (float8_grid(weight) - weight).abs().div(weight.abs()).max() <= 2**-4 + 1e-3, "3 bits of mantissa"


def test_rotation_is_undone():
    torch.manual_seed(2)
    weight = torch.randn(4, 50)
    turned, matrix = rotated(weight)
    assert torch.allclose(turned @ matrix.T, weight, atol=1e-5)
    assert not torch.allclose(turned, weight, atol=0.1)


def test_change_touches_only_the_part_it_names(nano):
    before = {name: value.clone() for name, value in nano.module.state_dict().items()}
    changed = changed_copy(nano.module, lambda rows: rows * 2, "encoder").state_dict()
    different = {name for name, value in changed.items() if not torch.equal(value, before[name])}
    assert different
    assert all(".encoder." in name for name in different)
    assert all(torch.equal(value, before[name]) for name, value in nano.module.state_dict().items())


def test_a_network_without_such_weights_is_refused():
    with pytest.raises(UsageError, match="no linear or convolution weights"):
        changed_copy(torch.nn.Identity(), lambda rows: rows)


def test_without_end_drops_speech_and_not_silence():
    tone = (np.sin(np.arange(32_000) / 9) * 8000).astype(np.int16)
    padded = np.concatenate([tone, np.zeros(24_000, np.int16)])
    assert len(without_end(padded, 1.0)) == 16_000
    assert len(without_end(tone[:2000], 1.0)) == 1600


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("quantise", {"bits": 4, "group": 64}),
        ("quantise", {"bits": 8}),
        ("quantise", {"bits": 8, "sharing": "tensor"}),
        ("quantise", {"bits": 8, "rotation": "random", "rounding": "stochastic"}),
        ("float8", {}),
        ("normal_float4", {"part": "encoder"}),
        ("quantise_cache", {"kind": "int8"}),
        ("prune", {"share": 0.05}),
        ("low_rank", {}),
        ("noise", {}),
        ("skip_layers", {}),
        ("drop_audio", {}),
        ("drop_windows", {"every": 4}),
        ("speed_up", {}),
        ("telephone_band", {}),
        ("other_request", {"language": "de"}),
        ("other_request", {"prompt": "something else"}),
    ],
)
def test_cheats_are_caught_on_every_clip(nano, clips, name, parameters):
    cheat = scenario(name, **parameters)
    evidence = cheat.record(nano, clips, batch_size=6)
    assert all(e.claim.weights == nano.info.weights for e in evidence)
    assert {verdict.outcome for verdict in _verdicts(nano, clips, evidence)} == {"FAIL"}


def test_other_checkpoint_is_caught_on_every_clip(nano, early, clips):
    evidence = scenario("other_checkpoint", model=early).record(nano, clips)
    assert {verdict.outcome for verdict in _verdicts(nano, clips, evidence)} == {"FAIL"}


def test_cheap_writer_is_caught_where_it_writes_otherwise(nano, early, clips, honest):
    """Where the cheap text equals the real one nothing was gained, and the evidence is the honest one."""
    evidence = scenario("rescored", writer=early).record(nano, clips)
    verdicts = _verdicts(nano, clips, evidence)
    differs = [mine.text != real.text for mine, real in zip(evidence, honest, strict=True)]
    assert any(differs)
    for verdict, other in zip(verdicts, differs, strict=True):
        assert verdict.outcome == ("FAIL" if other else "PASS")
        if other:
            assert "margin.exceeded" in [finding.code for finding in verdict.findings]
            assert verdict.fingerprint["logprob_l1"] < 1e-4, "the numbers alone cannot show it"


def test_a_provider_that_does_not_cheat_passes(nano, clips):
    """The negative control: the same path through a scenario, with the reference itself behind it."""
    same = scenario("other_checkpoint", model=nano).record(nano, clips[:4])
    assert {verdict.outcome for verdict in _verdicts(nano, clips[:4], same)} == {"PASS"}


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("quantise", {"bits": 1}),
        ("quantise", {"bits": 4, "group": 1}),
        ("float8", {"part": "middle"}),
        ("quantise_cache", {"kind": "int2"}),
        ("prune", {"share": 1.0}),
        ("low_rank", {"rank": 0}),
        ("noise", {"size": 0}),
        ("skip_layers", {"count": 0}),
        ("drop_audio", {"seconds": 0}),
        ("drop_windows", {"every": 1}),
        ("speed_up", {"factor": 0.5}),
        ("other_request", {}),
        ("honest", {"batch_size": 0}),
    ],
)
def test_impossible_parameters_are_refused(name, parameters):
    with pytest.raises(UsageError):
        scenario(name, **parameters)


@pytest.mark.parametrize("scenario_", honest_scenarios(), ids=lambda s: s.name)
def test_honest_variations_pass_on_every_clip(nano, clips, scenario_):
    evidence = scenario_.record(nano, clips, level="sketch")
    assert {verdict.outcome for verdict in _verdicts(nano, clips, evidence)} == {"PASS"}


def test_sampling_where_greedy_was_asked_is_caught_where_it_writes_otherwise(nano, clips, honest):
    evidence = scenario("other_request", temperature=0.6).record(nano, clips)
    verdicts = _verdicts(nano, clips, evidence)
    differs = [mine.text != real.text for mine, real in zip(evidence, honest, strict=True)]
    assert any(differs)
    assert [verdict.outcome == "FAIL" for verdict in verdicts] == differs


def test_unknown_scenario_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'quantise'"):
        scenario("quantize")
