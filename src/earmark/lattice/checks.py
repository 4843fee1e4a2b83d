"""Checks of what a caller hands in; every message names the batch item and the numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from earmark.lattice.types import LatticeError

OnError = Literal["raise", "keep"]


@dataclass(slots=True, kw_only=True)
class Batch:
    """Transcripts and lengths that fit their logits.

    Attributes:
        labels: Token ids of each item, (U_b,).
        frames: Frames of each item, 0 to T even where that is its fault.
        errors: What is wrong with an item, or None.
        on_error: `raise` at the first faulty item, or `keep` the message and go on.
    """

    labels: list[NDArray[np.int64]]
    frames: list[int]
    errors: list[str | None]
    on_error: OnError = field(default="raise")

    def refuse(self, item: int, message: str) -> None:
        """Raise, or keep the message of an item."""
        error = LatticeError(message, item=item)
        if self.on_error == "raise":
            raise error
        self.errors[item] = str(error)

    def refuse_impossible(self, item: int, rule: str) -> None:
        """Refuse an item for which the recursions found no path."""
        tokens, frames = len(self.labels[item]), self.frames[item]
        message = f"no alignment of {tokens} tokens to {frames} frames has a probability above 0"
        self.refuse(item, f"{message} (rule {rule}); check logits, lengths and durations")

    def good(self) -> list[int]:
        """Return the items without an error."""
        return [b for b, error in enumerate(self.errors) if error is None]


def integers(values: Any, name: str, dimensions: int) -> NDArray[np.int64]:
    """Return an integer array of the stated number of dimensions.

    Example:
        >>> integers([[1, 2]], "targets", 2).shape
        (1, 2)
    """
    try:
        array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    except ValueError as error:
        raise LatticeError(f"{name} has rows of different lengths; pad them") from error
    if array.ndim != dimensions or (array.size and array.dtype.kind not in "iu"):
        raise LatticeError(
            f"{name} is {array.ndim}-dimensional {array.dtype}; give integers of {dimensions} dimension(s)"
        )
    return array.astype(np.int64)


def check_batch(
    shape: tuple[int, ...],
    targets: Any,
    logit_lengths: Any,
    target_lengths: Any,
    *,
    blanks: Collection[int],
    vocabulary: int,
    on_error: OnError,
) -> Batch:
    """Return the batch after checking it against the logits.

    Args:
        shape: Shape of the logits, (B, T, V) or (B, T, U + 1, V + D).
        targets: Token ids, (B, >= U).
        logit_lengths: Frames per item, (B,).
        target_lengths: Tokens per item, (B,).
        blanks: Ids that no transcript may hold.
        vocabulary: Number of symbols.
        on_error: `raise` or `keep`.

    Raises:
        LatticeError: The shapes do not belong together, or (`raise`) an item is not usable.
    """
    if on_error not in ("raise", "keep"):
        raise LatticeError(f"on_error is {on_error!r}; use 'raise' or 'keep'")
    ids = integers(targets, "targets", 2)
    frames = integers(logit_lengths, "logit_lengths", 1)
    counts = integers(target_lengths, "target_lengths", 1)
    if not len(ids) == len(frames) == len(counts) == shape[0]:
        raise LatticeError(
            f"the batch has {shape[0]} item(s) of logits, {len(ids)} of targets, {len(frames)} of "
            f"logit_lengths and {len(counts)} of target_lengths; give as many of each"
        )
    room = ids.shape[1] if len(shape) == 3 else min(ids.shape[1], shape[2] - 1)
    batch = Batch(labels=[], frames=frames.clip(0, shape[1]).tolist(), errors=[None] * len(ids), on_error=on_error)
    for b, (t, u) in enumerate(zip(frames.tolist(), counts.tolist(), strict=True)):
        batch.labels.append(ids[b, : max(0, min(u, room))].copy())
        message = _length_fault(t, u, shape[1], ids.shape[1], room)
        message = message or _id_fault(batch.labels[b], blanks, vocabulary)
        if message:
            batch.refuse(b, message)
    return batch


def _length_fault(frames: int, tokens: int, most_frames: int, given: int, room: int) -> str | None:
    if not 1 <= frames <= most_frames:
        return f"logit_length is {frames}, but the logits hold {most_frames} frames and 1 is the least"
    if not 0 <= tokens <= given:
        return f"target_length is {tokens}, but targets hold {given} tokens"
    if tokens > room:
        return f"target_length is {tokens}, but the logits hold rows for {room} tokens (one more row than that)"
    return None


def _id_fault(labels: NDArray[np.int64], blanks: Collection[int], vocabulary: int) -> str | None:
    for u, label in enumerate(labels.tolist()):
        if not 0 <= label < vocabulary:
            return f"token {u} is {label}, outside the vocabulary 0..{vocabulary - 1}"
        if label in blanks:
            return f"token {u} is {label}, which is a blank"
    return None


def ctc_frames_needed(labels: NDArray[np.int64]) -> int:
    """Return the least number of frames CTC needs: one per token and one between equal neighbours.

    Example:
        >>> ctc_frames_needed(np.array([3, 3, 4]))
        4
    """
    return len(labels) + int(np.count_nonzero(labels[1:] == labels[:-1]))


def check_orders(orders: Any) -> tuple[float, ...]:
    """Return the orders of the entropies; 1 is the Gibbs entropy, which is always there."""
    listed = tuple(float(order) for order in orders)
    for order in listed:
        if not 0.0 < order < np.inf or order == 1.0:
            raise LatticeError(f"entropy order {order} is not usable; give positive orders other than 1")
    return listed


def check_sigma(sigma: float) -> float:
    """Return sigma; it must be finite."""
    if not math.isfinite(sigma):
        raise LatticeError(f"sigma is {sigma}; give a finite number, 0 for evidence")
    return float(sigma)


def check_integer(value: Any, name: str) -> int:
    """Return an integer as int; numpy's and torch's are integers too.

    Example:
        >>> check_integer(np.int64(3), "blank")
        3
    """
    try:
        return operator.index(value)
    except TypeError:
        raise LatticeError(f"{name} is {value!r}; give an integer") from None


def check_blank(blank: int, vocabulary: int) -> int:
    """Return the id of the blank counted from 0.

    Example:
        >>> check_blank(-1, 5)
        4
    """
    blank = check_integer(blank, "blank")
    if not -vocabulary <= blank < vocabulary:
        raise LatticeError(f"blank is {blank}, outside the vocabulary of {vocabulary} symbols")
    return blank % vocabulary
