"""Rows of logits along a path, and what the lattice says about a transcript: shared by ctc and transducer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.audio import CANONICAL_RATE_HZ
from earmark.fingerprint.alignment import REACH_SECONDS, path_occupancy, speech_frames, uncovered
from earmark.fingerprint.frame_summary import FrameSummary
from earmark.fingerprint.frames import ORDER, Alignment, FrameScores
from earmark.fingerprint.margins import argmax_margins
from earmark.protocols import SegmentInput
from earmark.verifiers._common_batches import score

if TYPE_CHECKING:
    import torch

    from earmark.lattice import LatticeScores

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def row_scores(logits: torch.Tensor, symbols: Ints, k: int, blank: int) -> dict[str, Any]:
    """Return the numbers of every position that `FrameScores` holds, from float32 logits (positions, vocab)."""
    import torch

    ids, values, chosen, entropy = score(logits, symbols.tolist(), k)
    logprobs = torch.log_softmax(logits, dim=-1)
    power = torch.logsumexp(ORDER * logprobs, dim=-1)
    parts = {"logprobs": values, "chosen": chosen, "entropy": entropy, "power": power, "blank": logprobs[:, blank]}
    return {"ids": _numpy(ids).astype(np.int64), **{name: _numpy(part) for name, part in parts.items()}}


def at_listed(logits: torch.Tensor, listed: Ints) -> Floats:
    """Return the log-probabilities of listed tokens, (positions, k)."""
    import torch

    return _numpy(torch.log_softmax(logits, dim=-1).gather(1, torch.as_tensor(listed, device=logits.device)))


def listed_by(trace: FrameScores | FrameSummary) -> Ints:
    """Return the listed tokens of a trace, (positions, k); k is 0 in compact evidence."""
    return trace.ids if isinstance(trace, FrameScores) else np.empty((len(trace.path), 0), np.int64)


def margins(logits: torch.Tensor, symbols: Ints) -> Floats:
    """Return how far each symbol lies below the best, in nats, (positions,)."""
    import torch

    own = logits.gather(1, torch.as_tensor(symbols, device=logits.device)[:, None])[:, 0]
    return argmax_margins(_numpy(logits.max(dim=1).values), _numpy(own))


def _numpy(tensor: torch.Tensor) -> Floats:
    result: Floats = tensor.cpu().double().numpy()
    return result


def targets_of(transcripts: Sequence[Sequence[int]]) -> tuple[Ints, list[int]]:
    """Return transcripts as one padded array, and their lengths."""
    lengths = [len(ids) for ids in transcripts]
    padded = np.zeros((len(lengths), max(lengths)), np.int64)
    for row, ids in enumerate(transcripts):
        padded[row, : len(ids)] = ids
    return padded, lengths


def alignment(
    lattice: LatticeScores,
    row: int,
    claimed: FrameScores | FrameSummary,
    item: SegmentInput,
    blanks: Collection[int],
) -> Alignment:
    """Return what the reference's lattice of one row says about the provider's path."""
    count, occupancy = len(claimed.emitted), lattice.token_occupancy[row]
    path, spoken = claimed.path, claimed.tokens >= 0
    best = lattice.paths[row]
    best = best[~np.isin(best[:, 2], list(blanks))]
    share, span = coverage(item, claimed.frames, path[spoken, 0], path[spoken, 2])
    return Alignment(
        token_frame=lattice.token_frame[row, :count].astype(np.float64),
        token_time=lattice.token_time_mean[row, :count],
        occupancy=path_occupancy(occupancy, path[:, 0], claimed.tokens),
        best_occupancy=path_occupancy(occupancy, best[:, 0], best[:, 1]),
        uncovered_share=share,
        uncovered_span=span,
    )


def coverage(item: SegmentInput, frames: int, begins: Ints, durations: Ints) -> tuple[float, float]:
    """Return the share of loud audio that no token is near to, and the longest stretch of it in seconds.

    Args:
        item: The piece.
        frames: Its encoder frames.
        begins: Frame of each position that is spent on a token, (positions,).
        durations: Frames it lasts, (positions,).
    """
    per_second = CANONICAL_RATE_HZ * frames / len(item.samples)
    share, span = uncovered(speech_frames(item.samples, frames), begins, durations, REACH_SECONDS * per_second)
    return share, span / per_second
