"""Providers that run altered weights: quantised, pruned, fine-tuned (THREATS A2, A5)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from earmark.errors import UsageError
from earmark.protocols import Model
from earmark.scenarios.core import Scenario, running
from earmark.scenarios.grids import Rotation, Rounding, float8_grid, integer_grid, normal_float_grid, rotated

if TYPE_CHECKING:
    import torch

Part = Literal["all", "encoder", "decoder"]
Sharing = Literal["channel", "tensor"]
PARTS = ("all", "encoder", "decoder")
BITS = (*range(2, 9), 16)
Change = Callable[["torch.Tensor"], "torch.Tensor"]
"""Makes new values of one weight, given and returned as float32 (output channels, rest)."""


def quantise(
    *,
    bits: int = 8,
    group: int | None = None,
    symmetric: bool = True,
    part: Part = "all",
    sharing: Sharing = "channel",
    rounding: Rounding = "nearest",
    rotation: Rotation | None = None,
) -> Scenario:
    """Return a provider that runs integer weights: a round trip of every linear and convolution weight.

    Args:
        bits: Bits per weight, 2 to 8; 16 changes nothing that shows, a control.
        group: Weights that share a scale, along the input; None shares one per output channel.
        symmetric: Whether the grid is symmetric about 0; else it has an offset.
        part: `all`, `encoder` or `decoder`.
        sharing: Whether a scale belongs to a `channel` (or group) or to the whole `tensor`.
        rounding: `nearest` or `stochastic` (A2b).
        rotation: Rotate the inputs before rounding, and back: `random` or `hadamard` (A2b).

    Returns:
        The scenario.

    Raises:
        UsageError: A parameter is outside its range.

    Example:
        >>> quantise(bits=8).name, quantise(bits=4, group=64, symmetric=False).name
        ('int8', 'int4-g64-asymmetric')
    """
    if bits not in BITS or (group is not None and group < 2) or part not in PARTS:
        expected = "2 to 8 or 16 bits, groups of 2 or more, a known part"
        raise UsageError(f"quantise takes {expected}; got {bits}, {group}, {part}")
    if rotation not in (None, *get_args(Rotation)):
        raise UsageError(f"rotation {rotation!r}; known: {', '.join(get_args(Rotation))}")
    marks = (
        (f"g{group}", group),
        ("tensor", sharing == "tensor"),
        ("asymmetric", not symmetric),
        ("stochastic", rounding == "stochastic"),
        (rotation, rotation),
    )
    name = "-".join([f"int{bits}", *(str(mark) for mark, present in marks if present)])

    def change(weight: torch.Tensor) -> torch.Tensor:
        turned, back = rotated(weight, rotation) if rotation else (weight, None)
        rows = turned.reshape(1, -1) if sharing == "tensor" else turned
        grid = integer_grid(rows, bits=bits, group=group, symmetric=symmetric, rounding=rounding).reshape(weight.shape)
        return grid if back is None else grid @ back.T

    return altered(name, f"weights rounded to {bits} bits", "memory and time", change, part=part)


def float8(*, part: Part = "all") -> Scenario:
    """Return a provider that runs 8-bit floating-point weights (e4m3, one scale per output channel).

    Example:
        >>> float8().name
        'fp8'
    """
    return altered("fp8", "weights rounded to 8-bit floats", "memory and time", float8_grid, part=part)


def normal_float4(*, group: int = 64, part: Part = "all") -> Scenario:
    """Return a provider that runs NormalFloat4 weights with one scale per group.

    Example:
        >>> normal_float4().name
        'nf4'
    """
    change: Change = lambda weight: normal_float_grid(weight, group=group)  # noqa: E731
    return altered("nf4", "weights rounded to 4-bit normal floats", "memory", change, part=part)


def prune(*, share: float = 0.01, part: Part = "all") -> Scenario:
    """Return a provider that sets the smallest weights of each layer to zero.

    Args:
        share: Share of each layer's weights, between 0 and 1.
        part: `all`, `encoder` or `decoder`.

    Example:
        >>> prune(share=0.3).name
        'pruned-0.3'
    """
    if not 0 < share < 1:
        raise UsageError(f"prune takes a share between 0 and 1; got {share:g}")

    def change(weight: torch.Tensor) -> torch.Tensor:
        sizes = weight.abs().flatten()
        border = sizes.kthvalue(max(1, round(share * len(sizes)))).values
        return weight * (weight.abs() > border)

    return altered(f"pruned-{share:g}", f"{share:.0%} of the weights set to 0", "memory", change, part=part)


def low_rank(*, rank: int = 8, size: float = 1e-2, seed: int = 0, part: Part = "all") -> Scenario:
    """Return a provider that runs a fine-tuned model: a random low-rank update of every linear weight (LoRA).

    Args:
        rank: Rank of the update.
        size: Norm of the update as a share of the weight's.
        seed: Seed of the update.
        part: `all`, `encoder` or `decoder`.

    Example:
        >>> low_rank().name
        'lora-r8-0.01'
    """
    if rank < 1 or not size > 0:
        raise UsageError(f"low_rank takes a rank of 1 or more and a positive size; got {rank}, {size:g}")

    def change(weight: torch.Tensor) -> torch.Tensor:
        import torch

        generator = torch.Generator().manual_seed(seed + weight.numel())
        left, right = (torch.randn(n, rank, generator=generator) for n in weight.shape)
        update = (left @ right.T).to(weight.device)
        changed: torch.Tensor = weight + size * weight.norm() / update.norm() * update
        return changed

    return altered(f"lora-r{rank}-{size:g}", f"fine-tuned at rank {rank}", "nothing: another model", change, part=part)


def noise(*, size: float = 2.0**-8, seed: int = 0, part: Part = "all") -> Scenario:
    """Return a provider whose weights carry relative Gaussian noise.

    Args:
        size: Standard deviation as a share of each weight.
        seed: Seed of the noise.
        part: `all`, `encoder` or `decoder`.

    Example:
        >>> noise(size=0.25).name
        'noise-0.25'
    """
    if not size > 0:
        raise UsageError(f"noise takes a positive size; got {size:g}")

    def change(weight: torch.Tensor) -> torch.Tensor:
        import torch

        generator = torch.Generator().manual_seed(seed + weight.numel())
        return weight * (1 + size * torch.randn(weight.shape, generator=generator).to(weight.device))

    return altered(f"noise-{size:g}", "weights with noise", "nothing: a control", change, part=part)


def altered(name: str, summary: str, saves: str, change: Change, *, part: Part = "all") -> Scenario:
    """Return a provider that runs a copy of the reference with every linear and convolution weight changed.

    Args:
        name: Name of the scenario; the part is added where it is not `all`.
        summary: What it does, in one line.
        saves: What the cheat saves.
        change: Makes the new values of one weight.
        part: Weights below a module of that name; `all` for every one.

    Returns:
        The scenario; the copy is made once per reference.
    """
    if part not in PARTS:
        raise UsageError(f"part {part!r}; known: {', '.join(PARTS)}")

    def make(reference: Model) -> Model:
        return reference.with_module(changed_copy(reference.module, change, part))

    return running(name if part == "all" else f"{name}-{part}", summary, saves, make)


def changed_copy(module: torch.nn.Module, change: Change, part: Part = "all") -> torch.nn.Module:
    """Return a copy of a network with its linear and convolution weights changed.

    Args:
        module: The network; left as it is.
        change: See `altered`.
        part: See `altered`.

    Returns:
        The copy.

    Raises:
        UsageError: There is nothing to change, as in a network that runs elsewhere (ONNX).
    """
    import torch

    def chosen(network: torch.nn.Module) -> list[Any]:
        kinds = torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d
        found = network.named_modules()
        return [layer for name, layer in found if isinstance(layer, kinds) and part in ("all", *name.split("."))]

    if not chosen(module):
        raise UsageError(f"the network holds no linear or convolution weights in {part!r} that could be changed")
    made = copy.deepcopy(module)
    with torch.no_grad():
        for layer in chosen(made):
            rows = layer.weight.detach().float().flatten(1)
            layer.weight.copy_(change(rows).reshape(layer.weight.shape))
    return made
