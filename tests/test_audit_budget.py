"""A budget in an audit: the verifier's secret draws whole clips, and what is not whole counts neither way."""

from __future__ import annotations

import dataclasses
import json
import math

import msgspec
import numpy as np
import pytest
from made_profiles import calibrated

import earmark
from earmark import verification
from earmark.audit import run_audit, score_of
from earmark.budget import Budget, choose, from_seed
from earmark.cli import main
from earmark.decision.betting import Audit, Bets, place_bets
from earmark.decision.power import expected_power
from earmark.errors import UsageError
from earmark.records.request import Segmentation
from earmark.rules import Case
from earmark.scenarios.weights import quantise

SEED = "a seed of sixteen letters or more"


@pytest.fixture(scope="module")
def profile(nano):
    return calibrated(nano)


@pytest.fixture(scope="module")
def cases(honest, clips):
    return [
        (f"clip{i}", Case(evidence=e, audio=c.audio, request=c.request, receipt=e.receipt))
        for i, (e, c) in enumerate(zip(honest[:12], clips[:12], strict=True))
    ]


@pytest.fixture
def audited(nano, profile, cases, tmp_path):
    """Return a function that runs an audit and gives the rows of its log."""

    def run(given=cases, name="log", **options):
        run_audit(given, nano, profile, tmp_path / name, **{"budget": 0.5, "seed": SEED, **options})
        return [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]

    run.log = tmp_path / "log"
    return run


def test_the_seed_and_the_evidence_draw_the_clips_that_count(audited, cases, honest):
    rows = audited()
    drawn = [bool(choose(from_seed(SEED, 0.5), own.digest(), 1)) for own in honest[:12]]
    assert set(drawn) == {True, False}
    for row, own in zip(rows, drawn, strict=True):
        assert row["outcome"] == ("PASS" if own else "INCONCLUSIVE")
        assert (row["score"] is not None) == (row["left_out"] is None) == own
        assert own or "none of 1 segments replayed" in row["left_out"]
        assert own or row["log_e"] == (0.0 if row is rows[0] else rows[rows.index(row) - 1]["log_e"])
    counted = [row["clip"] for row in rows if row["score"] is not None]
    assert counted == [row["clip"] for row in audited(cases[::-1], "turned") if row["score"] is not None][::-1]
    assert counted != [row["clip"] for row in audited(name="other", seed=SEED[::-1]) if row["score"] is not None]


