"""Families that each break one rule: what the contracts must tell."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np

from earmark.errors import TraceError
from earmark.fingerprint.types import Fingerprint
from earmark.verifiers.autoregressive import AutoregressiveFamily


class Ascending(AutoregressiveFamily):
    """Lists its candidates from the worst to the best."""

    def record(self, *arguments, **options):
        outputs = super().record(*arguments, **options)
        return [dataclasses.replace(o, trace=_reversed(o.trace, options["k"])) for o in outputs]


def _reversed(trace: bytes, k: int) -> bytes:
    opened = msgspec.msgpack.decode(trace)
    for name, kind in (("ids", "<i4"), ("logprobs", "<f4")):
        opened[name] = np.frombuffer(opened[name], kind).reshape(-1, k)[:, ::-1].tobytes()
    return msgspec.msgpack.encode(opened)


class Deaf(AutoregressiveFamily):
    """Hears the same noise whatever it is given."""

    def _deaf(self, inputs):
        noise = (np.random.default_rng(0).normal(size=16_000) * 3000).astype(np.int16)
        return [dataclasses.replace(item, samples=noise) for item in inputs]

    def record(self, model, inputs, **options):
        return super().record(model, self._deaf(inputs), **options)

    def replay(self, model, inputs, traces, **options):
        return super().replay(model, self._deaf(inputs), traces, **options)


def _compared(change):
    """Return a family whose statistics are changed after the comparison."""

    class Changed(AutoregressiveFamily):
        def compare(self, *arguments, **options):
            made = super().compare(*arguments, **options)
            values = change(dict(made.fingerprint))
            changed = Fingerprint(self.name, made.fingerprint.names, tuple(values.values()))
            return dataclasses.replace(made, fingerprint=changed)

    return Changed


Shrinking = _compared(lambda values: {**values, "rank_distance": 1 - values["rank_distance"]})
Infinite = _compared(lambda values: {**values, "margin_max": float("inf")})
Blind = _compared(lambda values: dict.fromkeys(values, 0.0))
Empty = _compared(lambda values: dict.fromkeys(values, float("nan")))


class Crashing(AutoregressiveFamily):
    """Opens a trace before it has looked at it."""

    def read(self, segment, request, model, level):
        msgspec.msgpack.decode(segment.trace)["k"]
        return super().read(segment, request, model, level)


class Trusting(AutoregressiveFamily):
    """Reads a trace with a byte too many."""

    def read(self, segment, request, model, level):
        try:
            return super().read(segment, request, model, level)
        except TraceError:
            return super().read(msgspec.structs.replace(segment, trace=segment.trace[:-1]), request, model, level)


class Lenient(AutoregressiveFamily):
    """Says nothing about the emitted tokens."""

    def compare(self, *arguments, **options):
        return dataclasses.replace(super().compare(*arguments, **options), findings=())


class Forgetful(AutoregressiveFamily):
    """Returns its outputs in the order of their length."""

    def record(self, model, inputs, **options):
        if options["batch_size"] > 1:
            inputs = sorted(inputs, key=lambda item: len(item.samples))
        return super().record(model, inputs, **options)


class Undemanding(AutoregressiveFamily):
    """Takes any number of candidates."""

    def review(self, *_):
        return []


class Stale(AutoregressiveFamily):
    """Probes the same places whatever the nonce."""

    def _fixed(self, inputs):
        return [
            dataclasses.replace(item, request=msgspec.structs.replace(item.request, nonce="0" * 32)) for item in inputs
        ]

    def record(self, model, inputs, **options):
        return super().record(model, self._fixed(inputs), **options)

    def replay(self, model, inputs, traces, **options):
        return super().replay(model, self._fixed(inputs), traces, **options)


class Bulky(AutoregressiveFamily):
    """Writes a megabyte of nothing behind every trace."""

    def record(self, *arguments, **options):
        return [
            dataclasses.replace(output, trace=output.trace + bytes(1_000_000))
            for output in super().record(*arguments, **options)
        ]


class Moody(AutoregressiveFamily):
    """Writes another trace each time."""

    calls = 0

    def record(self, *arguments, **options):
        Moody.calls += 1
        extra = msgspec.msgpack.encode(Moody.calls)
        return [dataclasses.replace(o, trace=o.trace + extra) for o in super().record(*arguments, **options)]


class Unnamed(AutoregressiveFamily):
    """Declares one statistic twice."""

    statistics = AutoregressiveFamily.statistics[:1] * 2


class Unbounded(AutoregressiveFamily):
    """Bounds what it does not compute."""

    def provisional_bounds(self, *_):
        return {"similarity": 1.0}


class Untidy(AutoregressiveFamily):
    """Falls over an empty transcript."""

    def compare(self, traces, *arguments, **options):
        if sum(len(trace.emitted) for trace in traces) < 3:
            raise IndexError("no words")
        return super().compare(traces, *arguments, **options)


class Short(AutoregressiveFamily):
    """Compares the first segment alone."""

    def record(self, model, inputs, **options):
        return super().record(model, inputs[:1] * len(inputs), **options)
