"""Verification: honest evidence passes in every setting, and what a PASS is worth."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
import torch
from verify_cases import PROFILE, codes, floats, open_trace, verify_all, verify_one, with_trace

import earmark
from earmark import Clip, Policy, record_many
from earmark.errors import UsageError
from earmark.records.receipt import batch
from earmark.records.request import Decoding, Segmentation

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
    verdicts = verify_all(chosen, evidence, nano, batch_size=3)
    assert [verdict.outcome for verdict in verdicts] == ["PASS"] * len(chosen)
    assert max(verdict.fingerprint["logprob_l1"] for verdict in verdicts) < 1e-4


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_honest_16_bit_passes_and_is_replayed_in_float32(clips, dtype, batch_size):
    model = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype)
    chosen = clips[:6]
    evidence = list(record_many(model, chosen, batch_size=batch_size))
    assert evidence[0].claim.precision == {"float16": "fp16", "bfloat16": "bf16"}[dtype]
    verdicts = verify_all(chosen, evidence, model)
    assert [verdict.outcome for verdict in verdicts] == ["PASS"] * len(chosen)
    assert max(verdict.fingerprint["logprob_l1"] for verdict in verdicts) > 0
    lean = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype, arithmetic="float32")
    assert lean.in_float32() is lean
    for one, other in zip(verdicts, verify_all(chosen, evidence, lean), strict=True):
        assert one.fingerprint["logprob_l1"] == pytest.approx(other.fingerprint["logprob_l1"], abs=1e-5)


def test_sampling_passes_and_its_noise_is_replayed(nano, clips):
    decoding = Decoding(strategy="sample", temperature=0.8, seed=11)
    chosen = [
        Clip(audio=c.audio, request=earmark.request(c.audio, language="en", decoding=decoding)) for c in clips[:6]
    ]
    evidence = list(record_many(nano, chosen, batch_size=4))
    greedy = list(record_many(nano, clips[:6]))
    assert [e.text for e in evidence] != [e.text for e in greedy]
    assert {v.outcome for v in verify_all(chosen, evidence, nano, batch_size=1)} == {"PASS"}
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
    assert codes(verify_one(claimed, clip, nano)) == ["margin.exceeded"]


BEAM = Decoding(strategy="beam", beams=3)


def test_beam_is_checked_by_running_it_again(nano, clips):
    chosen = [Clip(audio=c.audio, request=earmark.request(c.audio, language="en", decoding=BEAM)) for c in clips[:6]]
    evidence = list(record_many(nano, chosen))
    verdicts = verify_all(chosen, evidence, nano)
    assert {v.outcome for v in verdicts} == {"PASS"}
    assert {v.findings[0].code for v in verdicts} == {"rerun.equal"}


def test_cheap_writer_behind_a_claimed_beam_is_caught(nano, early, clips):
    """Under a beam no margin applies, so the search itself is run again."""
    chosen = [Clip(audio=c.audio, request=earmark.request(c.audio, language="en", decoding=BEAM)) for c in clips]
    real, cheap = (list(record_many(model, chosen)) for model in (nano, early))
    worst = [i for i in range(len(clips)) if real[i].text != cheap[i].text]
    assert worst
    rescored = [earmark.score(nano, cheap[i], chosen[i].audio) for i in worst]
    verdicts = verify_all([chosen[i] for i in worst], rescored, nano)
    assert {v.outcome for v in verdicts} == {"FAIL"}
    assert {codes(v)[0] for v in verdicts} == {"rerun.worse"}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reexecution_decodes_again(clips, dtype):
    model = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype)
    evidence = list(record_many(model, clips[:4], batch_size=2))
    verdicts = verify_all(clips[:4], evidence, model, mode="reexecute")
    assert {v.outcome for v in verdicts} == {"PASS"}
    decided = {"rerun.equal", "rerun.tie", "exact.match"}
    assert all(decided & {f.code for f in v.findings} for v in verdicts)
    with pytest.raises(UsageError, match="known: replay, reexecute"):
        verify_all(clips[:1], evidence[:1], model, mode="guess")


def test_language_is_detected_and_bound(nano, clips):
    clip = Clip(audio=clips[0].audio, request=earmark.request(clips[0].audio))
    evidence = next(record_many(nano, [clip]))
    assert verify_one(evidence, clip, nano).outcome == "PASS"
    trace = open_trace(evidence)
    other = next(i for i in nano.languages.values() if i not in trace.prompt)
    prompt = tuple(other if i in nano.languages.values() else i for i in trace.prompt)
    assert codes(verify_one(with_trace(evidence, prompt=prompt), clip, nano)) == ["prompt.mismatch"]


def test_prompt_and_explicit_boundaries(nano, clips):
    audio = clips[0].audio
    cut = Segmentation(boundaries=(len(audio.samples) // 2,))
    asked = earmark.request(audio, language="en", prompt="good morning", segmentation=cut)
    evidence = earmark.record(nano, asked, audio)
    assert [(s.start, s.end) for s in evidence.segments] == [
        (0, cut.boundaries[0]),
        (cut.boundaries[0], len(audio.samples)),
    ]
    verdict = earmark.verify(evidence, asked, audio, nano, profile=PROFILE, receipt=evidence.receipt)
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
    verdict = earmark.verify(claimed, asked, clips[0].audio, nano, profile=PROFILE)
    assert (verdict.outcome, codes(verdict)) == ("INCONCLUSIVE", ["request.unusable"])


def test_time_tokens_follow_their_grammar(nano, clips):
    asked = earmark.request(clips[0].audio, language="en", decoding=Decoding(timestamps=True))
    evidence = earmark.record(nano, asked, clips[0].audio)
    first = evidence.segments[0].ids[0]
    assert first > nano.settings.no_timestamps_token_id
    assert "<|" not in evidence.text
    verdict = earmark.verify(evidence, asked, clips[0].audio, nano, profile=PROFILE)
    assert verdict.outcome == "PASS"


def test_verdicts_come_in_order_and_do_not_depend_on_the_batch(nano, clips, honest):
    alone = [verify_one(e, c, nano) for e, c in zip(honest, clips, strict=True)]
    together = verify_all(clips, honest, nano, batch_size=5)
    for one, other in zip(alone, together, strict=True):
        assert one.outcome == other.outcome == "PASS"
        assert one.fingerprint["entropy_rmse"] == pytest.approx(other.fingerprint["entropy_rmse"], abs=1e-4)


def test_evidence_of_another_engine_version_is_a_note(nano, clips, honest):
    evidence = msgspec.structs.replace(
        honest[0], claim=msgspec.structs.replace(honest[0].claim, engine="other engine 1.0")
    )
    verdict = verify_one(evidence, clips[0], nano)
    assert verdict.outcome == "PASS"
    assert [f.code for f in verdict.findings] == ["engine.other"]


# What a PASS is worth


def test_proves_depends_on_request_and_receipt(nano, clips, honest):
    evidence, clip = honest[0], clips[0]
    assert verify_one(evidence, clip, nano).proves == "reconstructable"
    assert verify_one(evidence, clip, nano, receipt=evidence.receipt).proves == "committed"
    without = earmark.verify(evidence, None, clip.audio, nano, profile=PROFILE, receipt=evidence.receipt)
    assert (without.outcome, without.proves) == ("PASS", "reconstructable")
    strict = verify_one(evidence, clip, nano, policy=Policy(require_receipt=True))
    assert (strict.outcome, codes(strict)) == ("INCONCLUSIVE", ["receipt.missing"])


def test_a_batch_receipt_commits_too(nano, clips, honest):
    receipts = batch([evidence.digest() for evidence in honest])
    assert verify_one(honest[1], clips[1], nano, receipt=receipts[1]).proves == "committed"
    other = msgspec.structs.replace(receipts[1], inclusion=receipts[2].inclusion)
    verdict = verify_one(honest[1], clips[1], nano, receipt=other)
    assert (verdict.outcome, codes(verdict)) == ("INCONCLUSIVE", ["receipt.unproven"])
    assert codes(verify_one(honest[1], clips[1], nano, receipt=receipts[2])) == ["receipt.mismatch"]


def test_without_a_profile_nothing_passes(nano, clips, honest):
    verdict = verify_one(honest[0], clips[0], nano, profile="rules")
    assert (verdict.outcome, codes(verdict)) == ("INCONCLUSIVE", ["profile.missing"])
    with pytest.raises(UsageError, match="provisional"):
        verify_one(honest[0], clips[0], nano, profile="golden")


def test_scoring_writes_the_same_numbers_as_recording(nano, clips, honest):
    scored = earmark.score(nano, honest[0], clips[0].audio)
    assert scored.segments[0].ids == honest[0].segments[0].ids
    mine, theirs = (floats(open_trace(e).logprobs) for e in (scored, honest[0]))
    assert np.abs(mine - theirs).max() < 1e-3


def test_another_checkpoint_is_caught(nano, early, clips, honest):
    evidence = list(record_many(early, clips[:6]))
    verdicts = verify_all(clips[:6], evidence, nano)
    assert {v.outcome for v in verdicts} == {"FAIL"}
    assert codes(verdicts[0]) == ["weights.mismatch"]
    lying = [msgspec.structs.replace(e, claim=honest[0].claim) for e in evidence]
    assert {v.outcome for v in verify_all(clips[:6], lying, nano)} == {"FAIL"}
