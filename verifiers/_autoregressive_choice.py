"""Whether the emitted tokens are those that the rule of decoding chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from earmark.fingerprint.margins import TIE_NATS, argmax_margins
from earmark.fingerprint.sequence import Replay
from earmark.records.evidence import Precision
from earmark.records.request import Decoding
from earmark.records.verdict import Finding, unclear
from earmark.verifiers._autoregressive_decode import noisy
from earmark.verifiers._autoregressive_trace import Written
from earmark.verifiers._common_choice import Rerun, margin_findings, rerun_findings

if TYPE_CHECKING:
    import torch


def choice_findings(
    traces: Sequence[Written],
    replays: Sequence[Replay],
    reruns: Sequence[Rerun] | None,
    precision: Precision,
    decoding: Decoding,
) -> tuple[Finding, ...]:
    """Say whether the tokens are those that the rule of decoding chooses."""
    tie = TIE_NATS[precision]
    again: tuple[Finding, ...] = ()
    if reruns is not None:
        scores = [float(replay.scores.chosen.mean()) for replay in replays]
        again = rerun_findings([trace.emitted for trace in traces], scores, reruns, tie)
    if decoding.strategy != "beam":
        margins = np.concatenate([replay.margins for replay in replays])
        return (*margin_findings(margins, tie, precision), *again)
    if reruns is None:
        return (unclear("decoding.unchecked", "verifier", "beam search", "a re-run of the beam search"),)
    return again


def choice_margins(
    ruled: torch.Tensor, emitted: Sequence[int], decoding: Decoding, places: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """Return margins in nats of the untempered logits; the noise of sampling is replayed."""
    import torch

    sampled = decoding.strategy == "sample"
    scores = noisy(ruled, decoding, places) if sampled else ruled
    ids = torch.as_tensor(emitted, device=scores.device)
    best = scores.max(dim=-1).values.double().cpu().numpy()
    own = scores.gather(1, ids[:, None])[:, 0].double().cpu().numpy()
    return torch.as_tensor(argmax_margins(best, own) * (decoding.temperature if sampled else 1.0))
