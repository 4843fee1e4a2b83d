"""Nearly silent audio: features that are normalised band by band magnify rounding there, so nobody is judged by it."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import numpy as np
import pytest
from made_profiles import calibrated

import earmark
from earmark import Case, audio, replaying
from earmark.audit import score_of
from earmark.budget import Budget
from earmark.models._bands import EPSILON, least_deviation
from earmark.records.evidence import join_texts
from earmark.records.request import Segmentation
from earmark.scenarios import scenario
from earmark.scenarios.honest import honest


def _quiet(clip, peak):
    """Return a clip of that peak, in steps of the 16-bit scale."""
    samples = clip.audio.samples.astype(np.float64)
    quiet = audio.from_samples(np.round(samples * peak / np.abs(samples).max()).astype(np.int16), 16_000)
    return earmark.Clip(audio=quiet, request=earmark.request(quiet, nonce=clip.request.nonce))


def _verify(model, clips, evidence, **options):
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    return list(earmark.verify_many(cases, model, **{"profile": "provisional", **options}))


@pytest.fixture(scope="module", params=["parakeet-ctc-nano", "parakeet-tdt-nano"])
def model(request):
    return earmark.load(f"embedded:{request.param}", device="cpu")


def test_the_deviation_before_normalisation_is_found_again():
    rng = np.random.default_rng(0)
    raw = rng.standard_normal((200, 3)) * [2.0, 0.03, 1e-4] - 12.0
    deviation = raw.std(axis=0, ddof=1)
    normalised = (raw - raw.mean(axis=0)) / (deviation + EPSILON)
    assert least_deviation(normalised) == pytest.approx(deviation.min(), rel=1e-9)
    assert least_deviation(normalised.astype(np.float32)) == pytest.approx(deviation.min(), rel=1e-4)
    assert least_deviation(np.zeros((9, 2))) == 0
    assert least_deviation(np.zeros((1, 2))) == np.inf


def test_an_honest_provider_is_not_accused_over_silence(model, clips):
    """Alone and in a batch, its numbers differ by more than bounds allow; so would anybody's."""
    faint = [_quiet(clip, 3) for clip in sorted(clips, key=lambda clip: len(clip.audio.samples))[:4]]
    for verdict in _verify(model, faint, honest(batch_size=1).record(model, faint)):
        assert verdict.outcome == "INCONCLUSIVE"
        assert [(f.code, f.fault) for f in verdict.findings] == [("audio.faint", "input")]
        assert verdict.fingerprint is None


def test_it_shelters_nothing_else(model, clips):
    """Loud clips in the same call are judged, quiet but sufficient ones too, and broken rules FAIL on silence."""
    short = sorted(clips, key=lambda clip: len(clip.audio.samples))[:3]
    asked = [_quiet(short[0], 3), _quiet(short[1], 3_000), _quiet(short[2], 30_000)]
    cheap = scenario("quantise", bits=4, group=64).record(model, asked)
    real = list(earmark.record_many(model, asked))
    assert [verdict.outcome for verdict in _verify(model, asked, real)] == ["INCONCLUSIVE", "PASS", "PASS"]
    assert [verdict.outcome for verdict in _verify(model, asked, cheap)] == ["INCONCLUSIVE", "FAIL", "FAIL"]
    edited = dataclasses.replace(asked[0], request=earmark.request(asked[0].audio, nonce="f" * 32))
    assert _verify(model, [edited], real[:1])[0].outcome == "FAIL", "a request of another nonce"


def test_the_same_bits_pass_without_statistics(model, clips):
    faint = [_quiet(clips[0], 3)]
    evidence = list(earmark.record_many(model, faint))
    assert _verify(model, faint, evidence, mode="reexecute")[0].outcome == "PASS"


def test_models_that_cut_the_logarithm_are_judged_on_silence_too(nano, clips):
    faint = [_quiet(clip, 3) for clip in clips[:2]]
    evidence = honest(batch_size=1).record(nano, faint)
    for verdict in _verify(nano, faint, evidence):
        assert {finding.code for finding in verdict.findings} <= {"positions.few"}
        assert verdict.fingerprint["logprob_l1"] < 1e-5


def test_who_cuts_the_audio_answers_for_it(model, clips):
    """A request that came with the evidence may cut out a pause; that is the provider's own choice, and no shelter."""
    speech = min(clips, key=lambda clip: len(clip.audio.samples)).audio.samples
    joined = audio.from_samples(np.concatenate([speech, np.zeros(8_000, np.int16), speech]), 16_000)
    cuts = Segmentation(boundaries=(len(speech), len(speech) + 8_000))
    clip = earmark.Clip(audio=joined, request=earmark.request(joined, nonce="0" * 32, segmentation=cuts))
    (evidence,) = scenario("quantise", bits=4, group=64).record(model, [clip])
    faults = {}
    for name, request in (("own", clip.request), ("provider's", None)):
        case = Case(evidence=evidence, audio=joined, request=request)
        (verdict,) = earmark.verify_many([case], model, profile="provisional")
        assert verdict.outcome == "FAIL", "a pause shelters nobody"
        faults[name] = [(f.code, f.fault) for f in verdict.findings if f.code == "audio.faint"]
    assert faults == {"own": [("audio.faint", "input")], "provider's": [("audio.faint", "provider")]}


