"""Reading sound files as exact integers and writing canonical FLAC whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from earmark._resample import (
    MAX_CHANNELS,
    MAX_RATE_HZ,
    MIN_RATE_HZ,
    OUTPUT_RATE_HZ,
    WIDE_FULL_SCALE,
    FloatArray,
    resample_blocks,
)
from earmark.errors import AudioError, AudioFileNotFoundError, EarmarkError, OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

BLOCK_FRAMES = 1 << 17
MAX_FLOAT_PEAK = 16.0
"""Float samples beyond this are integers that were never scaled to +-1, not loud audio."""

# libsndfile subtypes whose decoding is exact by definition; Vorbis, Opus, MPEG, GSM and ADPCM are not here
_NARROW_SUBTYPES = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "ULAW", "ALAW", "ALAC_16"})
_WIDE_SUBTYPES = frozenset({"PCM_24", "PCM_32", "ALAC_20", "ALAC_24", "ALAC_32"})
_FLOAT_SUBTYPES = frozenset({"FLOAT", "DOUBLE"})
_UNKNOWN_LENGTH = 1 << 60
_PIPE_SIZE = 0x7FFF_0000
_SHORT_CHUNK = re.compile(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


def check_format(rate_hz: int, channels: int, name: str) -> None:
    """Raise `AudioError` unless the rate and the number of channels are supported."""
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise AudioError(
            f"{name}: sample rate is {rate_hz} Hz, supported are {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz; "
            "check the header or resample it first"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise AudioError(
            f"{name}: {channels} channels, supported are 1 to {MAX_CHANNELS}, shape (samples, channels); "
            "mix it down or transpose it first"
        )


def sample_divisor(dtype: np.dtype[Any], channels: int) -> int:
    """Return what divides `mix` down to the mean at 16 bits: channels, times 2**8 for wide samples."""
    return channels if dtype == np.int16 else channels * (WIDE_FULL_SCALE >> 15)


def mix(frames: NDArray[Any], name: str) -> FloatArray:
    """Return the exact integer sum of the channels.

    int16 stays as it is. int32 (24-bit samples in the upper bits) is divided by 2**8 and float multiplied by
    2**23, rounded to the nearest integer (halves to even) and saturated to 24 bits.

    Args:
        frames: Shape ``(n, channels)``; int16, int32 or floating point.
        name: What messages call the audio.

    Returns:
        Shape ``(n,)``, integers as float64.

    Raises:
        AudioError: Samples that are NaN, infinite, or above `MAX_FLOAT_PEAK`.
    """
    total = np.zeros(len(frames))
    for channel in range(frames.shape[1]):
        total += _fixed_point(frames[:, channel], name)
    return total


def _fixed_point(column: NDArray[Any], name: str) -> FloatArray:
    values: FloatArray = column.astype(np.float64)
    if column.dtype == np.int16:
        return values
    if column.dtype == np.int32:
        return np.minimum(np.rint(values / 256.0), WIDE_FULL_SCALE - 1.0)
    peak = float(np.max(np.abs(values), initial=0.0))
    if not np.isfinite(peak):
        raise AudioError(f"{name}: contains NaN or infinite samples, expected numbers within +-1; re-export the audio")
    if peak > MAX_FLOAT_PEAK:
        raise AudioError(
            f"{name}: float samples reach {peak:g}, full scale is 1.0; divide by the integer full scale first"
        )
    return np.clip(np.rint(values * WIDE_FULL_SCALE), -float(WIDE_FULL_SCALE), WIDE_FULL_SCALE - 1.0)


class SoundReader:
    """An open sound file, read in blocks.

    Args:
        path: A file libsndfile decodes.

    Raises:
        AudioFileNotFoundError: There is no such file.
        AudioError: It is not a sound file, or its rate or channels are not supported.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        import soundfile

        self.name = os.fspath(path)
        _check_file(self.name)
        try:
            self._file = soundfile.SoundFile(self.name)
        except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless .raw
            # libsndfile's reason is left to the traceback: of a bad MP3 it says that there is no such file
            raise AudioError(
                f"{self.name}: not a sound file that libsndfile decodes, expected wav, flac, ogg or mp3; "
                "convert it, for example with ffmpeg"
            ) from error
        try:
            check_format(self._file.samplerate, self._file.channels, self.name)
            _check_length(self._file, self.name)
        except AudioError:
            self._file.close()
            raise
        self.rate_hz = int(self._file.samplerate)
        subtype = self._file.subtype
        self.lossless = subtype in _NARROW_SUBTYPES | _WIDE_SUBTYPES | _FLOAT_SUBTYPES
        self._dtype = "int16" if subtype in _NARROW_SUBTYPES else "int32" if subtype in _WIDE_SUBTYPES else "float64"
        self.divisor = sample_divisor(np.dtype(self._dtype), self._file.channels)

    def __enter__(self) -> Self:
        """Return the reader."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._file.close()

    def blocks(self) -> Iterator[FloatArray]:
        """Yield the mixed samples of the file from its start, see `mix`."""
        import soundfile

        taken = 0
        while True:
            try:
                frames = self._file.read(BLOCK_FRAMES, dtype=self._dtype, always_2d=True)
            except soundfile.LibsndfileError as error:
                raise _damaged(self.name, self._file.frames) from error
            if not len(frames):
                break
            taken += len(frames)
            yield mix(frames, self.name)
        if self.lossless and taken < self._file.frames:
            raise _damaged(self.name, self._file.frames)

    def canonical_blocks(self) -> Iterator[NDArray[np.int16]]:
        """Yield the canonical samples."""
        return resample_blocks(self.blocks(), self.rate_hz, self.divisor)


def _damaged(name: str, samples: int) -> AudioError:
    return AudioError(f"{name}: the file is damaged, not all of its {samples} samples decode; copy or export it again")


def _check_length(file: Any, name: str) -> None:
    """Refuse a file that states no length, or one that ends before the length that it states."""
    if file.frames >= _UNKNOWN_LENGTH:
        raise AudioError(
            f"{name}: its header states no length, expected the number of samples, so it was written to a pipe; "
            "convert it to a file again"
        )
    # libsndfile shortens such a file silently and only logs it; a size near 2**32 says "written to a pipe"
    for stated, present in _SHORT_CHUNK.findall(file.extra_info):
        if int(present) < int(stated) < _PIPE_SIZE:
            raise AudioError(
                f"{name}: the file is cut off, {present} of {stated} bytes of audio are there; copy or export it again"
            )


def _check_file(name: str) -> None:
    try:
        status = Path(name).stat()
        if stat.S_ISREG(status.st_mode):
            with open(name, "rb"):
                pass
    except FileNotFoundError as error:
        raise AudioFileNotFoundError(f"{name}: no such audio file; check the path") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise AudioError(f"{name}: cannot be read ({reason}); expected a readable sound file") from error
    if stat.S_ISDIR(status.st_mode):
        raise AudioError(f"{name}: is a folder, expected a sound file; name one file")
    if not stat.S_ISREG(status.st_mode):
        raise AudioError(f"{name}: is not a regular file, expected a sound file; save the stream to a file first")
    if not status.st_size:
        raise AudioError(f"{name}: the file is empty (0 bytes), expected a sound file; copy or export it again")


def write_flac(path: str | os.PathLike[str], blocks: Iterable[NDArray[np.int16]]) -> None:
    """Write 16 kHz mono FLAC; the file appears under its name only when it is whole and reads back the same.

    Args:
        path: Where; the name ends in ``.flac``.
        blocks: The samples, each of shape ``(n,)``.

    Raises:
        OutputError: The file cannot be written, or what was written does not read back.
    """
    import soundfile

    target = Path(path)
    if target.suffix.lower() != ".flac":
        raise OutputError(f"{target}: canonical audio is FLAC, expected a name that ends in .flac; rename the target")
    if target.is_dir():
        raise OutputError(f"{target}: is a folder, expected the name of a new file; add a name to it")
    if not target.parent.is_dir():
        raise OutputError(f"{target}: there is no folder {target.parent}, expected an existing one; make it first")
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        written = _encode(part, blocks)
        if _stored_digest(part) != written:
            raise OutputError(f"{target}: what was written does not read back; free space on the disk and repeat")
        part.replace(target)
    except EarmarkError:
        raise
    # soundfile asserts that libsndfile took all samples: on a full disk it did not
    except (OSError, soundfile.LibsndfileError, AssertionError) as error:
        reason = getattr(error, "strerror", None) or str(error).rstrip(".") or "short write"
        raise OutputError(f"{target}: cannot be written ({reason}); check the free space and permissions") from error
    finally:
        part.unlink(missing_ok=True)


def _encode(part: Path, blocks: Iterable[NDArray[np.int16]]) -> bytes:
    """Write the samples and return their SHA-256."""
    import soundfile

    part.touch(exist_ok=False)  # its OSError says why, libsndfile's does not
    state = hashlib.sha256()
    with soundfile.SoundFile(part, "w", OUTPUT_RATE_HZ, 1, subtype="PCM_16", format="FLAC") as file:
        for block in blocks:
            state.update(block.astype("<i2", copy=False).tobytes())
            file.write(block)
    with open(part, "rb+") as raw:
        os.fsync(raw.fileno())
    return state.digest()


def _stored_digest(part: Path) -> bytes:
    """Return the SHA-256 of the samples in a file, empty if it does not decode."""
    import soundfile

    state = hashlib.sha256()
    try:
        with soundfile.SoundFile(part) as file:
            while len(block := file.read(BLOCK_FRAMES, dtype="int16")):
                state.update(block.astype("<i2", copy=False).tobytes())
    except soundfile.LibsndfileError:
        return b""
    return state.digest()
