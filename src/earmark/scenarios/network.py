"""Providers whose network is wired otherwise: fewer layers or frames, cheap caches and activations (A3, A8, A15)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from earmark.errors import UsageError
from earmark.protocols import Model
from earmark.scenarios.core import Scenario, running
from earmark.scenarios.grids import float8_grid, integer_grid

if TYPE_CHECKING:
    import torch

Kind = Literal["fp8", "int8", "int4"]
Grid = Callable[["torch.Tensor"], "torch.Tensor"]

GRIDS: dict[str, Grid] = {
    "fp8": float8_grid,
    "int8": lambda rows: integer_grid(rows, bits=8),
    "int4": lambda rows: integer_grid(rows, bits=4),
}


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
        made, layers = with_copied_layers(reference)
        if count >= len(layers):
            raise UsageError(f"{reference.info.name} has {len(layers)} encoder layers; {count} cannot be skipped")
        for layer in layers[-count:]:
            layer.register_forward_hook(_undone, with_kwargs=True)
        return made

    name = f"skip-{count}-layer" + ("s" if count > 1 else "")
    return running(name, f"the last {count} encoder layers left out", f"{count} layers", make)


def skip_frames(*, every: int = 2) -> Scenario:
    """Return a provider whose encoder computes one frame of `every`, and repeats it (THREATS A8).

    Args:
        every: Frames that share one result, 2 or more.

    Example:
        >>> skip_frames().name
        'frames-1-of-2'
    """
    if every < 2:
        raise UsageError(f"skip_frames takes every 2 or more; got {every}")

    def repeat(_module: Any, _inputs: Any, output: Any) -> Any:
        import torch

        states = output[0] if isinstance(output, tuple) else output
        held = torch.arange(states.shape[-2], device=states.device) // every * every
        repeated = states[..., held, :]
        return (repeated, *output[1:]) if isinstance(output, tuple) else repeated

    def make(reference: Model) -> Model:
        made, layers = with_copied_layers(reference)
        layers[-1].register_forward_hook(repeat)
        return made

    summary = f"one encoder frame of {every} computed, and repeated"
    return running(f"frames-1-of-{every}", summary, f"{1 - 1 / every:.0%} of the encoder", make)


def quantise_cache(*, kind: Kind = "fp8") -> Scenario:
    """Return a provider whose attention keys and values are kept in few bits (THREATS A3), one scale per vector.

    Args:
        kind: `fp8`, `int8` or `int4`.

    Example:
        >>> quantise_cache(kind="int8").name
        'kv-int8'
    """
    grid = _grid(kind, "quantise_cache")

    def make(reference: Model) -> Model:
        module = copy.deepcopy(reference.module)
        found = [m for name, m in module.named_modules() if name.rsplit(".", 1)[-1] in ("k_proj", "v_proj")]
        if not found:
            raise UsageError(f"{reference.info.name} has no layers named k_proj and v_proj")
        for layer in found:
            layer.register_forward_hook(lambda _m, _in, out: _round_vectors(out, grid))
        return reference.with_module(module)

    return running(f"kv-{kind}", f"keys and values in {kind}", "memory of the cache", make)


def quantise_activations(*, kind: Kind = "int8") -> Scenario:
    """Return a provider that feeds its linear layers in few bits (THREATS A2), one scale per vector.

    Args:
        kind: `fp8`, `int8` or `int4`.

    Example:
        >>> quantise_activations().name
        'activations-int8'
    """
    import torch

    grid = _grid(kind, "quantise_activations")

    def make(reference: Model) -> Model:
        module = copy.deepcopy(reference.module)
        found = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)]
        if not found:
            raise UsageError(f"{reference.info.name} has no linear layers that could be fed otherwise")
        for layer in found:
            layer.register_forward_pre_hook(lambda _m, given: (_round_vectors(given[0], grid), *given[1:]))
        return reference.with_module(module)

    return running(f"activations-{kind}", f"inputs of linear layers in {kind}", "time, with cheap weights", make)


def with_copied_layers(reference: Model) -> tuple[Model, list[Any]]:
    """Return a model around a copy of the reference's network, and the encoder layers of the copy.

    Where a model shows its layers through outlets, `encoder_blocks` gives the layers themselves.
    """
    made: Any = reference.with_module(copy.deepcopy(reference.module))
    return made, list(getattr(made, "encoder_blocks", made.encoder_layers)())


def _grid(kind: str, name: str) -> Grid:
    if kind not in GRIDS:
        raise UsageError(f"{name} takes {', '.join(GRIDS)}; got {kind!r}")
    return GRIDS[kind]


def _undone(_layer: Any, arguments: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
    """Give what went into a layer in place of what came out."""
    given = arguments[0] if arguments else named["hidden_states"]
    return (given, *output[1:]) if isinstance(output, tuple) else given


def _round_vectors(out: torch.Tensor, grid: Grid) -> torch.Tensor:
    rows = out.float().reshape(-1, out.shape[-1])
    return grid(rows).reshape(out.shape).to(out.dtype)
