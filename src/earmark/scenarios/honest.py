"""Honest providers: the claimed model under other batch sizes, kernels and threads. All of them must PASS."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.core import Scenario, Settings, run_record


def honest(*, batch_size: int | None = None, attention: str | None = None, threads: int | None = None) -> Scenario:
    """Return a provider that runs the claimed model in its own way.

    Args:
        batch_size: Segments at once, which also changes their padding; None keeps the caller's.
        attention: `sdpa` or `eager`; None keeps the model's.
        threads: CPU threads of torch; None keeps them.

    Returns:
        The scenario.

    Raises:
        UsageError: A number is not positive.

    Example:
        >>> honest(batch_size=3, threads=1).name
        'honest-batch-3-threads-1'
    """
    if (batch_size is not None and batch_size < 1) or (threads is not None and threads < 1):
        raise UsageError(f"batch size {batch_size}, threads {threads}; both must be 1 or more")
    marks = {"batch": batch_size, "attention": attention, "threads": threads}
    name = "-".join(["honest", *(f"{mark}-{value}" for mark, value in marks.items() if value is not None)])
    kept: dict[int, tuple[Model, Model]] = {}

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        if id(reference) not in kept:
            kept.clear()
            kept[id(reference)] = (reference, _with_attention(reference, attention))
        with _threads(threads):
            own = dataclasses.replace(settings, batch_size=batch_size or settings.batch_size)
            return run_record(kept[id(reference)][1], inputs, own)

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
