"""Audits: the log is the state, every clip counts once, shelter counts against the provider."""

from __future__ import annotations

import math
import random
import signal
import subprocess
import sys

import numpy as np
import pytest
from made_profiles import calibrated
from test_lines import HOSTILE

from earmark import audit, engines
from earmark.audit import run_audit, score_of
from earmark.audit_log import Entry
from earmark.errors import RecordError, UsageError
from earmark.fingerprint.types import Fingerprint
from earmark.records.policy import STRICT
from earmark.records.verdict import Verdict, broken, decide, note, unclear
from earmark.rules import Case
from earmark.scenarios import scenario


@pytest.fixture(scope="module")
def profile(nano):
    return calibrated(nano)


def verdict(*findings, value=1e-6):
    """A verdict with one statistic."""
    fingerprint = Fingerprint("autoregressive", ("logprob_l1",), (value,))
    return Verdict(outcome=decide(findings), proves="committed", findings=findings, fingerprint=fingerprint)


@pytest.fixture
def fast(monkeypatch):
    """Verdicts by the name of the clip, without a model; returns the names that were verified."""
    seen: list[str] = []

    def verify_many(cases, reference, **options):  # noqa: ARG001
        for case in cases:
            seen.append(case.audio)
            rng = np.random.default_rng(int(case.audio[4:]))
            size = 0.03 if case.audio.startswith("bad") else 1e-6 * float(np.exp(0.5 * rng.standard_normal()))
            yield verdict(value=size)

    monkeypatch.setattr(engines, "verify_many", verify_many)
    return seen


def stream(count, kind="good"):
    return [(f"{kind}{i}", Case(evidence=None, audio=f"{kind}{i}")) for i in range(count)]


def test_an_honest_provider_passes_and_a_cheat_fails_early(nano, profile, fast, tmp_path):
    good = run_audit(stream(200), nano, profile, tmp_path / "good.jsonl")
    assert (good.outcome, good.clips) == ("PASS", 200)
    fast.clear()
    bad = run_audit(stream(200, "badd"), nano, profile, tmp_path / "bad.jsonl")
    assert bad.outcome == "FAIL"
    assert len(fast) == bad.clips == audit.ROUND, "it ends at the first look behind the decision"
    assert run_audit(stream(64, "badd"), nano, profile, tmp_path / "all.jsonl", stop=False).clips == 64


