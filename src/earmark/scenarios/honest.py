"""Honest providers: the claimed model in other batches, kernels, threads, on another device. All must PASS."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.core import Scenario, Settings, run_record

BACKENDS = ("inductor", "aot_eager")


def honest(
    *,
    batch_size: int | None = None,
    padding_s: float = 0.0,
    attention: str | None = None,
    compiled: str | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> Scenario:
    """Return a provider that runs the claimed model in its own way.

    Args:
        batch_size: Segments at once, which also changes their padding; None keeps the caller's.
        padding_s: Each batch also holds a piece of silence of that length, to which the others are padded.
        attention: `sdpa` or `eager`; None keeps the model's.
        compiled: Backend of `torch.compile` for the network's layers, `inductor` or `aot_eager`; None for none.
        threads: CPU threads of torch; None keeps them.
        device: Where it runs, for instance `cuda`; None keeps the model's.

    Returns:
        The scenario.

    Raises:
        UsageError: A number is not positive. What the machine or the model cannot do is refused when it runs.

    Example:
        >>> honest(batch_size=3, threads=1).name
        'honest-batch-3-threads-1'
    """
    if (batch_size is not None and batch_size < 1) or (threads is not None and threads < 1) or not padding_s >= 0:
        expected = "the first two must be 1 or more, the last 0 or more"
        raise UsageError(f"batch size {batch_size}, threads {threads}, padding {padding_s} s; {expected}")
    marks = {"batch": batch_size, "padding": f"{padding_s:g}" if padding_s else None, "attention": attention}
    marks |= {"compiled": compiled, "threads": threads, "device": device}
    name = "-".join(["honest", *(f"{mark}-{value}" for mark, value in marks.items() if value is not None)])
    kept: dict[int, tuple[Model, Model]] = {}

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        if id(reference) not in kept:
            kept.clear()
            own_model = _compiled(_on(_with_attention(reference, attention), device), compiled)
            kept[id(reference)] = (reference, own_model)
        with _threads(threads):
            own = dataclasses.replace(settings, batch_size=batch_size or settings.batch_size)
            return _padded(kept[id(reference)][1], inputs, own, round(padding_s * 16_000))

    return Scenario(name=name, honest=True, summary="the claimed model", saves="nothing", produce=produce)


def honest_scenarios() -> list[Scenario]:
    """Return the honest variations that calibration rotates through.

    Example:
        >>> [s.name for s in honest_scenarios()][:2]
        ['honest-batch-1', 'honest-batch-8-attention-eager']
    """
    return [
        honest(batch_size=1),
        honest(batch_size=8, attention="eager"),
        honest(batch_size=3, threads=1),
        honest(batch_size=16),
    ]


def _padded(model: Model, inputs: Sequence[SegmentInput], settings: Settings, padding: int) -> list[SegmentOutput]:
    """Record in batches of which each holds a longer piece of silence, whose output is thrown away."""
    if not padding:
        return run_record(model, inputs, settings)
    outputs: list[SegmentOutput] = []
    for start in range(0, len(inputs), settings.batch_size):
        batch = list(inputs[start : start + settings.batch_size])
        silence = dataclasses.replace(batch[0], samples=np.zeros(min(padding, model.info.window_samples), np.int16))
        together = dataclasses.replace(settings, batch_size=len(batch) + 1)
        outputs += run_record(model, [*batch, silence], together)[:-1]
    return outputs


def _on(reference: Model, device: str | None) -> Model:
    """Return the model on another device.

    Raises:
        UsageError: The device cannot be used, or the model runs elsewhere.
    """
    if device is None or device == reference.info.device:
        return reference
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"device {device!r} cannot be used: {str(error).splitlines()[0]}") from error
    if not any(True for _ in reference.module.parameters()):
        raise UsageError(f"{reference.info.name} runs elsewhere; load it on {device}")
    made: Any = reference.with_module(copy.deepcopy(reference.module).to(device))
    made.info = dataclasses.replace(made.info, device=device)
    moved: Model = made
    return moved


def _compiled(reference: Model, backend: str | None) -> Model:
    """Return the model with the layers of its network compiled.

    Raises:
        UsageError: There is no such backend, or nothing to compile.
    """
    if backend is None:
        return reference
    import torch

    if backend not in BACKENDS:
        raise UsageError(f"compiled takes {', '.join(BACKENDS)}; got {backend!r}")
    module = copy.deepcopy(reference.module)
    stacks = [child for child in module.modules() if isinstance(child, torch.nn.ModuleList)]
    if not stacks:
        raise UsageError(f"{reference.info.name} has no layers that torch could compile")
    for layer in (layer for stack in stacks for layer in stack):
        layer.compile(backend=backend, dynamic=True)
    return reference.with_module(module)


def _with_attention(reference: Model, attention: str | None) -> Model:
    if attention is None or attention == reference.info.attention:
        return reference
    module: Any = copy.deepcopy(reference.module)
    if not hasattr(module, "set_attn_implementation"):
        return reference
    module.set_attn_implementation(attention)
    return reference.with_module(module)


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
