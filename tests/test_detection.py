"""Figures of detection against outside references."""

from __future__ import annotations

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
from made_profiles import calibrated
from made_runs import made_run
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve

from benchmarks.detection import measure, obeying
from benchmarks.detection import rows as table_rows
from earmark.decision.operating import area, clips_to_detect, exact_interval, operating_points
from earmark.detection import accused, detections, judged, score, without_coinciding
from earmark.errors import UsageError
from earmark.runs import Run
from earmark.scenarios.catalogue import Entry
from earmark.scenarios.honest import honest as honest_provider
from earmark.scenarios.stand_in import other_request
from earmark.scenarios.tampered import malformed
from earmark.scenarios.weights import quantise
from earmark.study import Sample, study


@pytest.mark.parametrize(("events", "trials"), [(0, 1), (1, 1), (3, 24), (24, 24), (17, 1000)])
def test_intervals_are_clopper_and_pearsons(events, trials):
    low, high = binomtest(events, trials).proportion_ci(confidence_level=0.95, method="exact")
    assert exact_interval(events, trials) == pytest.approx((low, high), abs=1e-9)


def test_no_trials_say_nothing():
    assert exact_interval(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_clips_to_detect_are_as_many_as_the_power_needs(rate):
    clips = clips_to_detect(round(rate * 100), 100)
    assert 1 - (1 - rate) ** clips >= 0.95 > 1 - (1 - rate) ** (clips - 1)


@pytest.mark.parametrize("seed", range(4))
def test_area_and_points_are_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    honest, dishonest = rng.integers(0, 12, 50) / 4, rng.integers(4, 16, 30) / 4  # with ties
    truth, scores = [0] * 50 + [1] * 30, [*honest, *dishonest]
    assert area(honest, dishonest) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    alarms, misses = operating_points(honest, dishonest)
    expected = roc_curve(truth, scores, drop_intermediate=False)
    assert alarms == pytest.approx(expected[0], abs=1e-12)
    assert 1 - misses == pytest.approx(expected[1], abs=1e-12)


def test_rows_judged_later_are_as_if_the_profile_had_judged_them_then(nano, clips, tmp_path):
    samples = [Sample(name=str(i), audio=clip.audio) for i, clip in enumerate(clips[:3])]
    providers, profile = [honest_provider(), quantise(bits=8), malformed()], calibrated(nano)
    by_rules, by_profile = (
        study(nano, providers, samples, tmp_path / name, profile=judge)
        for name, judge in (("rules", "rules"), ("profile", profile))
    )
    assert {row.outcome for row in by_profile} == {"PASS", "FAIL"}
    for run in (by_rules, by_profile):
        assert [r.to_json() for r in judged(run, profile)] == [r.to_json() for r in by_profile]
    generous = dataclasses.replace(profile, scores=profile.scores + 99)
    assert {row.scenario for row in judged(by_profile, generous) if row.outcome == "FAIL"} == {"malformed-missing"}
    faint = [
        dataclasses.replace(row, findings=("audio.faint", *row.findings), outcome="INCONCLUSIVE") for row in by_rules
    ]
    outcomes = [(row.outcome, row.findings[0]) for row in judged(Run(faint), profile)]
    assert outcomes[:6] == [("INCONCLUSIVE", "audio.faint")] * 3 + [("FAIL", "audio.faint")] * 3
    nothing = dataclasses.replace(by_rules[0], statistics=dict.fromkeys(by_rules[0].statistics, math.nan))
    assert judged(Run([nothing]), profile)[0].findings == ("statistics.none",)
    unclear = Run([dataclasses.replace(by_profile[0], outcome="INCONCLUSIVE", findings=("receipt.missing",))])
    assert [*judged(unclear, profile)] == [*unclear]


def test_infinite_scores_exceed_all_and_nan_count_for_nothing():
    assert area([1.0, 2.0, math.nan], [math.inf, math.nan]) == 1.0
    assert math.isnan(area([1.0], [math.nan]))
    with pytest.raises(UsageError, match="0 dishonest"):
        operating_points([1.0], [math.nan])


def test_points_are_thinned_out_and_keep_their_ends():
    rng = np.random.default_rng(0)
    alarms, misses = operating_points(rng.random(5000), rng.random(5000) + 0.2, most=100)
    assert len(alarms) <= 100
    assert (alarms[0], misses[0], alarms[-1], misses[-1]) == (0.0, 1.0, 1.0, 0.0)


def test_rows_say_who_was_found():
    found = {own.scenario: own for own in detections(made_run())}
    assert (found["int8"].detected, found["int8"].clips_to_detect, found["int8"].auc) == (40, 1, 1.0)
    assert (found["mild"].detected, found["mild"].clips_to_detect) == (0, None)
    assert 0.5 < found["mild"].auc < 1
    assert math.isnan(found["honest-batch-1"].auc)
    assert found["int8"].ci_low == pytest.approx(0.0247 ** (1 / 40), abs=1e-2)


def test_clips_that_fitted_the_scale_take_no_part():
    for clips, development in ((84, 12), (40, 10)):
        (scored,) = score(made_run(clips))
        assert len(scored.split.development) == development
        assert len(scored.of("int8")) == clips - development
        assert len(scored.honest()) == 2 * (clips - development)


def test_a_scale_fitted_on_all_clips_would_be_noticed():
    """The scores of held-out clips do not change when one of them does."""
    run = made_run(70)
    (before,) = score(run)
    held = next(row for row in run if row.honest and row.base not in before.split.development)
    changed = dataclasses.replace(held, statistics={"logprob_l1": 99.0, "margin_max": 0.0, "entropy_rmse": math.nan})
    (after,) = score(Run(changed if row is held else row for row in run))
    others = [i for i, row in enumerate(run) if row is not held]
    assert before.scores[others] == pytest.approx(after.scores[others])


def test_broken_rules_score_highest_and_unjudged_clips_are_counted_apart():
    run = list(made_run(10))
    broken = dataclasses.replace(run[0], outcome="FAIL", findings=("text.mismatch",), statistics={})
    unclear = dataclasses.replace(run[1], outcome="INCONCLUSIVE", findings=("positions.few",), statistics={})
    (scored,) = score(Run([broken, unclear, *run[2:]]))
    assert scored.scores[0] == math.inf
    assert math.isnan(scored.scores[1])
    assert accused(scored) == (1, 10)
    assert detections(Run([broken, unclear, *run[2:]]))[0].undecided == 1


def test_one_alarm_counts_once_per_base_clip():
    run = [
        dataclasses.replace(row, outcome="FAIL") if row.honest and row.base == "clip3" else row for row in made_run(10)
    ]
    assert accused(score(Run(run))[0]) == (1, 10)


@pytest.mark.parametrize("clips", [0, 1, 2])
def test_few_clips_give_no_area_and_no_warning(clips, recwarn):
    for own in detections(made_run(clips)):
        assert math.isnan(own.auc)
    assert [str(w.message) for w in recwarn] == []


def _coinciding_run() -> Run:
    """One cheat beside an honest provider: same words and positions twice, other words, same words of other tokens."""
    (row, *_) = made_run(1)
    base = dataclasses.replace(row, outcome="PASS", text="one two", positions=4, findings=())
    cheat = dataclasses.replace(base, scenario="rescored", honest=False)
    rows = []
    for clip, changes in {
        "same": {},
        "same-failed": {"outcome": "FAIL"},
        "words": {"text": "one", "outcome": "FAIL"},
        "tokens": {"positions": 5},
    }.items():
        own = {"clip": clip, "base": clip}
        rows += [dataclasses.replace(base, **own), dataclasses.replace(cheat, **own, **changes)]
    return Run(rows)


def test_the_same_words_of_other_tokens_are_a_miss_and_stay():
    kept = without_coinciding(_coinciding_run(), {"rescored"})
    assert [row.clip for row in kept if not row.honest] == ["words", "tokens"]
    cheat = detections(kept)[1]
    assert (cheat.detected, cheat.clips) == (1, 2)


def test_the_benchmark_counts_what_it_leaves_out_and_how_much_of_it_failed():
    made = {name: SimpleNamespace(name=name, only_text=name == "rescored") for name in ("honest-batch-1", "rescored")}
    entries = [SimpleNamespace(threat="A0", scenario=own) for own in made.values()]
    honest, cheat = table_rows(_coinciding_run(), entries, {}, "provisional")
    assert (cheat["clips"], cheat["same_text"], cheat["same_text_FAIL"]) == (2, 2, 1)
    assert (honest["clips"], honest["same_text"], honest["same_text_FAIL"]) == (4, 0, 0)
    coinciding = [row for row in _coinciding_run() if row.clip.startswith("same")]
    *_, left_out = table_rows(Run(coinciding), entries, {}, "provisional")
    assert left_out["left_out"] == "wrote the honest words on each of 2 clips; 1 of them FAILed"


def test_clips_measured_before_a_scenario_stopped_are_counted(nano, clips, tmp_path):
    """Rows stay in the table with the reason; a scenario without any is left out."""
    samples = [Sample(name=str(i), audio=clip.audio) for i, clip in enumerate(clips[:2])]
    path, options = tmp_path / "run.jsonl", {"level": "scores", "profile": "provisional", "batch_size": 2}
    cheat = malformed()

    def stops(*_):
        raise UsageError("no more today")

    stopping, missing = (dataclasses.replace(own, produce=stops) for own in (cheat, quantise(bits=8)))
    study(nano, [honest_provider(), cheat], samples[:1], path, **options)
    entries = [Entry("A0", own) for own in (honest_provider(), stopping, missing)]
    run, stopped = measure(nano, entries, samples, path, options)
    found = {row["scenario"]: row for row in table_rows(run, entries, stopped, "provisional")}
    assert [found[name].get("stopped") for name in ("honest", cheat.name)] == [None, "no more today"]
    assert [found[name]["clips"] for name in ("honest", cheat.name)] == [2, 1]
    assert (found["int8"]["left_out"], "clips" in found["int8"]) == ("no more today", False)


def test_clips_whose_request_says_so_already_are_no_misses(nano, clips, tmp_path):
    languages = ("en", "de", None)
    samples = [Sample(name=str(x), audio=c.audio, language=x) for x, c in zip(languages, clips[:3], strict=True)]
    options = {"level": "scores", "profile": "provisional", "batch_size": 3}
    cheat = other_request(language="de")
    assert obeying([Entry("A9", cheat), Entry("honest", honest_provider())], samples) == {(cheat.name, "de")}
    path = tmp_path / "run.jsonl"
    as_before = dataclasses.replace(honest_provider(), name=cheat.name, honest=False)
    study(nano, [as_before], samples[1:2], path, **options)  # a run of the days when such clips were measured
    run, stopped = measure(nano, [Entry("A9", cheat)], samples, path, options)
    assert {row.clip: row.outcome for row in run} == {"en": "FAIL", "None": "FAIL"}
    assert stopped == {}
