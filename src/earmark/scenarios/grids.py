"""Number grids of cheap weights: integers, 4-bit normal floats, 8-bit floats; pure functions on tensors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Rounding = Literal["nearest", "stochastic"]
Rotation = Literal["random", "hadamard"]

NF4 = (
    -1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
    0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.56261700, 0.72295684, 1.0,
)  # fmt: skip
"""The sixteen values of NormalFloat4 (Dettmers et al., QLoRA, arXiv 2305.14314, appendix E)."""


def integer_grid(
    rows: torch.Tensor,
    *,
    bits: int,
    group: int | None = None,
    symmetric: bool = True,
    rounding: Rounding = "nearest",
) -> torch.Tensor:
    """Return rows after rounding to integers, one scale per row or per group of its values, and back.

    Args:
        rows: Values that share a scale stand in one row, (rows, width) float32.
        bits: Bits per value, 2 to 16.
        group: Values that share a scale; None for the whole row.
        symmetric: Whether the grid is symmetric about 0; else it has an offset.
        rounding: To the nearest grid point, or up with a probability equal to the remainder (seeded).

    Returns:
        The rounded values, same shape.

    Example:
        >>> import torch
        >>> integer_grid(torch.tensor([[1.0, 0.49, -1.0]]), bits=2).tolist()
        [[1.0, 0.0, -1.0]]
    """
    import torch

    blocks, width = _blocks(rows, group)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        low = blocks.new_zeros(())
        scale = blocks.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / top
        least, most = -top - 1, top
    else:
        low = blocks.amin(dim=-1, keepdim=True)
        scale = (blocks.amax(dim=-1, keepdim=True) - low).clamp_min(1e-12) / (2**bits - 1)
        least, most = 0, 2**bits - 1
    steps = (blocks - low) / scale
    if rounding == "stochastic":
        noise = torch.rand(steps.shape, generator=torch.Generator().manual_seed(0)).to(steps.device)
        steps = (steps + noise).floor()
    rounded = steps.round().clamp(least, most) * scale + low
    result: torch.Tensor = rounded.reshape(rows.shape[0], -1)[:, :width]
    return result


def normal_float_grid(rows: torch.Tensor, *, group: int = 64) -> torch.Tensor:
    """Return rows after rounding to NormalFloat4 with one scale per group of values.

    Example:
        >>> import torch
        >>> [round(x, 4) for x in normal_float_grid(torch.tensor([[2.0, 0.1, -1.0]]))[0].tolist()]
        [2.0, 0.1592, -1.0501]
    """
    import torch

    blocks, width = _blocks(rows, group)
    scale = blocks.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12)
    levels = torch.tensor(NF4, device=rows.device)
    borders = (levels[1:] + levels[:-1]) / 2
    rounded = levels[torch.bucketize((blocks / scale).contiguous(), borders)] * scale
    return rounded.reshape(rows.shape[0], -1)[:, :width]


def float8_grid(rows: torch.Tensor) -> torch.Tensor:
    """Return rows after rounding to 8-bit floats (e4m3) with one scale per row.

    Example:
        >>> import torch
        >>> float8_grid(torch.tensor([[448.0, 17.0]])).tolist()
        [[448.0, 16.0]]
    """
    import torch

    scale = rows.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / torch.finfo(torch.float8_e4m3fn).max
    rounded: torch.Tensor = (rows / scale).to(torch.float8_e4m3fn).float() * scale
    return rounded


def rotated(rows: torch.Tensor, rotation: Rotation = "random", seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows times an orthogonal matrix, and the matrix: quantisers rotate to spread outliers.

    Args:
        rows: Weights, (rows, width).
        rotation: A `random` orthogonal matrix, or `hadamard`: blocks of a Hadamard matrix, the largest whose size
            divides the width, behind random signs.
        seed: Seed of the matrix or of the signs.

    Source: Ashkboos et al., QuaRot, arXiv 2404.00456, section 3 (randomised Hadamard matrices).

    Example:
        >>> import torch
        >>> turned, matrix = rotated(torch.eye(12), "hadamard")
        >>> bool(torch.allclose(turned @ matrix.T, torch.eye(12), atol=1e-6))
        True
        >>> turned.abs().unique().tolist()
        [0.0, 0.5]
    """
    import torch

    width = rows.shape[1]
    generator = torch.Generator().manual_seed(seed + width)
    if rotation == "hadamard":
        matrix = _hadamard(width, torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1.0)
    else:
        matrix = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    matrix = matrix.to(rows.device)
    return rows @ matrix, matrix


def _hadamard(width: int, signs: torch.Tensor) -> torch.Tensor:
    """Return an orthogonal matrix (width, width): signs times blocks of the largest Hadamard matrix that fits."""
    import torch
    from scipy.linalg import hadamard

    size = width & -width  # the largest power of two that divides the width
    block = torch.as_tensor(hadamard(size), dtype=torch.float32) / math.sqrt(size)
    return signs[:, None] * torch.kron(torch.eye(width // size), block)


def _blocks(rows: torch.Tensor, group: int | None) -> tuple[torch.Tensor, int]:
    """Return (rows, blocks, group), the last block filled up with its last value, and the true width."""
    import torch

    width = rows.shape[1]
    step = min(group or width, width)
    missing = math.ceil(width / step) * step - width
    filled = torch.nn.functional.pad(rows, (0, missing), mode="replicate") if missing else rows
    return filled.reshape(rows.shape[0], -1, step), width
