# ruff: noqa: ANN001, ANN202, N803, PLR0917 - Triton kernels: arguments are traced, constants are upper case
# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""Log-softmax statistics of every row of logits on a CUDA device: one program per row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earmark.lattice.triton_support import tl, triton

WIDEST_BLOCK = 4096
"""Logits a program holds at a time; wider rows take several steps."""


@triton.jit
def _row_stats(
    logits, frames, tokens, orders, norms, entropies, first, T, U1, V, stride, K: tl.constexpr, WIDE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Write maximum, log sum, Gibbs entropy and log power sums of one row, in float64 sums."""
    row = tl.program_id(0).to(tl.int64)
    b = row // (T * U1)
    t = (row // U1) % T
    u = row % U1
    if (t < tl.load(frames + b)) & (u <= tl.load(tokens + b)):
        column = tl.arange(0, BLOCK)
        base = logits + row * stride + first
        kind = tl.float64 if WIDE else tl.float32
        top = tl.full((), float("-inf"), kind)
        for start in range(0, V, BLOCK):
            x = tl.load(base + start + column, mask=start + column < V, other=float("-inf")).to(kind)
            top = tl.maximum(top, tl.max(x, 0))
        total = tl.zeros((), tl.float64)
        weighted = tl.zeros((), tl.float64)
        for start in range(0, V, BLOCK):
            x = tl.load(base + start + column, mask=start + column < V, other=float("-inf")).to(kind)
            below = x - top
            e = tl.exp(below)
            total += tl.sum(e.to(tl.float64), 0)
            weighted += tl.sum(tl.where(e > 0, e * below, 0.0).to(tl.float64), 0)
        log_sum = tl.log(total)
        tl.store(norms + row * 2, top.to(tl.float64))
        tl.store(norms + row * 2 + 1, log_sum)
        tl.store(entropies + row * (K + 1), tl.maximum(log_sum - weighted / total, 0.0))
        for k in tl.static_range(K):
            order = tl.load(orders + k)
            power = tl.zeros((), tl.float64)
            for start in range(0, V, BLOCK):
                x = tl.load(base + start + column, mask=start + column < V, other=float("-inf")).to(kind)
                power += tl.sum(tl.exp((x - top) * order.to(kind)).to(tl.float64), 0)
            tl.store(entropies + row * (K + 1) + 1 + k, tl.log(power) - order * log_sum)


def row_stats(
    logits: Tensor, frames: Tensor, tokens: Tensor, columns: tuple[int, int], orders: tuple[float, ...]
) -> tuple[Tensor, Tensor]:
    """Return normalisers and entropies of a range of columns.

    Args:
        logits: Contiguous, (B, T, U + 1, W) of any float type.
        frames: Frames per item, (B,), int32.
        tokens: Tokens per item, (B,), int32.
        columns: First column and column after the last.
        orders: Orders of the power sums, K of them.

    Returns:
        Maximum and log sum, (B, T, U + 1, 2), and entropies, (B, T, U + 1, 1 + K); 0 past an item's lengths.
    """
    shape = logits.shape[:3]
    norms = torch.zeros((*shape, 2), dtype=torch.float64, device=logits.device)
    entropies = torch.zeros((*shape, 1 + len(orders)), dtype=torch.float64, device=logits.device)
    wanted = torch.tensor(orders or (0.0,), dtype=torch.float64, device=logits.device)
    width = columns[1] - columns[0]
    block = min(WIDEST_BLOCK, triton.next_power_of_2(width))
    grid: Any = (shape[0] * shape[1] * shape[2],)
    _row_stats[grid](
        logits, frames, tokens, wanted, norms, entropies, columns[0], shape[1], shape[2], width, logits.shape[3],
        K=len(orders), WIDE=logits.dtype == torch.float64, BLOCK=block,
    )  # fmt: skip
    return norms, entropies
