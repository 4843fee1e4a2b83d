"""Damaged records without end: what an adversary, or a bad disk, makes of honest evidence."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from earmark.records.evidence import Evidence

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**53, 2**63, -(2**63), 0.5, -0.0, 5e-324, 1e308, float("nan"), float("inf"),
    "", "fp16", "\0", "x" * 1000, b"", b"\0" * 258, b"\xff" * 64, [], {}, [[[[]]]],
)  # fmt: skip
"""Values that parsers stumble over."""


def mutated_evidence(evidence: Evidence, seed: int) -> Iterator[bytes]:
    """Yield damaged forms of an evidence without end, as MessagePack; none equals the original.

    Most damage is done to the decoded structure, so that it survives the parser: fields left out, doubled, moved,
    replaced; numbers shifted; bytes flipped and cut. Traces are opened and damaged inside. One in ten is damaged as
    raw bytes.

    Args:
        evidence: An honest record.
        seed: Seed of the damage.

    Yields:
        Damaged records; `benchmarks/fuzz.py` shows how to use them.
    """
    rng = random.Random(seed)  # noqa: S311 - damage, not secrets
    original = evidence.to_msgpack()
    while True:
        record = msgspec.msgpack.decode(original)
        if rng.random() < 0.6:
            _damage_segment(record, rng)
        else:
            record = damage(record, rng)
        data = _encode(record) or original
        if rng.random() < 0.1:
            data = flip(data, rng)
        if data != original:
            yield data


def _damage_segment(record: Any, rng: random.Random) -> None:
    """Damage one trace in place; compact records and their segments are lists that end with what is wanted."""
    segments = record["segments"] if isinstance(record, dict) else record[-1]
    segment = rng.choice(segments)
    key: Any = "trace" if isinstance(segment, dict) else -1
    segment[key] = _damage_trace(segment[key], rng)


def _encode(record: Any) -> bytes | None:
    try:
        return msgspec.msgpack.encode(record)
    except (OverflowError, ValueError, TypeError):
        return None


def _damage_trace(trace: bytes, rng: random.Random) -> bytes:
    try:
        opened = msgspec.msgpack.decode(trace)
    except msgspec.MsgspecError:  # a family may write its traces in another format
        return flip(trace, rng)
    return _encode(damage(opened, rng)) or trace


def mutated_traces(trace: bytes, seed: int) -> Iterator[bytes]:
    """Yield damaged forms of one trace without end; none equals the original.

    Args:
        trace: The trace of an honest segment; opened if it is MessagePack, else damaged as raw bytes.
        seed: Seed of the damage.

    Yields:
        Damaged traces.

    Example:
        >>> stream = mutated_traces(msgspec.msgpack.encode({"k": 8}), 1)
        >>> next(stream) != msgspec.msgpack.encode({"k": 8})
        True
    """
    rng = random.Random(seed)  # noqa: S311 - damage, not secrets
    while True:
        damaged = _damage_trace(trace, rng) if rng.random() < 0.8 else flip(trace, rng)
        if damaged != trace:
            yield damaged


def damage(value: Any, rng: random.Random) -> Any:
    """Return a decoded value with one place damaged.

    Args:
        value: Dictionaries, lists, bytes, numbers and strings; dictionaries and lists are changed in place.
        rng: Source of chance.

    Returns:
        The damaged value.

    Example:
        >>> damage({"a": [1, 2]}, random.Random(4)) != {"a": [1, 2]}
        True
    """
    if isinstance(value, dict | list) and value and rng.random() < 0.95:
        return _damage_inside(value, rng)
    if isinstance(value, bytes) and value and rng.random() < 0.9:
        return flip(value, rng)
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, -100, 100, 1e-6))
    return copy.deepcopy(rng.choice(VALUES))


def _damage_inside(value: Any, rng: random.Random) -> Any:
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    key, action = rng.choice(keys), rng.random()
    changes: tuple[tuple[float, Callable[[], Any]], ...] = (
        (0.1, lambda: value.pop(key)),
        (0.2, lambda: _double(value, key)),
        (0.3, lambda: _swap(value, key, rng.choice(keys))),
    )
    for share, change in changes:
        if action < share:
            change()
            return value
    value[key] = damage(value[key], rng)
    return value


def _double(value: Any, key: Any) -> None:
    if isinstance(value, dict):
        value[f"{key}_"] = copy.deepcopy(value[key])
    else:
        value.insert(key, copy.deepcopy(value[key]))


def _swap(value: Any, one: Any, other: Any) -> None:
    value[one], value[other] = value[other], value[one]


def flip(data: bytes, rng: random.Random) -> bytes:
    """Return bytes of which a few are changed, cut off or doubled.

    Args:
        data: At least one byte.
        rng: Source of chance.

    Returns:
        The damaged bytes.

    Example:
        >>> flip(b"abcdef", random.Random(1)) != b"abcdef"
        True
    """
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    action = rng.random()
    if action < 0.15:
        changed = changed[: rng.randrange(len(changed))]
    elif action < 0.25:
        changed += changed[rng.randrange(len(changed)) :]
    return bytes(changed)
