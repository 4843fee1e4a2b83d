# ruff: noqa: ANN001, ANN201, ANN202, N803, PLR0917 - Triton kernels: arguments are traced, constants are upper case
# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""Transducer recursions on a CUDA device: one program per utterance, a vector over the nodes of an anti-diagonal.

Every arc leads from anti-diagonal t + u to a later one, so the nodes of one are independent of each other. Values
are natural logs in float64; the number of tokens is bounded by memory alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from earmark.lattice.arcs import Arcs
from earmark.lattice.triton_support import tl, triton

MINUS_INFINITY = tl.constexpr(float("-inf"))


@triton.jit
def logaddexp(a, b):
    """Return log(exp(a) + exp(b)); -inf where both are."""
    top = tl.maximum(a, b)
    safe = tl.where(top == MINUS_INFINITY, 0.0, top)
    return tl.where(top == MINUS_INFINITY, top, safe + tl.log(tl.exp(a - safe) + tl.exp(b - safe)))


@triton.jit
def _ending(
    arcs, alpha, steps, i: tl.constexpr, length, last, U1, BLANKS: tl.constexpr, N: tl.constexpr, OPEN: tl.constexpr,
    REACH: tl.constexpr,
):  # fmt: skip
    """Return the scores of all paths that end by arc i, one per frame counted from the end."""
    k = tl.arange(0, REACH)
    s = tl.load(steps + i)
    source = last - (0 if i < BLANKS else 1)
    t = length - 1 - k
    ends = (k < s) & (t >= 0) & (source + 0 * k >= 0)
    if not OPEN:
        ends = ends & (k == s - 1)
        if i >= BLANKS:
            ends = ends & (k < 0)
    before = tl.load(alpha + t * U1 + source, mask=ends, other=MINUS_INFINITY)
    return before + tl.load(arcs + (t * N + i) * U1 + source, mask=ends, other=MINUS_INFINITY)