def test_silence_is_no_fault_of_a_provider_that_cuts_by_the_rule(model, clips):
    """The audio is the verifier's own, and the usual rule cuts it; the twin cuts it otherwise."""
    quiet = _quiet(clips[0], 3)
    for cuts, fault, score in (
        (Segmentation(), "input", None),
        (Segmentation(max_samples=16_000), "provider", math.inf),
    ):
        asked = earmark.request(quiet.audio, nonce="0" * 32, segmentation=cuts)
        (evidence,) = honest(batch_size=1).record(model, [dataclasses.replace(quiet, request=asked)])
        case, profile = Case(evidence=evidence, audio=quiet.audio), calibrated(model)
        (verdict,) = earmark.verify_many([case], model, profile=profile)
        assert [(f.code, f.fault) for f in verdict.findings] == [("audio.faint", fault)]
        assert score_of(verdict, profile) == score


def _with_pause(clips, pause):
    """Return two clips with a pause between them, in segments of their own."""
    first, last = sorted((clip.audio.samples for clip in clips), key=len)[:2]
    joined = audio.from_samples(np.concatenate([first, pause, last]), 16_000)
    cuts = Segmentation(boundaries=(len(first), len(first) + len(pause)))
    return earmark.Clip(audio=joined, request=earmark.request(joined, nonce="0" * 32, segmentation=cuts))


def _spliced(loud, pause):
    """Return evidence of three segments, the second from elsewhere."""
    segments = (loud.segments[0], pause.segments[1], loud.segments[2])
    return msgspec.structs.replace(loud, segments=segments, text=join_texts([each.text for each in segments]))


def test_a_pause_does_not_take_the_rest_of_a_clip_out(model, clips):
    """Where the reference would have chosen the same tokens there, the other segments are judged, and by them alone."""
    clip = _with_pause(clips, np.zeros(24_000, np.int16))
    evidence = [honest(batch_size=1).record(model, [clip])[0], scenario("quantise", bits=8).record(model, [clip])[0]]
    passed, failed = _verify(model, [clip] * 2, evidence, batch_size=3)
    assert [(f.code, f.severity, f.fault) for f in passed.findings] == [("audio.faint", "note", "input")]
    assert (passed.outcome, failed.outcome) == ("PASS", "FAIL")
    assert "1 of 3 segments" in passed.findings[0].found
    assert passed.fingerprint["logprob_l1"] < 1e-4
    profile = calibrated(model)
    (judged,) = _verify(model, [clip], evidence[:1], profile=profile)
    assert judged.outcome == "PASS"
    assert score_of(judged, profile) < 2
    (again,) = _verify(model, [clip], evidence[:1], mode="reexecute")
    assert again.outcome == "PASS", "what a second recording notes is no doubt"


def _open_case(model, clips):
    """Return a clip whose pause holds tokens that the reference would not write, and honest and cheap evidence."""
    for pause in clips[5:]:
        clip = _with_pause(clips, _quiet(pause, 3).audio.samples)
        cheat = scenario("quantise", bits=4, group=64)
        real, cheap = (provider.record(model, [clip])[0] for provider in (honest(), cheat))
        if real.segments[1].ids == cheap.segments[1].ids:
            continue
        spliced = _spliced(real, cheap)
        (verdict,) = _verify(model, [clip], [spliced])
        assert verdict.outcome != "PASS"
        if verdict.outcome == "INCONCLUSIVE":
            return clip, spliced, cheap
    raise AssertionError("no pause is heard otherwise by four-bit weights")


def test_a_fault_elsewhere_leaves_no_half_of_the_statistics(model, clips, monkeypatch):
    """A clip that stays open is not judged without its recipes because a neighbour's replay broke."""
    clip, spliced, _ = _open_case(model, clips)
    evidence = [spliced, *honest().record(model, clips[:1])]
    match = replaying._match
    monkeypatch.setattr(replaying, "_match", lambda works, *rest: 1 / 0 if len(works) > 1 else match(works, *rest))
    open_, neighbour = _verify(model, [clip, clips[0]], evidence)
    assert neighbour.outcome == "PASS"
    assert (open_.outcome, open_.fingerprint) == ("INCONCLUSIVE", None)


def test_words_that_the_reference_would_not_write_in_a_pause_are_no_pass(model, clips):
    """Nor do they shelter the rest, in a verdict or in an audit."""
    clip, spliced, cheap = _open_case(model, clips)
    profile, evidence = calibrated(model), [spliced, cheap]
    open_, failed = _verify(model, [clip] * 2, evidence)
    assert open_.fault == "input"
    assert [f.code for f in open_.findings] == ["audio.faint"]
    assert failed.outcome == "FAIL"
    scores = [score_of(verdict, profile) for verdict in _verify(model, [clip] * 2, evidence, profile=profile)]
    assert scores[0] < 2 < scores[1], "whether a clip counts depends on its audio alone"


def test_words_that_were_made_up_for_a_pause_fail(model, clips):
    """Rounding moves no token by three nats."""
    quiet = _quiet(clips[5], 3).audio.samples
    clip, talk = _with_pause(clips, quiet), _with_pause(clips, clips[5].audio.samples)
    evidence = _spliced(*(honest().record(model, [each])[0] for each in (clip, talk)))
    (verdict,) = _verify(model, [clip], [evidence])
    assert verdict.outcome == "FAIL"
    assert [f.code for f in verdict.findings] == ["margin.exceeded"]


def test_a_look_at_silence_accuses_nobody(model, clips):
    """What a budget leaves out is looked at only where it can tell something."""
    faint = [_quiet(clip, 3) for clip in clips[:6]]
    evidence = earmark.record_many(model, faint, level="sketch", batch_size=6)
    budget = Budget(share=1e-9, depth=9, secret=bytes(16))
    for verdict in _verify(model, faint, evidence, budget=budget, batch_size=1):
        assert (verdict.outcome, verdict.fault) == ("INCONCLUSIVE", "verifier")
