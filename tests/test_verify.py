"""Verification: honest evidence passes in every setting, every tampering is named."""

from __future__ import annotations

import copy
import dataclasses
import math

import msgspec
import numpy as np
import pytest
import torch

import earmark
from earmark import Case, Clip, Policy, record_many
from earmark.errors import AudioFileNotFoundError, UsageError
from earmark.recording import assemble
from earmark.records.receipt import batch
from earmark.records.request import Decoding, Segmentation
from earmark.verifiers._autoregressive_trace import Trace

STRICT = "provisional"


def _verify(clips, evidence, model, **options):
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    return list(earmark.verify_many(cases, model, profile=STRICT, **options))


def _codes(verdict):
    return [finding.code for finding in verdict.findings if finding.severity != "note"]


def _one(evidence, clip, model, **options):
    return earmark.verify(evidence, clip.request, clip.audio, model, **{"profile": STRICT, **options})


# Honest


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("threads", [1, 2])
def test_honest_fp32_passes_in_every_setting(nano, clips, two_threads, attention, batch_size, threads):
    two_threads(threads)
    provider = earmark.load("embedded:whisper-nano", device="cpu", attention=attention)
    chosen = clips[:10]
    evidence = list(record_many(provider, chosen, batch_size=batch_size))
    two_threads(3 - threads)
    verdicts = _verify(chosen, evidence, nano, batch_size=3)
    assert [verdict.outcome for verdict in verdicts] == ["PASS"] * len(chosen)
    assert max(verdict.fingerprint["logprob_l1"] for verdict in verdicts) < 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_honest_16_bit_passes_and_is_replayed_in_float32(clips, dtype, batch_size):
    model = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype)
    chosen = clips[:6]
    evidence = list(record_many(model, chosen, batch_size=batch_size))
    assert evidence[0].claim.precision == {"float16": "fp16", "bfloat16": "bf16"}[dtype]
    verdicts = _verify(chosen, evidence, model)
    assert [verdict.outcome for verdict in verdicts] == ["PASS"] * len(chosen)
    assert max(verdict.fingerprint["logprob_l1"] for verdict in verdicts) > 0
    lean = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype, arithmetic="float32")
    assert lean.in_float32() is lean
    for one, other in zip(verdicts, _verify(chosen, evidence, lean), strict=True):
        assert one.fingerprint["logprob_l1"] == pytest.approx(other.fingerprint["logprob_l1"], abs=1e-5)


def test_sampling_passes_and_its_noise_is_replayed(nano, clips):
    decoding = Decoding(strategy="sample", temperature=0.8, seed=11)
    chosen = [
        Clip(audio=c.audio, request=earmark.request(c.audio, language="en", decoding=decoding)) for c in clips[:6]
    ]
    evidence = list(record_many(nano, chosen, batch_size=4))
    greedy = list(record_many(nano, clips[:6]))
    assert [e.text for e in evidence] != [e.text for e in greedy]
    assert {v.outcome for v in _verify(chosen, evidence, nano, batch_size=1)} == {"PASS"}
    assert [e.text for e in record_many(nano, chosen, batch_size=1)] == [e.text for e in evidence]


def test_other_seed_is_caught(nano, clips):
    asked = Decoding(strategy="sample", temperature=1.0, seed=1)
    clip = Clip(audio=clips[1].audio, request=earmark.request(clips[1].audio, language="en", decoding=asked))
    cheat = dataclasses.replace(
        clip,
        request=msgspec.structs.replace(clip.request, decoding=Decoding(strategy="sample", temperature=1.0, seed=2)),
    )
    outputs = next(record_many(nano, [cheat]))
    claimed = msgspec.structs.replace(
        outputs,
        request=clip.request,
        request_digest=clip.request.digest(),
        claim=msgspec.structs.replace(outputs.claim, decoding=asked),
    )
    assert _codes(_one(claimed, clip, nano)) == ["margin.exceeded"]


BEAM = Decoding(strategy="beam", beams=3)


def test_beam_is_checked_by_running_it_again(nano, clips):
    chosen = [Clip(audio=c.audio, request=earmark.request(c.audio, language="en", decoding=BEAM)) for c in clips[:6]]
    evidence = list(record_many(nano, chosen))
    verdicts = _verify(chosen, evidence, nano)
    assert {v.outcome for v in verdicts} == {"PASS"}
    assert {v.findings[0].code for v in verdicts} == {"rerun.equal"}


