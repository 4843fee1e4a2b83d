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
from earmark.budget import Budget
from earmark.calibrate import calibrate
from earmark.decision.score import fit_scale
from earmark.errors import RecordError, UsageError
from earmark.fingerprint.matched import along, excess, matched_filter
from earmark.profiles import PROFILE_FILE, load_profile
from earmark.runs import Run
from earmark.scenarios import scenario
from earmark.splits import Shares
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
        excess = {f"excess_{name}": float(np.exp(3 * rng.standard_normal())) for name in recipes}
        values = {"logprob_l1": float(0.04 * np.exp(0.8 * rng.standard_normal())), **along, **excess}
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


def test_along_is_that_of_the_definition():
    """Against a plain loop; the other way is 0, nothing to compare NaN."""
    rng = np.random.default_rng(0)
    own, other = rng.standard_normal((2, 7, 3)) * rng.uniform(0.1, 2, (7, 1))
    own[2, 1] = np.nan
    rows = [np.flatnonzero(~np.isnan(row)) for row in own]
    x = [own[p, k] - own[p, k].mean() for p, k in enumerate(rows)]
    d = [other[p, k] - other[p, k].mean() for p, k in enumerate(rows)]
    energy = [float(v @ v) for v in d]
    near = [np.mean([energy[min(max(q, 0), 6)] for q in range(p - 2, p + 3)]) for p in range(7)]
    weight = [1 / (e + np.median(energy)) for e in near]
    expected = sum(w * float(a @ b) for w, a, b in zip(weight, x, d, strict=True))
    expected /= math.sqrt(sum(w * e for w, e in zip(weight, energy, strict=True)))
    assert along(own, other) == pytest.approx(max(expected, 0.0))
    assert along(other, other) > 0 == along(-other, other)
    assert math.isnan(matched_filter(own, np.zeros((7, 3)), np.zeros((7, 3))).along)


def test_excess_is_that_of_the_definition():
    """Against a plain loop; nothing to compare is NaN, and the own direction makes no difference."""
    rng = np.random.default_rng(3)
    own, other = rng.standard_normal((2, 40, 3)) * rng.uniform(0.1, 2, (40, 1))
    own[2, 1] = np.nan
    rows = [np.flatnonzero(~np.isnan(row)) for row in own]
    sizes = [float(((own[p, k] - own[p, k].mean()) ** 2).sum()) for p, k in enumerate(rows)]
    energy = [float(((other[p, k] - other[p, k].mean()) ** 2).sum()) for p, k in enumerate(rows)]
    near = [np.mean([energy[min(max(q, 0), 39)] for q in range(p - 8, p + 9)]) for p in range(40)]
    least = 0.02 * np.median(sizes)
    logs = [math.log((size + least) / (e + np.median(energy))) for size, e in zip(sizes, near, strict=True)]
    assert excess(own, other) == pytest.approx(math.exp(np.mean(logs)))
    assert excess(-own, other) == pytest.approx(excess(own, other))
    assert math.isnan(matched_filter(own, np.zeros((40, 3)), np.zeros((40, 3))).excess)
    assert 0 < excess(np.zeros((40, 3)), other) < 1e-9


def test_a_cheat_outside_the_library_shows_by_its_size():
    """Clips differ tenfold in sensitivity, so its size alone tells nothing; against the alternative's it does."""
    rng = np.random.default_rng(4)

    def measured(extra):
        size = np.exp(rng.standard_normal() + np.sin(np.arange(120) / 20 + rng.uniform(0, 6)))[:, None]
        noise, direction, other = size * rng.standard_normal((3, 120, 8))
        return excess(noise + extra * other, direction), float(np.abs(noise + extra * other).mean())

    honest, cheats = (np.log([measured(extra) for _ in range(200)]) for extra in (0.0, 1.0))
    (shift, plain), spread = np.median(cheats, axis=0) - np.median(honest, axis=0), honest.std(axis=0)
    assert shift / spread[0] > 4
    assert plain / spread[1] < 1


def test_what_all_listed_values_share_is_no_direction():
    """The normaliser of the softmax moves them together."""
    rng = np.random.default_rng(1)
    own, other = rng.standard_normal((2, 9, 4))
    assert along(own + rng.standard_normal((9, 1)), other) == pytest.approx(along(own, other))


