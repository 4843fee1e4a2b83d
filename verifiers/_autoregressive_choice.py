"""Whether the emitted tokens are those that the rule of decoding chooses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from earmark.fingerprint.margins import TIE_NATS, argmax_margins
from earmark.fingerprint.sequence import Replay
from earmark.fingerprint.summary import language_margin
from earmark.records.evidence import Precision
from earmark.records.request import Decoding, Request
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
    request: Request,
) -> tuple[Finding, ...]:
    """Say whether the tokens are those that the rule of decoding chooses, and an open language the detected one."""
    language = () if request.language else _language_findings(traces, replays, precision)
    return (*language, *_token_findings(traces, replays, reruns, precision, request.decoding))


def _language_findings(
    traces: Sequence[Written], replays: Sequence[Replay], precision: Precision
) -> tuple[Finding, ...]:
    """Say whether the language of each segment is the best; it decides the prompt, before any token."""
    margins = [language_margin(t.scores, r.scores) for t, r in zip(traces, replays, strict=True)]
    known = np.array([margin for margin in margins if margin is not None])
    return margin_findings(known, TIE_NATS[precision], precision, "detected languages") if known.size else ()


def _token_findings(
    traces: Sequence[Written],
    replays: Sequence[Replay],
    reruns: Sequence[Rerun] | None,
    precision: Precision,
    decoding: Decoding,
) -> tuple[Finding, ...]:
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
