"""Compact evidence: 1 KB for 30 s, the same protection for what it holds, and the exact match behind it."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import earmark
from earmark import Case, Clip, Policy, record_many
from earmark.errors import RecordError
from earmark.records import varint
from earmark.records.evidence import Compact, Evidence, load_evidence
from earmark.scenarios import scenario
from earmark.verifiers._autoregressive_compact import CompactTrace

ACCEPTS = Policy(accept_compact=True)


def _verify(evidence, clip, model, **options):
    evidence = evidence.to_msgpack() if isinstance(evidence, Evidence) else evidence
    settings = {"profile": "provisional", "policy": ACCEPTS, **options}
    return earmark.verify(evidence, clip.request, clip.audio, model, **settings)


def _codes(verdict):
    return [finding.code for finding in verdict.findings if finding.severity != "note"]


@pytest.fixture(scope="module")
def compact(nano, clips):
    return list(record_many(nano, clips[:6], level="compact", batch_size=3))


@pytest.fixture(scope="module")
def half_minutes(clips):
    """Return clips of 30 s, put together from the shipped ones, with a request that names the language and one not."""
    audio = np.concatenate([clip.audio.samples for clip in clips])
    made = []
    for first in (0, len(audio) - 30 * 16_000):
        clip = earmark.audio.from_samples(audio[first : first + 30 * 16_000], 16_000)
        made += [Clip(audio=clip, request=earmark.request(clip, language=language)) for language in ("en", None)]
    return made


# Form


def test_half_a_minute_fits_into_a_kilobyte_and_passes(nano, half_minutes):
    for evidence, clip in zip(record_many(nano, half_minutes, level="compact"), half_minutes, strict=True):
        wire = evidence.to_msgpack()
        assert len(evidence.segments) >= 3
        assert len(wire) <= 1024
        verdict = _verify(wire, clip, nano, receipt=evidence.receipt)
        assert (verdict.outcome, verdict.proves, _codes(verdict)) == ("PASS", "committed", [])


def test_both_written_forms_expand_to_the_same_evidence(nano, clips, compact, tmp_path):
    evidence, clip = compact[0], clips[0]
    for name in ("a.evidence.msgpack", "a.evidence.json"):
        evidence.save(tmp_path / name)
        record = load_evidence(tmp_path / name)
        assert isinstance(record, Compact)
        assert record.digest() == evidence.digest() == evidence.receipt.commitment
        pieces = [(s.start, s.end) for s in evidence.segments]
        whole = record.expand(clip.request, nano.info.features, pieces, nano.detokenise)
        assert whole == msgspec.structs.replace(evidence, request=None)
        assert whole.digest() == evidence.digest()


def test_the_full_form_under_the_compact_level_keeps_every_rule(nano, clips, compact):
    """The same record written as a map, as no provider of ours does: one commitment, and what it adds is checked."""
    full = msgspec.msgpack.encode(compact[0])
    assert isinstance(load_evidence(full), Evidence)
    assert _verify(full, clips[0], nano, receipt=compact[0].receipt).outcome == "PASS"
    edited = msgspec.msgpack.encode(msgspec.structs.replace(compact[0], text="something else"))
    assert load_evidence(edited).digest() == compact[0].digest()
    assert _codes(_verify(edited, clips[0], nano, receipt=compact[0].receipt)) == ["text.mismatch"]


@given(st.lists(st.integers(0, 2**31 - 1), max_size=40))
def test_ids_survive(ids):
    assert varint.unpack(varint.pack(ids)) == tuple(ids)


@pytest.mark.parametrize(
    "data", [b"\x80", b"\x80\x00", b"\xff\xff\xff\xff\x0f", b"\xff\xff\xff\xff\xff\x01", b"\x01\x81"]
)
def test_ids_have_one_form(data):
    with pytest.raises(RecordError):
        varint.unpack(data)


@given(st.binary(max_size=30))
def test_any_bytes_are_ids_in_one_form_or_refused(data):
    try:
        ids = varint.unpack(data)
    except RecordError:
        return
    assert varint.pack(ids) == data


def test_without_the_request_it_is_inconclusive(nano, clips, compact):
    verdict = earmark.verify(compact[0].to_msgpack(), None, clips[0].audio, nano, profile="provisional", policy=ACCEPTS)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["request.missing"])


# What a provider could gain


@pytest.mark.parametrize("policy", [Policy(), Policy(least_level="sketch"), Policy(least_level="text")])
def test_a_downgrade_to_compact_is_the_providers_fault(nano, clips, compact, policy):
    """The cheaper form passes only where the policy says so, however low its least level is."""
    verdict = _verify(compact[0], clips[0], nano, policy=policy)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["level.compact"])
    assert verdict.findings[0].fault == "provider"
    assert _verify(compact[0], clips[0], nano).outcome == "PASS"


def test_relabelled_scores_do_not_pass_as_compact(nano, clips, honest):
    verdict = _verify(msgspec.structs.replace(honest[0], level="compact"), clips[0], nano)
    assert (verdict.outcome, _codes(verdict)) == ("FAIL", ["trace.malformed"])


@pytest.mark.parametrize(
    ("name", "parameters"), [("quantise", {"bits": 8}), ("quantise", {"bits": 4}), ("drop_audio", {})]
)
def test_cheats_are_caught_without_lists(nano, clips, name, parameters):
    evidence = scenario(name, **parameters).record(nano, clips[:6], level="compact")
    assert {_verify(e, c, nano).outcome for e, c in zip(evidence, clips, strict=False)} == {"FAIL"}


def test_the_cheap_writer_is_caught_by_its_margins(nano, early, clips, honest):
    evidence = scenario("rescored", writer=early).record(nano, clips, level="compact")
    for mine, real, clip in zip(evidence, honest, clips, strict=True):
        verdict = _verify(mine, clip, nano)
        assert _codes(verdict) == (["margin.exceeded"] if mine.text != real.text else [])


def test_restamped_evidence_fails(nano, clips, compact):
    again = earmark.request(clips[0].audio, language="en", nonce="f" * 32)
    stamped = msgspec.structs.replace(compact[0], request=again, request_digest=again.digest())
    clip = Clip(audio=clips[0].audio, request=again)
    assert "statistics.sketch_distance" in _codes(_verify(stamped, clip, nano))
    assert _verify(earmark.record(nano, again, clip.audio, level="compact"), clip, nano).outcome == "PASS"


def test_lazy_evidence_fails_by_its_receipt(nano, early, clips, compact):
    served = next(record_many(early, clips[:1], level="compact"))
    assert _codes(_verify(compact[0], clips[0], nano, receipt=served.receipt)) == ["receipt.mismatch"]
    assert _verify(compact[0], clips[0], nano, receipt=compact[0].receipt).outcome == "PASS"


def test_another_language_than_the_detected_one_fails(nano, clips):
    clip = Clip(audio=clips[0].audio, request=earmark.request(clips[0].audio))
    evidence = earmark.record(nano, clip.request, clip.audio, level="compact")
    assert _verify(evidence, clip, nano).outcome == "PASS"
    trace = msgspec.msgpack.decode(evidence.segments[0].trace, type=CompactTrace)
    other = _with(evidence, language=(trace.language + 1) % len(nano.languages))
    assert "statistics.language_margin" in _codes(_verify(other, clip, nano))
    calibrated = {"profile": None, "attribution": "never"}
    assert _codes(_verify(evidence, clip, nano, **calibrated)) == []
    verdict = _verify(other, clip, nano, **calibrated)
    assert (verdict.outcome, "margin.exceeded" in _codes(verdict)) == ("FAIL", True)


def test_a_language_that_lost_a_near_tie_stays(nano, clips, monkeypatch):
    """Which language is best is a choice like any other: beyond a near-tie a rule is broken, and none below."""
    clip = Clip(audio=clips[0].audio, request=earmark.request(clips[0].audio))
    evidence = earmark.record(nano, clip.request, clip.audio, level="compact")
    trace = msgspec.msgpack.decode(evidence.segments[0].trace, type=CompactTrace)
    other = _with(evidence, language=(trace.language + 1) % len(nano.languages))
    monkeypatch.setattr("earmark.verifiers._autoregressive_choice.TIE_NATS", {"fp32": 100.0})
    codes = [finding.code for finding in _verify(other, clip, nano, profile="rules").findings]
    assert ("margin.exceeded" in codes, "margin.near_tie" in codes) == (False, True)


def _with(evidence, **changes):
    first = evidence.segments[0]
    trace = msgspec.structs.replace(msgspec.msgpack.decode(first.trace, type=CompactTrace), **changes)
    changed = msgspec.structs.replace(first, trace=msgspec.msgpack.encode(trace))
    return msgspec.structs.replace(evidence, segments=(changed, *evidence.segments[1:]))


F4 = np.float32
TAMPERED = {
    "language that was asked for": ({"language": 0}, "trace.malformed"),
    "no such language": ({"language": 999}, "trace.malformed"),
    "likelihood above 0": ({"likelihood": F4(1).tobytes()}, "trace.value"),
    "likelihood NaN": ({"likelihood": F4(np.nan).tobytes()}, "trace.value"),
    "likelihood of another model": ({"likelihood": F4(-30).tobytes()}, "statistics.loglik_distance"),
    "no-speech NaN": ({"no_speech": F4(np.nan).tobytes()}, "trace.value"),
    "no-speech left out": ({"no_speech": b""}, "trace.malformed"),
    "sketch left out": ({"sketch": b""}, "trace.malformed"),
    "sketch NaN": ({"sketch": np.full(32, np.nan, "<f2").tobytes()}, "trace.value"),
    "sketch of zeros": ({"sketch": bytes(64)}, "statistics.sketch_distance"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_is_named(nano, clips, compact, name):
    changes, code = TAMPERED[name]
    verdict = _verify(_with(compact[0], **changes), clips[0], nano)
    assert verdict.outcome == "FAIL"
    assert code in _codes(verdict)


def test_changed_forms_are_named(nano, clips, compact):
    short = compact[0].compact()
    piece = short.segments[0]
    changed = {
        "weights.mismatch": {"weights": bytes(32)},
        "features.mismatch": {"features": bytes(32)},
        "precision.mismatch": {"precision": "bf16"},
        "family.mismatch": {"family": "ctc"},
        "request.mismatch": {"request_digest": bytes(32)},
        "segments.mismatch": {"segments": (piece, piece)},
        "token.unknown": {"segments": (msgspec.structs.replace(piece, ids=varint.pack([10**6])),)},
        "token.count": {"segments": (msgspec.structs.replace(piece, ids=b""),)},
        "record.malformed": {"segments": (msgspec.structs.replace(piece, ids=b"\x80"),)},
        "stop.early": {"segments": (msgspec.structs.replace(piece, ids=varint.pack([5, 6])),)},
    }
    for code, change in changed.items():
        verdict = _verify(msgspec.structs.replace(short, **change).to_msgpack(), clips[0], nano)
        assert (verdict.outcome, code in _codes(verdict)) == ("FAIL", True), (code, verdict.findings)
    assert _codes(_verify(b"\x9f\xc0", clips[0], nano)) == ["record.malformed"]


# Exact match


@pytest.mark.parametrize("level", ["scores", "sketch", "compact"])
def test_equal_bits_need_no_profile(nano, clips, level):
    evidence = list(record_many(nano, clips[:4], level=level, batch_size=2))
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=False)]
    options = {"mode": "reexecute", "policy": ACCEPTS, "batch_size": 2}
    for verdict in earmark.verify_many(cases, nano, **options):
        assert verdict.outcome == "PASS"
        assert [f.code for f in verdict.findings] == ["exact.match"]
        assert verdict.fingerprint is None


def test_another_batch_falls_back_to_the_statistics(nano, clips, compact):
    """Recorded in batches of 3, checked alone: other bits, the same verdict."""
    verdicts = [_verify(e, c, nano, mode="reexecute") for e, c in zip(compact, clips, strict=False)]
    assert {v.outcome for v in verdicts} == {"PASS"}
    inexact = [v for v in verdicts if v.fingerprint is not None]
    assert all({"rerun.equal", "rerun.tie"} & {f.code for f in v.findings} for v in inexact)


def test_a_copied_digest_does_not_help(nano, early, clips):
    """The cheap model's evidence under the digest of an honest record: the rest of the trace still tells."""
    cheap, real = (next(record_many(m, clips[:1], level="compact")) for m in (early, nano))
    digest = msgspec.msgpack.decode(real.segments[0].trace, type=CompactTrace).exact
    forged = msgspec.structs.replace(_with(cheap, exact=digest), claim=real.claim)
    for mode in ("replay", "reexecute"):
        assert _verify(forged, clips[0], nano, mode=mode).outcome == "FAIL"
    assert _verify(real, clips[0], nano, mode="reexecute").outcome == "PASS"


def test_a_wrong_digest_skips_nothing(nano, clips, compact):
    spoilt = _with(compact[0], exact=bytes(16))
    verdict = _verify(spoilt, clips[0], nano, mode="reexecute", batch_size=3)
    assert verdict.fingerprint is not None
    assert "exact.match" not in [f.code for f in verdict.findings]
    assert _codes(_verify(spoilt, clips[0], nano, mode="reexecute", profile="rules")) == ["profile.missing"]
