"""Providers whose quantiser knows the data: rounding errors are made up for by the weights not yet rounded (A2b)."""

from __future__ import annotations

import copy
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from earmark.errors import UsageError
from earmark.protocols import Model
from earmark.scenarios.clips import own_inputs
from earmark.scenarios.core import Scenario, Settings, run_record, running

if TYPE_CHECKING:
    import torch

DAMPING = 0.01
"""Share of the mean diagonal that is added to it."""


def gptq(*, bits: int = 4, group: int | None = 64, clips: int = 8) -> Scenario:
    """Return a provider that runs integer weights made by GPTQ, calibrated on clips that ship with earmark.

    Args:
        bits: Bits per weight, 2 to 8.
        group: Weights that share a scale, along the input; None shares one per output channel.
        clips: How many clips calibrate it, 1 to 24.

    Raises:
        UsageError: A parameter is outside its range.

    Source: Frantar et al., GPTQ, arXiv 2210.17323, algorithm 1, without its blocks.

    Example:
        >>> gptq(bits=8, group=None).name
        'gptq-int8'
    """
    if not 2 <= bits <= 8 or (group is not None and group < 2) or not 1 <= clips <= 24:
        raise UsageError(f"gptq takes 2 to 8 bits, groups of 2 or more, 1 to 24 clips; got {bits}, {group}, {clips}")

    def make(reference: Model) -> Model:
        import torch

        module = copy.deepcopy(reference.module)
        moments = input_moments(reference.with_module(module), clips)
        if not moments:
            raise UsageError(f"{reference.info.name} has no linear layers that could be quantised")
        with torch.no_grad():
            for layer, moment in moments.items():
                layer.weight.copy_(compensated_grid(layer.weight.float(), moment, bits=bits, group=group))
        return reference.with_module(module)

    name = f"gptq-int{bits}" + (f"-g{group}" if group else "")
    return running(name, f"weights rounded to {bits} bits by GPTQ", "memory and time", make)


def input_moments(model: Model, clips: int) -> dict[Any, torch.Tensor]:
    """Return the sum of x x^T over the inputs x of every linear layer that runs, (width, width) each."""
    import torch

    moments: dict[Any, torch.Tensor] = {}

    def look(layer: Any, given: Any) -> None:
        rows = given[0].detach().float().reshape(-1, given[0].shape[-1])
        moments[layer] = moments.get(layer, 0) + rows.T @ rows

    with ExitStack() as stack:
        for layer in model.module.modules():
            if isinstance(layer, torch.nn.Linear):
                stack.callback(layer.register_forward_pre_hook(look).remove)
        run_record(model, own_inputs(model, clips), Settings())
    return moments


def compensated_grid(rows: torch.Tensor, moment: torch.Tensor, *, bits: int, group: int | None = None) -> torch.Tensor:
    """Return rows after rounding to integers column by column, the error of each spread over the columns to come.

    Args:
        rows: Weights, (rows, width) float32.
        moment: Sum of x x^T over the inputs, (width, width).
        bits: Bits per value.
        group: Columns that share a scale.

    Returns:
        The rounded values, same shape; each group lies on the grid of the scale that it had when its turn came.

    Example:
        >>> import torch
        >>> rows = torch.tensor([[0.4, 0.4, 1.0]])
        >>> compensated_grid(rows, torch.eye(3), bits=2).tolist()  # independent inputs: plain rounding
        [[0.0, 0.0, 1.0]]
        >>> compensated_grid(rows, torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]), bits=2).tolist()  # 1st equals 2nd
        [[0.0, 1.0, 1.0]]
    """
    import torch

    width = rows.shape[1]
    step = min(group or width, width)
    damping = DAMPING * moment.diagonal().mean().double().clamp_min(1e-12)
    damped = moment.double() + damping * torch.eye(width, dtype=torch.float64, device=moment.device)
    spread = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    left, done = rows.double().clone(), torch.empty_like(rows, dtype=torch.float64)
    scale = left.new_ones(())
    top = 2 ** (bits - 1) - 1
    for column in range(width):
        if column % step == 0:
            scale = left[:, column : column + step].abs().amax(dim=1).clamp_min(1e-12) / top
        done[:, column] = (left[:, column] / scale).round().clamp(-top - 1, top) * scale
        error = (left[:, column] - done[:, column]) / spread[column, column]
        left[:, column:] -= error[:, None] * spread[column, column:]
    return done.float()
