"""What the tests of canonical audio share: noise that is the same on every machine, and its golden digests."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark import audio

if TYPE_CHECKING:
    from numpy.typing import NDArray

GOLDEN = json.loads((Path(__file__).parent / "golden" / "audio_digests.json").read_text())
GOLDEN_RATES_HZ = (8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 44_056, 48_000)


def noise24(name: str, count: int, channels: int) -> NDArray[np.int64]:
    """Return low-passed 24-bit noise made of SHAKE-256 and integer sums alone, shape (count, channels)."""
    stream = hashlib.shake_256(name.encode()).digest(4 * (count + 7) * channels)
    white = np.frombuffer(stream, "<i4").astype(np.int64).reshape(-1, channels) >> 8
    sums = np.cumsum(np.concatenate((np.zeros((1, channels), np.int64), white)), axis=0)
    moving: NDArray[np.int64] = (sums[8:] - sums[:-8]) // 5  # sums of 8, scaled to touch full scale
    return moving


def golden_samples(rate_hz: int, channels: int, kind: str) -> NDArray[Any]:
    """Return the half second that a golden digest stands for."""
    wide = np.clip(noise24(f"earmark {rate_hz}", rate_hz // 2, channels), -(2**23), 2**23 - 1)
    if kind == "int16":
        return (wide >> 8).astype(np.int16)
    if kind == "int24":
        return (wide << 8).astype(np.int32)
    return wide / 2**23  # exact in float64, and in float32


def clip(count: int = 16_000) -> audio.CanonicalAudio:
    """Return a short clip of canonical noise."""
    return audio.from_samples(golden_samples(16_000, 1, "int16")[:, 0].repeat(2)[:count], 16_000)


def one_line(error: BaseException) -> bool:
    """Tell whether a message keeps to one line and says what to do after a semicolon."""
    return "\n" not in str(error) and bool(re.search(r"[;:] .+", str(error)))
