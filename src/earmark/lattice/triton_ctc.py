# ruff: noqa: ANN001, ANN202, N803, PLR0917 - Triton kernels: arguments are traced, constants are upper case
# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""CTC recursions on a CUDA device: one program per utterance, a vector over the 2U + 1 states of a frame.

Values are natural logs in float64; the number of tokens is bounded by memory alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from earmark.lattice.triton_support import tl, triton
from earmark.lattice.triton_transducer import MINUS_INFINITY, logaddexp, warps


@triton.jit
def _may_skip(labels, s, last):
    """Return whether state s may follow s - 2: a label that differs from the one before it."""
    odd = (s % 2 == 1) & (s >= 3) & (s <= 2 * last)
    here = tl.load(labels + s // 2, mask=odd, other=0)
    before = tl.load(labels + s // 2 - 1, mask=odd, other=0)
    return odd & (here != before)


@triton.jit
def _emission(scores, t, s, inside, U1):
    """Return the log-probability of every state at one frame; column 0 of the scores is the blank."""
    column = tl.where(s % 2 == 1, (s + 1) // 2, 0)
    return tl.load(scores + t * U1 + column, mask=inside, other=MINUS_INFINITY)


@triton.jit
def _forward(
    scores, labels, frames, tokens, alpha, moves, total, end, T, U1, S, BEST: tl.constexpr, BLOCK: tl.constexpr
):
    """Fill alpha with log-sums, or (BEST) with maxima and the number of states each came up."""
    b = tl.program_id(0).to(tl.int64)
    length, last = tl.load(frames + b), tl.load(tokens + b)
    scores += b * T * U1
    labels += b * (U1 - 1)
    alpha += b * T * S
    moves += b * T * S
    s = tl.arange(0, BLOCK)
    inside = s <= 2 * last
    skip = _may_skip(labels, s, last)
    tl.store(alpha + s, tl.where(s < 2, _emission(scores, 0, s, inside, U1), MINUS_INFINITY), mask=inside)
    tl.debug_barrier()
    for t in range(1, length):
        before = alpha + (t - 1) * S + s
        stay = tl.load(before, mask=inside, other=MINUS_INFINITY)
        one = tl.load(before - 1, mask=inside & (s >= 1), other=MINUS_INFINITY)
        two = tl.load(before - 2, mask=inside & skip, other=MINUS_INFINITY)
        if BEST:
            value = tl.maximum(stay, tl.maximum(one, two))
            move = tl.where(value == stay, 0, tl.where(value == one, 1, 2)).to(tl.int8)
            tl.store(moves + t * S + s, move, mask=inside)
        else:
            value = logaddexp(logaddexp(stay, one), two)
        tl.store(alpha + t * S + s, value + _emission(scores, t, s, inside, U1), mask=inside)
        tl.debug_barrier()
    final = alpha + (length - 1) * S
    blank = tl.load(final + 2 * last)
    label = tl.load(final + 2 * last - 1, mask=last > 0, other=MINUS_INFINITY)
    if BEST:
        tl.store(end + b, tl.where(label > blank, 2 * last - 1, 2 * last))
        tl.store(total + b, tl.maximum(blank, label))
    else:
        tl.store(total + b, logaddexp(blank, label))


@triton.jit
def _backward(scores, labels, frames, tokens, alpha, beta, total, expected, T, U1, S, BLOCK: tl.constexpr):
    """Fill beta, replace alpha by the posteriors of the states, and write the expected score of a path."""
    b = tl.program_id(0).to(tl.int64)
    length, last = tl.load(frames + b), tl.load(tokens + b)
    scores += b * T * U1
    labels += b * (U1 - 1)
    alpha += b * T * S
    beta += b * T * S
    whole = tl.load(total + b)
    s = tl.arange(0, BLOCK)
    inside = s <= 2 * last
    skip = _may_skip(labels, s + 2, last)
    mean = tl.zeros((), tl.float64)
    if whole > MINUS_INFINITY:
        for k in range(length):
            t = length - 1 - k
            value = tl.where(s >= 2 * last - 1, 0.0, MINUS_INFINITY).to(tl.float64)
            emission = _emission(scores, t, s, inside, U1)
            if k > 0:
                after = beta + (t + 1) * S + s
                stay = tl.load(after, mask=inside, other=MINUS_INFINITY)
                one = tl.load(after + 1, mask=s < 2 * last, other=MINUS_INFINITY)
                two = tl.load(after + 2, mask=inside & skip, other=MINUS_INFINITY)
                value = logaddexp(logaddexp(stay, one), two)
            # beta of a frame holds its own emission, so that the frame before needs none
            tl.store(beta + t * S + s, value + emission, mask=inside)
            before = tl.load(alpha + t * S + s, mask=inside, other=MINUS_INFINITY)
            posterior = tl.exp(before + value - whole)
            mean += tl.sum(tl.where(inside & (posterior > 0), posterior * emission, 0.0), 0)
            tl.store(alpha + t * S + s, posterior, mask=inside)
            tl.debug_barrier()
    tl.store(expected + b, mean)


def solve(scores: Tensor, labels: Tensor, frames: Tensor, tokens: Tensor, *, paths: bool = True) -> dict[str, Tensor]:
    """Run all recursions of a batch.

    Args:
        scores: Log-probabilities of the blank and the labels, (B, T, U + 1), float64, contiguous.
        labels: Token ids, (B, U), int32, contiguous.
        frames: Frames per item, (B,), int32.
        tokens: Tokens per item, (B,), int32.
        paths: Whether best paths are wanted.

    Returns:
        `total` and `entropy` (B,), `posteriors` (B, T, 2U + 1) of the states; with `paths` also `best` (B,), `moves`
        (B, T, 2U + 1) states each best path came up by, `end` (B,) its last state.
    """
    items, T, U1 = scores.shape  # noqa: N806 - as in the kernels
    S = 2 * U1 - 1  # noqa: N806 - as in the kernels
    alpha = torch.zeros((items, T, S), dtype=torch.float64, device=scores.device)
    beta = torch.empty_like(alpha)
    moves = torch.zeros((items, T, S), dtype=torch.int8, device=scores.device)
    end = torch.zeros(items, dtype=torch.int32, device=scores.device)
    total, best, expected = torch.empty((3, items), dtype=torch.float64, device=scores.device)
    block = triton.next_power_of_2(S)
    lattice = (scores, labels, frames, tokens)
    if paths:
        _forward[(items,)](*lattice, beta, moves, best, end, T, U1, S, BEST=True, BLOCK=block, num_warps=warps(S))
    _forward[(items,)](*lattice, alpha, moves, total, end, T, U1, S, BEST=False, BLOCK=block, num_warps=warps(S))
    _backward[(items,)](*lattice, alpha, beta, total, expected, T, U1, S, BLOCK=block, num_warps=warps(S))
    entropy = (total - expected).clamp_min(0.0)
    found = {"total": total, "entropy": entropy, "posteriors": alpha}
    return {**found, "best": best, "moves": moves, "end": end} if paths else found
