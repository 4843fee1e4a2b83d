"""A provider that changes behind a PASS: the detector says so, and the decision of the audit stays what it was."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from made_profiles import calibrated

from earmark import engines
from earmark.audit import run_audit
from earmark.cli import auditing
from earmark.decision.betting import Audit, place_bets
from earmark.decision.watch import Watch, change_point
from earmark.errors import RecordError, UsageError
from earmark.fingerprint.types import Fingerprint
from earmark.profiles import load_profile
from earmark.records.verdict import Verdict
from earmark.rules import Case


@pytest.fixture(scope="module")
def profile(nano):
    return calibrated(nano)


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Verdicts by the name of the clip, without a model."""

    def verify_many(cases, *_, **__):
        for case in cases:
            rng = np.random.default_rng(int(case.audio[4:]))
            size = 0.03 if case.audio.startswith("badd") else 1e-6 * float(np.exp(0.5 * rng.standard_normal()))
            yield Verdict(
                outcome="PASS",
                proves="committed",
                fingerprint=Fingerprint("autoregressive", ("logprob_l1",), (size,)),
            )

    monkeypatch.setattr(engines, "verify_many", verify_many)


def stream(honest, cheated):
    kinds = ["good"] * honest + ["badd"] * cheated
    return [(f"{kind}{i}", Case(evidence=None, audio=f"{kind}{i}")) for i, kind in enumerate(kinds)]


def test_a_change_behind_a_pass_is_said_and_ends_the_audit(nano, profile, tmp_path):
    state = run_audit(stream(1000, 200), nano, profile, tmp_path / "log")
    assert (state.outcome, state.ended) == ("PASS", True), "the decision covers the clips up to its own"
    assert state.passed_at < 1000
    assert abs(state.changed_at - 1001) <= 3
    assert state.clips <= 1000 + 32 + 32, "it ends at the first look behind the alarm"
    assert auditing._changed(state)
    honest = run_audit(stream(1200, 0), nano, profile, tmp_path / "honest")
    assert (honest.outcome, honest.changed_at, honest.clips) == ("PASS", None, 1200), "the twin"
    assert not auditing._changed(honest)


def test_the_detector_goes_on_from_the_log(nano, profile, tmp_path):
    log = tmp_path / "log"
    whole = run_audit(stream(300, 60), nano, profile, log)
    expected = log.read_bytes()
    log.write_bytes(expected[: len(expected) * 4 // 5])
    again = run_audit(stream(300, 60), nano, profile, log)
    assert log.read_bytes() == expected
    assert (again.changed_at, again.passed_at) == (whole.changed_at, whole.passed_at)
    assert again.log_r == pytest.approx(whole.log_r)


def test_a_log_without_the_detector_or_with_another_is_refused(nano, profile, tmp_path):
    log = tmp_path / "log"
    run_audit(stream(40, 0), nano, profile, log)
    with pytest.raises(RecordError, match="run length"):
        run_audit(stream(40, 0), nano, profile, log, run_length=1000)
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_text("".join(json.dumps({k: v for k, v in row.items() if k != "log_r"}) + "\n" for row in rows))
    with pytest.raises(RecordError, match=r"line 1: log e-value .* the log was changed"):
        run_audit(stream(40, 0), nano, profile, log)
    for run_length in (0.0, 1.0, math.inf, math.nan):
        with pytest.raises(UsageError, match="between two false alarms; expected more than 1"):
            run_audit(stream(4, 0), nano, profile, tmp_path / "other", run_length=run_length)


def test_an_alarm_before_a_decision_ends_nothing():
    """A cheat on some clips is found by the audit later than by the detector, and FAILs all the same."""
    rng = np.random.default_rng(0)
    bets = place_bets(rng.standard_normal(3000), rate=1e-3)
    watch, plain = Watch(bets=bets, run_length=1.5), Audit(bets=bets)
    for score in np.where(rng.random(3000) < 0.1, math.inf, rng.standard_normal(3000)):
        if watch.ended:
            break
        watch.update(score)
        plain.update([score])
    assert watch.changed_at is not None
    assert (watch.outcome, plain.outcome) == ("FAIL", "FAIL")
    assert not auditing._changed(watch)


def test_the_figures_of_the_documentation():
    """Frauds in a row behind honest clips, until the audit and until the detector, under a profile that ships."""
    from earmark.profiles import _places

    folder = next(place for place in _places() if place.name == "parakeet-ctc-nano-float32")
    profile = load_profile(folder)
    rng = np.random.default_rng(0)
    watch = Watch(bets=profile.bets())
    for score in rng.choice(profile.scores, 10_000):
        watch.update(score)
    assert (watch.outcome, watch.changed_at) == ("PASS", None)
    while watch.changed_at is None:
        watch.update(math.inf)
    assert (watch.clips, watch.changed_at, watch.outcome) == (10_003, 10_001, "PASS")
    while watch.outcome != "FAIL":
        watch.update(math.inf)
    assert watch.clips == 10_118


def test_where_a_change_began():
    bets = place_bets(np.random.default_rng(0).standard_normal(3000), rate=1e-3)
    assert change_point([0.0] * 50 + [9.0] * 9, bets) == 51
    assert change_point([9.0] * 9, bets) == 1
