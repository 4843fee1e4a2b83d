"""Clips that are sums of others: exact integer mixing, and noise that every machine repeats.

A mix is the sum over its layers of gain * sample, each shifted to its offset, all in integers. The sum is divided by
4096 once, rounded to the nearest integer (halves upwards), and saturated to 16 bits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError

Samples = NDArray[np.int16]
Noise = Literal["white", "pink"]

UNIT_GAIN = 4096
MAX_GAIN = 1 << 20
MAX_MIX_SAMPLES = 600 * 16_000
MAX_LAYERS = 256
NOISE_RMS = 512
"""Root mean square of the noise before its gain, to within a few per cent."""
_STREAMS = 12

_Position = Annotated[int, msgspec.Meta(ge=0, le=MAX_MIX_SAMPLES)]


class Layer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One addend of a mix: a part of a stored clip, or noise.

    Attributes:
        clip: Id of the stored clip, or empty for noise.
        noise: Kind of noise, or None for a clip.
        seed: Seed of the noise.
        gain: Factor in units of 1/4096.
        offset: Where it begins in the mix, in samples.
        start: First sample of the clip that is taken.
        samples: How many samples are taken; 0 for the rest of the clip. Noise needs a number.
    """

    clip: Annotated[str, msgspec.Meta(max_length=100)] = ""
    noise: Noise | None = None
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    gain: Annotated[int, msgspec.Meta(ge=1, le=MAX_GAIN)] = UNIT_GAIN
    offset: _Position = 0
    start: _Position = 0
    samples: _Position = 0

    def __post_init__(self) -> None:
        """Refuse a layer that is both or neither, and noise without a length."""
        if bool(self.clip) == bool(self.noise):
            raise ValueError("a layer names either a clip or a kind of noise")
        if self.noise and not self.samples:
            raise ValueError("noise needs a number of samples")


def mix(layers: Sequence[Layer], part: Callable[[str], Samples]) -> Samples:
    """Return the sum of layers.

    Args:
        layers: What is added, at most `MAX_LAYERS`.
        part: Gives the samples of a stored clip, (n,) int16.

    Returns:
        The mix, (n,) int16; it ends with the last layer.

    Raises:
        UsageError: There is no layer, there are too many, a layer takes samples that the clip does not have, or the
            mix is longer than `MAX_MIX_SAMPLES`.

    Example:
        >>> clip = np.array([1000, -1000, 30000], np.int16)
        >>> mix([Layer(clip="a"), Layer(clip="a", gain=2048, offset=1)], lambda _: clip).tolist()
        [1000, -500, 29500, 15000]
    """
    if not 0 < len(layers) <= MAX_LAYERS:
        raise UsageError(f"a mix of {len(layers)} layers; expected 1 to {MAX_LAYERS}")
    total = np.zeros(0, np.int64)
    for layer in layers:
        source = _source(layer, part)
        end = layer.offset + len(source)
        if end > MAX_MIX_SAMPLES:
            raise UsageError(f"a mix of {end} samples; at most {MAX_MIX_SAMPLES} are allowed")
        if end > len(total):
            total = np.concatenate([total, np.zeros(end - len(total), np.int64)])
        total[layer.offset : end] += source.astype(np.int64) * layer.gain
    rounded = (total + UNIT_GAIN // 2) >> 12
    result: Samples = np.clip(rounded, -32768, 32767).astype(np.int16)
    return result


def _source(layer: Layer, part: Callable[[str], Samples]) -> Samples:
    if layer.noise:
        return make_noise(layer.noise, layer.seed, layer.samples)
    clip = part(layer.clip)
    stop = layer.start + layer.samples if layer.samples else len(clip)
    if not layer.start < stop <= len(clip):
        raise UsageError(f"samples {layer.start} to {stop} of {layer.clip}, which has {len(clip)}")
    return clip[layer.start : stop]


def make_noise(kind: Noise, seed: int, samples: int) -> Samples:
    """Return noise of about `NOISE_RMS`, the same on every machine.

    White noise is the sum of twelve odd integers from -255 to 255 per sample. Pink noise is the sum of twelve such
    streams of which stream k changes every 2**k samples (Voss). The bytes come from SHAKE-128 of tag, kind, stream
    and seed.

    Args:
        kind: `white` or `pink`.
        seed: Any integer from 0 to 2**62.
        samples: How many.

    Returns:
        Shape ``(samples,)``, int16.

    Source: Voss and Clarke 1978, "1/f noise in music", J. Acoust. Soc. Am. 63 (1), section III.

    Example:
        >>> make_noise("white", 1, 4).tolist() == make_noise("white", 1, 8)[:4].tolist()
        True
    """
    total = np.zeros(samples, np.int16)
    for stream in range(_STREAMS):
        hold = 1 << stream if kind == "pink" else 1
        head = f"earmark/noise/1\0{kind}\0{stream}\0{seed}".encode()
        drawn = np.frombuffer(hashlib.shake_128(head).digest(-(-samples // hold)), np.uint8)
        total += np.repeat(drawn.astype(np.int16) * 2 - 255, hold)[:samples]
    return total


def noise_gain(speech: Samples, snr_db: int) -> int:
    """Return the gain that puts noise `snr_db` below speech, by mean power over the whole clip.

    Args:
        speech: Shape ``(n,)``, int16.
        snr_db: Signal-to-noise ratio, whole dB.

    Example:
        >>> noise_gain(np.full(100, 5120, np.int16), 20)
        4096
    """
    return _gain(_power(speech), Fraction(NOISE_RMS**2), -snr_db)


def level_gain(speech: Samples, other: Samples, level_db: int) -> int:
    """Return the gain that brings `other` to `level_db` above speech, by mean power over the whole clips.

    Args:
        speech: Shape ``(n,)``, int16.
        other: Shape ``(m,)``, int16.
        level_db: Whole dB, negative for a quieter background.

    Example:
        >>> level_gain(np.full(9, 500, np.int16), np.full(7, 1000, np.int16), 0)
        2048
    """
    return _gain(_power(speech), _power(other), level_db)


def _power(samples: Samples) -> Fraction:
    wide = samples.astype(np.int64)
    return Fraction(int(np.dot(wide, wide)), max(1, len(samples)))


def _gain(target: Fraction, source: Fraction, level_db: int) -> int:
    """Return floor(4096 sqrt(10**(level_db / 10) target / source)), exactly, from 1 to `MAX_GAIN`."""
    with localcontext() as context:
        context.prec = 40
        ratio = Fraction(round(Decimal(10) ** (Decimal(level_db) / 10) * 10**9), 10**9)
    power = UNIT_GAIN**2 * ratio * target / max(source, Fraction(1))
    return min(MAX_GAIN, max(1, math.isqrt(int(power))))
