"""Tampering: every changed field of evidence fails with its own finding."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from verify_cases import PROFILE, codes, floats, open_trace, verify_one, with_trace

import earmark
from earmark import rules
from earmark.recording import assemble
from earmark.records.request import Decoding
from earmark.testing._forgeries import with_segment


def _with_claim(evidence, **changes):
    return msgspec.structs.replace(evidence, claim=msgspec.structs.replace(evidence.claim, **changes))


def _spoilt(evidence, field, index, value):
    array = floats(getattr(open_trace(evidence), field))
    array[index] = value
    return with_trace(evidence, **{field: array.tobytes()})


def _duplicated(evidence):
    ids = np.frombuffer(open_trace(evidence).ids, "<i4").copy()
    ids[1] = ids[0]
    return with_trace(evidence, ids=ids.tobytes())


def _outside(evidence):
    ids = np.frombuffer(open_trace(evidence).ids, "<i4").copy()
    ids[0] = 2**30
    return with_trace(evidence, ids=ids.tobytes())


def _edited_word(evidence):
    ids = list(evidence.segments[0].ids)
    ids[0] = ids[0] - 1 if ids[0] > 1 else ids[0] + 1
    return with_segment(evidence, ids=tuple(ids))


def _heavy(evidence):
    values = floats(open_trace(evidence).logprobs).reshape(-1, 8)
    values[:] = 0.0
    return with_trace(evidence, logprobs=values.tobytes(), chosen=np.zeros(len(values), "<f4").tobytes())


TAMPERED = {
    "other weights": (lambda e: _with_claim(e, weights="00" * 32), "weights.mismatch"),
    "other family": (lambda e: _with_claim(e, family="ctc"), "family.mismatch"),
    "other precision": (lambda e: _with_claim(e, precision="bf16"), "precision.mismatch"),
    "other decoding": (lambda e: _with_claim(e, decoding=Decoding(strategy="beam", beams=5)), "decoding.mismatch"),
    "other features": (
        lambda e: _with_claim(e, features=msgspec.structs.replace(e.claim.features, hop=123)),
        "features.hop",
    ),
    "other request": (lambda e: msgspec.structs.replace(e, request=None, request_digest="00" * 32), "request.mismatch"),
    "request twice": (lambda e: msgspec.structs.replace(e, request_digest="00" * 32), "request.contradiction"),
    "edited text": (lambda e: msgspec.structs.replace(e, text=e.text + " more"), "text.mismatch"),
    "edited segment text": (lambda e: with_segment(e, text="something else"), "text.mismatch"),
    "shifted segment": (lambda e: with_segment(e, start=160), "segments.mismatch"),
    "shortened segment": (lambda e: with_segment(e, end=e.segments[0].end - 1), "segments.mismatch"),
    "segment twice": (lambda e: msgspec.structs.replace(e, segments=e.segments * 2), "segments.mismatch"),
    "no ids": (lambda e: with_segment(e, ids=()), "token.count"),
    "thousands of ids": (lambda e: with_segment(e, ids=(5,) * 9000), "token.count"),
    "id beyond the vocabulary": (lambda e: with_segment(e, ids=(10**6, *e.segments[0].ids[1:])), "token.unknown"),
    "end token dropped": (lambda e: with_segment(e, ids=e.segments[0].ids[:-1]), "stop.wrong"),
    "end token dropped, stop renamed": (
        lambda e: with_trace(with_segment(e, ids=e.segments[0].ids[:-1]), finish="length"),
        "stop.early",
    ),
    "end token inside": (
        lambda e: with_segment(e, ids=(e.segments[0].ids[-1], *e.segments[0].ids[1:])),
        "stop.wrong",
    ),
    "empty trace": (lambda e: with_segment(e, trace=b""), "trace.malformed"),
    "zero bytes": (lambda e: with_segment(e, trace=bytes(258)), "trace.malformed"),
    "short array": (lambda e: with_trace(e, entropy=b"\0" * 4), "trace.malformed"),
    "k beyond the vocabulary": (lambda e: with_trace(e, k=1000), "trace.malformed"),
    "k beyond the format": (lambda e: with_segment(e, trace=msgspec.msgpack.encode({"k": 10**9})), "trace.malformed"),
    "positive log-probability": (lambda e: _spoilt(e, "logprobs", 0, 0.5), "trace.value"),
    "infinite log-probability": (lambda e: _spoilt(e, "logprobs", 7, -math.inf), "trace.value"),
    "NaN for an emitted token": (lambda e: _spoilt(e, "chosen", 0, math.nan), "trace.value"),
    "NaN entropy": (lambda e: _spoilt(e, "entropy", 0, math.nan), "trace.value"),
    "huge entropy": (lambda e: _spoilt(e, "entropy", 0, 1e30), "trace.value"),
    "denormal out of order": (lambda e: _spoilt(e, "logprobs", 7, -1e-42), "trace.order"),
    "impossible mass": (_heavy, "trace.mass"),
    "token listed twice": (_duplicated, "trace.duplicate"),
    "listed id outside": (_outside, "trace.malformed"),
    "chosen contradicts the list": (lambda e: _spoilt(e, "chosen", 0, -9.0), "trace.contradiction"),
    "no-speech left out": (lambda e: with_trace(e, no_speech=None), "trace.malformed"),
    "languages left out": (lambda e: with_trace(e, language=b""), "trace.malformed"),
    "prompt stuffed": (lambda e: with_trace(e, prompt=(*open_trace(e).prompt, 5, 6)), "prompt.mismatch"),
    "all censored": (
        lambda e: with_trace(e, logprobs=np.full(len(open_trace(e).logprobs) // 4, np.nan, "<f4").tobytes()),
        "trace.censored",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_fails_with_its_own_finding(nano, clips, honest, name):
    tamper, code = TAMPERED[name]
    verdict = verify_one(tamper(honest[0]), clips[0], nano)
    assert (verdict.outcome, codes(verdict)[:1]) == ("FAIL", [code])


@pytest.mark.parametrize("name", ["other weights", "edited text", "all censored", "end token dropped"])
def test_tampering_after_the_receipt_fails_by_the_receipt_too(nano, clips, honest, name):
    verdict = verify_one(TAMPERED[name][0](honest[0]), clips[0], nano, receipt=honest[0].receipt)
    assert verdict.outcome == "FAIL"
    assert "receipt.mismatch" in codes(verdict)


def test_another_text_than_was_delivered_fails(nano, clips, honest):
    """The receipt binds the evidence alone: what the customer read may have been written by anybody."""
    evidence, clip = honest[0], clips[0]
    base = {"receipt": evidence.receipt, "profile": PROFILE, "attribution": "never"}
    verdicts = {
        said: earmark.verify(evidence, clip.request, clip.audio, nano, delivered=said, **base)
        for said in (None, f"\n {evidence.text} ", evidence.text + " lamp", "", "\ud800")
    }
    assert [verdict.outcome for verdict in verdicts.values()] == ["PASS", "PASS", "FAIL", "FAIL", "FAIL"]
    assert {code for verdict in verdicts.values() for code in codes(verdict)} == {"text.delivered"}
    assert {verdict.to_dict()["transcript"] for verdict in verdicts.values()} == {evidence.text}


def test_delivered_texts_are_compared_as_unicode_composes_them():
    assert rules._check_delivered("caf\u00e9 ", "cafe\u0301") == []
    assert [finding.code for finding in rules._check_delivered("cafe", "cafe\u0301")] == ["text.delivered"]


def test_edited_word_is_caught_by_the_replay(nano, clips, honest):
    """Ids, text and values agree with each other, as a careful forger would make them."""
    clip = clips[0]
    edited = _edited_word(honest[0])
    trace = open_trace(honest[0])
    ids = np.frombuffer(trace.ids, "<i4").reshape(-1, 8).copy()
    ids[0, 0], wanted = edited.segments[0].ids[0], ids[0, 0]
    ids[0, 1:][ids[0, 1:] == ids[0, 0]] = wanted
    edited = with_trace(edited, ids=ids.tobytes())
    text = nano.detokenise(edited.segments[0].ids)
    edited = with_segment(edited, text=text)
    edited = msgspec.structs.replace(edited, text=" ".join(s.text.strip() for s in edited.segments if s.text.strip()))
    verdict = verify_one(edited, clip, nano)
    assert verdict.outcome == "FAIL"
    assert "margin.exceeded" in codes(verdict)


def test_evidence_of_another_clip_fails(nano, clips, honest):
    verdict = verify_one(honest[1], clips[0], nano)
    assert (verdict.outcome, codes(verdict)) == ("FAIL", ["request.mismatch"])
    alone = earmark.verify(honest[1], None, clips[0].audio, nano, profile=PROFILE)
    assert (alone.outcome, codes(alone)) == ("FAIL", ["audio.mismatch"])


def test_outputs_of_another_clip_fail_in_the_replay(nano, clips, honest):
    """Evidence replayed from other audio, with every digest put right."""
    clip = clips[0]
    source = next(e for e in honest[1:] if e.text != honest[0].text)
    outputs = [earmark.protocols.SegmentOutput(ids=s.ids, text=s.text, trace=s.trace) for s in source.segments]
    forged = assemble(nano, clip, earmark.recording.segment_inputs(clip, nano), outputs)
    assert verify_one(forged, clip, nano).outcome == "FAIL"
