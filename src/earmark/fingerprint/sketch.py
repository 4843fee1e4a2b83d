"""The sketch: a few hidden states, chosen by the nonce and folded by a random +-1 projection.

Nearly all cost of speech recognition lies in the encoder, so a provider who proves hidden states of the encoder
has paid for it. What is probed depends on the request's nonce, so it cannot be prepared before the request is known,
nor taken over from another one. Every step is specified, so that two engines agree:

1. SHAKE-256 of (tag, nonce, number of the segment) gives 8 bytes per probe: layer = first uint32 modulo the number of
   layers, position = second uint32 modulo the number of positions, both little-endian.
2. Encoder probes look at the output of that layer at that position, counted over the positions that carry audio, not
   padding. The last probe looks at the decoder's last hidden state, from which the token at that position was chosen.
3. The state x is made robust to the few massive activations that large models have: z = (x - median) / (1.4826 median
   |x - median|), cut to [-8, 8].
4. SHAKE-256 of (tag, nonce, segment, probe) gives one bit per entry of B, first bit highest, row by row: 1 is +1,
   0 is -1. The sketch is B z / sqrt(width), stored as float16.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Key = tuple[str, int, int]
"""Nonce (32 hex digits), number of the segment in its clip, number of the probe."""

PROBES = 4
"""Probed states per segment: three of the encoder, one of the decoder."""
VALUES = 32
"""Values per probe."""
LEAST_VALUES = 8
"""Values per probe of a short piece in compact evidence."""
CUT = 8.0
_TAG = b"earmark/sketch/1\0"


def compact_values(samples: int) -> int:
    """Return the values per probe in compact evidence: one per second of audio, at least 8 and at most 32.

    They are the first of those in the full sketch.

    Args:
        samples: Length of the piece at 16 kHz.

    Example:
        >>> compact_values(16_000), compact_values(30 * 16_000), compact_values(40 * 16_000)
        (8, 30, 32)
    """
    return min(VALUES, max(LEAST_VALUES, -(-samples // 16_000)))


@dataclass(frozen=True, slots=True)
class Probe:
    """One place to look at; `layer` is None for the decoder's last hidden state."""

    layer: int | None
    position: int


def choose_probes(nonce: str, segment: int, *, layers: int, positions: int, tokens: int) -> list[Probe]:
    """Return the places that the nonce selects in one segment.

    Args:
        nonce: The request's nonce, 32 hex digits.
        segment: Number of the segment in its clip.
        layers: Number of encoder layers.
        positions: Number of encoder positions that carry audio.
        tokens: Number of emitted tokens.

    Returns:
        `PROBES` places: encoder probes first, the decoder's last.

    Example:
        >>> probes = choose_probes("00" * 16, 0, layers=5, positions=70, tokens=9)
        >>> [p.layer is None for p in probes]
        [False, False, False, True]
    """
    pairs = _stream(nonce, segment)
    probes = [Probe(layer % layers, position % positions) for layer, position in pairs[:-1]]
    return [*probes, Probe(None, pairs[-1][1] % tokens)]


@lru_cache(maxsize=1024)
def _stream(nonce: str, segment: int) -> tuple[tuple[int, int], ...]:
    stream = hashlib.shake_256(_TAG + bytes.fromhex(nonce) + struct.pack("<I", segment)).digest(8 * PROBES)
    return tuple((first, second) for first, second in struct.iter_unpack("<II", stream))


def projection(nonce: str, segment: int, probe: int, width: int) -> NDArray[np.float64]:
    """Return the +-1 matrix of one probe.

    Args:
        nonce: The request's nonce, 32 hex digits.
        segment: Number of the segment in its clip.
        probe: Number of the probe.
        width: Width of the hidden state.

    Returns:
        Entries +1 and -1, (VALUES, width).

    Example:
        >>> b = projection("00" * 16, 0, 0, 10)
        >>> b.shape, sorted(set(b.ravel().tolist()))
        ((32, 10), [-1.0, 1.0])
    """
    result: NDArray[np.float64] = _signs([(nonce, segment, probe)], width)[0]
    return result