def test_cheap_writer_behind_a_claimed_beam_is_caught(nano, early, clips):
    """Under a beam no margin applies, so the search itself is run again."""
    chosen = [Clip(audio=c.audio, request=earmark.request(c.audio, language="en", decoding=BEAM)) for c in clips]
    real, cheap = (list(record_many(model, chosen)) for model in (nano, early))
    worst = [i for i in range(len(clips)) if real[i].text != cheap[i].text]
    assert worst
    rescored = [earmark.score(nano, cheap[i], chosen[i].audio) for i in worst]
    verdicts = _verify([chosen[i] for i in worst], rescored, nano)
    assert {v.outcome for v in verdicts} == {"FAIL"}
    assert {_codes(v)[0] for v in verdicts} == {"rerun.worse"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reexecution_decodes_again(clips, dtype):
    model = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype)
    evidence = list(record_many(model, clips[:4], batch_size=2))
    verdicts = _verify(clips[:4], evidence, model, mode="reexecute")
    assert {v.outcome for v in verdicts} == {"PASS"}
    decided = {"rerun.equal", "rerun.tie", "exact.match"}
    assert all(decided & {f.code for f in v.findings} for v in verdicts)
    with pytest.raises(UsageError, match="known: replay, reexecute"):
        _verify(clips[:1], evidence[:1], model, mode="guess")


def test_language_is_detected_and_bound(nano, clips):
    clip = Clip(audio=clips[0].audio, request=earmark.request(clips[0].audio))
    evidence = next(record_many(nano, [clip]))
    assert _one(evidence, clip, nano).outcome == "PASS"
    trace = _trace(evidence)
    other = next(i for i in nano.languages.values() if i not in trace.prompt)
    prompt = tuple(other if i in nano.languages.values() else i for i in trace.prompt)
    assert _codes(_one(_with_trace(evidence, prompt=prompt), clip, nano)) == ["prompt.mismatch"]


def test_prompt_and_explicit_boundaries(nano, clips):
    audio = clips[0].audio
    cut = Segmentation(boundaries=(len(audio.samples) // 2,))
    asked = earmark.request(audio, language="en", prompt="good morning", segmentation=cut)
    evidence = earmark.record(nano, asked, audio)
    assert [(s.start, s.end) for s in evidence.segments] == [
        (0, cut.boundaries[0]),
        (cut.boundaries[0], len(audio.samples)),
    ]
    verdict = earmark.verify(evidence, asked, audio, nano, profile=STRICT, receipt=evidence.receipt)
    assert (verdict.outcome, verdict.proves) == ("PASS", "committed")


@pytest.mark.parametrize(
    "cut",
    [
        Segmentation(boundaries=(10,)),
        Segmentation(boundaries=(20_000, 10_000)),
        Segmentation(boundaries=(10**9,)),
        Segmentation(max_samples=100),
        Segmentation(rule="at-random"),
    ],
)
def test_segmentation_that_makes_no_sense_is_refused_by_both_sides(nano, clips, honest, cut):
    asked = earmark.request(clips[0].audio, language="en", segmentation=cut)
    with pytest.raises(UsageError):
        earmark.record(nano, asked, clips[0].audio)
    claimed = msgspec.structs.replace(honest[0], request=asked, request_digest=asked.digest())
    verdict = earmark.verify(claimed, asked, clips[0].audio, nano, profile=STRICT)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["request.unusable"])


def test_time_tokens_follow_their_grammar(nano, clips):
    asked = earmark.request(clips[0].audio, language="en", decoding=Decoding(timestamps=True))
    evidence = earmark.record(nano, asked, clips[0].audio)
    first = evidence.segments[0].ids[0]
    assert first > nano.settings.no_timestamps_token_id
    assert "<|" not in evidence.text
    verdict = earmark.verify(evidence, asked, clips[0].audio, nano, profile=STRICT)
    assert verdict.outcome == "PASS"


def test_verdicts_come_in_order_and_do_not_depend_on_the_batch(nano, clips, honest):
    alone = [_one(e, c, nano) for e, c in zip(honest, clips, strict=True)]
    together = _verify(clips, honest, nano, batch_size=5)
    for one, other in zip(alone, together, strict=True):
        assert one.outcome == other.outcome == "PASS"
        assert one.fingerprint["entropy_rmse"] == pytest.approx(other.fingerprint["entropy_rmse"], abs=1e-4)


def test_evidence_of_another_engine_version_is_a_note(nano, clips, honest):
    evidence = msgspec.structs.replace(
        honest[0], claim=msgspec.structs.replace(honest[0].claim, engine="other engine 1.0")
    )
    verdict = _one(evidence, clips[0], nano)
    assert verdict.outcome == "PASS"
    assert [f.code for f in verdict.findings] == ["engine.other"]


# What a PASS is worth


def test_proves_depends_on_request_and_receipt(nano, clips, honest):
    evidence, clip = honest[0], clips[0]
    assert _one(evidence, clip, nano).proves == "reconstructable"
    assert _one(evidence, clip, nano, receipt=evidence.receipt).proves == "committed"
    without = earmark.verify(evidence, None, clip.audio, nano, profile=STRICT, receipt=evidence.receipt)
    assert (without.outcome, without.proves) == ("PASS", "reconstructable")
    strict = _one(evidence, clip, nano, policy=Policy(require_receipt=True))
    assert (strict.outcome, _codes(strict)) == ("INCONCLUSIVE", ["receipt.missing"])


def test_a_batch_receipt_commits_too(nano, clips, honest):
    receipts = batch([evidence.digest() for evidence in honest])
    assert _one(honest[1], clips[1], nano, receipt=receipts[1]).proves == "committed"
    other = msgspec.structs.replace(receipts[1], inclusion=receipts[2].inclusion)
    verdict = _one(honest[1], clips[1], nano, receipt=other)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["receipt.unproven"])
    assert _codes(_one(honest[1], clips[1], nano, receipt=receipts[2])) == ["receipt.mismatch"]


