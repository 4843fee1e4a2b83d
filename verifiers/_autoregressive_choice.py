"""Whether the emitted tokens are those that the rule of decoding chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from earmark.fingerprint.margins import TIE_NATS, margin_mismatches
from earmark.fingerprint.sequence import Replay
from earmark.records.evidence import Precision
from earmark.records.request import Decoding
from earmark.records.verdict import Finding, broken, note, unclear
from earmark.verifiers._autoregressive_trace import Written


@dataclass(frozen=True, slots=True)
class Rerun:
    """What the reference writes itself: its tokens, and their mean log-probability, the objective of a beam."""

    ids: tuple[int, ...]
    score: float


def choice_findings(
    traces: Sequence[Written],
    replays: Sequence[Replay],
    reruns: Sequence[Rerun] | None,
    precision: Precision,
    decoding: Decoding,
) -> tuple[Finding, ...]:
    """Say whether the tokens are those that the rule of decoding chooses."""
    tie = TIE_NATS[precision]
    again = () if reruns is None else _rerun_findings(traces, replays, reruns, tie)
    if decoding.strategy != "beam":
        return (*_margin_findings(replays, tie, precision), *again)
    if reruns is None:
        return (unclear("decoding.unchecked", "verifier", "beam search", "a re-run of the beam search"),)
    return again


def _margin_findings(replays: Sequence[Replay], tie: float, precision: Precision) -> tuple[Finding, ...]:
    margins = np.concatenate([replay.margins for replay in replays])
    count = margin_mismatches(margins, tie)
    if count:
        at = int(np.argmax(~(margins <= tie)))
        found = f"{count} tokens below the best, the first (number {at}) by {margins[at]:.3g} nats"
        return (broken("margin.exceeded", found, f"margins of at most {tie:g} nats at {precision}"),)
    ties = int(np.sum(margins > 0))
    return (note("margin.near_tie", f"{ties} tokens that lost a near-tie", "none, or a few"),) if ties else ()


def _rerun_findings(
    traces: Sequence[Written], replays: Sequence[Replay], reruns: Sequence[Rerun], tie: float
) -> tuple[Finding, ...]:
    """Compare the provider's tokens with the reference's own; a different choice of equal worth is a tie."""
    worse = []
    for number, (trace, replay, rerun) in enumerate(zip(traces, replays, reruns, strict=True)):
        if trace.emitted != rerun.ids:
            worse.append((rerun.score - float(replay.scores.chosen.mean()), number))
    if not worse:
        return (note("rerun.equal", "the same tokens as the reference's own", "the same tokens"),)
    gap, number = max(worse)
    found = f"{len(worse)} segments with other tokens; segment {number} is {gap:.3g} nats per token less likely"
    if gap > tie:
        return (broken("rerun.worse", found, f"the reference's own choice, or one within {tie:g} nats"),)
    return (note("rerun.tie", found, f"the reference's own choice, or one within {tie:g} nats"),)
