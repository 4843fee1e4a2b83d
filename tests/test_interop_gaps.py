"""What passes Gonka's rule and must not pass ours: its known gaps, one test each, on a model that transcribes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from api_responses import chat

import earmark
from benchmarks.gonka import (
    any_numbers,
    changed,
    cut_short,
    gonka_says,
    other_text,
    repeated,
    rows,
    uncertain_shift,
    we_say,
    written_by,
)
from earmark.decision.sprt import Sprt
from earmark.errors import EndpointError
from earmark.fingerprint import gonka
from earmark.fingerprint.gonka import Position
from earmark.interop.convert import to_gonka, verify_response
from earmark.interop.endpoint import finding_of
from earmark.records.verdict import decide

IN_USE = (0.98, 0.958, 0.940, 0.922, 0.90, 0.75)
"""Thresholds that the network has used, the strictest first."""


@pytest.fixture(scope="module")
def truth(nano, honest):
    """Return the payload that an honest executor stores; a validator's replay gives the same."""
    return to_gonka(honest[0], nano)


def _codes(verdict):
    return {finding.code for finding in verdict.findings if finding.severity != "note"}


def test_an_honest_payload_passes_both(nano, clips, truth):
    assert gonka_says(truth, truth).passes(max(IN_USE))
    assert we_say(truth, clips[0], nano).outcome == "PASS"


def test_argmax_a_cheap_model_writes_and_the_real_one_scores(nano, early, clips, honest):
    found = 0
    for clip, own in zip(clips, honest, strict=True):
        cheap = written_by(early, nano, clip)
        if cheap.segments[0].ids == own.segments[0].ids:
            continue
        payload = to_gonka(cheap, nano)
        assert gonka_says(payload, payload).similarity == 1.0
        verdict = we_say(payload, clip, nano)
        assert verdict.outcome == "FAIL"
        assert _codes(verdict) - {"trace.censored"} == {"margin.exceeded"}
        found += 1
        if found == 4:
            break
    assert found == 4


def test_stop_a_transcript_that_ends_early(nano, clips, truth):
    payload = cut_short(truth, nano)
    assert gonka_says(payload, truth).similarity == 1.0  # a longer replay is accepted
    verdict = we_say(payload, clips[0], nano)
    assert (verdict.outcome, _codes(verdict)) == ("FAIL", {"margin.exceeded"})


def test_text_is_not_bound_to_ids(nano, clips, truth):
    payload = other_text(truth)
    assert gonka_says(payload, truth).similarity == 1.0
    verdict = we_say(payload, clips[0], nano)
    assert (verdict.outcome, _codes(verdict)) == ("FAIL", {"text.mismatch"})


def test_short_output_passes_with_any_numbers(nano, clips, honest):
    """Distances are divided by 100 positions at least, and each is below 0.5."""
    shortest = min(range(len(honest)), key=lambda i: len(honest[i].segments[0].ids))
    payload = to_gonka(honest[shortest], nano)
    made = any_numbers(payload)
    outcome = gonka_says(made, payload)
    assert outcome.similarity >= 1 - 0.5 * len(rows(made)) / 100
    assert outcome.passes(0.940)
    assert we_say(made, clips[shortest], nano).outcome == "FAIL"


def test_confident_tokens_dominate(nano, honest, clips):
    """Noise of 1e-4 nats on certain tokens costs more than a quarter of a nat on all uncertain ones."""
    report = [row for evidence in honest for row in rows(to_gonka(evidence, nano))]
    lists = [[(entry["token"], entry["logprob"]) for entry in row["top_logprobs"]] for row in report]
    truth = [Position(row["token"], row["logprob"], top) for row, top in zip(report, lists, strict=True)]
    rng = np.random.default_rng(0)

    def moved(change):
        return [Position(p.token, p.logprob, [(t, change(v)) for t, v in p.top]) for p in truth]

    noisy = gonka.compare(moved(lambda v: v - abs(rng.normal(0, 1e-4))), truth)
    forged = gonka.compare(moved(uncertain_shift), truth)
    assert noisy.similarity < forged.similarity  # so no threshold passes the one and fails the other
    assert forged.passes(max(IN_USE))
    payload = to_gonka(honest[1], nano)
    assert we_say(changed(payload, uncertain_shift), clips[1], nano).outcome == "FAIL"
    assert we_say(changed(payload, lambda value: value - 1e-5), clips[1], nano).outcome == "PASS"


def test_padded_lists(nano, clips, truth):
    """The oldest rule divides by the length of the executor's first list, which the executor chooses."""
    made = any_numbers(truth, first_list=1000)
    assert gonka_says(made, truth, "legacy").similarity > 0.999
    assert we_say(made, clips[0], nano).outcome == "FAIL"
    # honest numbers in lists that repeat one candidate show too little to be judged
    padded = repeated(truth)
    assert gonka_says(padded, truth).passes(0.90)
    verdict = we_say(padded, clips[0], nano)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", {"k.low"})


def test_banked_evidence_of_honesty_buys_fraud():
    """A thousand honest clips pay for frauds in every other clip; a clamped test has no bank."""
    assert gonka.sprt_status(passes=1000 + 80, failures=80, consecutive=1) == "ACTIVE"
    test = Sprt(p0=0.05, p1=0.10)
    assert {test.update(failed=False) for _ in range(1000)} == {"go on"}
    assert "reject" in [test.update(failed=clip % 2 == 0) for clip in range(160)]


@pytest.mark.parametrize("status", [400, 404, 422])
def test_an_error_of_the_validators_own_node_is_no_pass(status):
    """Gonka counts a 4xx of the validator's node as a pass; here it is open, and the verifier's fault."""
    error = EndpointError(f"answered {status}", code="endpoint.refused", fault="verifier")
    finding = finding_of(error)
    assert (decide([finding]), finding.fault) == ("INCONCLUSIVE", "verifier")


def test_numbers_beside_ours(nano, early, clips, honest):
    """The fingerprint holds Gonka's distance beside our statistics."""
    data = json.dumps(chat(nano, honest[0])).encode()
    verdict = verify_response(data, "openai", clips[0].request, clips[0].audio, nano, profile="provisional")
    assert 0 <= verdict.fingerprint["gonka_distance"] < 1e-3
    other = earmark.record(early, clips[0].request, clips[0].audio)
    theirs = verify_response(
        json.dumps(chat(early, other)).encode(), "openai", clips[0].request, clips[0].audio, nano, profile="provisional"
    )
    assert theirs.fingerprint["gonka_distance"] > 10 * verdict.fingerprint["gonka_distance"]
