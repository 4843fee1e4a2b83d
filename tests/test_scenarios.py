"""Simulated providers: each does what it says, claims the reference, and is caught."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import earmark
from earmark import Case
from earmark.errors import UnknownNameError, UsageError
from earmark.scenarios import scenario
from earmark.scenarios.cheats import quantised_copy, round_trip, without_end


def _verdicts(reference, clips, evidence):
    cases = [
        Case(evidence=e, audio=c.audio, request=c.request, receipt=e.receipt)
        for e, c in zip(evidence, clips, strict=True)
    ]
    return list(earmark.verify_many(cases, reference, profile="provisional"))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("group", [None, 7, 64])
@pytest.mark.parametrize("symmetric", [True, False])
def test_round_trip_is_a_grid_near_the_weight(bits, group, symmetric):
    torch.manual_seed(0)
    weight = torch.randn(5, 20, 3)
    rounded = round_trip(weight, bits=bits, group=group, symmetric=symmetric)
    assert rounded.shape == weight.shape
    assert len(rounded[0].unique()) <= 2**bits * (1 if group is None else -(-60 // group))
    step = weight.abs().amax() * 2 / (2**bits - 2)
    assert (rounded - weight).abs().max() <= step / 2 + 1e-6
    assert torch.equal(round_trip(torch.zeros(2, 4), bits=bits, group=group, symmetric=symmetric), torch.zeros(2, 4))


def test_quantise_touches_only_the_part_it_names(nano):
    before = {name: value.clone() for name, value in nano.module.state_dict().items()}
    changed = quantised_copy(nano.module, bits=4, group=64, symmetric=True, part="encoder").state_dict()
    different = {name for name, value in changed.items() if not torch.equal(value, before[name])}
    assert different
    assert all(".encoder." in name for name in different)
    assert all(torch.equal(value, before[name]) for name, value in nano.module.state_dict().items())


def test_without_end_drops_speech_and_not_silence():
    tone = (np.sin(np.arange(32_000) / 9) * 8000).astype(np.int16)
    padded = np.concatenate([tone, np.zeros(24_000, np.int16)])
    assert len(without_end(padded, 1.0)) == 16_000
    assert len(without_end(tone[:2000], 1.0)) == 1600


@pytest.mark.parametrize(
    ("name", "parameters"), [("quantise", {"bits": 4, "group": 64}), ("quantise", {"bits": 8}), ("drop_audio", {})]
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
    [("quantise", {"bits": 1}), ("quantise", {"bits": 4, "group": 1}), ("drop_audio", {"seconds": 0})],
)
def test_impossible_parameters_are_refused(name, parameters):
    with pytest.raises(UsageError):
        scenario(name, **parameters)


def test_unknown_scenario_is_named():
    with pytest.raises(UnknownNameError, match="did you mean 'quantise'"):
        scenario("quantize")
