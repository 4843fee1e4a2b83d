"""Providers that run the reference and change what it gave: text and bytes (THREATS A20, A21)."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.core import Scenario, Settings, run_record

Damage = Literal["zeros", "short", "missing", "huge", "duplicate", "unsorted"]


def laundered() -> Scenario:
    """Return a provider that makes the text prettier after the model: a capital first, a full stop last (A21).

    Example:
        >>> laundered().name
        'laundered'
    """
    return _changed(
        "laundered", "the text edited after the model", lambda out: dataclasses.replace(out, text=_pretty(out.text))
    )


def _pretty(text: str) -> str:
    words = re.sub(r"\s+", " ", text).strip()
    return f" {words[:1].upper()}{words[1:]}."


def malformed(*, kind: Damage = "missing") -> Scenario:
    """Return a provider whose evidence is damaged (THREATS A20).

    Args:
        kind: `zeros` (258 zero bytes), `short` (the last byte gone), `missing` (NaN for every value), `huge` (values
            that no softmax gives), `duplicate` (a token listed twice), `unsorted` (lists turned round).

    Example:
        >>> malformed(kind="zeros").name
        'malformed-zeros'
    """
    if kind not in DAMAGES:
        raise UsageError(f"malformed takes {', '.join(DAMAGES)}; got {kind!r}")
    return _changed(f"malformed-{kind}", f"damaged evidence: {kind}", lambda out: _damaged(out, kind))


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "zeros": lambda _: None,
    "short": lambda _: None,
    "missing": lambda fields: {"logprobs": _filled(fields["logprobs"], np.nan)},
    "huge": lambda fields: {"entropy": _filled(fields["entropy"], 3e38)},
    "duplicate": lambda fields: {"ids": bytes(len(fields["ids"]))},
    "unsorted": lambda fields: {"logprobs": _turned(fields["logprobs"], fields["k"])},
}


def _damaged(output: SegmentOutput, kind: str) -> SegmentOutput:
    if kind == "zeros":
        return dataclasses.replace(output, trace=bytes(258))
    if kind == "short":
        return dataclasses.replace(output, trace=output.trace[:-1])
    fields = msgspec.msgpack.decode(output.trace)
    return dataclasses.replace(output, trace=msgspec.msgpack.encode(fields | DAMAGES[kind](fields)))


def _filled(data: bytes, value: float) -> bytes:
    return np.full(len(data) // 4, value, "<f4").tobytes()


def _turned(data: bytes, k: int) -> bytes:
    return np.frombuffer(data, "<f4").reshape(-1, k)[:, ::-1].tobytes()


def _changed(name: str, summary: str, change: Callable[[SegmentOutput], SegmentOutput]) -> Scenario:
    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        return [change(output) for output in run_record(reference, inputs, settings)]

    return Scenario(name=name, honest=False, summary=summary, saves="nothing", produce=produce)
