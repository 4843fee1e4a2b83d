"""Forged evidence of any family: other ids, blanked fields, weights with noise."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from earmark.records.evidence import Evidence

if TYPE_CHECKING:
    import torch

FILLINGS = (("<f4", np.nan), ("<f4", -9999.0), ("<f4", np.inf), ("<f4", -np.inf), ("<f2", np.nan), ("<f8", np.nan))
"""What a forger writes over an array."""


def with_segment(evidence: Evidence, **changes: Any) -> Evidence:
    """Return evidence with fields of its first segment replaced."""
    first = msgspec.structs.replace(evidence.segments[0], **changes)
    return msgspec.structs.replace(evidence, segments=(first, *evidence.segments[1:]))


def other_ids(ids: Sequence[int], donor: Sequence[int], seed: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield transcripts that differ from `ids` in one place, with a name each.

    Args:
        ids: Emitted ids.
        donor: Ids of another clip, from which a strange one is taken.
        seed: Seed of the places.

    Example:
        >>> dict(other_ids((1, 2, 3), (1, 9), 0))["the first id dropped"]
        (2, 3)
    """
    rng = random.Random(seed)  # noqa: S311 - damage, not secrets
    known = tuple(ids)
    if known:
        yield "the first id dropped", known[1:]
        yield "the last id dropped", known[:-1]
    for at in sorted({0, len(known) // 2, max(0, len(known) - 2)} & set(range(len(known)))):
        strange = [i for i in donor if i != known[at]]
        if strange:
            yield f"id {at} changed", (*known[:at], rng.choice(strange), *known[at + 1 :])
            yield f"an id inserted at {at}", (*known[:at], rng.choice(strange), *known[at:])


def blanked(trace: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield forms of a trace with one field each overwritten by NaN, infinity or -9999.

    Fields are the byte strings and floats of a MessagePack trace; a trace in another format is one field.
    """
    try:
        opened = msgspec.msgpack.decode(trace)
    except msgspec.MsgspecError:
        opened = trace
    for path, value in _leaves(opened):
        for what, filled in _fillings(value):
            if filled != value:
                changed = _replaced(copy.deepcopy(opened), path, filled)
                yield (
                    f"field {'.'.join(map(str, path)) or 'trace'} filled with {what}",
                    changed if isinstance(opened, bytes) else msgspec.msgpack.encode(changed),
                )


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    if isinstance(value, bytes | float):
        yield path, value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, (*path, key))


def _fillings(value: bytes | float) -> Iterator[tuple[str, Any]]:
    for kind, number in FILLINGS:
        if isinstance(value, float):
            if kind == "<f8" or np.isnan(number) or number < 0:
                yield f"{number}", float(number)
            continue
        size = np.dtype(kind).itemsize
        if value and len(value) % size == 0:
            yield f"{number} ({kind})", np.full(len(value) // size, number, kind).tobytes()


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    value[path[0]] = _replaced(value[path[0]], path[1:], new)
    return value


def noisy(module: torch.nn.Module, spread: float, seed: int) -> torch.nn.Module:
    """Return a copy of a network with Gaussian noise on every weight, relative to the spread of its tensor.

    Args:
        module: The network; it stays as it is.
        spread: Standard deviation of the noise as a share of each tensor's own.
        seed: Seed of the noise.
    """
    import torch

    made = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            noise = torch.randn(weight.shape, generator=generator) * spread
            scale = weight.float().std() if weight.numel() > 1 else weight.float().abs().mean()
            weight.add_((noise.to(weight.device) * scale).to(weight.dtype))
    return made