def test_without_a_profile_nothing_passes(nano, clips, honest):
    verdict = _one(honest[0], clips[0], nano, profile=None)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["profile.missing"])
    with pytest.raises(UsageError, match="provisional"):
        _one(honest[0], clips[0], nano, profile="golden")


# Tampering


def _trace(evidence, number=0) -> Trace:
    return msgspec.msgpack.decode(evidence.segments[number].trace, type=Trace)


def _with_segment(evidence, **changes):
    first = msgspec.structs.replace(evidence.segments[0], **changes)
    return msgspec.structs.replace(evidence, segments=(first, *evidence.segments[1:]))


def _with_trace(evidence, **changes):
    trace = msgspec.structs.replace(_trace(evidence), **changes)
    return _with_segment(evidence, trace=msgspec.msgpack.encode(trace))


def _with_claim(evidence, **changes):
    return msgspec.structs.replace(evidence, claim=msgspec.structs.replace(evidence.claim, **changes))


def _floats(data: bytes) -> np.ndarray:
    return np.frombuffer(data, "<f4").copy()


def _spoilt(evidence, field, index, value):
    array = _floats(getattr(_trace(evidence), field))
    array[index] = value
    return _with_trace(evidence, **{field: array.tobytes()})


def _duplicated(evidence):
    ids = np.frombuffer(_trace(evidence).ids, "<i4").copy()
    ids[1] = ids[0]
    return _with_trace(evidence, ids=ids.tobytes())


def _outside(evidence):
    ids = np.frombuffer(_trace(evidence).ids, "<i4").copy()
    ids[0] = 2**30
    return _with_trace(evidence, ids=ids.tobytes())


def _edited_word(evidence):
    ids = list(evidence.segments[0].ids)
    ids[0] = ids[0] - 1 if ids[0] > 1 else ids[0] + 1
    return _with_segment(evidence, ids=tuple(ids))


