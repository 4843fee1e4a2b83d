"""Comparing the evidence of one clip with its replay: shared by ctc and transducer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from earmark.errors import ModelError
from earmark.fingerprint.alignment import first_positions
from earmark.fingerprint.confidence import word_confidence
from earmark.fingerprint.frame_summary import FrameSummary, frame_summary_statistics
from earmark.fingerprint.frames import FrameReplay, FrameScores, frame_statistics, word_of_positions
from earmark.fingerprint.margins import TIE_NATS
from earmark.fingerprint.shape import clip_shape
from earmark.fingerprint.types import Fingerprint, Statistic
from earmark.protocols import Comparison, Curve, FrameModel
from earmark.records.evidence import Precision
from earmark.records.verdict import Finding, broken
from earmark.verifiers._common_choice import Rerun, margin_findings, rerun_findings
from earmark.verifiers._common_curve import words_at
from earmark.verifiers._common_trace import Floats


def compare(
    traces: Sequence[FrameScores | FrameSummary],
    replays: Sequence[FrameReplay],
    reruns: Sequence[Rerun] | None,
    *,
    model: FrameModel,
    family: str,
    statistics: Sequence[Statistic],
) -> Comparison:
    """Compare all segments of one clip.

    Args:
        traces: What the provider says.
        replays: What the reference says along the same paths.
        reruns: The reference's own decoding, or None.
        model: The reference.
        family: Name of the family.
        statistics: Its statistics.

    Raises:
        ModelError: The reference itself gave numbers that are not finite.
    """
    _check_finite(replays, model)
    precision = model.info.precision
    values = _statistics(traces, replays, model, TIE_NATS[precision])
    names = tuple(statistic.name for statistic in statistics)
    return Comparison(
        fingerprint=Fingerprint(family, names, tuple(values[name] for name in names), shape=_shape(traces, replays)),
        findings=_findings(traces, replays, reruns, precision) + _picked(values["informative_gap"], precision),
        positions=sum(len(replay.margins) for replay in replays),
    )


def _statistics(
    traces: Sequence[FrameScores | FrameSummary], replays: Sequence[FrameReplay], model: FrameModel, tie: float
) -> dict[str, float]:
    pairs = list(zip(traces, replays, strict=True))
    short = [(trace, replay) for trace, replay in pairs if isinstance(trace, FrameSummary)]
    if short:
        return frame_summary_statistics(short, tie)
    full = [(trace, replay) for trace, replay in pairs if isinstance(trace, FrameScores)]
    return frame_statistics(full, [model.word_index(trace.emitted) for trace, _ in full], tie)


def _shape(traces: Sequence[FrameScores | FrameSummary], replays: Sequence[FrameReplay]) -> dict[str, float]:
    full = [(trace, replay) for trace, replay in zip(traces, replays, strict=True) if isinstance(trace, FrameScores)]
    return clip_shape(full) if full else {}


def _picked(gap: float, precision: Precision) -> tuple[Finding, ...]:
    """Say whether compact evidence shows the positions where the reference is least sure, up to near-ties."""
    tie = TIE_NATS[precision]
    if not gap > tie:
        return ()
    found = f"positions at which the reference has {gap:.3g} nats less entropy than where it is least sure"
    return (broken("positions.picked", found, f"at most {tie:g} nats less at {precision}"),)


def confidences(trace: FrameScores, replay: FrameReplay, model: FrameModel) -> Floats:
    """Return each word's confidence, the provider's and the reference's, (2, words)."""
    words = word_of_positions(trace.tokens, model.word_index(trace.emitted))
    return np.stack([word_confidence(scores.chosen, words) for scores in (trace, replay.scores)])


LONG_S = 1_000
"""A long piece, so that the frames of the silence behind it count little."""


def curve(trace: FrameScores, replay: FrameReplay, model: FrameModel) -> Curve:
    """Return the entropy curves of one piece with its words; its frames lie evenly in time."""
    times = trace.path[:, 0] * LONG_S / model.encoder_positions(LONG_S * 16_000)
    return Curve(
        unit="s",
        places=times,
        provider=trace.entropy,
        reference=replay.scores.entropy,
        words=words_at(times[first_positions(trace.tokens)], trace.emitted, model),
    )


def _check_finite(replays: Sequence[FrameReplay], model: FrameModel) -> None:
    for replay in replays:
        scores = replay.scores
        parts = (replay.at_listed, scores.entropy, scores.durations, np.array([scores.log_likelihood]))
        if not all(np.isfinite(part).all() for part in parts):
            raise ModelError(f"the reference {model.info.name} gives numbers that are not finite")


def _findings(
    traces: Sequence[FrameScores | FrameSummary],
    replays: Sequence[FrameReplay],
    reruns: Sequence[Rerun] | None,
    precision: Precision,
) -> tuple[Finding, ...]:
    tie = TIE_NATS[precision]
    symbols = np.concatenate([replay.margins for replay in replays])
    durations = np.concatenate([replay.duration_margins for replay in replays])
    findings = margin_findings(symbols, tie, precision, "symbols of the path")
    if durations.size:
        findings += margin_findings(durations, tie, precision, "durations of the path")
    if reruns is not None:
        scores = [float(replay.scores.chosen.mean()) for replay in replays]
        findings += rerun_findings([trace.emitted for trace in traces], scores, reruns, tie)
    return findings
