"""Malformed evidence: a finding against the provider, never a crash (THREATS A20)."""

from __future__ import annotations

import tracemalloc

import msgspec
import numpy as np
import pytest
from worlds import codes, reasons

from earmark.records.codec import MAX_RECORD_BYTES
from earmark.testing._forgeries import with_segment

NUMBERS = {
    "zero": 0.0, "NaN": np.nan, "Inf": np.inf, "-Inf": -np.inf, "denormal": -1e-42,
    "huge": 3e38, "huge negative": -3e38,
}  # fmt: skip


def _fields(world) -> dict:
    opened = msgspec.msgpack.decode(world.real_evidence.segments[0].trace)
    assert isinstance(opened, dict)
    return opened


def _fails(world, opened, why) -> None:
    forged = with_segment(world.real_evidence, trace=msgspec.msgpack.encode(opened))
    verdict = world.verify(forged)
    assert verdict.outcome == "FAIL", f"{why}: {reasons(verdict)}"
    assert verdict.findings[0].fault == "provider"


def test_malformed_arrays_fail_with_a_finding(world):
    """A20: short, extra, empty, doubled, of another type, nested, missing."""
    for name, value in _fields(world).items():
        if not isinstance(value, bytes) or not value:
            continue
        for bad in (b"", value[:-1], value[4:], value + b"\0", value + value, bytes(258), None, 7, [], [[[[]]]], "x"):
            if bad != value:
                _fails(world, {**_fields(world), name: bad}, f"{name} = {str(bad)[:30]}")
        _fails(world, {n: v for n, v in _fields(world).items() if n != name}, f"no {name}")
        _fails(world, {**_fields(world), f"{name}_": value}, f"{name} twice")


@pytest.mark.parametrize("number", NUMBERS)
def test_impossible_numbers_fail_with_a_finding(world, number):
    """A20: every array of numbers filled with one that no model gives there."""
    for name, value in _fields(world).items():
        if not isinstance(value, bytes) or not value:
            continue
        with np.errstate(over="ignore"):
            kind = "<f2" if name == "sketch" else "<f4"
            filled = np.full(len(value) // np.dtype(kind).itemsize, NUMBERS[number], kind).tobytes()
        _fails(world, {**_fields(world), name: filled}, f"{name} full of {number}")


@pytest.mark.parametrize("k", [0, -1, 2, 1025, 2**31, 2**63, "8", None, 8.5])
def test_impossible_k_fails_with_a_finding(world, k):
    """A20: k > V among them."""
    _fails(world, {**_fields(world), "k": k}, f"k = {k}")


def test_lists_out_of_order_or_with_duplicates_fail(whisper):
    """A20: the same numbers in another order, a token twice."""
    opened = _fields(whisper)
    ids = np.frombuffer(opened["ids"], "<i4").reshape(-1, opened["k"])
    values = np.frombuffer(opened["logprobs"], "<f4").reshape(-1, opened["k"])
    turned = {"ids": ids[:, ::-1].tobytes(), "logprobs": values[:, ::-1].tobytes()}
    _fails(whisper, {**opened, **turned}, "worst first")
    _fails(whisper, {**opened, "ids": np.roll(ids, 1, axis=1).tobytes()}, "ids of other ranks")
    _fails(whisper, {**opened, "ids": np.repeat(ids[:, :1], opened["k"], axis=1).tobytes()}, "one token k times")


BOMBS = {
    "deep nesting": b"\x91" * 1_000_000,
    "deep nesting in JSON": b"[" * 1_000_000,
    "deep nesting in a field": b'{"format":"earmark.evidence/1","claim":' + b'{"a":' * 100_000,
    "an array of 4 billion": b"\xdd\xff\xff\xff\xff",
    "a map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "bytes of 4 GB": b"\xc6\xff\xff\xff\xff",
    "text of 4 GB": b"\xdb\xff\xff\xff\xff",
    "zero bytes": bytes(258),
    "nothing": b"",
    "a number": b"\x07",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_fail_without_taking_memory(whisper, name):
    """A20: sizes are checked before anything is allocated, in the record and in a trace."""
    tracemalloc.start()
    try:
        for evidence in (BOMBS[name], with_segment(whisper.real_evidence, trace=BOMBS[name])):
            verdict = whisper.verify(evidence)
            assert (verdict.outcome, verdict.fault) == ("FAIL", "provider")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20


def test_records_beyond_the_limit_are_not_parsed(whisper):
    verdict = whisper.verify(b"{" + b" " * MAX_RECORD_BYTES)
    assert (verdict.outcome, codes(verdict)) == ("FAIL", {"record.too_large"})
    assert whisper.verify(whisper.real_evidence.to_json().encode()).outcome == "PASS"