def _heavy(evidence):
    values = _floats(_trace(evidence).logprobs).reshape(-1, 8)
    values[:] = 0.0
    return _with_trace(evidence, logprobs=values.tobytes(), chosen=np.zeros(len(values), "<f4").tobytes())


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
    "edited segment text": (lambda e: _with_segment(e, text="something else"), "text.mismatch"),
    "shifted segment": (lambda e: _with_segment(e, start=160), "segments.mismatch"),
    "shortened segment": (lambda e: _with_segment(e, end=e.segments[0].end - 1), "segments.mismatch"),
    "segment twice": (lambda e: msgspec.structs.replace(e, segments=e.segments * 2), "segments.mismatch"),
    "no ids": (lambda e: _with_segment(e, ids=()), "token.count"),
    "thousands of ids": (lambda e: _with_segment(e, ids=(5,) * 9000), "token.count"),
    "id beyond the vocabulary": (lambda e: _with_segment(e, ids=(10**6, *e.segments[0].ids[1:])), "token.unknown"),
    "end token dropped": (lambda e: _with_segment(e, ids=e.segments[0].ids[:-1]), "stop.wrong"),
    "end token dropped, stop renamed": (
        lambda e: _with_trace(_with_segment(e, ids=e.segments[0].ids[:-1]), finish="length"),
        "stop.early",
    ),
    "end token inside": (
        lambda e: _with_segment(e, ids=(e.segments[0].ids[-1], *e.segments[0].ids[1:])),
        "stop.wrong",
    ),
    "empty trace": (lambda e: _with_segment(e, trace=b""), "trace.malformed"),
    "zero bytes": (lambda e: _with_segment(e, trace=bytes(258)), "trace.malformed"),
    "short array": (lambda e: _with_trace(e, entropy=b"\0" * 4), "trace.malformed"),
    "k beyond the vocabulary": (lambda e: _with_trace(e, k=1000), "trace.malformed"),
    "k beyond the format": (lambda e: _with_segment(e, trace=msgspec.msgpack.encode({"k": 10**9})), "trace.malformed"),
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
    "no-speech left out": (lambda e: _with_trace(e, no_speech=None), "trace.malformed"),
    "languages left out": (lambda e: _with_trace(e, language=b""), "trace.malformed"),
    "prompt stuffed": (lambda e: _with_trace(e, prompt=(*_trace(e).prompt, 5, 6)), "prompt.mismatch"),
    "all censored": (
        lambda e: _with_trace(e, logprobs=np.full(len(_trace(e).logprobs) // 4, np.nan, "<f4").tobytes()),
        "trace.censored",
    ),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampering_fails_with_its_own_finding(nano, clips, honest, name):
    tamper, code = TAMPERED[name]
    verdict = _one(tamper(honest[0]), clips[0], nano)
    assert (verdict.outcome, _codes(verdict)[:1]) == ("FAIL", [code])


@pytest.mark.parametrize("name", ["other weights", "edited text", "all censored", "end token dropped"])
def test_tampering_after_the_receipt_fails_by_the_receipt_too(nano, clips, honest, name):
    verdict = _one(TAMPERED[name][0](honest[0]), clips[0], nano, receipt=honest[0].receipt)
    assert verdict.outcome == "FAIL"
    assert "receipt.mismatch" in _codes(verdict)


def test_edited_word_is_caught_by_the_replay(nano, clips, honest):
    """Ids, text and values agree with each other, as a careful forger would make them."""
    clip = clips[0]
    edited = _edited_word(honest[0])
    trace = _trace(honest[0])
    ids = np.frombuffer(trace.ids, "<i4").reshape(-1, 8).copy()
    ids[0, 0], wanted = edited.segments[0].ids[0], ids[0, 0]
    ids[0, 1:][ids[0, 1:] == ids[0, 0]] = wanted
    edited = _with_trace(edited, ids=ids.tobytes())
    text = nano.detokenise(edited.segments[0].ids)
    edited = _with_segment(edited, text=text)
    edited = msgspec.structs.replace(edited, text=" ".join(s.text.strip() for s in edited.segments if s.text.strip()))
    verdict = _one(edited, clip, nano)
    assert verdict.outcome == "FAIL"
    assert "margin.exceeded" in _codes(verdict)


def test_evidence_of_another_clip_fails(nano, clips, honest):
    verdict = _one(honest[1], clips[0], nano)
    assert (verdict.outcome, _codes(verdict)) == ("FAIL", ["request.mismatch"])
    alone = earmark.verify(honest[1], None, clips[0].audio, nano, profile=STRICT)
    assert (alone.outcome, _codes(alone)) == ("FAIL", ["audio.mismatch"])


def test_outputs_of_another_clip_fail_in_the_replay(nano, clips, honest):
    """Evidence replayed from other audio, with every digest put right."""
    clip = clips[0]
    source = next(e for e in honest[1:] if e.text != honest[0].text)
    outputs = [earmark.protocols.SegmentOutput(ids=s.ids, text=s.text, trace=s.trace) for s in source.segments]
    forged = assemble(nano, clip, earmark.recording.segment_inputs(clip, nano), outputs)
    assert _one(forged, clip, nano).outcome == "FAIL"


def test_own_audio_against_own_request_is_an_input_fault(nano, clips, honest):
    verdict = earmark.verify(honest[0], clips[0].request, clips[1].audio, nano, profile=STRICT)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["audio.mismatch"])
    assert verdict.findings[0].fault == "input"


def test_lossy_audio_with_another_digest_is_inconclusive(nano, clips, honest):
    audio = dataclasses.replace(clips[1].audio, lossless=False)
    verdict = earmark.verify(honest[0], None, audio, nano, profile=STRICT)
    assert verdict.outcome == "INCONCLUSIVE"


def test_prompt_of_the_evidence_is_not_trusted_without_a_request(nano, clips):
    asked = earmark.request(clips[0].audio, language="en", prompt="the transcript itself")
    evidence = earmark.record(nano, asked, clips[0].audio)
    verdict = earmark.verify(evidence, None, clips[0].audio, nano, profile=STRICT)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["prompt.unbound"])
    assert earmark.verify(evidence, asked, clips[0].audio, nano, profile=STRICT).outcome == "PASS"


