"""The path of least margin: how near a transcript comes to what greedy decoding would have chosen.

Greedy decoding takes the best symbol, and of TDT the best duration, at every place it comes to. Every arc of a lattice
so has a margin: how far its symbol and its duration lie below the best there. Of all alignments of a transcript the
one with the fewest choices beyond a near-tie is taken, and of these the one with the least sum. A transcript that
greedy decoding wrote itself has a path without any margin; one that lost near-ties alone has a path of near-ties.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.lattice import ctc_kernels, transducer_kernels
from earmark.lattice.arcs import Arcs, build_arcs
from earmark.lattice.checks import check_blank, ctc_frames_needed
from earmark.lattice.joint import AdditiveJoint
from earmark.lattice.solve import ctc_skips
from earmark.lattice.sources import ChunkedJoint, as_block, chunks, shape_of
from earmark.lattice.types import LatticeError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BEYOND = 1e4
"""What one choice beyond a near-tie costs: more nats than all margins of a path together, or nearly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MarginPath:
    """The path of least margin of one transcript.

    Attributes:
        frames: Frame of each step, (steps,).
        symbols: Symbol of each step, blanks included, (steps,).
        margins: How far it lies below the best symbol, nats, (steps,).
        duration_margins: How far its duration lies below the best, nats, (steps,); (0,) without durations.
    """

    frames: Ints
    symbols: Ints
    margins: Floats
    duration_margins: Floats


