# ruff: noqa: ANN001, ANN202, N803, PLR0917 - Triton kernels: arguments are traced, constants are upper case
# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""Gradients of -log P with respect to logits on a CUDA device: one program per row, every logit read and written once.

The gradient of a logit is its probability times the posterior of its node, minus the posteriors of the arcs that name
its symbol.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earmark.lattice.triton_rows import WIDEST_BLOCK
from earmark.lattice.triton_support import tl, triton


@triton.jit
def _grad_rows(
    logits, frames, tokens, norms, picks, posteriors, weights, out, first, T, U1, NODES, V, stride, K,
    WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Write weight * (probability * sum of posteriors - posteriors of the arcs of the symbol) of one row."""
    row = tl.program_id(0).to(tl.int64)
    b = row // (T * U1)
    t = (row // U1) % T
    u = row % U1
    column = tl.arange(0, BLOCK)
    to = out + row * stride + first
    if (t < tl.load(frames + b)) & (u <= tl.load(tokens + b)):
        node = (b * T + t) * NODES + u
        pick = picks + (b * NODES + u) * K
        base = logits + row * stride + first
        kind = tl.float64 if WIDE else tl.float32
        top = tl.load(norms + node * 2).to(kind)
        log_sum = tl.load(norms + node * 2 + 1).to(kind)
        weight = tl.load(weights + b).to(kind)
        mass = tl.zeros((), tl.float64)
        for k in range(K):
            mass += tl.load(posteriors + node * K + k)
        for start in range(0, V, BLOCK):
            here = start + column < V
            x = tl.load(base + start + column, mask=here, other=float("-inf")).to(kind)
            value = tl.exp(x - top - log_sum) * mass.to(kind)
            for k in range(K):
                posterior = tl.load(posteriors + node * K + k).to(kind)
                value -= tl.where(start + column == tl.load(pick + k), posterior, 0.0)
            tl.store(to + start + column, (value * weight).to(out.dtype.element_ty), mask=here)
    else:
        for start in range(0, V, BLOCK):
            tl.store(to + start + column, tl.zeros((BLOCK,), out.dtype.element_ty), mask=start + column < V)


def grad_rows(
    logits: Tensor,
    lengths: tuple[Tensor, Tensor],
    columns: tuple[int, int],
    norms: Tensor,
    picks: Tensor,
    *,
    posteriors: Tensor,
    weights: Tensor,
    out: Tensor,
) -> None:
    """Write the gradient of a range of columns; 0 past an item's lengths.

    Args:
        logits: Contiguous, (B, T, >= U + 1, W) of any float type.
        lengths: Frames and tokens per item, (B,), int32.
        columns: First column and column after the last.
        norms: Maximum and log sum of these columns, (B, T, U + 1, 2), float64.
        picks: Column of each of K arcs, counted from the first, (B, U + 1, K), int32.
        posteriors: Posterior of each arc, (B, T, U + 1, K), float64.
        weights: Gradient of the loss with respect to each item's -log P, (B,), float64.
        out: Output, contiguous, as `logits`.
    """
    items, frames, rows, stride = logits.shape
    width = columns[1] - columns[0]
    grid: Any = (items * frames * rows,)
    _grad_rows[grid](
        logits, *lengths, norms.contiguous(), picks.contiguous(), posteriors.contiguous(), weights, out, columns[0],
        frames, rows, picks.shape[1], width, stride, picks.shape[2], WIDE=logits.dtype == torch.float64,
        BLOCK=min(WIDEST_BLOCK, triton.next_power_of_2(width)),
    )  # fmt: skip
