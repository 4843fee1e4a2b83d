"""From logits to the few log-probabilities a lattice needs, reading every logit once."""

# ruff: noqa: PLR0917 - kernels are called by position: the compiler specialises on positions

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earmark.lattice.compiled import jit
from earmark.lattice.extended import LOG2_E
from earmark.lattice.rows import LEAST64, exp2_64, summarise

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@jit()
def gather_ctc(
    rows: NDArray[np.floating],
    labels: Ints,
    blank: int,
    orders: Floats,
    scores: Floats,
    norms: Floats,
    entropies: Floats,
) -> int:
    """Write the log-probabilities of blank and of every label, frame by frame.

    Args:
        rows: Logits, (T, V).
        labels: Token ids, (U,).
        blank: Id of the blank.
        orders: Orders of the power sums, (K,).
        scores: Output, (T, U + 1): blank, then the labels.
        norms: Output, (T, 2): maximum and log sum of each row.
        entropies: Output, (T, 1 + K).

    Returns:
        The first frame whose row is not finite, or -1.
    """
    for t in range(rows.shape[0]):
        row = rows[t]
        top, log_sum = summarise(row, orders, entropies[t])
        if not np.isfinite(log_sum):
            return t
        norms[t, 0] = top
        norms[t, 1] = log_sum
        scores[t, 0] = (row[blank] - top) - log_sum
        for u in range(labels.shape[0]):
            scores[t, u + 1] = (row[labels[u]] - top) - log_sum
    return -1


@jit()
def gather_transducer(
    rows: NDArray[np.floating],
    labels: Ints,
    vocabulary: int,
    symbols: Ints,
    classes: Ints,
    sigma: float,
    orders: Floats,
    arcs: Floats,
    norms: Floats,
    entropies: Floats,
) -> int:
    """Write the score of every arc that leaves a node (t, u).

    Args:
        rows: Logits, (T, >= U + 1, V + D): tokens, then durations.
        labels: Token ids, (U,).
        vocabulary: V, blank and big blanks included.
        symbols: Symbol of each arc, (N,); -1 for "the next label".
        classes: Index of the arc's duration logit, (N,); -1 where durations have no logits.
        sigma: Subtracted from every arc.
        orders: Orders of the power sums, (K,).
        arcs: Output, (T, N, U + 1).
        norms: Output, (T, U + 1, 4): maximum and log sum of the tokens, then of the durations.
        entropies: Output, (T, U + 1, 1 + K), of the token block.

    Returns:
        t * (U + 1) + u of the first row that is not finite, or -1.
    """
    last = labels.shape[0]
    spans = np.empty((rows.shape[2] - vocabulary, last + 1))
    for t in range(rows.shape[0]):
        bad = -1
        if rows.shape[2] > vocabulary:
            bad = _normalise_durations(rows[t, : last + 1, vocabulary:], spans, norms[t])
        for u in range(last + 1):
            row = rows[t, u, :vocabulary]
            top, log_sum = summarise(row, orders, entropies[t, u])
            if not np.isfinite(log_sum) or u == bad:
                return t * (last + 1) + u  # type: ignore[no-any-return]
            norms[t, u, 0], norms[t, u, 1] = top, log_sum
            for n in range(symbols.shape[0]):
                score = -np.inf
                if symbols[n] >= 0:
                    score = (row[symbols[n]] - top) - log_sum - sigma
                elif u < last:
                    score = (row[labels[u]] - top) - log_sum - sigma
                arcs[t, n, u] = score + (spans[classes[n], u] if classes[n] >= 0 else 0.0)
    return -1


@jit({"contract"})
def _normalise_durations(rows: NDArray[np.floating], spans: Floats, norms: Floats) -> int:
    """Write log-probabilities of durations, (D, U + 1), and their normalisers; vectorised over the nodes of a frame.

    Returns:
        The first node that is not finite, or -1.
    """
    nodes, count = rows.shape
    top, total = np.full(nodes, -np.inf), np.zeros(nodes)
    for d in range(count):
        for u in range(nodes):
            spans[d, u] = rows[u, d]
            top[u] = spans[d, u] if spans[d, u] > top[u] else top[u]  # noqa: FURB136 - vectorises
    for d in range(count):
        for u in range(nodes):
            t = (spans[d, u] - top[u]) * LOG2_E
            total[u] += exp2_64(LEAST64 if t < LEAST64 else t)  # noqa: FURB136 - unlike max, keeps NaN
    bad = -1
    for u in range(nodes - 1, -1, -1):
        norms[u, 2], norms[u, 3] = top[u], np.log(total[u])
        if not np.isfinite(norms[u, 3]):
            bad = u
    for d in range(count):
        for u in range(nodes):
            spans[d, u] -= top[u] + norms[u, 3]
    return bad
