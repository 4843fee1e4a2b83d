"""Known cheats whose direction takes part in the score: found where the honest noise of bf16 hides their size."""

from __future__ import annotations

import dataclasses
import json
import math

import msgspec
import numpy as np
import pytest
from made_profiles import row

import earmark
from earmark import Case
from earmark.attribution import recipes_of
from earmark.calibrate import calibrate
from earmark.decision.score import fit_scale
from earmark.errors import RecordError, UsageError
from earmark.fingerprint.matched import matched_filter
from earmark.profiles import PROFILE_FILE, load_profile
from earmark.runs import Run
from earmark.scenarios import scenario
from earmark.study import Sample, study


@pytest.fixture(scope="module")
def bf16():
    return earmark.load("embedded:whisper-nano", dtype="bfloat16")


def made_profile(reference, recipes):
    """Distances of 0.003 to 0.5 nats on honest clips, 0.1 nats along a recipe: wide in size, narrow in direction."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(700):
        along = {f"along_{name}": max(0.1 * rng.standard_normal(), 0.0) for name in recipes}
        values = {"logprob_l1": float(0.04 * np.exp(0.8 * rng.standard_normal())), **along}
        rows.append(row(f"c{i}", "a", (0.0, 0.0), statistics=values))
    made = calibrate(Run(rows), ("logprob_l1",), recipes=recipes)
    info = reference.info
    header = {"model": info.name, "weights": info.weights, "family": info.family, "precision": info.precision}
    return dataclasses.replace(made, header=msgspec.structs.replace(made.header, **header))


def outcomes(reference, provider, clips, profile):
    evidence = provider.record(reference, clips)
    cases = [Case(evidence=e, request=c.request, audio=c.audio) for e, c in zip(evidence, clips, strict=True)]
    return list(earmark.verify_many(cases, reference, profile=profile))


def test_int8_is_found_under_bf16_by_its_direction_alone(bf16, clips):
    """And passes where the profile looks along no recipe: the test of the test."""
    int8, honest = scenario("quantise", bits=8), scenario("honest", batch_size=3)
    with_recipe, without = made_profile(bf16, ("int8",)), made_profile(bf16, ())
    found = outcomes(bf16, int8, clips[:8], with_recipe)
    assert {verdict.outcome for verdict in found} == {"FAIL"}
    assert all("led by along_int8" in verdict.findings[-1].found for verdict in found)
    assert {verdict.outcome for verdict in outcomes(bf16, int8, clips[:8], without)} == {"PASS"}
    for verdict in outcomes(bf16, honest, clips[:8], with_recipe):
        assert verdict.outcome == "PASS"
        assert verdict.fingerprint["along_int8"] < 0.5


def test_a_study_with_recipes_keeps_the_direction_for_calibration(bf16, clips, tmp_path):
    samples = [Sample(name=f"c{i}", audio=clip.audio) for i, clip in enumerate(clips[:3])]
    run = study(
        bf16, [scenario("quantise", bits=8)], samples, tmp_path / "run.jsonl", recipes=recipes_of(["int8", "fp8"])
    )
    values = run.matrix(["along_int8", "along_fp8"])
    assert (values[:, 0] > 0.3).all()
    assert (values[:, 1] < values[:, 0]).all()


def test_the_projection_is_that_of_the_definition():
    """On a deviation of which three fifths go along the alternative, and on one that goes the other way."""
    own, other = np.array([3.0, 4.0]) / 5, np.array([2.0, 0.0])
    zero = np.zeros(2)
    assert matched_filter(own, zero, other).along == pytest.approx(0.6)
    assert matched_filter(-own, zero, other).along == 0
    assert math.isnan(matched_filter(own, zero, zero).along)


def test_a_linear_channel_has_no_logarithm():
    """Twice as far beyond the median scores twice as much."""
    values = np.abs(np.random.default_rng(0).standard_normal((500, 1)))
    scale = fit_scale(["along_int8"], values, linear=["along_int8"])
    low, high = scale.scores(np.array([[1.0], [2.0]])) - scale.scores(np.array([[0.0]]))
    assert high == pytest.approx(2 * low)
    assert scale.scores(values).max() <= 1.5


def test_a_recipe_that_broke_is_no_verdict(bf16, clips, monkeypatch):
    """A fault of ours leaves the clip open, not passed without its recipe."""
    monkeypatch.setattr("earmark.replaying.attribute", lambda *_, **__: 1 / 0)
    (verdict,) = outcomes(bf16, scenario("quantise", bits=8), clips[:1], made_profile(bf16, ("int8",)))
    assert verdict.outcome == "INCONCLUSIVE"
    assert "replay.failed" in [finding.code for finding in verdict.findings]


def test_profiles_with_recipes_are_saved_and_checked(bf16, tmp_path):
    profile = made_profile(bf16, ("int8", "fp8"))
    profile.save(tmp_path)
    assert load_profile(tmp_path).header == profile.header
    header = json.loads((tmp_path / PROFILE_FILE).read_text())
    (tmp_path / PROFILE_FILE).write_text(json.dumps(header | {"recipes": ["fp8", "int8"]}))
    with pytest.raises(RecordError, match="need the last channels"):
        load_profile(tmp_path)
    with pytest.raises(UsageError, match="no recipe 'int7'; known: int8"):
        recipes_of(["int7"])