def _signs(keys: Sequence[Key], width: int) -> NDArray[np.float64]:
    """Return the matrices of several probes, (probes, VALUES, width); VALUES is a multiple of 8."""
    size = VALUES * width // 8
    streams = [
        hashlib.shake_256(_TAG + b"projection\0" + bytes.fromhex(nonce) + struct.pack("<II", segment, probe))
        for nonce, segment, probe in keys
    ]
    bits = np.unpackbits(np.frombuffer(b"".join(stream.digest(size) for stream in streams), np.uint8))
    result: NDArray[np.float64] = bits.reshape(len(keys), VALUES, width).astype(np.float64) * 2.0 - 1.0
    return result


def robust(state: Floats) -> NDArray[np.float64]:
    """Return a hidden state freed of its scale and of massive activations.

    Args:
        state: Hidden state, (width,), or several, (states, width).

    Returns:
        (state - median) / (1.4826 median absolute deviation), cut to [-8, 8], same shape.

    Example:
        >>> robust(np.array([0.0, 1.0, 2.0, 3.0, 1e6])).round(3).tolist()
        [-1.349, -0.674, 0.0, 0.674, 8.0]
    """
    x = np.asarray(state, np.float64)
    centred = x - np.median(x, axis=-1, keepdims=True)
    scale = 1.4826 * np.median(np.abs(centred), axis=-1, keepdims=True)
    result: NDArray[np.float64] = np.clip(centred / np.maximum(scale, 1e-12), -CUT, CUT)
    return result


def fold(state: Floats, nonce: str, segment: int, probe: int) -> NDArray[np.float64]:
    """Return the sketch of one hidden state, rounded to float16.

    Args:
        state: Hidden state, (width,).
        nonce: The request's nonce, 32 hex digits.
        segment: Number of the segment in its clip.
        probe: Number of the probe.

    Returns:
        The sketch, (VALUES,).

    Example:
        >>> fold(np.arange(16.0), "00" * 16, 0, 0).shape
        (32,)

    Source: Johnson & Lindenstrauss; +-1 entries: Achlioptas 2003, Database-friendly random projections, theorem 1.1.
    """
    result: NDArray[np.float64] = fold_all([state], [(nonce, segment, probe)])[0]
    return result


def fold_all(states: Sequence[Floats], keys: Sequence[Key]) -> NDArray[np.float64]:
    """Return the sketches of several hidden states: `fold` of each, those of one width together.

    Args:
        states: Hidden states, (width,) each.
        keys: Nonce, segment and probe of each.

    Returns:
        The sketches, (states, VALUES).

    Example:
        >>> states, keys = [np.arange(16.0), np.arange(16.0) ** 2], [("00" * 16, 0, 0), ("00" * 16, 0, 1)]
        >>> bool((fold_all(states, keys)[1] == fold(states[1], *keys[1])).all())
        True
    """
    folded = np.empty((len(states), VALUES))
    for width in {len(state) for state in states}:
        alike = [i for i, state in enumerate(states) if len(state) == width]
        rows = robust(np.stack([states[i] for i in alike]))
        values = (_signs([keys[i] for i in alike], width) @ rows[:, :, None])[:, :, 0] / np.sqrt(width)
        folded[alike] = values.astype(np.float16)
    return folded


def sketch_distances(provider: Floats, reference: Floats) -> NDArray[np.float64]:
    """Return the relative distance of each probe's sketch.

    Args:
        provider: Sketches, (probes, VALUES).
        reference: The same from the replay, (probes, VALUES).

    Returns:
        |provider - reference| / |reference|, (probes,); about 1.4 for unrelated states.

    Example:
        >>> sketch_distances(np.array([[3.0, 4.5]]), np.array([[3.0, 4.0]])).tolist()
        [0.1]
    """
    size = np.maximum(np.linalg.norm(reference, axis=-1), 1e-6)
    result: NDArray[np.float64] = np.linalg.norm(provider - reference, axis=-1) / size
    return result
