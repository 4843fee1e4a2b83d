"""What the tests of verification share."""

from __future__ import annotations

import msgspec
import numpy as np

import earmark
from earmark import Case
from earmark.testing._forgeries import with_segment
from earmark.verifiers._autoregressive_trace import Trace

PROFILE = "provisional"


def verify_all(clips, evidence, model, **options):
    """Return the verdicts of evidence for clips."""
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    return list(earmark.verify_many(cases, model, profile=PROFILE, **options))


def verify_one(evidence, clip, model, **options):
    """Return the verdict of evidence for one clip."""
    return earmark.verify(evidence, clip.request, clip.audio, model, **{"profile": PROFILE, **options})


def codes(verdict):
    """Return the codes of all findings that are no notes."""
    return [finding.code for finding in verdict.findings if finding.severity != "note"]


def open_trace(evidence) -> Trace:
    """Return the decoded trace of the first segment."""
    return msgspec.msgpack.decode(evidence.segments[0].trace, type=Trace)


def with_trace(evidence, **changes):
    """Return the evidence with fields of its first trace replaced."""
    return with_segment(
        evidence, trace=msgspec.msgpack.encode(msgspec.structs.replace(open_trace(evidence), **changes))
    )


def floats(data: bytes) -> np.ndarray:
    """Return the numbers of an array of a trace."""
    return np.frombuffer(data, "<f4").copy()
