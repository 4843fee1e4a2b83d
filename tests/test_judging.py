"""A profile judges only evidence that was recorded as its honest clips were."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import pytest
from made_profiles import calibrated

import earmark
from earmark import Policy, audit
from earmark.judging import Judge
from earmark.limits import DEFAULT_K
from earmark.records.request import Decoding
from earmark.scenarios import scenario


def _verdict(reference, clip, profile, *, k=DEFAULT_K, level="scores"):
    own = earmark.record(reference, clip.request, clip.audio, k=k, level=level)
    policy = earmark.Policy(accept_compact=True)
    return earmark.verify(own, clip.request, clip.audio, reference, profile=profile, policy=policy)


@pytest.mark.parametrize(
    ("evidence", "header"),
    [({}, {}), ({"level": "sketch"}, {"level": "sketch"}), ({}, {"level": "sketch"}), ({"k": 5}, {"k": 5})],
)
def test_evidence_as_it_was_calibrated_passes(nano, clips, evidence, header):
    """Where a profile of sketches judges scores, S is the largest of fewer channels, and no larger."""
    assert _verdict(nano, clips[0], calibrated(nano, **header), **evidence).outcome == "PASS"


@pytest.mark.parametrize(
    ("evidence", "header", "code", "fault"),
    [
        ({"k": 5}, {}, "profile.k", "provider"),  # fewer listed tokens make every distance smaller
        ({"k": 30}, {}, "profile.k", "provider"),  # more of them make it larger: nobody may choose not to be judged
        ({"level": "compact"}, {}, "profile.level", "provider"),
    ],
)
def test_other_evidence_is_not_judged(nano, clips, evidence, header, code, fault):
    """Neither passed nor failed, and the provider's fault: level and k are its own choice (THREATS A31)."""
    verdict = _verdict(nano, clips[0], calibrated(nano, **header), **evidence)
    assert verdict.outcome == "INCONCLUSIVE"
    assert (code, fault) in [(finding.code, finding.fault) for finding in verdict.findings]


def test_a_sketch_is_judged_by_its_scores_where_the_profile_has_no_more(nano, clips):
    """More than was asked is no shelter: an honest sketch passes with a note, and a cheat's FAILs."""
    clip, profile = clips[0], calibrated(nano)
    honest = _verdict(nano, clip, profile, level="sketch")
    assert honest.outcome == "PASS"
    assert ("profile.level", "note") in [(finding.code, finding.severity) for finding in honest.findings]
    cheat = scenario("quantise", bits=4, group=64).record(nano, [clip], level="sketch")[0]
    assert earmark.verify(cheat, clip.request, clip.audio, nano, profile=profile).outcome == "FAIL"


def test_a_decoding_of_the_providers_own_is_its_fault(nano, clips):
    """Where the customer asked for it, it is the verifier's, who brought another profile."""
    beam = msgspec.structs.replace(clips[0].request, decoding=Decoding(strategy="beam", beams=2))
    own, profile = earmark.record(nano, beam, clips[0].audio), calibrated(nano)
    for request, fault in ((beam, "verifier"), (None, "provider")):
        verdict = earmark.verify(own, request, clips[0].audio, nano, profile=profile)
        assert ("profile.decoding", fault) in [(finding.code, finding.fault) for finding in verdict.findings]
        found = earmark.verify(own, request, clips[0].audio, nano, attribution="never")
        assert ("profile.missing", fault) in [(finding.code, finding.fault) for finding in found.findings]


def test_a_model_without_any_profile_is_nobodys_choice(nano, clips, honest, monkeypatch):
    monkeypatch.setattr("earmark.judging.find_profile", lambda *_: None)
    verdict = earmark.verify(honest[0], None, clips[0].audio, nano, attribution="never")
    assert [(finding.code, finding.fault) for finding in verdict.findings] == [("profile.missing", "verifier")]


def test_nobody_is_accused_at_a_length_for_which_nothing_is_promised(nano, clips):
    """A profile of clips of 60 s: what it would FAIL stays open and uncounted, unless it exceeds a documented bound."""
    clip = clips[0]
    far = calibrated(nano, seconds=(60.0, 90.0))
    honest = _verdict(nano, clip, far)
    assert honest.outcome == "PASS"
    assert audit.score_of(honest, far) is None, "a clip counts or not whatever it holds"
    strict = msgspec.structs.replace(far.header, median=(-40.0,) * len(far.header.channels))
    accused = dataclasses.replace(far, header=strict)
    verdict = _verdict(nano, clip, accused)
    assert verdict.outcome == "INCONCLUSIVE"
    assert ("statistics.length", "input") in [(finding.code, finding.fault) for finding in verdict.findings]
    assert audit.score_of(verdict, accused) is None
    near = dataclasses.replace(accused, header=msgspec.structs.replace(strict, seconds=(0.1, 90.0)))
    assert _verdict(nano, clip, near).outcome == "FAIL", "the control: at a length that was calibrated"
    cheat = scenario("quantise", bits=4, group=64).record(nano, [clip])[0]
    found = earmark.verify(cheat, clip.request, clip.audio, nano, profile=far)
    assert found.outcome == "FAIL", "by documented bounds"
    assert audit.score_of(found, far) is None, "counted for being bad alone, it would count too often"
    lame = msgspec.structs.replace(cheat, text="else")
    assert audit.score_of(earmark.verify(lame, clip.request, clip.audio, nano, profile=far), far) == math.inf
    judge = Judge(far, nano, Policy())
    told = judge.length(strategy="greedy", level="scores", seconds=clip.audio.seconds)
    assert [finding.code for finding in told] == ["profile.length"], "also where the bits are equal"
    assert not judge.length(strategy="greedy", level="scores", seconds=75.0)


def test_nobody_is_accused_by_fewer_positions_than_any_calibrated_clip(nano, clips):
    """Without slack only: a slack is there for what was not calibrated."""
    plain = calibrated(nano, positions=999)
    strict = msgspec.structs.replace(plain.header, median=(-40.0,) * len(plain.header.channels))
    enough = msgspec.structs.replace(strict, positions=3)
    open_, failed = (_verdict(nano, clips[0], dataclasses.replace(plain, header=own)) for own in (strict, enough))
    assert [(finding.code, finding.fault) for finding in open_.findings] == [("statistics.few", "input")]
    assert (open_.outcome, failed.outcome) == ("INCONCLUSIVE", "FAIL")
    assert _verdict(nano, clips[0], plain).outcome == "PASS", "it may PASS"
