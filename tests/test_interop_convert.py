"""Responses of OpenAI-compatible servers become evidence, and are judged like evidence; damaged ones never pass."""

from __future__ import annotations

import copy
import json
import math

import msgspec
import pytest
from api_responses import chat, events, report_of
from made_profiles import calibrated

import earmark
from earmark.errors import PayloadError, UsageError
from earmark.interop import convert as interop
from earmark.interop.response import is_numeric, read_prompt_scores, read_response
from earmark.records.policy import LISTED
from earmark.scenarios import scenario
from earmark.study import Sample, measure
from earmark.testing import mutated_evidence

LOST, FOREIGN = "\ufffd", "ωmega"
SOURCES = [("text", "openai"), ("bare", "openai"), ("prefixed", "vllm"), ("numeric", "gonka")]


@pytest.fixture(scope="module")
def clip(clips):
    return clips[0]


@pytest.fixture(scope="module")
def completion(nano, honest):
    return chat(nano, honest[0])


def _verdict(nano, clip, payload, source="openai", **options):
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    options = {"profile": "provisional"} | options
    return interop.verify_response(data, source, clip.request, clip.audio, nano, **options)


def _codes(verdict):
    return {finding.code for finding in verdict.findings if finding.severity != "note"}


@pytest.mark.parametrize(("tokens", "source"), SOURCES)
@pytest.mark.parametrize("end", [True, False], ids=["end-shown", "end-left-out"])
def test_an_honest_response_passes_however_tokens_are_written(nano, clip, honest, tokens, source, end):
    verdict = _verdict(nano, clip, chat(nano, honest[0], tokens=tokens, end=end), source)
    assert (verdict.outcome, _codes(verdict)) == ("PASS", set())
    assert verdict.proves == "reconstructable"
    assert verdict.fingerprint["logprob_l1"] < 1e-4


def test_honest_responses_to_all_clips_pass(nano, clips, honest):
    for clip, evidence in zip(clips, honest, strict=True):
        assert _verdict(nano, clip, chat(nano, evidence, end=False)).outcome == "PASS"


def test_streams_and_stored_streams_are_joined(nano, clip, honest, completion):
    for stream in (events(completion), events(chat(nano, honest[0], tokens="numeric"))):
        source = "openai" if stream.startswith(events(completion)[:20]) and b'"bytes"' in stream else "gonka"
        assert _verdict(nano, clip, stream, source).outcome == "PASS"
    stored = {"events": events(completion).decode().splitlines()}
    assert _verdict(nano, clip, stored).outcome == "PASS"


def test_token_ids_beside_lossy_text_are_taken(nano, clip, honest):
    payload = chat(nano, honest[0], tokens="bare", token_ids=True)
    payload["choices"][0]["logprobs"]["content"][1]["token"] = LOST
    assert _verdict(nano, clip, payload).outcome == "PASS"
    payload["choices"][0]["token_ids"].pop()
    assert _codes(_verdict(nano, clip, payload)) == {"payload.contradiction"}


def test_evidence_without_a_policy_for_lists_is_too_little(nano, clip, completion):
    evidence = interop.convert(json.dumps(completion).encode(), "openai", clip.request, clip.audio, nano)
    assert (evidence.level, evidence.claim.engine) == ("listed", "API of served")
    verdict = earmark.verify(evidence, clip.request, clip.audio, nano, profile="provisional")
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", {"level.low"})


# Cheats


def _with(payload, change):
    payload = copy.deepcopy(payload)
    change(payload["choices"][0])
    return payload


def _shift(rows, by, share=1):
    for row in rows[::share]:
        row["logprob"] += by
        for entry in row["top_logprobs"]:
            entry["logprob"] += by


def _other_token(choice):
    row = choice["logprobs"]["content"][2]
    other = row["top_logprobs"][1]
    row.update({key: other[key] for key in ("token", "logprob", "bytes")})
    choice["message"]["content"] = "".join(row["token"] for row in choice["logprobs"]["content"][:-1])


