# ruff: noqa: ANN001, ANN202, N803, PLR0915, PLR0917 - Triton kernels: traced arguments, upper case constants, one body
# mypy: disable-error-code="untyped-decorator, no-untyped-def"
"""Joint, log-softmax statistics and gather in one CUDA kernel: a program per tile of nodes, logits in registers only.

The tokens' maximum, sum, entropy and power sums are kept up online over blocks of the vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from earmark.lattice.joint import AdditiveJoint
from earmark.lattice.triton_support import tl, triton


@triton.jit
def _joint_stats(
    encoder, predictor, weight, bias, labels, picks, frames, tokens, orders, norms, entropies, picked, T, U1, H, V, W,
    P, K: tl.constexpr, KP: tl.constexpr, PP: tl.constexpr, TANH: tl.constexpr, BIAS: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, BH: tl.constexpr,
):  # fmt: skip
    """Write the statistics and the picked logits of a tile of nodes; picks of -1 stand for the next label."""
    b = tl.program_id(1).to(tl.int64)
    length, last = tl.load(frames + b), tl.load(tokens + b)
    node = tl.program_id(0) * BM + tl.arange(0, BM)
    t, u = node // U1, node % U1
    valid = (t < length) & (u <= last)
    label = tl.load(labels + b * (U1 - 1) + u, mask=valid & (u < last), other=0)
    pick = tl.arange(0, PP)
    wanted = tl.load(picks + pick, mask=pick < P, other=-2)
    wanted = tl.where(wanted[None, :] == -1, label[:, None], wanted[None, :])
    power_at = tl.arange(0, KP)
    order = tl.load(orders + power_at, mask=power_at < K, other=0.0).to(tl.float32)
    top = tl.full((BM,), -1e30, tl.float32)
    total = tl.zeros((BM,), tl.float64)
    weighted = tl.zeros((BM,), tl.float64)
    power = tl.zeros((BM, KP), tl.float64)
    found = tl.zeros((BM, PP), tl.float32)
    for first in range(0, W, BN):
        column = first + tl.arange(0, BN)
        x = tl.zeros((BM, BN), tl.float32)
        for start in range(0, H, BH):
            h = start + tl.arange(0, BH)
            here = valid[:, None] & (h < H)[None, :]
            e = tl.load(encoder + (b * T + t[:, None]) * H + h[None, :], mask=here, other=0.0).to(tl.float32)
            p = tl.load(predictor + (b * U1 + u[:, None]) * H + h[None, :], mask=here, other=0.0).to(tl.float32)
            hidden = 2.0 * tl.sigmoid(2.0 * (e + p)) - 1.0 if TANH else tl.maximum(e + p, 0.0)
            inside = (column < W)[:, None] & (h < H)[None, :]
            w = tl.load(weight + column[:, None] * H + h[None, :], mask=inside, other=0.0)
            x = tl.dot(hidden.to(w.dtype), tl.trans(w), x, input_precision="ieee")
        if BIAS:
            x += tl.load(bias + column, mask=column < W, other=0.0).to(tl.float32)[None, :]
        for k in tl.static_range(PP):
            target = tl.sum(tl.where(pick[None, :] == k, wanted, 0), 1)
            value = tl.sum(tl.where(column[None, :] == target[:, None], x, 0.0), 1)
            found += tl.where(pick[None, :] == k, value[:, None], 0.0)
        x = tl.where((column < V)[None, :], x, float("-inf"))
        risen = tl.maximum(top, tl.max(x, 1))
        shift = top - risen
        scale = tl.exp(shift).to(tl.float64)
        below = x - risen[:, None]
        e = tl.exp(below)
        weighted = scale * (weighted + total * shift.to(tl.float64))
        weighted += tl.sum(tl.where(e > 0, e * below, 0.0).to(tl.float64), 1)
        total = scale * total + tl.sum(e.to(tl.float64), 1)
        power = power * tl.exp(order[None, :] * shift[:, None]).to(tl.float64)
        for k in tl.static_range(K):
            exponent = tl.load(orders + k).to(tl.float32)
            more = tl.sum(tl.exp(below * exponent).to(tl.float64), 1)
            power += tl.where(power_at[None, :] == k, more[:, None], 0.0)
        top = risen
    log_sum = tl.log(total)
    row = (b * T + t) * U1 + u
    tl.store(norms + row * 2, top.to(tl.float64), mask=valid)
    tl.store(norms + row * 2 + 1, log_sum, mask=valid)
    tl.store(entropies + row * (K + 1), tl.maximum(log_sum - weighted / total, 0.0), mask=valid)
    powers = entropies + row[:, None] * (K + 1) + 1 + power_at[None, :]
    log_power = tl.log(power) - order[None, :].to(tl.float64) * log_sum[:, None]
    tl.store(powers, log_power, mask=valid[:, None] & (power_at < K)[None, :])
    tl.store(picked + row[:, None] * P + pick[None, :], found, mask=valid[:, None] & (pick < P)[None, :])


def joint_stats(
    joint: AdditiveJoint,
    labels: Tensor,
    lengths: tuple[Tensor, Tensor],
    picks: list[int],
    vocabulary: int,
    *,
    orders: tuple[float, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return normalisers, entropies and picked logits of every node.

    Args:
        joint: The joint; contiguous parts.
        labels: Token ids, (B, U), int64.
        lengths: Frames and tokens per item, (B,), int32.
        picks: Columns wanted of every node, P of them; -1 for the next label.
        vocabulary: V; the columns from V on are no tokens.
        orders: Orders of the power sums, K of them.

    Returns:
        Maximum and log sum of the tokens, (B, T, U + 1, 2), entropies (B, T, U + 1, 1 + K), float64, and logits
        (B, T, U + 1, P), float32.
    """
    items, frames, nodes, width = joint.shape
    device = joint.weight.device
    parts = [part.detach().contiguous() for part in (joint.encoder, joint.predictor, joint.weight)]
    bias = parts[2] if joint.bias is None else joint.bias.detach().contiguous()
    double = {"dtype": torch.float64, "device": device}
    norms = torch.zeros((items, frames, nodes, 2), **double)
    entropies = torch.zeros((items, frames, nodes, 1 + len(orders)), **double)
    picked = torch.zeros((items, frames, nodes, len(picks)), device=device)
    columns = torch.tensor(picks, dtype=torch.int64, device=device)
    powers = torch.tensor(orders or (0.0,), **double)
    tile = 32
    grid = (triton.cdiv(frames * nodes, tile), items)
    _joint_stats[grid](
        *parts, bias, labels[:, : nodes - 1].contiguous(), columns, *lengths, powers, norms, entropies, picked, frames,
        nodes, parts[0].shape[2], vocabulary, width, len(picks), K=len(orders),
        KP=triton.next_power_of_2(max(len(orders), 1)), PP=triton.next_power_of_2(len(picks)),
        TANH=joint.activation == "tanh", BIAS=joint.bias is not None, BM=tile, BN=64, BH=32,
    )  # fmt: skip
    return norms, entropies, picked
