"""Audio files: bad ones are named in one line, writing is atomic, streaming takes little memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from audio_cases import clip, golden_samples, one_line

from earmark import audio
from earmark.errors import AudioError, OutputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


# what cannot be used


def write_wav(path: Path, samples: NDArray[Any], rate_hz: int = 16_000, subtype: str | None = None) -> Path:
    """Write a wave file and return its path."""
    soundfile.write(path, samples, rate_hz, subtype=subtype, format="WAV")
    return path


def cut(path: Path, name: str) -> Path:
    """Return a copy that ends in the middle."""
    data = path.read_bytes()
    short = path.with_name(name)
    short.write_bytes(data[: len(data) // 2])
    return short


def nan(where: Path, value: float) -> Path:
    """Return a float file with one bad sample."""
    samples = np.zeros(9_000, np.float32)
    samples[77] = value
    return write_wav(where / "a.wav", samples, subtype="FLOAT")


def text(where: Path, name: str, content: bytes) -> Path:
    """Return a file with some content."""
    (where / name).write_bytes(content)
    return where / name


def pipe_flac(where: Path) -> Path:
    """Return a FLAC whose header states no length, as one written to a pipe."""
    audio.write(where / "whole.flac", clip())
    data = bytearray((where / "whole.flac").read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    return text(where, "a.flac", bytes(data))


ZEROS = np.zeros(9_000, np.int16)
BAD_FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda where: where / "none.wav", "no such audio file"),
    "folder": (lambda where: where, "is a folder"),
    "device": (lambda _: Path("/dev/null"), "not a regular file"),
    "null byte": (lambda where: where / "a\0b", "cannot be read"),
    "empty": (lambda where: text(where, "a.wav", b""), r"empty \(0 bytes\)"),
    "text": (lambda where: text(where, "a.txt", b"hello\n" * 99), "not a sound file"),
    "headerless": (lambda where: text(where, "a.raw", bytes(9_000)), "not a sound file"),
    "junk mp3": (lambda where: text(where, "a.mp3", bytes(range(256)) * 20), "not a sound file"),
    "no samples": (lambda where: write_wav(where / "a.wav", ZEROS[:0]), "contains no samples"),
    "100 ms": (
        lambda where: write_wav(where / "a.wav", ZEROS[:1_600]),
        "too short to transcribe, 100 ms found",
    ),
    "1 Hz": (
        lambda where: write_wav(where / "a.wav", ZEROS, 1),
        "rate is 1 Hz, supported are 4000 to 384000 Hz",
    ),
    "1 MHz": (lambda where: write_wav(where / "a.wav", ZEROS, 1_000_000), "rate is 1000000 Hz"),
    "9 channels": (
        lambda where: write_wav(where / "a.wav", np.zeros((9_000, 9))),
        "9 channels, supported are 1 to 8",
    ),
    "NaN": (lambda where: nan(where, np.nan), "NaN or infinite"),
    "Inf": (lambda where: nan(where, -np.inf), "NaN or infinite"),
    "unscaled float": (lambda where: nan(where, 12_345.0), "float samples reach 12345, full scale is 1.0"),
    "cut WAV": (lambda where: cut(write_wav(where / "b.wav", ZEROS), "a.wav"), "cut off"),
    "pipe FLAC": (pipe_flac, "states no length"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_files(tmp_path: Path, case: str) -> None:
    """A file that cannot be used says so in one line, and canonicalising it leaves nothing behind."""
    make, message = BAD_FILES[case]
    path = make(tmp_path)
    before = set(tmp_path.iterdir())
    for use in (audio.load, lambda source: audio.canonicalise_file(source, tmp_path / "out.flac")):
        with pytest.raises(AudioError, match=message) as caught:
            use(path)
        assert one_line(caught.value)
    assert isinstance(caught.value, FileNotFoundError) == (case == "missing")
    assert set(tmp_path.iterdir()) == before


def test_damaged_flac(tmp_path: Path) -> None:
    """A FLAC cut in the middle or with a frame overwritten is refused."""
    audio.write(tmp_path / "whole.flac", clip())
    data = (tmp_path / "whole.flac").read_bytes()
    holed = text(tmp_path, "holed.flac", data[:9_000] + bytes(400) + data[9_400:])
    for path in (cut(tmp_path / "whole.flac", "cut.flac"), holed):
        with pytest.raises(AudioError, match="not all of its 16000 samples decode"):
            audio.load(path)


def test_wav_from_a_pipe(tmp_path: Path) -> None:
    """A wave file whose size fields say 4 GB, as ffmpeg writes to a pipe, is read to its end."""
    path = write_wav(tmp_path / "a.wav", clip().samples)
    data = bytearray(path.read_bytes())
    place = data.index(b"data")
    data[4:8] = data[place + 4 : place + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert audio.load(path) == clip()


@pytest.mark.parametrize(
    ("samples", "rate_hz", "message"),
    [
        (np.zeros((2, 9_000)), 16_000, "9000 channels.*transpose"),
        (np.zeros((9_000, 0)), 16_000, "0 channels"),
        (np.zeros((2, 9, 9)), 16_000, r"shape \(2, 9, 9\)"),
        (np.zeros(9_000, np.int64), 16_000, "samples are int64"),
        (np.zeros(9_000, np.float16), 16_000, "samples are float16"),
        (["a"], 16_000, "samples are <U1"),
        (np.zeros(9_000), 16_000.5, "rate_hz is 16000.5"),
        (np.zeros(9_000), True, "rate_hz is True"),
        (np.zeros(9_000), 3_999, "3999 Hz"),
        (np.zeros(9_000), 384_001, "384001 Hz"),
        ([], 16_000, "no samples"),
        (np.zeros(1_999, np.int16), 16_000, "too short to transcribe, 124.9 ms found, at least 125 ms"),
        (np.full(9_000, np.nan), 16_000, "NaN"),
    ],
)
def test_bad_samples(samples: Any, rate_hz: Any, message: str) -> None:
    """An array that cannot be used says so in one line."""
    with pytest.raises(AudioError, match=message) as caught:
        audio.from_samples(samples, rate_hz)
    assert one_line(caught.value)


def test_functions_refuse_other_arrays() -> None:
    """Digest, segments and the record itself take canonical samples only."""
    real = np.zeros(9_000)
    for use in (
        lambda: audio.digest(real),  # type: ignore[arg-type]
        lambda: audio.segment(real, 5_000),  # type: ignore[arg-type]
        lambda: audio.CanonicalAudio(samples=real, digest="", lossless=True),  # type: ignore[arg-type]
    ):
        with pytest.raises(AudioError, match="float64"):
            use()


# writing


def test_write_is_atomic(tmp_path: Path) -> None:
    """A second write replaces the first; no temporary file stays."""
    target = tmp_path / "a.flac"
    audio.write(target, clip())
    audio.write(target, clip(12_000))
    assert audio.load(target) == clip(12_000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.flac"]
    info = soundfile.info(target)
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("FLAC", "PCM_16", 16_000, 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.wav", "ends in .flac"), ("none/a.flac", "there is no folder"), ("folder.flac", "is a folder")],
)
def test_bad_targets(tmp_path: Path, name: str, message: str) -> None:
    """A target that cannot be says so, and is an OSError too."""
    (tmp_path / "folder.flac").mkdir()
    with pytest.raises(OutputError, match=message) as caught:
        audio.write(tmp_path / name, clip())
    assert isinstance(caught.value, OSError)
    assert one_line(caught.value)


def test_source_is_not_overwritten(tmp_path: Path) -> None:
    """Canonicalising a file onto itself is refused."""
    path = tmp_path / "a.flac"
    audio.write(path, clip())
    with pytest.raises(OutputError, match="is the source itself"):
        audio.canonicalise_file(path, tmp_path / "." / "a.flac")


FULL_DISK = """
import resource, signal, sys
from earmark import audio
from earmark.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
clip = audio.load(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    audio.write(sys.argv[1], clip)
except OutputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits stand in for a full disk; Windows has none")
@pytest.mark.parametrize("limit", [0, 100, 9_000])
def test_full_disk(tmp_path: Path, limit: int) -> None:
    """Where the disk takes no more, the error says so, the older file stays, and nothing else is left."""
    target = tmp_path / "a.flac"
    audio.write(target, clip())
    command = [sys.executable, "-c", FULL_DISK, str(target), str(limit)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "check the free space" in output or "free space on the disk" in output
    assert audio.load(target) == clip()
    assert [path.name for path in tmp_path.iterdir()] == ["a.flac"]


STREAM = r"""
import re, sys
from pathlib import Path
from earmark import audio
info = audio.canonicalise_file(sys.argv[1], sys.argv[2])
# not ru_maxrss, which counts the parent from before exec
print(info.samples, re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
def test_streaming_memory(tmp_path: Path) -> None:
    """Ten minutes of 44.1 kHz stereo pass in less than 100 MB; as float64 the samples alone take 420 MB."""
    noise = golden_samples(44_100, 2, "int16")
    with soundfile.SoundFile(tmp_path / "in.wav", "w", 44_100, 2, subtype="PCM_16") as file:
        for _ in range(1_200):
            file.write(noise)
    command = [sys.executable, "-c", STREAM, str(tmp_path / "in.wav"), str(tmp_path / "out.flac")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    samples, peak_kb = map(int, output.split())
    assert samples == 600 * 16_000
    assert peak_kb < 100_000


def test_import_is_light() -> None:
    """Importing the module pulls in no scipy, soundfile, torch or transformers."""
    heavy = ("scipy", "soundfile", "torch", "transformers")
    code = f"import sys, earmark.audio; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