CHEATS = {
    "other numbers": (lambda c: _shift(c["logprobs"]["content"], -0.5), "FAIL", "statistics.logprob_l1"),
    "one other token": (_other_token, "FAIL", "margin.exceeded"),
    "other text": (lambda c: c["message"].update(content="turn it off"), "FAIL", "text.mismatch"),
    "cut short": (lambda c: c["logprobs"]["content"].__delitem__(slice(-4, None)), "FAIL", "text.mismatch"),
    "above certainty": (lambda c: _shift(c["logprobs"]["content"], 0.2), "FAIL", "trace.value"),
    "huge values": (lambda c: _shift(c["logprobs"]["content"], -1e308), "FAIL", "trace.value"),
    "finish length": (lambda c: c.update(finish_reason="length"), "FAIL", "stop.early"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheats_fail(nano, clip, completion, name):
    change, outcome, code = CHEATS[name]
    verdict = _verdict(nano, clip, _with(completion, change))
    assert verdict.outcome == outcome
    assert code in _codes(verdict)


def test_another_models_response_fails(nano, early, clip):
    payload = chat(early, earmark.record(early, clip.request, clip.audio))
    assert _verdict(nano, clip, payload).outcome == "FAIL"


def test_a_response_to_other_audio_fails(nano, clips, honest):
    assert _verdict(nano, clips[1], chat(nano, honest[0])).outcome == "FAIL"


def _censor(choice, keep):
    for row in choice["logprobs"]["content"]:
        for entry in row["top_logprobs"][keep:]:
            entry["logprob"] = -9999.0


def _narrow(choice, keep):
    for row in choice["logprobs"]["content"]:
        del row["top_logprobs"][keep:]


def _pad(choice):
    for row in choice["logprobs"]["content"]:
        row["top_logprobs"][1:] = [row["top_logprobs"][1]] * 4


def _hide_one(choice):
    choice["logprobs"]["content"][1].update(token=LOST, bytes=list(LOST.encode()))


def _foreign(choice):
    choice["logprobs"]["content"][1].update(token=FOREIGN, bytes=list(FOREIGN.encode()))


OPEN = {
    "values left out": (lambda c: _censor(c, 1), "trace.censored"),
    "fewer candidates than asked": (lambda c: _narrow(c, 3), "k.low"),
    "no candidates": (lambda c: _narrow(c, 0), "k.low"),
    "padded lists": (_pad, "k.low"),
    "no log-probabilities": (lambda c: c.pop("logprobs"), "payload.no_logprobs"),
    "empty log-probabilities": (lambda c: c["logprobs"].update(content=[]), "payload.no_logprobs"),
    "a token that is lost": (_hide_one, "token.unmapped"),
    "a token of another vocabulary": (_foreign, "token.unmapped"),
}


@pytest.mark.parametrize("name", OPEN)
def test_what_a_server_does_not_show_stays_open(nano, clip, completion, name):
    change, code = OPEN[name]
    verdict = _verdict(nano, clip, _with(completion, change))
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", {code})
    assert {finding.fault for finding in verdict.findings if finding.severity != "note"} == {"provider"}


def test_one_candidate_that_cannot_be_told_shortens_its_list_alone(nano, clips, honest):
    """The list is cut before it, and what is left is compared; the rest counts as left out."""
    payload = chat(nano, honest[2], tokens="text")
    rows = payload["choices"][0]["logprobs"]["content"]
    rows[1]["top_logprobs"][4] = {"token": LOST, "logprob": rows[1]["top_logprobs"][4]["logprob"]}
    verdict = _verdict(nano, clips[2], payload, policy=msgspec.structs.replace(LISTED, max_censored_share=0.1))
    assert verdict.outcome == "PASS"


def test_a_token_listed_twice_with_two_values_fails(nano, clip, completion):
    def change(choice):
        row = choice["logprobs"]["content"][1]["top_logprobs"]
        row[4] = row[3] | {"logprob": row[3]["logprob"] - 1}

    verdict = _verdict(nano, clip, _with(completion, change))
    assert (verdict.outcome, _codes(verdict)) == ("FAIL", {"trace.duplicate"})


def test_two_choices_are_refused(nano, clip, completion):
    payload = copy.deepcopy(completion)
    payload["choices"] *= 2
    assert _codes(_verdict(nano, clip, payload)) == {"payload.choices"}


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b'{"choices": 1}', b'{"choices": []}', b"[" * 100_000,
     b'{"choices": [{"logprobs": {"content": [{"token": 3}]}}]}', b"data: {\n\n", b"data: [DONE]\n\n",
     b'{"text": "a"}', b'{"events": []}', b'{"events": [3]}',
     b'{"choices": [{"logprobs": {"content": [{"token": "a", "logprob": NaN}]}}]}',
     b'{"choices": [{"logprobs": {"content": [{"token": "a", "logprob": 1e999}]}}]}'],
    ids=lambda data: data[:24].decode("latin1"),
)  # fmt: skip
def test_malformed_responses_stay_open(nano, clip, data):
    verdict = _verdict(nano, clip, data)
    assert verdict.outcome == "INCONCLUSIVE"
    assert all(code.startswith("payload.") for code in _codes(verdict))


