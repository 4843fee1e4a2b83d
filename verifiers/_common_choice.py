"""Whether what was emitted is what the rule of decoding chooses: margins, and a second decoding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.margins import margin_mismatches
from earmark.records.evidence import Precision
from earmark.records.verdict import Finding, broken, note


@dataclass(frozen=True, slots=True)
class Rerun:
    """What the reference writes itself: its tokens, and their mean log-probability, the objective of a beam."""

    ids: tuple[int, ...]
    score: float


def margin_findings(
    margins: NDArray[np.float64], tie: float, precision: Precision, what: str = "tokens"
) -> tuple[Finding, ...]:
    """Say whether every choice is the best, or lost a near-tie.

    Args:
        margins: Margins of all choices of a clip, nats.
        tie: Largest margin of a near-tie.
        precision: The claimed precision, for the message.
        what: What was chosen, for the message.
    """
    count = margin_mismatches(margins, tie)
    if count:
        at = int(np.argmax(~(margins <= tie)))
        found = f"{count} {what} below the best, the first (number {at}) by {margins[at]:.3g} nats"
        return (broken("margin.exceeded", found, f"margins of at most {tie:g} nats at {precision}"),)
    ties = int(np.sum(margins > 0))
    return (note("margin.near_tie", f"{ties} {what} that lost a near-tie", "none, or a few"),) if ties else ()


def rerun_findings(
    emitted: Sequence[tuple[int, ...]], scores: Sequence[float], reruns: Sequence[Rerun], tie: float
) -> tuple[Finding, ...]:
    """Compare the provider's tokens with the reference's own; a different choice of equal worth is a tie.

    Args:
        emitted: Ids of each segment.
        scores: Their mean log-probability under the reference.
        reruns: The reference's own decoding of each segment.
        tie: Largest difference of a tie, nats.
    """
    worse = [
        (rerun.score - own, number)
        for number, (ids, own, rerun) in enumerate(zip(emitted, scores, reruns, strict=True))
        if ids != rerun.ids
    ]
    if not worse:
        return (note("rerun.equal", "the same tokens as the reference's own", "the same tokens"),)
    gap, number = max(worse)
    found = f"{len(worse)} segments with other tokens; segment {number} is {gap:.3g} nats per token less likely"
    if gap > tie:
        return (broken("rerun.worse", found, f"the reference's own choice, or one within {tie:g} nats"),)
    return (note("rerun.tie", found, f"the reference's own choice, or one within {tie:g} nats"),)
