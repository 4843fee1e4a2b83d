"""Reports: bands, thresholds and word error rates are right."""

from __future__ import annotations

import dataclasses
import json
import math

import jiwer
import numpy as np
import pytest
from made_profiles import row as honest_row
from made_reports import Page
from made_runs import made_run
from scipy.stats import bootstrap

from earmark.calibrate import calibrate
from earmark.report import Source, build, render
from earmark.report.contents import ErrorRate
from earmark.runs import Run


def test_bands_and_their_thresholds(full):
    first = full.parts[0].bands[0]
    values = [row.statistics["logprob_l1"] for row in made_run() if row.honest]
    assert first.statistic == "logprob_l1"
    assert (first.honest.count, first.honest.most) == (80, max(values))
    assert first.threshold == 1e-3
    assert [own.statistic for own in full.parts[0].bands] == ["logprob_l1", "margin_max"]  # the third is NaN throughout


def test_infinite_values_are_counted_and_not_dropped():
    """Where no honest provider can come, an honest one came: the largest honest value must not look harmless."""
    run = Run(
        dataclasses.replace(r, statistics={**r.statistics, "logprob_l1": math.inf})
        if r.clip in ("clip1", "clip2")
        else r
        for r in made_run(20)
    )
    made = build([Source(name="x", run=run)])
    band = next(own for own in made.parts[0].bands if own.statistic == "logprob_l1")
    assert (band.honest.infinite, band.honest.count) == (2, 36)
    assert math.isfinite(band.honest.most)
    assert "| 36 |" not in render(made, ".md").decode()
    for form in (".md", ".html"):
        assert render(made, form).decode().count("∞ (2 clips)") >= 3
    everywhere = Run(dataclasses.replace(r, statistics={"logprob_l1": math.inf}) for r in run if not r.honest)
    mixed = build([Source(name="x", run=Run([*run.where(lambda r: r.honest), *everywhere]))])
    assert "∞ (20 clips)" in render(mixed, ".html").decode()


def test_thresholds_of_a_profile_are_where_its_p_value_fails():
    rng = np.random.default_rng(0)
    rows = [honest_row(f"c{i}", "a", (float(np.exp(rng.standard_normal())), 0.0)) for i in range(700)]
    profile = calibrate(Run(rows), ("distance",), rate=0.01)
    limit = profile.limits()["distance"]
    assert profile.judge({"distance": limit * 1.0001}).p_value <= profile.header.rate
    assert profile.judge({"distance": limit * 0.9999}).p_value > profile.header.rate


def test_a_profile_gives_the_scale_and_the_bets():
    rng = np.random.default_rng(0)
    rows = [
        honest_row(
            f"p{i}", "a", (0.0, 0.0), weights="0" * 64, statistics={"logprob_l1": float(1e-6 * np.exp(rng.normal()))}
        )
        for i in range(700)
    ]
    profile = calibrate(Run(rows), ("logprob_l1",))
    (part,) = build([Source(name="x", run=made_run(30))], profiles=[profile]).parts
    assert part.threshold_source.startswith("profile m fp32")
    paths = {own.name: own for own in part.audits}
    assert paths["int8"].clips == len(paths["int8"].log_e) == 30
    assert paths["int8"].decision == "FAIL"
    assert paths["honest-batch-1"].decision != "FAIL"


def test_word_error_rates_beside_detection(full):
    rates = {own.scenario: own for own in full.parts[0].rates}
    assert (rates["int8"].clips, rates["int8"].words) == (30, 60)
    assert rates["honest-batch-1"].rate == pytest.approx(1.5)  # "turn it" against "turn off the light"
    assert rates["int8"].difference == pytest.approx(0.5)
    assert (rates["mild"].detected, rates["int8"].detected, rates["int8"].same_text) == (0.0, 1.0, 0.0)
    assert (rates["int8"].difference_low, rates["int8"].difference_high) == (0.5, 0.5)
    assert full.parts[0].rates_say == "0 of 2 cheats lie within the interval of no difference."


def _rates(wrong: dict[str, str]) -> dict[str, ErrorRate]:
    """Rates of a run whose int8 writes `wrong` of some clips, and elsewhere what is right."""
    run = made_run(40, text="turn it", expected="turn it")
    changed = Run(
        dataclasses.replace(r, text=wrong.get(r.clip, "turn it") if r.scenario == "int8" else "turn it") for r in run
    )
    (part,) = build([Source(name="x", run=changed)]).parts
    assert part.rates_say.startswith(f"{1 + (len(wrong) < 4)} of 2 cheats lie within")
    return {own.scenario: own for own in part.rates}


def test_the_interval_of_a_word_error_rate_is_a_paired_bootstrap():
    """One wrong clip in 30 may be chance, half of them is not; against scipy's bootstrap of the same differences."""
    few, many = _rates({"clip1": "turn"})["int8"], _rates({f"clip{i}": "turn" for i in range(20)})["int8"]
    assert (few.difference, few.difference_low) == (pytest.approx(1 / 60), 0.0)
    wrong = np.asarray([float(i < 20) for i in range(40) if i % 4]) / 2
    outside = bootstrap((wrong,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert (many.difference_low, many.difference_high) == pytest.approx(tuple(outside), abs=0.03)


def test_few_clips_have_no_interval():
    (part,) = build([Source(name="x", run=made_run(8))]).parts
    assert all(math.isnan(own.difference_low) for own in part.rates)
    assert part.rates_say == ""


def test_word_errors_are_counted_as_jiwer_counts_them():
    run = made_run(12)
    run = Run(dataclasses.replace(r, text=f"{r.text} {i % 5 * 'um '}"[i % 3 :]) for i, r in enumerate(run))
    for own in build([Source(name="x", run=run)]).parts[0].rates:
        rows = [r for r in run if r.scenario == own.scenario and r.expected]
        assert own.rate == pytest.approx(jiwer.wer([r.expected for r in rows], [r.text.strip() for r in rows]))


def test_what_no_threshold_gets_wrong_is_said_and_not_drawn():
    made = build([Source(name="x", run=made_run(20).where(lambda row: row.scenario != "mild"))])
    page = Page(render(made, ".html").decode())
    assert "some threshold tells int8 from the honest providers without error" in page.text
    assert not [a for _, a in page.tags if (a.get("aria-label") or "").startswith("Misses")]


def test_numbers_of_the_twin(full):
    twin = json.loads(render(full, ".json"))
    (part,) = twin["parts"]
    found = {own["scenario"]: own for own in part["detections"]}
    assert (found["int8"]["detected"], found["int8"]["clips"], found["mild"]["detected"]) == (40, 40, 0)
    assert (part["alarms"], part["judged"]) == (0, 40)
    assert found["honest-batch-1"]["auc"] is None
    assert part["subject"]["clips"] == 40
    assert twin["banner"] == {
        "tone": "bad",
        "headline": "The audit says FAIL.",
        "reasons": [
            "audit.jsonl: FAIL behind 10 clips, decided at clip 10",
            "1 of 2 simulated cheats found on every clip; 0 of 40 honest clips accused.",
        ],
    }
