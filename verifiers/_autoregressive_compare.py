"""Comparing the evidence of one clip with its replay."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError, UsageError
from earmark.fingerprint.confidence import word_confidence
from earmark.fingerprint.margins import TIE_NATS
from earmark.fingerprint.sequence import STATISTICS, Replay, Scores, sequence_statistics
from earmark.fingerprint.shape import clip_shape
from earmark.fingerprint.summary import Summary, summary_statistics
from earmark.fingerprint.types import Fingerprint
from earmark.protocols import AutoregressiveModel, Comparison, Curve
from earmark.records.request import Request
from earmark.verifiers._autoregressive_choice import choice_findings
from earmark.verifiers._autoregressive_listed import is_listed, shown_part
from earmark.verifiers._autoregressive_trace import Written
from earmark.verifiers._common_choice import Rerun
from earmark.verifiers._common_curve import words_at


def compare(
    traces: Sequence[Written],
    replays: Sequence[Replay],
    reruns: Sequence[Rerun] | None,
    *,
    model: AutoregressiveModel,
    family: str,
    request: Request,
) -> Comparison:
    """Compare all segments of one clip.

    Args:
        traces: What the provider says.
        replays: What the reference says when it is forced to the same tokens.
        reruns: The reference's own decoding, or None.
        model: The reference.
        family: Name of the family.
        request: What was asked.

    Raises:
        ModelError: The reference itself gave numbers that are not finite.
    """
    if not all(np.isfinite(replay.at_listed).all() and np.isfinite(replay.scores.entropy).all() for replay in replays):
        raise ModelError(f"the reference {model.info.name} gives numbers that are not finite")
    values = _statistics(traces, replays, model)
    names = tuple(statistic.name for statistic in STATISTICS)
    return Comparison(
        fingerprint=Fingerprint(family, names, tuple(values[name] for name in names), shape=_shape(traces, replays)),
        findings=choice_findings(traces, replays, reruns, model.info.precision, request),
        positions=sum(len(trace.emitted) for trace in traces),
    )


def confidences(trace: Written, replay: Replay, model: AutoregressiveModel) -> NDArray[np.float64]:
    """Return each word's confidence, the provider's and the reference's, (2, words).

    Raises:
        UsageError: The evidence is compact.
    """
    if isinstance(trace.scores, Summary):
        raise UsageError("compact evidence holds no word confidences; record the level scores or sketch")
    words = model.word_index(trace.emitted)
    return np.stack([word_confidence(scores.chosen, words) for scores in (trace.scores, replay.scores)])


def curve(trace: Written, replay: Replay, model: AutoregressiveModel) -> Curve:
    """Return the entropy curves of one piece with its words, token by token.

    Raises:
        UsageError: The evidence holds no entropy.
    """
    if not isinstance(trace.scores, Scores) or is_listed(trace.scores):
        raise UsageError("this evidence holds no entropy; record the level scores or sketch")
    places = np.arange(len(trace.emitted), dtype=np.float64)
    return Curve(
        unit="tokens",
        places=places,
        provider=trace.scores.entropy,
        reference=replay.scores.entropy,
        words=words_at(places, trace.emitted, model),
    )


def _statistics(traces: Sequence[Written], replays: Sequence[Replay], model: AutoregressiveModel) -> dict[str, float]:
    tie = TIE_NATS[model.info.precision]
    full = _full(traces, replays)
    short = [(t.scores, r) for t, r in zip(traces, replays, strict=True) if isinstance(t.scores, Summary)]
    if short:
        return summary_statistics(short, tie)
    words = [model.word_index(t.emitted)[: len(s.chosen)] for t, (s, _) in zip(traces, full, strict=True)]
    return sequence_statistics(full, words, tie)


def _full(traces: Sequence[Written], replays: Sequence[Replay]) -> list[tuple[Scores, Replay]]:
    """Return the pairs that hold lists, as far as an API shows them."""
    full = [(t.scores, r) for t, r in zip(traces, replays, strict=True) if isinstance(t.scores, Scores)]
    return [shown_part(*pair) if is_listed(pair[0]) else pair for pair in full]


def _shape(traces: Sequence[Written], replays: Sequence[Replay]) -> dict[str, float]:
    full = _full(traces, replays)
    return clip_shape(full) if full else {}
