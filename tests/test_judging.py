"""A profile judges only evidence that was recorded as its honest clips were."""

from __future__ import annotations

import pytest
from made_profiles import calibrated

import earmark
from earmark.limits import DEFAULT_K


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
        ({"k": 30}, {}, "profile.k", "verifier"),
        ({"level": "compact"}, {}, "profile.level", "verifier"),
        ({"level": "sketch"}, {}, "profile.level", "verifier"),  # nobody would look at the hidden states
    ],
)
def test_other_evidence_is_not_judged(nano, clips, evidence, header, code, fault):
    """Neither passed nor failed; who hands in less than the profile needs is at fault."""
    verdict = _verdict(nano, clips[0], calibrated(nano, **header), **evidence)
    assert verdict.outcome == "INCONCLUSIVE"
    assert (code, fault) in [(finding.code, finding.fault) for finding in verdict.findings]
