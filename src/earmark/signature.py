"""The calibration signature of a provider against the reference, over clips whose transcripts are known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from earmark.errors import UsageError
from earmark.fingerprint.reliability import Reliability, correct_words, reliability, reliability_shifts
from earmark.loading import family_of
from earmark.protocols import ConfidenceFamily, Model
from earmark.recording import Clip, segment_inputs
from earmark.records.evidence import Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """How sure provider and reference are of the provider's words, against how right these are.

    Attributes:
        provider: Signature of the confidences in the evidence.
        reference: Signature of the reference's, forced to the same output.
        shifts: Statistics of the difference; each grows with suspicion.
        skipped: Clips left out, because their tokens could not be matched to the words of their text.
    """

    provider: Reliability
    reference: Reliability
    shifts: Mapping[str, float]
    skipped: int


def calibration_signature(
    reference: Model,
    clips: Sequence[Clip],
    evidence: Sequence[Evidence],
    transcripts: Sequence[str],
    *,
    batch_size: int = 8,
) -> Signature:
    """Compare how well provider and reference are calibrated on transcribed clips (any family).

    The evidence should have passed the rules (`earmark.verify`); here it is only read.

    Args:
        reference: The verifier's own copy of the claimed model.
        clips: Audio and requests.
        evidence: What the provider says about each clip.
        transcripts: What was spoken in each clip; case and punctuation do not count.
        batch_size: Segments at once.

    Returns:
        The two signatures and their differences.

    Raises:
        UsageError: There are not as many clips, evidence and transcripts.
        RecordError: Evidence is not well formed.
    """
    if not len(clips) == len(evidence) == len(transcripts):
        raise UsageError(f"{len(clips)} clips, {len(evidence)} evidence, {len(transcripts)} transcripts; give as many")
    model, family = reference.in_float32(), family_of(reference)
    if not isinstance(family, ConfidenceFamily):
        raise UsageError(f"the {reference.info.family} family keeps no word confidences")
    inputs = [segment_inputs(clip, model) for clip in clips]
    traces = [
        [family.read(segment, clip.request, model, record.level) for segment in record.segments]
        for clip, record in zip(clips, evidence, strict=True)
    ]
    replays = iter(
        family.replay(
            model,
            [item for items in inputs for item in items],
            [trace for own in traces for trace in own],
            batch_size=batch_size,
            advance=lambda _: None,
        )
    )
    right, sure, skipped = [np.empty(0, bool)], [np.empty((2, 0))], 0
    for own, record, spoken in zip(traces, evidence, transcripts, strict=True):
        pairs = [family.confidences(trace, next(replays), model) for trace in own]
        confidences = np.concatenate(pairs, axis=1)
        words = plain_words(" ".join(segment.text for segment in record.segments))
        if len(words) != confidences.shape[1]:
            skipped += 1
            continue
        right.append(correct_words(words, plain_words(spoken)))
        sure.append(confidences)
    correct, (provider, own_sure) = np.concatenate(right), np.concatenate(sure, axis=1)
    signatures = reliability(provider, correct), reliability(own_sure, correct)
    return Signature(
        provider=signatures[0],
        reference=signatures[1],
        shifts=reliability_shifts(*signatures),
        skipped=skipped,
    )


def plain_words(text: str) -> list[str]:
    """Return the words of a text without case and punctuation; a word of punctuation alone stays a word.

    Example:
        >>> plain_words("Turn off, the LIGHT - please!")
        ['turn', 'off', 'the', 'light', '', 'please']
    """
    return [re.sub(r"[^\w']", "", word.casefold()) for word in text.split()]
