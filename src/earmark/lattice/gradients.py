"""Gradients of -log P with respect to logits, from posteriors and normalisers, one block of rows at a time."""

# ruff: noqa: PLR0917 - kernels are called by position: the compiler specialises on positions

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from earmark.lattice.compiled import jit
from earmark.lattice.ctc_kernels import row_sum
from earmark.lattice.extended import LOG2_E
from earmark.lattice.rows import LEAST32, LEAST64, LOG2_E32, exp2_32, exp2_64

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@jit({"contract"})
def _scaled32(x: Any, top: Any, scale: Any, out: Any) -> None:
    narrow_top, narrow_scale = np.float32(top), np.float32(scale)
    if narrow_scale == 0.0:  # most nodes of a sure model
        out[:] = 0.0
        return
    for i in range(x.shape[0]):
        t = (x[i] - narrow_top) * LOG2_E32
        out[i] = exp2_32(max(t, LEAST32)) * narrow_scale


@jit({"contract"})
def _scaled64(x: Any, top: float, scale: float, out: Any) -> None:
    for i in range(x.shape[0]):
        t = (x[i] - top) * LOG2_E
        out[i] = exp2_64(max(t, LEAST64)) * scale


def scaled_softmax(x: Any, top: float, scale: float, out: Any) -> None:
    """Write scale * exp(x - top) for one row."""
    raise NotImplementedError("compiled code only")


@overload(scaled_softmax, strict=False)  # type: ignore[untyped-decorator]  # numba has no types
def _scaled_softmax(x: Any, top: Any, scale: Any, out: Any) -> Any:  # noqa: ARG001 - numba matches the names
    if x.dtype == types.float32:
        return lambda x, top, scale, out: _scaled32(x, top, scale, out)  # noqa: PLW0108 - numba wants a function
    return lambda x, top, scale, out: _scaled64(x, top, scale, out)  # noqa: PLW0108 - numba wants a function


@jit()
def grad_ctc(
    rows: NDArray[np.floating],
    labels: Ints,
    blank: int,
    tokens: Floats,
    blanks: Floats,
    norms: Floats,
    weight: float,
    out: NDArray[np.floating],
) -> None:
    """Write weight times (probability - occupancy) for every logit of some frames.

    Args:
        rows: Logits, (T, V).
        labels: Token ids, (U,).
        blank: Id of the blank.
        tokens: Occupancy of each token, (T, >= U).
        blanks: Occupancy of each blank state, (T, >= U + 1).
        norms: Maximum and log sum of each row, (T, 2).
        weight: Gradient of the loss with respect to this item's -log P.
        out: Output, (T, V).
    """
    for t in range(rows.shape[0]):
        scaled_softmax(rows[t], norms[t, 0], weight * np.exp(-norms[t, 1]), out[t])
        for u in range(labels.shape[0]):
            out[t, labels[u]] -= weight * tokens[t, u]
        out[t, blank] -= weight * row_sum(blanks[t, : labels.shape[0] + 1])


@jit()
def grad_transducer(
    rows: NDArray[np.floating],
    labels: Ints,
    vocabulary: int,
    symbols: Ints,
    classes: Ints,
    posteriors: Floats,
    norms: Floats,
    weight: float,
    out: NDArray[np.floating],
) -> None:
    """Write weight times (probability * node posterior - arc posterior) for every logit of some frames.

    Args:
        rows: Logits, (T, >= U + 1, V + D).
        labels: Token ids, (U,).
        vocabulary: V.
        symbols: Symbol of each arc, (N,); -1 for the next label.
        classes: Index of the arc's duration logit, (N,); -1 without.
        posteriors: Posterior of each arc, (T, N, U + 1).
        norms: Maximum and log sum of tokens, then durations, (T, >= U + 1, 4).
        weight: Gradient of the loss with respect to this item's -log P.
        out: Output, as `rows`; rows past U stay as they are.
    """
    for t in range(rows.shape[0]):
        for u in range(labels.shape[0] + 1):
            row, to = rows[t, u], out[t, u]
            total = weight * posteriors[t, :, u].sum()
            scaled_softmax(row[:vocabulary], norms[t, u, 0], total * np.exp(-norms[t, u, 1]), to[:vocabulary])
            if row.shape[0] > vocabulary:
                scale = total * np.exp(-norms[t, u, 3])
                scaled_softmax(row[vocabulary:], norms[t, u, 2], scale, to[vocabulary:])
            for n in range(symbols.shape[0]):
                posterior = weight * posteriors[t, n, u]
                if symbols[n] >= 0:
                    to[symbols[n]] -= posterior
                elif u < labels.shape[0]:
                    to[labels[u]] -= posterior
                if classes[n] >= 0:
                    to[vocabulary + classes[n]] -= posterior
