"""What an audit asks of everybody: one level, receipts where the policy wants them, a request somewhere."""

from __future__ import annotations

import json

import msgspec
import pytest
import soundfile
from made_profiles import calibrated

import earmark
from earmark.audit import check_level, run_audit
from earmark.cli import openings
from earmark.errors import RecordError, UsageError
from earmark.records.policy import Policy
from earmark.rules import Case
from earmark.scenarios.forged import restamped

MODEL = "embedded:parakeet-ctc-nano"


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes evidence, with requests and receipts, and gives the words of its audit."""

    def write(evidence, clips, *, receipts=True):
        for i, (own, clip) in enumerate(zip(evidence, clips, strict=True)):
            own.save(tmp_path / f"{i}.wav.evidence.json")
            clip.request.save(tmp_path / f"{i}.wav.request.json")
            soundfile.write(tmp_path / f"{i}.wav", clip.audio.samples, 16_000, subtype="PCM_16")
            if receipts:
                own.receipt.save(tmp_path / f"{i}.wav.receipt.json")
        return ["audit", tmp_path, "--model", MODEL, "--audio", tmp_path, "--log", tmp_path / "log", "--json"]

    write.place = tmp_path
    return write


def _rows(out):
    return [json.loads(line) for line in out.splitlines()]


def _record(model, clips, level="scores"):
    return list(earmark.record_many(model, clips, level=level))


# Levels


def test_sketches_are_judged_as_sketches_without_being_asked_for(ctc, few, folder, run):
    """An old sketch under a new nonce is seen by nobody who looks at the scores alone."""
    asked = ["--request", folder.place, "--receipt", folder.place]
    words = folder(restamped().record(ctc, few, level="sketch"), few)
    rows = _rows(run(*words, *asked)[1])
    assert [row["outcome"] for row in rows[:-1]] == ["FAIL", "FAIL"]
    assert rows[-1]["level"] == "sketch"
    (folder.place / "log").unlink()
    rows = _rows(run(*folder(_record(ctc, few, "sketch"), few), *asked)[1])
    assert [row["outcome"] for row in rows[:-1]] == ["PASS", "PASS"], "the twin: honest sketches"


def test_honest_compact_evidence_is_judged_by_its_own_profile(ctc, few, folder, run):
    (folder.place / "policy.toml").write_text("accept_compact = true\n")
    words = [*folder(_record(ctc, few, "compact"), few), "--policy", folder.place / "policy.toml"]
    rows = _rows(run(*words, "--request", folder.place)[1])
    assert [row["outcome"] for row in rows[:-1]] == ["PASS", "PASS"]
    assert rows[-1]["level"] == "compact"
    (folder.place / "log").unlink()
    code, _, err = run(*words)
    assert (code, "compact evidence holds no request; give" in err) == (3, True)


@pytest.mark.parametrize(
    ("levels", "scores"),
    [
        (("sketch", "scores"), ["infinite"]),
        (("sketch", "compact"), ["infinite"]),
        (("scores", "compact"), ["infinite"]),
        (("compact", "scores"), ["infinite"]),
        (("sketch", "sketch"), [0.0]),
    ],
)
def test_a_clip_of_another_level_than_the_first_counts_against_the_provider(ctc, few, folder, run, levels, scores):
    (folder.place / "policy.toml").write_text("accept_compact = true\n")
    evidence = [_record(ctc, [clip], level)[0] for clip, level in zip(few, levels, strict=True)]
    words = [*folder(evidence, few), "--policy", folder.place / "policy.toml", "--request", folder.place]
    rows = _rows(run(*words)[1])
    assert rows[0]["outcome"] == "PASS"
    assert [max(row["score"], 0.0) if row["score"] != "infinite" else row["score"] for row in rows[1:-1]] == scores


def test_a_first_level_that_the_policy_refuses_ends_no_audit(ctc, few, folder, run):
    """A provider could choose a level that no profile judges; its clip counts, and the others are judged."""
    first, second = _record(ctc, few)
    text = msgspec.structs.replace(first, level="text")
    rows = _rows(run(*folder([text, second], few), "--request", folder.place)[1])
    assert [row["score"] == "infinite" for row in rows[:-1]] == [True, False]
    assert rows[-1]["level"] == "scores"
    cases = [Case(evidence=own, audio="") for own in (text, text)]
    assert openings.level_of(cases, Policy()) == "scores"
    assert openings.level_of([Case(evidence=None, audio="")], Policy(least_level="sketch")) == "sketch"


def test_a_level_that_cannot_be_judged_is_refused(ctc, few, folder, run):
    calibrated(ctc).save(folder.place / "profile")
    words = [*folder(_record(ctc, few, "sketch"), few), "--request", folder.place]
    code, _, err = run(*words, "--profile", folder.place / "profile")
    assert code == 3
    assert "the profile is of the level scores, and the audit of the level sketch; expected" in err
    assert not (folder.place / "log").exists()
    rows = _rows(run(*words, "--profile", folder.place / "profile", "--level", "scores")[1])
    assert [row["outcome"] for row in rows[:-1]] == ["PASS", "PASS"], "the scores of a sketch, where they are asked for"
    for level, policy, message in (
        ("all", Policy(), "level 'all'; known: text, listed, scores, sketch, compact"),
        ("compact", Policy(), "expected one that its policy accepts"),
        ("scores", Policy(least_level="sketch"), "expected one that its policy accepts"),
    ):
        with pytest.raises(UsageError, match=message):
            check_level(level, policy)
    assert check_level("sketch", Policy(least_level="sketch"), calibrated(ctc, level="sketch")) == "sketch"


def test_the_log_is_bound_to_the_level(ctc, few, tmp_path):
    cases = [
        (str(i), Case(evidence=own, audio=clip.audio, request=clip.request))
        for i, (own, clip) in enumerate(zip(_record(ctc, few, "sketch"), few, strict=True))
    ]
    profile = calibrated(ctc, level="sketch")
    run_audit(cases, ctc, profile, tmp_path / "log", level="scores")
    with pytest.raises(RecordError, match="level"):
        run_audit(cases, ctc, profile, tmp_path / "log", level="sketch")
    assert run_audit(cases, ctc, profile, tmp_path / "log", level="scores").clips == 2


# Receipts and requests


def test_receipts_that_a_policy_wants_must_be_looked_for(ctc, few, folder, run):
    """Without --receipt nobody could keep the policy; with it, who gave none has not kept it."""
    words = [*folder(_record(ctc, few), few), "--request", folder.place, "--policy", "strict"]
    code, _, err = run(*words)
    assert (code, "the policy asks for receipts, and none was given" in err) == (3, True)
    words += ["--receipt", folder.place]
    (folder.place / "1.wav.receipt.json").unlink()
    rows = _rows(run(*words)[1])
    assert [row["findings"] for row in rows[:-1]] == [[], ["receipt.missing"]]
    assert [row["score"] == "infinite" for row in rows[:-1]] == [False, True]
    (folder.place / "0.wav.receipt.json").unlink()
    code, _, err = run(*words)
    assert (code, "holds no receipt of these clips" in err) == (3, True), "a wrong folder is nobody's guilt"


def test_evidence_without_its_request_counts_where_the_verifier_has_none(ctc, few, folder, run):
    """Else a provider could take any clip out of the audit."""
    first, second = _record(ctc, few)
    words = folder([msgspec.structs.replace(first, request=None), second], few)
    rows = _rows(run(*words)[1])
    assert [row["findings"] for row in rows[:-1]] == [["request.missing"], []]
    assert [row["score"] == "infinite" for row in rows[:-1]] == [True, False]
    (folder.place / "log").unlink()
    rows = _rows(run(*words, "--request", folder.place)[1])
    assert [row["outcome"] for row in rows[:-1]] == ["PASS", "PASS"], "the twin: the customer's own request"


def test_compact_evidence_without_a_request_is_no_shelter(ctc, few, folder, run):
    evidence = [_record(ctc, [clip], level)[0] for clip, level in zip(few, ("scores", "compact"), strict=True)]
    (folder.place / "policy.toml").write_text("accept_compact = true\n")
    for policy in ([], ["--policy", folder.place / "policy.toml"]):
        rows = _rows(run(*folder(evidence, few), *policy)[1])
        assert [row["score"] == "infinite" for row in rows[:-1]] == [False, True]
        (folder.place / "log").unlink()