def test_too_little_evidence_is_inconclusive_by_the_providers_fault(nano, clips):
    evidence = earmark.record(nano, clips[0].request, clips[0].audio, k=1)
    verdict = _one(evidence, clips[0], nano)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["k.low"])
    assert verdict.findings[0].fault == "provider"
    text = msgspec.structs.replace(evidence, level="text")
    assert "level.low" in _codes(_one(text, clips[0], nano))


def test_a_few_censored_values_are_allowed(nano, clips, honest):
    values = _floats(_trace(honest[0]).logprobs)
    values[7] = np.nan
    assert _one(_with_trace(honest[0], logprobs=values.tobytes()), clips[0], nano).outcome == "PASS"


def test_k_larger_than_the_vocabulary_is_refused(nano, clips):
    with pytest.raises(UsageError, match=r"k = 100000; .* lists between 1 and"):
        earmark.record(nano, clips[0].request, clips[0].audio, k=100_000)


def test_missing_audio_is_an_error_and_no_verdict(nano, clips, honest):
    with pytest.raises(AudioFileNotFoundError):
        earmark.verify(honest[0], clips[0].request, "no-such-file.wav", nano)


def test_recording_other_audio_than_requested_is_refused(nano, clips):
    with pytest.raises(UsageError, match="request is for audio"):
        earmark.record(nano, clips[0].request, clips[1].audio)


def test_a_fault_of_ours_is_inconclusive(nano, clips, honest, monkeypatch):
    def fail(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(nano, "forced_states", fail)
    verdict = _one(honest[0], clips[0], nano)
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["replay.failed"])
    assert verdict.findings[0].fault == "verifier"


def test_a_reference_that_gives_nan_decides_nothing(nano, clips, honest):
    broken = copy.deepcopy(nano.module)
    broken.proj_out.weight.data[0, 0] = float("nan")
    verdict = _one(honest[0], clips[0], nano.with_module(broken))
    assert (verdict.outcome, _codes(verdict)) == ("INCONCLUSIVE", ["replay.failed"])
    assert "not finite" in verdict.findings[0].found


def test_a_case_that_breaks_the_replay_shelters_nobody(nano, clips, honest, monkeypatch):
    real = type(nano).apply_rules
    target = honest[1].segments[0].ids

    def fail(self, logits, prompt, ids, *, timestamps):
        if tuple(ids) == target:
            raise RuntimeError("a bug that one provider found")
        return real(self, logits, prompt, ids, timestamps=timestamps)

    monkeypatch.setattr(type(nano), "apply_rules", fail)
    assert [v.outcome for v in _verify(clips[:3], honest[:3], nano)] == ["PASS", "INCONCLUSIVE", "PASS"]


def test_a_reference_that_cannot_be_made_ready_does_not_crash(nano, clips, monkeypatch):
    """Not even where no case is left to replay."""

    def fail(_):
        raise MemoryError("no room for the float32 copy")

    monkeypatch.setattr(type(nano), "in_float32", fail)
    assert [v.outcome for v in _verify(clips[:1], [b"{}"], nano)] == ["FAIL"]


def test_one_bad_case_does_not_touch_its_neighbours(nano, clips, honest):
    evidence = [honest[0], b"{not json", honest[2], _with_segment(honest[3], trace=b"")]
    verdicts = _verify(clips[:4], evidence, nano)
    assert [v.outcome for v in verdicts] == ["PASS", "FAIL", "PASS", "FAIL"]
    assert _codes(verdicts[1]) == ["record.malformed"]


def test_scoring_writes_the_same_numbers_as_recording(nano, clips, honest):
    scored = earmark.score(nano, honest[0], clips[0].audio)
    assert scored.segments[0].ids == honest[0].segments[0].ids
    mine, theirs = (_floats(_trace(e).logprobs) for e in (scored, honest[0]))
    assert np.abs(mine - theirs).max() < 1e-3


def test_another_checkpoint_is_caught(nano, early, clips, honest):
    evidence = list(record_many(early, clips[:6]))
    verdicts = _verify(clips[:6], evidence, nano)
    assert {v.outcome for v in verdicts} == {"FAIL"}
    assert _codes(verdicts[0]) == ["weights.mismatch"]
    lying = [msgspec.structs.replace(e, claim=honest[0].claim) for e in evidence]
    assert {v.outcome for v in _verify(clips[:6], lying, nano)} == {"FAIL"}