@pytest.mark.parametrize("kind", ["good", "badd"])
def test_killed_twenty_times_ends_the_same(nano, profile, fast, tmp_path, kind):
    """A kill leaves any prefix of the log; only a round that was cut short is verified again, and nothing is lost."""
    whole = run_audit(stream(150, kind), nano, profile, tmp_path / "whole.jsonl")
    expected = (tmp_path / "whole.jsonl").read_bytes()
    rng, log, clips = random.Random(3), tmp_path / "killed.jsonl", whole.clips
    kept = 0
    for _ in range(20):
        kept = rng.randint(kept, len(expected))
        log.write_bytes(expected[:kept])
        fast.clear()
        again = run_audit(stream(150, kind), nano, profile, log)
        assert log.read_bytes() == expected
        logged = expected[:kept].count(b"\n")
        assert len(fast) == (clips - logged // audit.ROUND * audit.ROUND if logged < clips else 0)
        assert again.log_e == pytest.approx(whole.log_e)


def test_a_process_that_is_killed_leaves_a_log_to_go_on_from(tmp_path):
    """SIGKILL in the middle of a real audit, as often as it takes; the log is that of an audit left alone."""
    command = [sys.executable, "-c", AUDITING, str(tmp_path)]
    subprocess.run([*command, "whole.jsonl", "0"], check=True, timeout=300)
    expected = (tmp_path / "whole.jsonl").read_bytes()
    log, kills = tmp_path / "killed.jsonl", 0
    while not log.exists() or log.read_bytes() != expected:
        done = subprocess.run([*command, "killed.jsonl", "7"], check=False, timeout=300)
        kills += done.returncode == -signal.SIGKILL
        assert kills < 10
    assert kills > 1


AUDITING = """
import os, signal, sys
from pathlib import Path
import earmark
from earmark import Case
from earmark.audit import run_audit
from earmark.profiles import find_profile
from earmark.testing.bench import default_clips

folder, log, killed_after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
nano, seen, clips = earmark.load("embedded:parakeet-ctc-nano"), [], default_clips(24, language="en")
store = folder / "evidence"
if not store.exists():
    store.mkdir()
    for i, (clip, own) in enumerate(zip(clips, earmark.record_many(nano, clips), strict=True)):
        own.save(store / f"{i}.msgpack")

def count(entry):
    seen.append(entry)
    if len(seen) == killed_after:
        os.kill(os.getpid(), signal.SIGKILL)

records = [store / f"{i}.msgpack" for i in range(len(clips))]
cases = [(r.stem, Case(evidence=r, audio=c.audio, request=c.request)) for r, c in zip(records, clips, strict=True)]
run_audit(cases, nano, find_profile(nano.info, "greedy", "scores"), folder / log, advance=count)
"""


def test_a_log_is_bound_to_the_records_it_judged(nano, profile, fast, tmp_path):
    """Another provider's evidence under the same names, another policy or secret: never the verdicts of before."""
    log = tmp_path / "log.jsonl"
    run_audit(stream(40), nano, profile, log)
    others = [(name, Case(evidence=b"of another provider", audio=case.audio)) for name, case in stream(40)]
    fast.clear()
    with pytest.raises(UsageError, match="'good0' was handed in with other records"):
        run_audit(others, nano, profile, log)
    for changes in ({"policy": STRICT}, {"reexecute": 0.5, "seed": "a secret of sixteen"}, {"tolerance": 1.7}):
        with pytest.raises(RecordError, match="line 1: another profile, policy"):
            run_audit(stream(40), nano, profile, log, **changes)
    assert not fast
    bad = tmp_path / "bad.jsonl"
    assert run_audit(stream(64, "badd"), nano, profile, bad).outcome == "FAIL"
    honest = [(name, Case(evidence=b"of another provider", audio="good1")) for name, _ in stream(64, "badd")]
    with pytest.raises(UsageError, match="other records"):  # nor is a FAIL handed on
        run_audit(honest, nano, profile, bad)


def test_clips_that_come_later_do_not_repeat_the_others(nano, profile, fast, tmp_path):
    log, cases = tmp_path / "log.jsonl", stream(200)
    run_audit(cases[::2], nano, profile, log)
    fast.clear()
    assert run_audit(cases, nano, profile, log).clips == 200
    assert sorted(fast) == sorted(name for name, _ in cases[1::2])


def test_names_cannot_break_the_log(nano, profile, fast, tmp_path):  # noqa: ARG001
    """The provider chooses the names of its clips; with any of them the log is read back and the audit goes on."""
    log, names = tmp_path / "log.jsonl", [HOSTILE, "\ud800", "\n{}", *(f"clip\u2028{i}" for i in range(30))]
    cases = [(name, Case(evidence=None, audio=f"good{i}")) for i, name in enumerate(names)]
    run_audit(cases[:20], nano, profile, log)
    assert run_audit(cases, nano, profile, log).clips == len(names)
    assert [Entry.from_json(line).clip for line in log.read_text(encoding="utf-8").splitlines()] == names


def test_logs_of_another_audit_are_refused(nano, profile, fast, tmp_path):  # noqa: ARG001
    log = tmp_path / "log.jsonl"
    run_audit(stream(40), nano, profile, log)
    with pytest.raises(RecordError, match="another profile, policy, rate"):
        run_audit(stream(40), nano, profile, log, rate=0.01)
    entry = log.read_text().split("\n")[0]
    for damage in ("{}", entry.replace('"log_e": ', '"log_e": "x", "was": '), "[" * 100_000):
        log.write_text(damage + "\n")
        with pytest.raises(RecordError, match="line 1"):
            run_audit(stream(40), nano, profile, log)


def test_refused(nano, profile, fast, tmp_path):  # noqa: ARG001
    with pytest.raises(UsageError, match="stands twice"):
        run_audit(stream(3) * 2, nano, profile, tmp_path / "a.jsonl")
    with pytest.raises(UsageError, match="expected 0 to 1"):
        run_audit(stream(3), nano, profile, tmp_path / "b.jsonl", reexecute=2)
    for share, seed in ((0.5, ""), (0.5, "s"), (1e-9, "fifteen letters")):
        with pytest.raises(UsageError, match=r"to decode again with a seed of \d+ bytes; expected 16 or more"):
            run_audit(stream(3), nano, profile, tmp_path / "b.jsonl", reexecute=share, seed=seed)
    assert run_audit(stream(3), nano, profile, tmp_path / "d.jsonl", reexecute=1).clips == 3, "no draw, no secret"
    with pytest.raises(UsageError, match="expected one of"):
        run_audit(stream(3), nano, calibrated(nano, weights="1" * 64), tmp_path / "c.jsonl")


def test_what_counts_against_the_provider(profile):
    """Broken rules and shelter are infinite, the verifier's faults do not count, statistics give their score."""
    assert score_of(verdict(broken("text.mismatch", 1, 2)), profile) == math.inf
    assert score_of(verdict(unclear("receipt.missing", "provider", 1, 2)), profile) == math.inf
    assert score_of(verdict(unclear("replay.failed", "verifier", 1, 2)), profile) is None
    assert score_of(verdict(unclear("audio.lossy", "input", 1, 2)), profile) is None
    for bad in (broken("margin.exceeded", 1, 2), broken("statistics.logprob_l1", 1, 2), unclear("x", "provider", 1, 2)):
        assert score_of(verdict(note(audit.LENGTH, 1, 2), bad), profile) is None, "a replay of another length"
        assert score_of(verdict(bad, value=0.5), profile) > 1, "the twin"
    plain = score_of(verdict(note("margin.near_tie", 1, 2)), profile)
    assert math.isfinite(plain)
    assert plain < score_of(verdict(broken("statistics.profile", 1, 2), value=0.5), profile) < math.inf


def test_a_log_says_why_a_clip_does_not_count(nano, profile, tmp_path, monkeypatch):
    """Of every reason one clip, of which some fail on their own; and one that counts."""
    given = {
        "length": (note(audit.LENGTH, 1, 2), broken("margin.exceeded", 1, 2)),
        "budget": (unclear("budget.skipped", "verifier", 1, 2),),
        "input": (unclear("audio.unusable", "input", 1, 2),),
        "verifier": (unclear("replay.failed", "verifier", 1, 2),),
        "counts": (broken("text.mismatch", 1, 2),),
    }
    monkeypatch.setattr(engines, "verify_many", lambda cases, *_, **__: (verdict(*given[c.audio]) for c in cases))
    cases = [(name, Case(evidence=None, audio=name)) for name in given]
    assert run_audit(cases, nano, profile, tmp_path / "log").clips == 1
    rows = [Entry.from_json(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [row.uncounted for row in rows] == ["length", "budget", "input", "verifier", None]


def test_entries_survive_the_log():
    for score in (1.5, None, math.inf, -math.inf):
        entry = Entry(
            clip='a"\n',
            outcome="FAIL",
            mode="replay",
            score=score,
            p_value=None,
            findings=("x",),
            log_e=0.1,
            decision="",
        )
        assert Entry.from_json(entry.to_json()) == entry


def test_share_that_is_decoded_again():
    drawn = [audit._drawn("secret", f"clip{i}", 0.25) for i in range(4000)]
    assert abs(np.mean(drawn) - 0.25) < 0.03
    assert drawn != [audit._drawn("other", f"clip{i}", 0.25) for i in range(4000)]


def test_with_a_real_model(nano, clips, profile, tmp_path):
    """Honest and int4 evidence through the whole path, some of it decoded again."""
    chosen = clips[:3]
    for cheat, expected in ((scenario("honest", batch_size=1), "PASS"), (scenario("quantise", bits=4), "FAIL")):
        evidence = cheat.record(nano, chosen)
        cases = [
            (f"clip{i}", Case(evidence=e, audio=c.audio, request=c.request, receipt=e.receipt))
            for i, (e, c) in enumerate(zip(evidence, chosen, strict=True))
        ]
        log = tmp_path / f"{expected}.jsonl"
        run_audit(cases, nano, profile, log, reexecute=0.5, seed="a seed of sixteen letters")
        entries = [Entry.from_json(line) for line in log.read_text().splitlines()]
        assert {entry.outcome for entry in entries} == {expected}
        assert {entry.mode for entry in entries} == {"replay", "reexecute"}
