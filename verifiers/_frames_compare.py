"""Comparing the evidence of one clip with its replay: shared by ctc and transducer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from earmark.errors import ModelError
from earmark.fingerprint.confidence import word_confidence
from earmark.fingerprint.frames import FrameReplay, FrameScores, frame_statistics, word_of_positions
from earmark.fingerprint.margins import TIE_NATS
from earmark.fingerprint.types import Fingerprint, Statistic
from earmark.protocols import Comparison, FrameModel
from earmark.records.evidence import Precision
from earmark.records.verdict import Finding
from earmark.verifiers._common_choice import Rerun, margin_findings, rerun_findings
from earmark.verifiers._common_trace import Floats


def compare(
    traces: Sequence[FrameScores],
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
    words = [model.word_index(trace.emitted) for trace in traces]
    values = frame_statistics(list(zip(traces, replays, strict=True)), words, TIE_NATS[precision])
    names = tuple(statistic.name for statistic in statistics)
    return Comparison(
        fingerprint=Fingerprint(family, names, tuple(values[name] for name in names)),
        findings=_findings(traces, replays, reruns, precision),
        positions=sum(len(trace.path) for trace in traces),
    )


def confidences(trace: FrameScores, replay: FrameReplay, model: FrameModel) -> Floats:
    """Return each word's confidence, the provider's and the reference's, (2, words)."""
    words = word_of_positions(trace.tokens, model.word_index(trace.emitted))
    return np.stack([word_confidence(scores.chosen, words) for scores in (trace, replay.scores)])


def _check_finite(replays: Sequence[FrameReplay], model: FrameModel) -> None:
    for replay in replays:
        scores = replay.scores
        parts = (replay.at_listed, scores.entropy, scores.durations, np.array([scores.log_likelihood]))
        if not all(np.isfinite(part).all() for part in parts):
            raise ModelError(f"the reference {model.info.name} gives numbers that are not finite")


def _findings(
    traces: Sequence[FrameScores],
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
