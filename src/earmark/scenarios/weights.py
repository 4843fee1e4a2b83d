"""Providers that run altered weights: quantised, pruned, fine-tuned, with layers left out (THREATS A2, A3, A5, A15)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.core import Scenario, Settings, run_record
from earmark.scenarios.grids import Rounding, float8_grid, integer_grid, normal_float_grid, rotated

if TYPE_CHECKING:
    import torch

Part = Literal["all", "encoder", "decoder"]
Sharing = Literal["channel", "tensor"]
PARTS = ("all", "encoder", "decoder")
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
    rotate: bool = False,
) -> Scenario:
    """Return a provider that runs integer weights: a round trip of every linear and convolution weight.

    Args:
        bits: Bits per weight, 2 to 8.
        group: Weights that share a scale, along the input; None shares one per output channel.
        symmetric: Whether the grid is symmetric about 0; else it has an offset.
        part: `all`, `encoder` or `decoder`.
        sharing: Whether a scale belongs to a `channel` (or group) or to the whole `tensor`.
        rounding: `nearest` or `stochastic` (A2b).
        rotate: Rotate the inputs at random before rounding, and back (A2b).

    Returns:
        The scenario.

    Raises:
        UsageError: A parameter is outside its range.

    Example:
        >>> quantise(bits=8).name, quantise(bits=4, group=64, symmetric=False).name
        ('int8', 'int4-g64-asymmetric')
    """
    if not 2 <= bits <= 8 or (group is not None and group < 2) or part not in PARTS:
        raise UsageError(f"quantise takes 2 to 8 bits, groups of 2 or more, a known part; got {bits}, {group}, {part}")
    marks = (
        (f"g{group}", group),
        ("tensor", sharing == "tensor"),
        ("asymmetric", not symmetric),
        ("stochastic", rounding == "stochastic"),
        ("rotated", rotate),
    )
    name = "-".join([f"int{bits}", *(mark for mark, present in marks if present)])

    def change(weight: torch.Tensor) -> torch.Tensor:
        turned, back = rotated(weight) if rotate else (weight, None)
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


def skip_layers(*, count: int = 1) -> Scenario:
    """Return a provider that leaves out the last layers of the encoder (THREATS A15).

    Args:
        count: How many layers are skipped.

    Example:
        >>> skip_layers().name
        'skip-1-layer'
    """
    if count < 1:
        raise UsageError(f"skip_layers takes a count of 1 or more; got {count}")

    def make(reference: Model) -> Model:
        made: Any = reference.with_module(copy.deepcopy(reference.module))
        layers = list(made.encoder_layers())
        if count >= len(layers):
            raise UsageError(f"{reference.info.name} has {len(layers)} encoder layers; {count} cannot be skipped")
        for layer in layers[-count:]:
            layer.forward = _first_argument
        skipping: Model = made
        return skipping

    name = f"skip-{count}-layer" + ("s" if count > 1 else "")
    return _replaced(name, f"the last {count} encoder layers left out", f"{count} layers", make)


def quantise_cache(*, kind: Literal["fp8", "int8", "int4"] = "fp8") -> Scenario:
    """Return a provider whose attention keys and values are kept in few bits (THREATS A3), one scale per vector.

    Args:
        kind: `fp8`, `int8` or `int4`.

    Example:
        >>> quantise_cache(kind="int8").name
        'kv-int8'
    """
    grids: dict[str, Change] = {
        "fp8": float8_grid,
        "int8": lambda rows: integer_grid(rows, bits=8),
        "int4": lambda rows: integer_grid(rows, bits=4),
    }
    if kind not in grids:
        raise UsageError(f"quantise_cache takes {', '.join(grids)}; got {kind!r}")

    def make(reference: Model) -> Model:
        module = copy.deepcopy(reference.module)
        found = [m for name, m in module.named_modules() if name.rsplit(".", 1)[-1] in ("k_proj", "v_proj")]
        if not found:
            raise UsageError(f"{reference.info.name} has no layers named k_proj and v_proj")
        for layer in found:
            layer.register_forward_hook(lambda _m, _in, out: _round_vectors(out, grids[kind]))
        return reference.with_module(module)

    return _replaced(f"kv-{kind}", f"keys and values in {kind}", "memory of the cache", make)


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

    return _replaced(name if part == "all" else f"{name}-{part}", summary, saves, make)


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


def _replaced(name: str, summary: str, saves: str, make: Callable[[Model], Model]) -> Scenario:
    """Return a provider that runs another model made from the reference; the latest one is kept."""
    kept: dict[int, tuple[Model, Model]] = {}

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        if id(reference) not in kept:
            kept.clear()
            kept[id(reference)] = (reference, make(reference))
        return run_record(kept[id(reference)][1], inputs, settings)

    return Scenario(name=name, honest=False, summary=summary, saves=saves, produce=produce, model=make)


def _first_argument(*arguments: Any, **named: Any) -> Any:
    return arguments[0] if arguments else named["hidden_states"]


def _round_vectors(out: torch.Tensor, grid: Change) -> torch.Tensor:
    rows = out.float().reshape(-1, out.shape[-1])
    return grid(rows).reshape(out.shape).to(out.dtype)