@triton.jit
def _forward(
    arcs, steps, frames, tokens, alpha, came, total, end, T, U1, BLANKS: tl.constexpr, N: tl.constexpr,
    OPEN: tl.constexpr, BEST: tl.constexpr, REACH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Fill alpha with log-sums, or (BEST) with maxima and the arcs that gave them."""
    b = tl.program_id(0).to(tl.int64)
    length, last = tl.load(frames + b), tl.load(tokens + b)
    arcs += b * T * N * U1
    alpha += b * T * U1
    came += b * T * U1
    u = tl.arange(0, BLOCK)
    for n in range(length + last):
        t = n - u
        inside = (u <= last) & (t >= 0) & (t < length)
        value = tl.where((u == 0) & (t == 0), 0.0, MINUS_INFINITY).to(tl.float64)
        arc = tl.zeros((BLOCK,), tl.int16)
        for i in tl.static_range(N):
            from_t = t - tl.load(steps + i)
            from_u = u - (0 if i < BLANKS else 1)
            there = inside & (from_t >= 0) & (from_u >= 0)
            before = tl.load(alpha + from_t * U1 + from_u, mask=there, other=MINUS_INFINITY)
            score = tl.load(arcs + (from_t * N + i) * U1 + from_u, mask=there, other=MINUS_INFINITY)
            if BEST:
                arc = tl.where(before + score > value, i, arc).to(tl.int16)
                value = tl.maximum(value, before + score)
            else:
                value = logaddexp(value, before + score)
        tl.store(alpha + t * U1 + u, value, mask=inside)
        if BEST:
            tl.store(came + t * U1 + u, arc, mask=inside)
        tl.debug_barrier()
    whole = tl.full((), MINUS_INFINITY, tl.float64)
    for i in tl.static_range(N):
        ending = _ending(arcs, alpha, steps, i, length, last, U1, BLANKS, N, OPEN, REACH)
        top = tl.max(ending, 0)
        if BEST:
            if top > whole:
                tl.store(end + b * 2, length - 1 - tl.argmax(ending, 0))
                tl.store(end + b * 2 + 1, i)
            whole = tl.maximum(whole, top)
        else:
            safe = tl.where(top == MINUS_INFINITY, 0.0, top)
            whole = logaddexp(whole, safe + tl.log(tl.sum(tl.exp(ending - safe), 0)))
    tl.store(total + b, whole)


@triton.jit
def _backward(
    arcs, steps, frames, tokens, alpha, beta, total, expected, T, U1, BLANKS: tl.constexpr, N: tl.constexpr,
    OPEN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Fill beta, replace the scores of all arcs by their posteriors, and write the expected score of a path."""
    b = tl.program_id(0).to(tl.int64)
    length, last = tl.load(frames + b), tl.load(tokens + b)
    arcs += b * T * N * U1
    alpha += b * T * U1
    beta += b * T * U1
    whole = tl.load(total + b)
    u = tl.arange(0, BLOCK)
    mean = tl.zeros((), tl.float64)
    if whole > MINUS_INFINITY:
        for k in range(length + last):
            t = length + last - 1 - k - u
            inside = (u <= last) & (t >= 0) & (t < length)
            value = tl.full((BLOCK,), MINUS_INFINITY, tl.float64)
            for i in tl.static_range(N):
                after = _after(beta, steps, i, t, u, inside, length, last, U1, BLANKS, OPEN)
                score = tl.load(arcs + (t * N + i) * U1 + u, mask=inside, other=MINUS_INFINITY)
                value = logaddexp(value, score + after)
            tl.store(beta + t * U1 + u, value, mask=inside)
            before = tl.load(alpha + t * U1 + u, mask=inside, other=MINUS_INFINITY)
            for i in tl.static_range(N):
                after = _after(beta, steps, i, t, u, inside, length, last, U1, BLANKS, OPEN)
                score = tl.load(arcs + (t * N + i) * U1 + u, mask=inside, other=MINUS_INFINITY)
                posterior = tl.exp(before + score + after - whole)
                mean += tl.sum(tl.where(posterior > 0, posterior * score, 0.0), 0)
                tl.store(arcs + (t * N + i) * U1 + u, posterior, mask=inside)
            tl.debug_barrier()
    tl.store(expected + b, mean)


@triton.jit
def _after(beta, steps, i: tl.constexpr, t, u, inside, length, last, U1, BLANKS: tl.constexpr, OPEN: tl.constexpr):
    """Return beta where arc i leads: 0 at an end, -inf outside the lattice."""
    to_t = t + tl.load(steps + i)
    to_u = u + (0 if i < BLANKS else 1)
    possible = inside & (to_u <= last)
    there = possible & (to_t < length)
    value = tl.load(beta + to_t * U1 + to_u, mask=there, other=MINUS_INFINITY)
    ends = possible & (to_u == last) & (to_t >= length)
    if not OPEN:
        ends = ends & (to_t == length)
        if i >= BLANKS:
            ends = ends & (u < 0)
    return tl.where(ends, 0.0, value)


def warps(width: int) -> int:
    """Return how many warps share a vector of this width: about two numbers to a thread."""
    return int(min(max(triton.next_power_of_2(width) // 64, 1), 16))


def solve(
    arcs: Tensor, kinds: Arcs, frames: Tensor, tokens: Tensor, *, open_end: bool, paths: bool = True
) -> dict[str, Tensor]:
    """Run all recursions of a batch.

    Args:
        arcs: Scores, (B, T, N, U + 1), float64, contiguous; overwritten by posteriors.
        kinds: What the arcs are.
        frames: Frames per item, (B,), int32.
        tokens: Tokens per item, (B,), int32.
        open_end: Whether arcs may pass the end.
        paths: Whether best paths are wanted.

    Returns:
        `total` and `entropy` (B,); with `paths` also `best` (B,), `came` (B, T, U + 1) arc into each node of the best
        paths, `end` (B, 2) frame and arc of the last step of the best path.
    """
    items, T, N, U1 = arcs.shape  # noqa: N806 - as in the kernels
    device = arcs.device
    steps = torch.tensor(kinds.steps, dtype=torch.int32, device=device)
    alpha = torch.empty((items, T, U1), dtype=torch.float64, device=device)
    beta = torch.empty_like(alpha)
    came = torch.zeros((items, T, U1), dtype=torch.int16, device=device)
    end = torch.full((items, 2), -1, dtype=torch.int32, device=device)
    total, best, expected = torch.empty((3, items), dtype=torch.float64, device=device)
    reach = triton.next_power_of_2(min(int(kinds.steps.max()), T))
    sizes: dict[str, Any] = {
        "BLANKS": kinds.blanks, "N": N, "OPEN": open_end, "BLOCK": triton.next_power_of_2(U1),
        "num_warps": warps(U1),
    }  # fmt: skip
    lattice = (arcs, steps, frames, tokens, alpha)
    if paths:
        _forward[(items,)](*lattice, came, best, end, T, U1, BEST=True, REACH=reach, **sizes)
    _forward[(items,)](*lattice, came, total, end, T, U1, BEST=False, REACH=reach, **sizes)
    _backward[(items,)](*lattice, beta, total, expected, T, U1, **sizes)
    entropy = (total - expected).clamp_min(0.0)
    found = {"total": total, "entropy": entropy}
    return {**found, "best": best, "came": came, "end": end} if paths else found