def ctc_margins(logits: Any, labels: Sequence[int], blank: int, *, tie: float) -> MarginPath:
    """Return the path of least margin of one transcript under CTC.

    Args:
        logits: Logits or log-probabilities, tensor or array, (T, V).
        labels: Token ids, (U,).
        blank: Id of the blank; negative ids count from the end.
        tie: Largest margin of a near-tie, nats.

    Returns:
        The path, one step per frame.

    Raises:
        LatticeError: The transcript does not fit the frames, or a logit is not finite.

    Example:
        >>> path = ctc_margins(np.array([[0.0, 2.0], [0.5, 0.0]]), [1], 0, tie=1e-3)
        >>> path.symbols.tolist(), path.margins.tolist()
        ([1, 0], [0.0, 0.0])
    """
    rows = as_block(logits).astype(np.float64)
    frames, vocabulary = shape_of(rows[None], 3)[1:]
    ids, blank = np.asarray(labels, np.int64), check_blank(blank, vocabulary)
    needed = ctc_frames_needed(ids)
    if needed > frames:
        raise LatticeError(f"{len(ids)} tokens need {needed} frames, there are {frames}")
    best = _best(rows)
    apart = best[:, None] - rows[:, np.concatenate([[blank], ids])]
    states = np.empty(frames, np.int32)
    ctc_kernels.viterbi(-_cost(apart, np.zeros_like(apart), tie), ctc_skips(ids), states)
    column = np.where(states % 2, states // 2 + 1, 0)
    return MarginPath(
        frames=np.arange(frames),
        symbols=np.concatenate([[blank], ids])[column],
        margins=apart[np.arange(frames), column],
        duration_margins=np.empty(0),
    )


def transducer_margins(
    logits_or_joint: Any,
    labels: Sequence[int],
    blank: int,
    *,
    durations: Sequence[int] | None = None,
    big_blanks: Mapping[int, int] | None = None,
    max_symbols: int = 0,
    tie: float,
) -> MarginPath:
    """Return the path of least margin of one transcript under a transducer, with the open end of greedy decoding.

    Where a decoder forces itself on by one frame, at a blank of duration 0 or at the last token that a frame may have,
    that is its choice too. How many tokens a frame already has is not followed: any token may be the last.

    Args:
        logits_or_joint: Logits of one item, (1, T, U + 1, V + D), or a joint that yields them.
        labels: Token ids, (U,).
        blank: Id of the blank; negative ids count from the end of the vocabulary.
        durations: Durations of the D duration logits, rising, frames; None without them.
        big_blanks: Duration of each big blank by symbol id; None without them.
        max_symbols: Most tokens at one frame; 0 for no limit.
        tie: Largest margin of a near-tie, nats.

    Returns:
        The path.

    Raises:
        LatticeError: Shapes do not fit, no path leads to the end, or a logit is not finite.

    Example:
        >>> logits = np.zeros((1, 2, 2, 3))
        >>> logits[0, 0, 0, 1] = logits[0, 0, 1, 2] = logits[0, 1, 1, 2] = 5.0
        >>> path = transducer_margins(logits, [1], 2, tie=1e-3)
        >>> path.symbols.tolist(), path.margins.tolist()
        ([1, 2, 2], [0.0, 0.0, 0.0])
    """
    shape = shape_of(logits_or_joint, 4)
    if shape[0] != 1 or shape[2] != len(labels) + 1:
        raise LatticeError(f"logits have shape {shape}; give one item with {len(labels) + 1} rows for its tokens")
    arcs = _greedy_arcs(build_arcs(shape[3], blank, durations, big_blanks, "open_end"), max_symbols)
    source = logits_or_joint.chunked() if isinstance(logits_or_joint, AdditiveJoint) else logits_or_joint
    ids = np.asarray(labels, np.int64)
    symbol, length = _arc_margins(source, ids, arcs)
    route = np.empty((shape[1] + len(ids) + 1, 3), np.int32)
    steps = transducer_kernels.viterbi(-_cost(symbol, length, tie), arcs.steps, arcs.blanks, True, route)[1]  # noqa: FBT003 - compiled code takes positions
    if steps == 0:
        raise LatticeError(f"no path of {len(ids)} tokens leads to the end of {shape[1]} frames; check the durations")
    t, u, n = route[:steps].T
    named = np.concatenate([ids, [-1]])[u]
    return MarginPath(
        frames=t.astype(np.int64),
        symbols=np.where(arcs.symbols[n] < 0, named, arcs.symbols[n]),
        margins=symbol[t, n, u],
        duration_margins=length[t, n, u] if durations else np.empty(0),
    )


def _greedy_arcs(arcs: Arcs, max_symbols: int) -> Arcs:
    """Add what a limit of tokens per frame does: the last token moves on by one frame."""
    if not max_symbols:
        return arcs
    rows = np.stack([arcs.symbols, arcs.classes, arcs.durations, arcs.steps])
    still = rows[:, (arcs.symbols < 0) & (arcs.steps == 0)]
    kept = rows[:, (arcs.symbols >= 0) | (arcs.steps > 0)] if max_symbols == 1 else rows
    still = np.concatenate([still[:3], np.ones_like(still[:1])])
    symbols, classes, named, steps = np.ascontiguousarray(np.concatenate([kept, still], axis=1))
    return replace(arcs, symbols=symbols, classes=classes, durations=named, steps=steps)


def _arc_margins(source: Any | ChunkedJoint, ids: Ints, arcs: Arcs) -> tuple[Floats, Floats]:
    """Return the margins of the symbol and of the duration of every arc, each (T, N, U + 1)."""
    frames, nodes = int(source.shape[1]), len(ids) + 1
    symbol, length = np.full((2, frames, len(arcs.symbols), nodes), np.inf)
    for start, stop, block in chunks(source):
        rows = block(0, start, stop)
        tokens, named = rows[..., : arcs.vocabulary], rows[..., arcs.vocabulary :]
        best = _best(tokens)
        next_one = best[:, :-1] - np.take_along_axis(tokens[:, :-1], ids[None, :, None], axis=2)[..., 0]
        longest = _best(named) if named.shape[-1] else None
        for n, (own, which) in enumerate(zip(arcs.symbols, arcs.classes, strict=True)):
            if own < 0:
                symbol[start:stop, n, :-1] = next_one
            else:
                symbol[start:stop, n] = best - tokens[..., own]
            length[start:stop, n] = 0.0 if longest is None else longest - named[..., which]
    return symbol, length


def _best(rows: NDArray[Any]) -> Floats:
    best: Floats = rows.max(axis=-1).astype(np.float64)
    if not np.isfinite(best).all():
        raise LatticeError("the logits hold NaN or +inf, or a row of -inf alone")
    return best


def _cost(symbol: Floats, length: Floats, tie: float) -> Floats:
    cost: Floats = symbol + length + BEYOND * ((symbol > tie) | (length > tie))
    return cost