def test_sensitive_positions_do_not_drown_the_others():
    """Noise and cheat both grow with the sensitivity: weighted, an honest clip with one such position is no outlier."""
    rng = np.random.default_rng(2)
    size = np.where(np.arange(40) == 7, 50.0, 1.0)[:, None]
    direction = 0.1 * size * rng.standard_normal((40, 8))
    honest = np.array([along(0.1 * size * rng.standard_normal((40, 8)), direction) for _ in range(400)])
    assert honest.max() < 5 * np.sqrt((honest**2).mean())
    assert along(direction + 0.1 * size * rng.standard_normal((40, 8)), direction) > 1.4 * honest.max()


def test_a_linear_channel_has_no_logarithm():
    """Twice as far beyond the median scores twice as much."""
    values = np.abs(np.random.default_rng(0).standard_normal((500, 1)))
    scale = fit_scale(["along_int8"], values, linear=["along_int8"])
    low, high = scale.scores(np.array([[1.0], [2.0]])) - scale.scores(np.array([[0.0]]))
    assert high == pytest.approx(2 * low)
    assert scale.scores(values).max() <= 1


def test_a_recipe_that_broke_is_no_verdict(bf16, clips, monkeypatch):
    """A fault of ours leaves the clip open, not passed without its recipe."""
    monkeypatch.setattr("earmark.replaying.attribute", lambda *_, **__: 1 / 0)
    (verdict,) = outcomes(bf16, scenario("quantise", bits=8), clips[:1], made_profile(bf16, ("int8",)))
    assert verdict.outcome == "INCONCLUSIVE"
    assert "replay.failed" in [finding.code for finding in verdict.findings]


def test_a_recipe_that_could_not_be_computed_leaves_the_clip_open(bf16, clips, monkeypatch):
    """Without the direction int8 would pass under bf16."""
    monkeypatch.setattr("earmark.replaying.attribute", lambda works, *_, **__: [None] * len(works))
    (verdict,) = outcomes(bf16, scenario("quantise", bits=8), clips[:1], made_profile(bf16, ("int8",)))
    assert verdict.outcome == "INCONCLUSIVE"
    assert [f.code for f in verdict.findings if f.severity == "inconclusive"] == ["statistics.recipe"]


def test_a_look_at_first_layers_does_not_miss_the_direction(bf16, clips):
    """A budget with a depth computes no direction; the clip stays open as any that was not replayed."""
    evidence = scenario("honest").record(bf16, clips[:2], level="sketch")
    cases = [Case(evidence=e, request=c.request, audio=c.audio) for e, c in zip(evidence, clips[:2], strict=True)]
    budget = Budget(share=1e-9, depth=9, secret=bytes(16))
    verdicts = list(earmark.verify_many(cases, bf16, profile=made_profile(bf16, ("int8",)), budget=budget))
    assert {verdict.outcome for verdict in verdicts} == {"INCONCLUSIVE"}
    assert all({"budget.skipped", "budget.probed"} <= {f.code for f in verdict.findings} for verdict in verdicts)
    assert not any(f.code == "replay.failed" for verdict in verdicts for f in verdict.findings)


@pytest.mark.parametrize(
    ("recipes", "statistics", "message"),
    [
        (["int7"], {"along_int7": 0.1}, "no recipe 'int7'"),
        (["int8", "fp8", "nf4", "int4-g64"], {}, "4 recipes; expected 3 at most"),
        (["int8"], {}, "40 honest rows without along_int8, of clip 'c0' first"),
        (["int8"], {"along_int8": math.nan, "excess_int8": 1.0}, "along_int8 applies to no clip"),
        (["int8"], {"along_int8": 0.1}, "40 honest rows without excess_int8, of clip 'c0' first"),
    ],
)
def test_a_calibration_needs_rows_that_were_measured_with_its_recipes(recipes, statistics, message):
    """A channel that was fitted to nothing would accuse at random."""
    rows = [row(f"c{i}", "a", (0.0, 0.0), statistics={"logprob_l1": 0.01 * i, **statistics}) for i in range(40)]
    with pytest.raises(UsageError, match=message):
        calibrate(Run(rows), ("logprob_l1",), recipes=recipes, shares=Shares(development=0.5))


def test_a_run_goes_on_with_its_own_recipes_alone(bf16, clips, tmp_path):
    samples = [Sample(name="c0", audio=clips[0].audio)]
    study(bf16, [scenario("honest")], samples, tmp_path / "run.jsonl", recipes=recipes_of(["int8"]))
    with pytest.raises(UsageError, match="not matched with fp8"):
        study(bf16, [scenario("honest")], samples, tmp_path / "run.jsonl", recipes=recipes_of(["fp8"]))


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
