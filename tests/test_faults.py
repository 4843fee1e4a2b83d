"""Faults: whose they are, and that none of the verifier's or the customer's is held against the provider."""

from __future__ import annotations

import copy
import dataclasses

import msgspec
import numpy as np
import pytest
from verify_cases import PROFILE, codes, floats, open_trace, verify_all, verify_one, with_trace

import earmark
from earmark.errors import AudioFileNotFoundError, UsageError
from earmark.testing._forgeries import with_segment


def test_own_audio_against_own_request_is_an_input_fault(nano, clips, honest):
    verdict = earmark.verify(honest[0], clips[0].request, clips[1].audio, nano, profile=PROFILE)
    assert (verdict.outcome, codes(verdict)) == ("INCONCLUSIVE", ["audio.mismatch"])
    assert verdict.findings[0].fault == "input"


def test_lossy_audio_with_another_digest_is_inconclusive(nano, clips, honest):
    audio = dataclasses.replace(clips[1].audio, lossless=False)
    verdict = earmark.verify(honest[0], None, audio, nano, profile=PROFILE)
    assert verdict.outcome == "INCONCLUSIVE"


def test_prompt_of_the_evidence_is_not_trusted_without_a_request(nano, clips):
    asked = earmark.request(clips[0].audio, language="en", prompt="the transcript itself")
    evidence = earmark.record(nano, asked, clips[0].audio)
    verdict = earmark.verify(evidence, None, clips[0].audio, nano, profile=PROFILE)
    assert (verdict.outcome, codes(verdict)) == ("INCONCLUSIVE", ["prompt.unbound"])
    assert earmark.verify(evidence, asked, clips[0].audio, nano, profile=PROFILE).outcome == "PASS"


def test_too_little_evidence_is_inconclusive_by_the_providers_fault(nano, clips):
    evidence = earmark.record(nano, clips[0].request, clips[0].audio, k=1)
    verdict = verify_one(evidence, clips[0], nano)
    assert (verdict.outcome, codes(verdict)) == ("INCONCLUSIVE", ["k.low"])
    assert verdict.findings[0].fault == "provider"
    text = msgspec.structs.replace(evidence, level="text")
    assert "level.low" in codes(verify_one(text, clips[0], nano))


def test_a_few_censored_values_are_allowed(nano, clips, honest):
    values = floats(open_trace(honest[0]).logprobs)
    values[7] = np.nan
    assert verify_one(with_trace(honest[0], logprobs=values.tobytes()), clips[0], nano).outcome == "PASS"


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
    verdict = verify_one(honest[0], clips[0], nano)
    assert (verdict.outcome, codes(verdict)) == ("INCONCLUSIVE", ["replay.failed"])
    assert verdict.findings[0].fault == "verifier"


def test_a_reference_that_gives_nan_decides_nothing(nano, clips, honest):
    broken = copy.deepcopy(nano.module)
    broken.proj_out.weight.data[0, 0] = float("nan")
    verdict = verify_one(honest[0], clips[0], nano.with_module(broken))
    assert (verdict.outcome, codes(verdict)) == ("INCONCLUSIVE", ["replay.failed"])
    assert "not finite" in verdict.findings[0].found


def test_a_case_that_breaks_the_replay_shelters_nobody(nano, clips, honest, monkeypatch):
    real = type(nano).apply_rules
    target = honest[1].segments[0].ids

    def fail(self, logits, prompt, ids, *, timestamps):
        if tuple(ids) == target:
            raise RuntimeError("a bug that one provider found")
        return real(self, logits, prompt, ids, timestamps=timestamps)

    monkeypatch.setattr(type(nano), "apply_rules", fail)
    assert [v.outcome for v in verify_all(clips[:3], honest[:3], nano)] == ["PASS", "INCONCLUSIVE", "PASS"]


def test_a_reference_that_cannot_be_made_ready_does_not_crash(nano, clips, monkeypatch):
    """Not even where no case is left to replay."""

    def fail(_):
        raise MemoryError("no room for the float32 copy")

    monkeypatch.setattr(type(nano), "in_float32", fail)
    assert [v.outcome for v in verify_all(clips[:1], [b"{}"], nano)] == ["FAIL"]


def test_one_bad_case_does_not_touch_its_neighbours(nano, clips, honest):
    evidence = [honest[0], b"{not json", honest[2], with_segment(honest[3], trace=b"")]
    verdicts = verify_all(clips[:4], evidence, nano)
    assert [v.outcome for v in verdicts] == ["PASS", "FAIL", "PASS", "FAIL"]
    assert codes(verdicts[1]) == ["record.malformed"]