def test_a_stream_that_is_cut_stays_open(nano, clip, completion):
    stream = events(completion)
    for data in (stream[: len(stream) // 2], events(completion, done=False)):
        verdict = _verdict(nano, clip, data)
        assert verdict.outcome == "INCONCLUSIVE"
        assert _codes(verdict) <= {"payload.cut", "payload.malformed"}


def test_damaged_responses_never_crash_and_never_pass_by_accident(nano, clip, completion):
    """Fields left out, doubled, replaced; numbers shifted: a PASS only where nothing that counts was changed."""
    import random

    from earmark.testing import damage

    rng, outcomes = random.Random(5), []
    original = interop.convert(json.dumps(completion).encode(), "openai", clip.request, clip.audio, nano)
    for _ in range(400):
        payload = damage(copy.deepcopy(completion), rng)
        try:
            data = json.dumps(payload).encode()
        except (TypeError, ValueError):
            continue
        try:
            made = interop.convert(data, "openai", clip.request, clip.audio, nano)
        except PayloadError:
            outcomes.append("INCONCLUSIVE")
            continue
        if made.segments == original.segments:
            continue
        verdict = earmark.verify(made, clip.request, clip.audio, nano, policy=LISTED, profile="provisional")
        outcomes.append(verdict.outcome)
        if verdict.outcome == "PASS":  # a number that was moved by less than an honest difference
            assert made.segments[0].ids == original.segments[0].ids
    assert len(outcomes) > 120


def test_damaged_listed_evidence_never_crashes(nano, clip, completion):
    made = interop.convert(json.dumps(completion).encode(), "openai", clip.request, clip.audio, nano)
    for _, data in zip(range(300), mutated_evidence(made, seed=3), strict=False):
        verdict = earmark.verify(data, clip.request, clip.audio, nano, policy=LISTED, profile="provisional")
        assert verdict.outcome in {"PASS", "FAIL", "INCONCLUSIVE"}
        assert "replay.failed" not in _codes(verdict)


# Formats


def test_gonka_payload_and_replay_request(nano, honest):
    payload = interop.to_gonka(honest[0], nano)
    response = read_response(json.dumps(payload).encode(), "gonka")
    rows = payload["choices"][0]["logprobs"]["content"]
    assert all(is_numeric([row["token"], *(e["token"] for e in row["top_logprobs"])]) for row in rows)
    assert {len(row["top_logprobs"]) for row in rows} == {5}
    assert all(row["top_logprobs"][0]["token"] == row["token"] for row in rows)
    asked = interop.replay_request({"model": "m", "seed": 1}, response, nano.end_id)
    tokens = asked["enforced_tokens"]["tokens"]
    assert [int(row["token"]) for row in tokens] == list(honest[0].segments[0].ids)
    assert asked["top_logprobs"] == 5
    assert tokens[-1]["token"] == str(nano.end_id)
    shorter = read_response(json.dumps(chat(nano, honest[0], tokens="numeric", end=False)).encode(), "gonka")
    assert interop.enforced_tokens(shorter, nano.end_id)["tokens"][-1] == {
        "token": str(nano.end_id),
        "top_tokens": [str(nano.end_id)],
    }


def test_a_response_without_ids_cannot_be_enforced(completion):
    response = read_response(json.dumps(completion).encode(), "openai")
    with pytest.raises(PayloadError, match="has no id"):
        interop.enforced_tokens(response, 2)


def test_prompt_log_probabilities_of_vllm(nano, honest):
    """vLLM scores a given transcript at the end of the prompt: the same numbers as in the lists."""
    report = report_of(nano, honest[0])
    positions = [None, *({} for _ in range(3))]
    for i, value, top in zip(report.ids, report.logprobs, report.top, strict=True):
        rows = {str(i): {"logprob": value, "rank": 1, "decoded_token": "x"}}
        positions.append(rows | {str(t): {"logprob": v, "rank": 2} for t, v in top if t != i})
    data = json.dumps({"choices": [], "prompt_logprobs": positions}).encode()
    steps = read_prompt_scores(data, len(report.ids))
    assert [step.chosen.id for step in steps] == list(report.ids)
    assert [step.chosen.logprob for step in steps] == list(report.logprobs)
    for damaged in (b'{"choices": []}', data.replace(b'"rank"', b'"logprob"').replace(b'": {"', b'x": {"')):
        with pytest.raises(PayloadError):
            read_prompt_scores(damaged, len(report.ids))
    with pytest.raises(PayloadError, match="without log-probabilities"):
        read_prompt_scores(data, len(report.ids) + 1)


def test_transcriptions_with_log_probabilities_show_too_little(nano, clip, completion):
    rows = completion["choices"][0]["logprobs"]["content"]
    flat = [{key: row[key] for key in ("token", "logprob", "bytes")} for row in rows]
    payload = {"text": completion["choices"][0]["message"]["content"], "logprobs": flat}
    assert _codes(_verdict(nano, clip, payload)) == {"k.low"}


def test_long_audio_and_open_languages_are_refused_by_name(nano, clip, completion):
    data = json.dumps(completion).encode()
    open_language = earmark.request(clip.audio)
    verdict = interop.verify_response(data, "openai", open_language, clip.audio, nano, profile="provisional")
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", {"request.unusable"})
    half = len(clip.audio.samples) // 2
    pieces = earmark.Segmentation(boundaries=(half,))
    asked = earmark.request(clip.audio, language="en", segmentation=pieces)
    with pytest.raises(UsageError, match="2 pieces"):
        interop.convert(data, "openai", asked, clip.audio, nano)


def test_what_an_api_shows_is_played_and_calibrated(nano, clips):
    """An honest provider's lists as measured for a calibration are those of its answer, and a profile judges both."""
    samples = [Sample(name=f"c{i}", audio=clip.audio, language=clip.request.language) for i, clip in enumerate(clips)]
    rows = [[*measure(nano, scenario("honest"), samples[:2], level=level)] for level in ("scores", "listed")]
    assert [[row.outcome for row in own] for own in rows] == [["PASS"] * 2] * 2
    for whole, listed in zip(*rows, strict=True):
        assert listed.level == "listed"
        assert listed.statistics["logprob_l1"] == whole.statistics["logprob_l1"]
        assert math.isnan(listed.statistics["entropy_rmse"])
    profile, given = calibrated(nano, level="listed"), (samples[0].clip(), samples[1].clip())
    cheat = scenario("quantise", bits=4, group=64).record(nano, given, level="listed")
    own = scenario("honest").record(nano, given, level="listed")
    for made, outcome in ((own, "PASS"), (cheat, "FAIL")):
        for evidence, asked in zip(made, given, strict=True):
            verdict = earmark.verify(evidence, asked.request, asked.audio, nano, profile=profile, policy=LISTED)
            assert (verdict.outcome, verdict.profile) == (outcome, profile.name)


def test_a_profile_of_lists_judges_answers_of_as_many_candidates(nano, clip, honest):
    profile = calibrated(nano, level="listed")
    whole, fewer = (
        _verdict(nano, clip, json.dumps(chat(nano, honest[0], k=k)).encode(), profile=profile) for k in (8, 5)
    )
    assert (whole.outcome, whole.profile) == ("PASS", profile.name)
    assert (fewer.outcome, _codes(fewer)) == ("INCONCLUSIVE", {"profile.k"})