def test_killed_and_restarted_it_chooses_the_same(audited):
    audited()
    whole = audited.log.read_bytes()
    audited.log.write_bytes(whole[: len(whole) // 2])
    audited()
    assert audited.log.read_bytes() == whole


def test_rules_that_need_no_replay_count_for_every_clip(audited, cases):
    edited = [
        (name, dataclasses.replace(case, evidence=msgspec.structs.replace(case.evidence, text="else"), receipt=None))
        for name, case in cases
    ]
    rows = audited(edited, budget=0.01, stop=False)
    assert {(row["outcome"], row["score"], row["left_out"]) for row in rows} == {("FAIL", "infinite", None)}
    assert rows[-1]["decision"] == "FAIL"


def test_clips_that_are_whole_by_least_alone_bet_nothing(audited):
    """Short clips are always whole then; if they counted, they would count more often than in the calibration."""
    drawn, least = audited(), audited(name="least", budget=from_seed(SEED, 0.5, least=1))
    assert {row["outcome"] for row in least} == {"PASS"}, "all were replayed"
    assert [row["score"] is None for row in least] == [row["score"] is None for row in drawn]
    assert [row["log_e"] for row in least] == [row["log_e"] for row in drawn]
    for row in least:
        assert (row["score"] is None) == (row["left_out"] is not None)
        assert row["left_out"] is None or "by a least of 1, in a clip that was not drawn" in row["left_out"]


def test_a_budget_of_segments_is_none_for_an_audit(audited):
    """Of short clips it would replay more that are whole than of long ones."""
    for least in (0, 1):
        with pytest.raises(UsageError, match=r"a budget of 0\.5 that draws segments.*whole=True"):
            audited(budget=Budget(share=0.5, least=least))
    assert all(row["left_out"] is None for row in audited(budget=Budget(share=1.0)))


def test_a_look_at_what_is_left_out_bets_nothing(nano, clips, tmp_path):
    cheap = quantise(bits=4, group=64).record(nano, clips[:2], level="sketch")
    asked = zip("ab", cheap, clips[:2], strict=True)
    cases = [(name, Case(evidence=e, audio=c.audio, request=c.request)) for name, e, c in asked]
    made = calibrated(nano, level="sketch", channels=("sketch_distance",))
    state = run_audit(cases, nano, made, tmp_path / "log", budget=from_seed(SEED, 1e-9, depth=99))
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert state.clips == 0
    for row in rows:
        assert {"budget.skipped", "statistics.part"} <= {*row["findings"]}
        assert (row["score"], row["log_e"]) == (None, 0.0)


def test_a_seed_that_could_be_guessed_is_refused(audited):
    with pytest.raises(UsageError, match=r"a seed of 5 bytes.*give --seed"):
        audited(seed="short")
    with pytest.raises(UsageError, match="a budget of 0;"):
        audited(budget=0.0)
    assert all(row["left_out"] is None for row in audited(budget=1.0, seed=""))


# Clips of several segments


@pytest.fixture(scope="module")
def cut(clips):
    """Return the longest clip, asked for in pieces of a second."""
    longest = max(clips, key=lambda clip: len(clip.audio.samples))
    asked = earmark.request(longest.audio, nonce="0" * 32, segmentation=Segmentation(max_samples=16_000))
    return dataclasses.replace(longest, request=asked)


@pytest.mark.parametrize(
    "budget", [Budget(share=0.25, least=2, secret=bytes(16)), from_seed(SEED, 1e-9, least=2)], ids=["segments", "clips"]
)
def test_by_a_part_of_a_clip_statistics_fail_nobody(ctc, cut, budget):
    """The rate is promised for whole clips: what looks bad in part is to be verified whole, and does not count."""
    profile = calibrated(ctc)

    def verify(evidence, budget=1.0):
        verdict = earmark.verify(
            evidence, cut.request, cut.audio, ctc, profile=profile, attribution="never", budget=budget
        )
        return verdict, {finding.code for finding in verdict.findings}

    honest = earmark.record(ctc, cut.request, cut.audio)
    mild, gross = (quantise(bits=bits, group=64).record(ctc, [cut])[0] for bits in (8, 4))
    for evidence, outcome, codes in (
        (honest, "PASS", set()),
        (mild, "INCONCLUSIVE", {"statistics.part"}),
        (gross, "FAIL", {"statistics.part", "margin.exceeded"}),  # rules hold for parts too
    ):
        part, found = verify(evidence, budget)
        assert (part.outcome, part.p_value, found) == (outcome, None, codes | {"budget.partial"})
        assert score_of(part, profile) is None, "counted for being bad, it would count too often"
    whole, found = verify(mild)
    assert (whole.outcome, found) == ("FAIL", {"statistics.profile"})
    assert score_of(whole, profile) > 1


def test_whole_clips_are_drawn_whole():
    budget = from_seed(SEED, 0.3, least=2)
    counts = [len(choose(budget, str(i), 9)) for i in range(4000)]
    assert set(counts) == {2, 9}
    assert abs(np.mean(np.equal(counts, 9)) - 0.3) < 0.03
    assert choose(budget, "any", 2) == (0, 1), "a clip of no more segments is always whole"


# Power


CALIBRATION = np.random.default_rng(0).standard_normal(2000)


@pytest.fixture(scope="module")
def bets():
    return place_bets(CALIBRATION, rate=1e-3)


def _simulated(bets: Bets, clips, cheated, drawn, runs=300):
    """Return how many audits end at FAIL, played clip by clip."""
    rng, found = np.random.default_rng(1), 0
    for _ in range(runs):
        scores = rng.choice(CALIBRATION, clips)
        scores[rng.permutation(clips)[: round(cheated * clips)]] = math.inf
        state = Audit(bets=bets)
        state.update(scores[rng.random(clips) < drawn])
        found += state.log_e >= math.log(2 / bets.rate)
    return found / runs


@pytest.mark.parametrize(("clips", "cheated", "drawn"), [(120, 0.1, 1.0), (150, 0.1, 0.5), (40, 0.5, 0.3)])
def test_power_is_that_of_audits_that_are_played(bets, clips, cheated, drawn):
    power = expected_power(bets, clips, cheated, drawn=drawn)
    assert 0.02 < power < 1
    assert power == pytest.approx(_simulated(bets, clips, cheated, drawn), abs=0.09)


def test_power_falls_with_the_budget_and_honest_providers_are_not_accused(bets):
    powers = [expected_power(bets, 300, 0.1, drawn=drawn) for drawn in (1.0, 0.5, 0.25, 0.1, 0.0)]
    assert powers == sorted(powers, reverse=True)
    assert powers[0] > 0.9
    assert powers[-1] == 0
    assert expected_power(bets, 3000, 0.0) <= 1e-3
    with pytest.raises(UsageError, match="shares from 0 to 1"):
        expected_power(bets, 10, 1.5)


# The command


def test_the_command_states_budget_and_power(recorded, nano, tmp_path, run):
    calibrated(nano).save(tmp_path / "profile")
    places = [flag for name in ("--audio", "--request", "--receipt") for flag in (name, recorded)]
    words = ["audit", recorded, "--model", "embedded:whisper-nano", "--profile", tmp_path / "profile", *places]
    words += ["--log", tmp_path / "log.jsonl", "--json", "--budget", 0.5]
    assert run(*words)[0] == 3
    code, out, _ = run(*words, "--seed", SEED)
    facts = json.loads(out.splitlines()[-1])
    assert code == 2
    assert (facts["budget"], facts["power_at_tenth"]) == (0.5, 0.0), "two clips find no cheat"
    assert facts["clips"] == sum(json.loads(line)["left_out"] is None for line in out.splitlines()[:-1])


def test_the_commands_look_at_what_is_left_out(recorded, nano, tmp_path, run, monkeypatch):
    calibrated(nano, level="sketch").save(tmp_path / "profile")
    clips = [recorded / "00.flac", recorded / "01.flac"]
    options = ["--out", tmp_path, "--language", "en", "--level", "sketch"]
    assert run("record", "embedded:whisper-nano", *clips, *options)[0] == 0
    words = [tmp_path, "--model", "embedded:whisper-nano", "--audio", recorded, "--request", tmp_path, "--json"]
    words += ["--receipt", tmp_path, "--profile", tmp_path / "profile", "--budget", 1e-9, "--depth", 2]
    code, out, _ = run("verify", *words)
    codes = [[finding["code"] for finding in json.loads(line)["findings"]] for line in out.splitlines()]
    assert code == 2
    assert codes == [["budget.skipped", "budget.probed"]] * 2
    looked, real = [], verification.look
    monkeypatch.setattr(verification, "look", lambda *given: looked.append(given[3]) or real(*given))
    assert run("audit", *words, "--log", tmp_path / "log", "--seed", SEED)[0] == 2
    assert looked == [2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--depth", "2"], "--depth 2 with a budget of 1, which leaves nothing out"),
        (["--depth", "2", "--budget", "0.5"], "evidence of the level scores, without hidden states"),
        (["--depth", "2", "--budget", "0.5", "--text"], "--budget, --depth with --text or --from"),
        (["--budget", "0.5", "--from", "openai"], "--budget with --text or --from"),
    ],
)
def test_a_look_at_nothing_is_refused_in_one_line(words, message, recorded, run):
    code, _, err = run("verify", recorded, "--model", "embedded:whisper-nano", *words)
    assert code == 3
    assert message in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--engine", "dask"], "known: local, ray"),
        (["--devices", "cpu", "--processes", "2"], "expected one of them"),
        (["--budget", "0.5", "--seed", "short"], "a seed of 5 bytes"),
        (["--reexecute", "0.5", "--seed", "short"], "to decode again with a seed of 5 bytes"),
        (["--processes", "1", "--worker-timeout", "1e9"], "a timeout of 1e+09 s for workers"),
        (["--depth", "2"], "--depth 2 with a budget of 1, which leaves nothing out"),
        (["--depth", "2", "--budget", "0.5", "--seed", SEED], "evidence of the level scores, without hidden states"),
    ],
)
def test_engines_and_budgets_are_refused_in_one_line(words, message, recorded, tmp_path, capsys):
    given = ["audit", str(recorded), "--model", "embedded:whisper-nano", "--log", str(tmp_path / "log")]
    capsys.readouterr()
    assert main([*given, "--audio", str(recorded), *words]) == 3
    err = capsys.readouterr().err.strip()
    assert message in err
    assert "\n" not in err
