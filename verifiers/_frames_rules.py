"""What the frame-synchronous families refuse before any replay, and the fields that their traces share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import TraceError, UsageError
from earmark.fingerprint.frames import ORDER, FrameScores
from earmark.fingerprint.sketch import PROBES, VALUES
from earmark.protocols import FrameModel
from earmark.records.evidence import Level, Segment
from earmark.records.request import Request
from earmark.verifiers._common_trace import (
    array,
    check_chosen,
    check_entropy,
    check_lists,
    check_logprobs,
    check_sketch,
)

Floats = NDArray[np.float64]


def check_request(request: Request, model: FrameModel) -> None:
    """Refuse what no frame-synchronous model can do.

    Raises:
        UsageError: The request asks for a translation, a prompt, time tokens, beams or sampling.
    """
    decoding = request.decoding
    if request.task != "transcribe":
        raise UsageError(f"{model.info.name} transcribes; it cannot {request.task}")
    if request.prompt:
        raise UsageError(f"{model.info.name} takes no prompt")
    if decoding.strategy != "greedy":
        raise UsageError(f"decoding {decoding.strategy!r}; the {model.info.family} family verifies greedy decoding")
    if decoding.timestamps:
        raise UsageError(f"{model.info.name} writes no time tokens; its trace holds the time of every token anyway")


def check_frames(claimed: int, segment: Segment, model: FrameModel) -> None:
    """The number of frames is what the audio gives.

    Raises:
        TraceError: It is not.
    """
    samples = segment.end - segment.start
    frames = model.encoder_positions(samples)
    if claimed != frames:
        message = f"{claimed} frames; {samples} samples give {frames}"
        raise TraceError(message, code="frames.mismatch")


def lists_of(trace: Any, positions: int, level: Level) -> dict[str, Any]:
    """Return the arrays that both families' traces have, for `FrameScores`.

    Raises:
        TraceError: A field has another size.
    """
    probes = PROBES if level == "sketch" else 0
    return {
        "ids": array(trace.ids, "<i4", (positions, trace.k), "ids"),
        "logprobs": array(trace.logprobs, "<f4", (positions, trace.k), "logprobs"),
        "chosen": array(trace.chosen, "<f4", (positions,), "chosen"),
        "entropy": array(trace.entropy, "<f4", (positions,), "entropy"),
        "power": array(trace.power, "<f4", (positions,), "power"),
        "blank": array(trace.blank, "<f4", (positions,), "blank"),
        "sketch": array(trace.sketch, "<f2", (probes, VALUES), "sketch"),
        "log_likelihood": trace.log_likelihood,
    }


def fields_of(scores: FrameScores) -> dict[str, Any]:
    """Return the fields that both families' traces have, from what a model said."""
    return {
        "frames": scores.frames,
        "k": scores.ids.shape[1],
        "ids": scores.ids.astype("<i4").tobytes(),
        "logprobs": scores.logprobs.astype("<f4").tobytes(),
        "chosen": scores.chosen.astype("<f4").tobytes(),
        "entropy": scores.entropy.astype("<f4").tobytes(),
        "power": scores.power.astype("<f4").tobytes(),
        "blank": scores.blank.astype("<f4").tobytes(),
        "log_likelihood": scores.log_likelihood,
        "sketch": scores.sketch.astype("<f2").tobytes(),
    }


def check_values(scores: FrameScores, blank: int, vocab: int) -> None:
    """Refuse numbers that no softmax can give, or that contradict each other.

    Args:
        scores: What the provider says.
        blank: Id of the blank.
        vocab: Number of tokens.

    Raises:
        TraceError: A value is not finite, out of range, or contradicts another.
    """
    check_lists(scores.ids, scores.logprobs, vocab)
    check_logprobs("chosen", scores.chosen)
    check_logprobs("blank", scores.blank)
    check_logprobs("log_likelihood", np.array([scores.log_likelihood]))
    check_entropy(scores.entropy, vocab)
    _check_power(scores, vocab)
    check_sketch(scores.sketch)
    check_chosen(scores.ids, scores.logprobs, scores.chosen, scores.path[:, 1])
    check_chosen(scores.ids, scores.logprobs, scores.blank, np.full(len(scores.blank), blank))


def _check_power(scores: FrameScores, vocab: int) -> None:
    """The power sum lies between that of the listed tokens alone and that of a flat distribution."""
    listed = np.nan_to_num(ORDER * scores.logprobs, nan=-np.inf)
    least = np.maximum(np.logaddexp.reduce(listed, axis=1), 0.0) - 1e-3
    most = (1.0 - ORDER) * np.log(vocab) + 1e-3
    if not ((scores.power >= least) & (scores.power <= most)).all():
        raise TraceError(f"a power sum below that of the listed tokens, or above {most:.3f}", code="trace.value")


def check_likelihood(scores: FrameScores, path_score: float) -> None:
    """All alignments together are at least as probable as the path alone.

    Args:
        scores: What the provider says.
        path_score: Log-probability of its path.

    Raises:
        TraceError: The path is more probable than the sum that it belongs to.
    """
    slack = 1e-2 + 1e-3 * len(scores.path)  # 16-bit arithmetic between two passes over the same logits
    if scores.log_likelihood < path_score - slack:
        message = f"log P of the transcript is {scores.log_likelihood:.4f}, below its own path's {path_score:.4f}"
        raise TraceError(message, code="trace.contradiction")
