"""Canonical audio: 16 kHz mono int16 that two honest machines make alike, its digest, its segments.

Decoding, mixing and resampling are exact integer arithmetic (docs/explanation/canonical-audio.md), so equal
lossless files give equal samples everywhere, and equal samples give one digest.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark._resample import OUTPUT_RATE_HZ, resample_blocks
from earmark._soundio import BLOCK_FRAMES, SoundReader, check_format, mix, sample_divisor, write_flac
from earmark.errors import AudioError, OutputError

__all__ = [
    "CANONICAL_RATE_HZ",
    "MIN_SAMPLES",
    "MIN_SECONDS",
    "SEGMENTATION_RULE",
    "CanonicalAudio",
    "CanonicalInfo",
    "billed_tokens",
    "canonicalise_file",
    "digest",
    "from_samples",
    "load",
    "segment",
    "write",
]

CANONICAL_RATE_HZ = OUTPUT_RATE_HZ
MIN_SECONDS = 0.125
"""Shorter audio is refused: no word fits (the shortest spoken digits in real recordings last 0.14 s)."""

MIN_SAMPLES = 2_000
SEGMENTATION_RULE = "silence-1"
"""Name of the rule of `segment`; it changes whenever any boundary would."""

_DIGEST_TAG = b"earmark/pcm/1\0"
_SAMPLES_PER_BILLED_TOKEN = CANONICAL_RATE_HZ // 50
_FRAME = 160  # 10 ms
_HALF_WINDOW = 3  # a boundary is as quiet as the 30 ms on either side of it

Samples = NDArray[np.int16]
PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CanonicalAudio:
    """Audio as the models hear it; equal if the digests are.

    Args:
        samples: Shape ``(n,)``, int16 at 16 kHz; kept as a read-only view.
        digest: What `digest` gives for the samples, 64 hexadecimal digits.
        lossless: Whether the source decodes to the same samples everywhere: WAV, FLAC, AIFF and arrays do, MP3
            and Ogg do not.
    """

    samples: Samples
    digest: str
    lossless: bool

    def __post_init__(self) -> None:
        """Check the samples and make them read-only."""
        if self.samples.dtype != np.int16 or self.samples.ndim != 1:
            raise AudioError(
                f"canonical samples are {self.samples.dtype} {self.samples.shape}, expected int16 (n,); "
                "use from_samples"
            )
        view = self.samples.view()
        view.flags.writeable = False
        object.__setattr__(self, "samples", view)

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return len(self.samples) / CANONICAL_RATE_HZ

    def __eq__(self, other: object) -> bool:
        """Compare by digest."""
        return self.digest == other.digest if isinstance(other, CanonicalAudio) else NotImplemented

    def __hash__(self) -> int:
        """Hash the digest."""
        return hash(self.digest)

    def __repr__(self) -> str:
        """Name the duration and the digest."""
        source = "lossless" if self.lossless else "lossy"
        return f"CanonicalAudio({self.seconds:.3f} s, {source} source, digest={self.digest[:12]}...)"


@dataclass(frozen=True, slots=True, kw_only=True)
class CanonicalInfo:
    """What `canonicalise_file` wrote.

    Args:
        digest: Digest of the canonical samples.
        samples: Their number.
        lossless: As in `CanonicalAudio`, of the source.
    """

    digest: str
    samples: int
    lossless: bool

    @property
    def seconds(self) -> float:
        """Duration in seconds."""
        return self.samples / CANONICAL_RATE_HZ


class _Digest:
    """The digest of a stream of samples."""

    def __init__(self) -> None:
        self.samples = 0
        self._inner = hashlib.sha256()

    def update(self, block: Samples) -> None:
        self.samples += len(block)
        self._inner.update(block.astype("<i2", copy=False).tobytes())

    def hexdigest(self) -> str:
        header = CANONICAL_RATE_HZ.to_bytes(4, "little") + self.samples.to_bytes(8, "little")
        return hashlib.sha256(_DIGEST_TAG + header + self._inner.digest()).hexdigest()


def digest(samples: Samples) -> str:
    r"""Return the digest of canonical samples.

    SHA-256 of ``b"earmark/pcm/1\0"``, the rate 16000 (uint32), the number of samples (uint64), and the SHA-256 of
    the int16 samples; all little-endian. The samples have a hash of their own so that a stream whose length is not
    yet known needs one pass.

    Args:
        samples: Shape ``(n,)``, int16 at 16 kHz.

    Returns:
        64 hexadecimal digits.

    Raises:
        AudioError: The array is not int16 of one dimension.

    Example:
        >>> digest(np.zeros(16_000, np.int16))[:16]
        '1db64042ab415fc5'
    """
    if samples.dtype != np.int16 or samples.ndim != 1:
        raise AudioError(f"digest of {samples.dtype} {samples.shape}, expected int16 (n,); use from_samples first")
    state = _Digest()
    state.update(samples)
    return state.hexdigest()


def load(path: PathLike) -> CanonicalAudio:
    """Decode a sound file to canonical audio.

    All of it is held in memory; for hours of audio see `canonicalise_file`.

    Args:
        path: WAV, FLAC, Ogg, MP3 or whatever else libsndfile reads; 4 kHz to 384 kHz, 1 to 8 channels.

    Returns:
        The canonical audio.

    Raises:
        AudioFileNotFoundError: There is no such file.
        AudioError: The file is not decodable, damaged, empty, shorter than `MIN_SECONDS`, or holds NaN.
    """
    with SoundReader(path) as reader:
        return _collect(reader.canonical_blocks(), lossless=reader.lossless, name=reader.name)


def from_samples(samples: ArrayLike, rate_hz: int) -> CanonicalAudio:
    """Make canonical audio of an array.

    Args:
        samples: Shape ``(n,)`` or ``(n, channels)``: int16, int32 (full scale 2**31, so 24-bit samples stand in
            the upper bits; lower bits are rounded off), or float32 or float64 with full scale 1.0.
        rate_hz: Samples per second and channel.

    Returns:
        The canonical audio; 16 kHz mono int16 comes back bit for bit.

    Raises:
        AudioError: An unsupported type, shape or rate; NaN; audio shorter than `MIN_SECONDS`.

    Example:
        >>> audio = from_samples(np.full((48_000, 2), 1000, np.int16), 48_000)
        >>> audio.seconds, int(audio.samples[8_000])
        (1.0, 1000)
    """
    frames = np.asarray(samples)
    if frames.dtype not in (np.int16, np.int32, np.float32, np.float64):
        raise AudioError(f"samples are {frames.dtype}, expected int16, int32, float32 or float64; convert them first")
    if frames.ndim not in (1, 2):
        raise AudioError(f"samples have shape {frames.shape}, expected (n,) or (n, channels); pass one clip at a time")
    if isinstance(rate_hz, bool) or not isinstance(rate_hz, (int, np.integer)):
        raise AudioError(f"rate_hz is {rate_hz!r}, expected a whole number of Hz; round it first")
    frames = frames[:, None] if frames.ndim == 1 else frames
    rate_hz = int(rate_hz)
    check_format(rate_hz, frames.shape[1], "samples")
    blocks = resample_blocks(_array_blocks(frames), rate_hz, sample_divisor(frames.dtype, frames.shape[1]))
    return _collect(blocks, lossless=True, name="samples")


def write(path: PathLike, audio: CanonicalAudio) -> None:
    """Write canonical audio as FLAC (16 kHz mono int16), atomically.

    Args:
        path: Where; the name ends in ``.flac``.
        audio: What to write; `load` gives it back with the same digest.

    Raises:
        OutputError: It cannot be written (say, the disk is full); nothing partial is left, an older file stays.
    """
    starts = range(0, len(audio.samples), BLOCK_FRAMES)
    write_flac(path, (audio.samples[start : start + BLOCK_FRAMES] for start in starts))


def canonicalise_file(source: PathLike, target: PathLike) -> CanonicalInfo:
    """Write the canonical FLAC of a sound file in constant memory.

    Args:
        source: A sound file, see `load`.
        target: The FLAC to write, see `write`.

    Returns:
        Digest and length of what was written; whether the source was lossless.

    Raises:
        AudioError: As `load`.
        OutputError: As `write`.
    """
    state = _Digest()
    with SoundReader(source) as reader:
        if Path(target).exists() and Path(target).samefile(source):
            raise OutputError(f"{os.fspath(target)}: is the source itself, expected another file; name a new target")
        write_flac(target, _watched(reader.canonical_blocks(), state, reader.name))
        return CanonicalInfo(digest=state.hexdigest(), samples=state.samples, lossless=reader.lossless)


def billed_tokens(seconds: float) -> int:
    """Return the duration in billing tokens, ``ceil(seconds * 50)``, from the number of canonical samples.

    Args:
        seconds: Duration of canonical audio; anything else is rounded to a whole sample first.

    Returns:
        One token per 320 samples begun.

    Raises:
        AudioError: A duration that is negative or not finite.

    Example:
        >>> billed_tokens(0.56), billed_tokens(29.0), billed_tokens(29.001)  # 0.56 * 50 is 28.000000000000004
        (28, 1450, 1451)
    """
    if not 0 <= seconds < float("inf"):
        raise AudioError(f"duration is {seconds} s, expected a finite number from 0; pass the audio's seconds")
    return -(-round(seconds * CANONICAL_RATE_HZ) // _SAMPLES_PER_BILLED_TOKEN)


def segment(samples: Samples, max_samples: int, *, min_samples: int | None = None) -> tuple[tuple[int, int], ...]:
    """Split audio at quiet places into segments of at most ``max_samples`` (rule `SEGMENTATION_RULE`).

    Audio that fits stays whole. Else the first segment ends at a multiple of 160 samples (10 ms), between
    ``min_samples`` and ``max_samples`` from its start and at least ``min_samples // 2`` before the end of the
    audio: the one with the least sum of squares over the three frames of 10 ms before and the three after it, of
    equals the latest. The rest is split likewise. All arithmetic is on integers.

    Args:
        samples: Shape ``(n,)``, int16 at 16 kHz.
        max_samples: Longest segment, at least `MIN_SAMPLES`.
        min_samples: Shortest segment but the last, at most ``2/3 (max_samples - 160)``; None means
            ``max_samples // 2``.

    Returns:
        Pairs ``(start, stop)`` in samples that follow one another and cover the audio.

    Raises:
        AudioError: Samples that are not canonical, none at all, or limits that leave no choice.

    Example:
        >>> speech = np.full(40_000, 900, np.int16)
        >>> speech[16_000:19_200] = 0
        >>> segment(speech, 30_000)
        ((0, 18720), (18720, 40000))
    """
    if samples.dtype != np.int16 or samples.ndim != 1 or not len(samples):
        raise AudioError(f"segment of {samples.dtype} {samples.shape}, expected int16 (n,), n > 0; use from_samples")
    least = max_samples // 2 if min_samples is None else min_samples
    if max_samples < MIN_SAMPLES or not 0 < least * 3 <= (max_samples - _FRAME) * 2:
        raise AudioError(
            f"segments of {least} to {max_samples} samples, expected max_samples >= {MIN_SAMPLES} and "
            "min_samples from 1 to 2/3 (max_samples - 160); widen the range"
        )
    bounds = [0]
    loudness = _boundary_energy(samples) if len(samples) > max_samples else np.zeros(0, np.int64)
    while len(samples) - bounds[-1] > max_samples:
        first = -(-(bounds[-1] + least) // _FRAME)
        last = min(bounds[-1] + max_samples, len(samples) - least // 2) // _FRAME
        backwards = loudness[first : last + 1][::-1]
        bounds.append((last - int(np.argmin(backwards))) * _FRAME)
    bounds.append(len(samples))
    return tuple(pairwise(bounds))


def _boundary_energy(samples: Samples) -> NDArray[np.int64]:
    """Return the sum of squares around each multiple of 160 samples up to the end, index 0 first."""
    frames = len(samples) // _FRAME
    summed = np.zeros(frames + 1, np.int64)
    for start in range(0, frames, 4096):  # bounded memory
        block = samples[start * _FRAME : min(start + 4096, frames) * _FRAME].astype(np.int64).reshape(-1, _FRAME)
        summed[start + 1 : start + 1 + len(block)] = (block * block).sum(axis=1)
    np.cumsum(summed, out=summed)
    places = np.arange(frames + 1)
    return summed[np.minimum(places + _HALF_WINDOW, frames)] - summed[np.maximum(places - _HALF_WINDOW, 0)]


def _array_blocks(frames: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    for start in range(0, len(frames), BLOCK_FRAMES):
        yield mix(frames[start : start + BLOCK_FRAMES], "samples")


def _watched(blocks: Iterable[Samples], state: _Digest, name: str) -> Iterator[Samples]:
    """Pass blocks on, digest them, and refuse a stream that ends too short."""
    for block in blocks:
        state.update(block)
        yield block
    if not state.samples:
        raise AudioError(f"{name}: contains no samples, expected at least {MIN_SECONDS} s of audio; record it again")
    if state.samples < MIN_SAMPLES:
        found_ms = state.samples * 1000 / CANONICAL_RATE_HZ
        raise AudioError(
            f"{name}: too short to transcribe, {found_ms:.4g} ms found, at least {MIN_SECONDS * 1000:g} ms "
            "expected; send a longer clip"
        )


def _collect(blocks: Iterable[Samples], *, lossless: bool, name: str) -> CanonicalAudio:
    state = _Digest()
    samples = np.concatenate([np.zeros(0, np.int16), *_watched(blocks, state, name)])
    return CanonicalAudio(samples=samples, digest=state.hexdigest(), lossless=lossless)
