"""Cost: evidence that would be dear to replay is refused before any replay (THREATS A32)."""

from __future__ import annotations

import time

import msgspec
import numpy as np
import pytest
from worlds import PAIRS, codes, load_world, reasons, ships

import earmark
from earmark import Clip
from earmark.limits import max_tokens
from earmark.testing._forgeries import with_segment
from earmark.testing.bench import restamp


def _silence(seconds: int) -> Clip:
    audio = earmark.audio.from_samples(np.zeros(seconds * 16_000, np.int16), 16_000)
    return Clip(audio=audio, request=earmark.request(audio, nonce="a" * 32))


def _many(evidence, count):
    first = evidence.segments[0]
    return msgspec.structs.replace(evidence, segments=(first,) * count)


COSTS = {
    "tokens without end": lambda e: with_segment(e, ids=(e.segments[0].ids[0],) * 100_000),
    "one token more than the duration allows": lambda e: with_segment(
        e, ids=(e.segments[0].ids[0],) * (max_tokens(e.segments[0].end) + 1)
    ),
    "segments without end": lambda e: _many(e, 20_000),
    "a segment of days": lambda e: with_segment(e, end=2**39),
    "a trace of 30 MB": lambda e: with_segment(e, trace=bytes(30 * 2**20)),
    "a text of a million letters": lambda e: msgspec.structs.replace(e, text="x" * 1_000_000),
}


@pytest.fixture
def no_replay(monkeypatch):
    """Fail the test if the network runs."""

    def refuse(*_, **__):
        raise AssertionError("the network ran")

    worlds = [load_world(pair) for pair in filter(ships, PAIRS)]  # all of them: making one runs a network
    for world in worlds:
        monkeypatch.setattr(type(world.reference), "encode", refuse)


@pytest.mark.usefixtures("no_replay")
@pytest.mark.parametrize("name", COSTS)
def test_costly_evidence_is_refused_before_any_replay(world, name):
    """A32: limits follow from the duration of the audio that the verifier holds."""
    start = time.perf_counter()
    verdict = world.verify(COSTS[name](world.real_evidence))
    assert (verdict.outcome, verdict.fault, verdict.fingerprint) == ("FAIL", "provider", None)
    assert "replay.failed" not in codes(verdict)
    assert time.perf_counter() - start < 10


@pytest.mark.usefixtures("no_replay")
def test_an_hour_of_silence_cut_into_seconds_is_refused_before_any_replay(world):
    """A32: the boundaries follow from the audio, so a provider cannot choose how often the network runs."""
    clip, first = _silence(3600), world.real_evidence.segments[0]
    segments = tuple(msgspec.structs.replace(first, start=i * 16_000, end=(i + 1) * 16_000) for i in range(3600))
    evidence = msgspec.structs.replace(restamp(world.real_evidence, clip.request), segments=segments)
    start = time.perf_counter()
    verdict = earmark.verify(evidence, clip.request, clip.audio, world.reference, profile="provisional")
    assert (verdict.outcome, codes(verdict)) == ("FAIL", {"segments.mismatch"})
    assert time.perf_counter() - start < 20


def test_minutes_of_silence_are_no_fault(world):
    """The twin: honest evidence of three minutes of silence."""
    clip = _silence(180)
    evidence = earmark.record(world.reference, clip.request, clip.audio)
    verdict = earmark.verify(evidence, clip.request, clip.audio, world.reference, profile="provisional")
    assert verdict.outcome != "FAIL", reasons(verdict)
    assert verdict.fault != "provider"
