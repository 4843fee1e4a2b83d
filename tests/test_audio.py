"""Canonical audio: golden digests, files good and bad, atomic writing, segments."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark import audio
from earmark.errors import AudioError, OutputError

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


@pytest.mark.parametrize("kind", ["int16", "int24", "float"])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", GOLDEN_RATES_HZ)
def test_golden_digest(rate_hz: int, channels: int, kind: str) -> None:
    """Equal input gives the digest that every machine has given; 24-bit and float agree."""
    samples = golden_samples(rate_hz, channels, kind)
    expected = GOLDEN[f"{rate_hz} Hz, {channels} channels, {'int16' if kind == 'int16' else 'int24'}"]
    assert audio.from_samples(samples, rate_hz).digest == expected
    if kind == "float":
        assert audio.from_samples(samples.astype(np.float32), rate_hz).digest == expected


OTHER_MACHINE = """
import json, sys
import numpy as np
from earmark import audio
rows = np.load(sys.argv[1])
print(json.dumps({name: audio.from_samples(rows[name], int(name.split()[0])).digest for name in rows}))
"""


@pytest.mark.parametrize("kernel", ["Prescott", "Haswell", "SkylakeX"])
def test_golden_digest_on_other_kernels(tmp_path: Path, kernel: str) -> None:
    """Another BLAS kernel, one thread and numpy without its vector code change nothing."""
    names = {f"{rate_hz} Hz, 2 channels, int24": rate_hz for rate_hz in (8_000, 44_100, 44_056)}
    rows = {name: golden_samples(rate_hz, 2, "int24") for name, rate_hz in names.items()}
    np.savez(tmp_path / "rows.npz", allow_pickle=False, **rows)
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    settings = {
        "OPENBLAS_CORETYPE": kernel,
        "OPENBLAS_NUM_THREADS": "1",
        "NPY_DISABLE_CPU_FEATURES": " ".join(found),
    }
    command = [sys.executable, "-c", OTHER_MACHINE, str(tmp_path / "rows.npz")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | settings).stdout
    assert json.loads(output) == {name: GOLDEN[name] for name in names}


@pytest.mark.parametrize(
    ("suffix", "subtype", "kind"),
    [
        ("wav", "PCM_16", "int16"),
        ("flac", "PCM_16", "int16"),
        ("aiff", "PCM_16", "int16"),
        ("w64", "PCM_16", "int16"),
        ("wav", "PCM_24", "int24"),
        ("flac", "PCM_24", "int24"),
        ("wav", "PCM_32", "int24"),
        ("wav", "FLOAT", "float"),
        ("wav", "DOUBLE", "float"),
    ],
)
def test_lossless_files(tmp_path: Path, suffix: str, subtype: str, kind: str) -> None:
    """A lossless file of any kind gives what its samples give, at once and as a stream."""
    samples = golden_samples(44_100, 2, kind)
    path, target = tmp_path / f"in.{suffix}", tmp_path / "out.flac"
    soundfile.write(path, samples, 44_100, subtype=subtype)
    loaded = audio.load(path)
    assert loaded == audio.from_samples(samples, 44_100)
    assert loaded.lossless
    assert audio.canonicalise_file(path, target) == audio.CanonicalInfo(
        digest=loaded.digest, samples=len(loaded.samples), lossless=True
    )
    assert audio.load(target) == loaded


@pytest.mark.parametrize(
    ("suffix", "subtype"), [("mp3", None), ("ogg", "VORBIS"), ("ogg", "OPUS"), ("wav", "IMA_ADPCM")]
)
def test_lossy_files(tmp_path: Path, suffix: str, subtype: str | None) -> None:
    """A lossy file is flagged so, but its canonical FLAC is lossless and keeps the digest."""
    path, target = tmp_path / f"in.{suffix}", tmp_path / "out.flac"
    soundfile.write(path, golden_samples(48_000, 2, "int16"), 48_000, subtype=subtype)
    loaded, info = audio.load(path), audio.canonicalise_file(path, target)
    assert not loaded.lossless
    assert not info.lossless
    assert audio.load(target).lossless
    assert audio.load(target).digest == info.digest == loaded.digest
    assert loaded.seconds == pytest.approx(0.5, abs=0.06)


def test_canonical_passes_through() -> None:
    """16 kHz mono int16 is not touched, and cannot be written to afterwards."""
    samples = golden_samples(16_000, 1, "int16")[:, 0]
    found = audio.from_samples(samples, 16_000)
    assert np.array_equal(found.samples, samples)
    assert not found.samples.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        found.samples[0] = 1


def test_channels_are_averaged_with_halves_to_even() -> None:
    """(L + R) / 2 is rounded once; without a filter the ties show."""
    pairs = np.array([[0, 1], [1, 2], [2, 3], [-1, 0], [-2, -1], [32_767, 32_767], [-32_768, -32_768]], np.int16)
    found = audio.from_samples(np.tile(pairs, (400, 1)), 16_000).samples[: len(pairs)]
    assert found.tolist() == [0, 2, 2, 0, -2, 32_767, -32_768]


def test_wide_samples_round_and_saturate() -> None:
    """32-bit samples round to 24 bits, floats to units of 2**-23, halves to even, full scale saturates."""
    whole = np.array([0x180, 0x80, -0x80, 0x7FFF_FFFF, -0x8000_0000] * 500, np.int32)
    assert audio.from_samples(whole, 16_000).samples[:5].tolist() == [0, 0, 0, 32_767, -32_768]
    real = np.array([0.5 / 2**15, 1.5 / 2**15, 1.0, -1.0, 3.0] * 500)
    assert audio.from_samples(real, 16_000).samples[:5].tolist() == [0, 2, 32_767, -32_768, 32_767]


def test_silence_stays_silent() -> None:
    """Nothing is added: no dither."""
    for rate_hz in GOLDEN_RATES_HZ:
        assert not audio.from_samples(np.zeros((rate_hz, 2), np.float32), rate_hz).samples.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(4_000, 384_000), st.integers(0, 3_000), st.integers(1, 8))
def test_length_rule(rate_hz: int, extra: int, channels: int) -> None:
    """Any rate gives ceil(n * 16000 / rate) samples."""
    count = -(-audio.MIN_SAMPLES * rate_hz // 16_000) + extra
    found = audio.from_samples(np.zeros((count, channels), np.int16), rate_hz)
    assert len(found.samples) == -(-count * 16_000 // rate_hz)


def test_digest_follows_its_description() -> None:
    """The digest is built as the documentation says, and a stream's equals the whole's."""
    samples = clip().samples
    inner = hashlib.sha256(samples.astype("<i2").tobytes()).digest()
    header = b"earmark/pcm/1\0" + (16_000).to_bytes(4, "little") + len(samples).to_bytes(8, "little")
    assert audio.digest(samples) == hashlib.sha256(header + inner).hexdigest() == clip().digest


def test_one_changed_sample_changes_the_digest() -> None:
    """So does one more sample of silence."""
    samples = clip().samples.copy()
    before = audio.digest(samples)
    samples[777] ^= 1
    assert audio.digest(samples) != before
    assert audio.digest(np.append(clip().samples, np.int16(0))) != before


def test_equality_and_repr() -> None:
    """Audio is equal by digest, hashable, and prints in one line."""
    assert clip() == clip()
    assert clip() != clip(15_000)
    assert clip() != "clip"
    assert len({clip(), clip(), clip(15_000)}) == 2
    assert re.fullmatch(r"CanonicalAudio\(1\.000 s, lossless source, digest=[0-9a-f]{12}\.\.\.\)", repr(clip()))


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


# segments and billing


def test_short_audio_is_one_segment() -> None:
    """Audio that fits is not cut."""
    assert audio.segment(clip().samples, 16_000) == ((0, 16_000),)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60_000),
    max_samples=st.integers(2_000, 20_000),
    share=st.floats(0, 1),
    quiet=st.booleans(),
)
def test_segments_cover(seed: int, count: int, max_samples: int, share: float, quiet: bool) -> None:
    """Segments follow one another, cover the audio, and keep to the limits, whatever the audio."""
    least = max(1, int(share * 2 * (max_samples - 160) / 3))
    samples = np.random.default_rng(seed).integers(-1 if quiet else -32_768, 1 if quiet else 32_768, count)
    parts = audio.segment(samples.astype(np.int16), max_samples, min_samples=least)
    assert parts[0][0] == 0
    assert parts[-1][1] == count
    assert all(one[1] == other[0] for one, other in pairwise(parts))
    assert all(0 < stop - start <= max_samples for start, stop in parts)
    assert all(least <= stop - start and stop % 160 == 0 for start, stop in parts[:-1])
    if len(parts) > 1:
        assert parts[-1][1] - parts[-1][0] >= least // 2


def test_segments_follow_the_rule() -> None:
    """Each boundary is the quietest of its window, the latest of equals, by sums taken one by one."""
    samples = np.repeat(golden_samples(16_000, 1, "int16")[:, 0], 12)
    squares = samples.astype(object) ** 2
    start = 0
    for _, stop in audio.segment(samples, 20_000, min_samples=9_000)[:-1]:
        places = range(-(-(start + 9_000) // 160) * 160, min(start + 20_000, len(samples) - 4_500) + 1, 160)
        loudness = {place: squares[place - 480 : place + 480].sum() for place in places}
        assert stop == max(p for p in places if loudness[p] == min(loudness.values()))
        start = stop


def test_silence_is_cut_late() -> None:
    """Where all is equal the segments are as long as can be."""
    assert audio.segment(np.zeros(50_000, np.int16), 16_000)[:2] == ((0, 16_000), (16_000, 32_000))


@pytest.mark.parametrize(("most", "least"), [(1_999, None), (20_000, 0), (20_000, 13_300), (20_000, -5)])
def test_bad_limits(most: int, least: int | None) -> None:
    """Limits that leave no choice are refused."""
    with pytest.raises(AudioError, match="widen the range"):
        audio.segment(np.zeros(50_000, np.int16), most, min_samples=least)


def test_billed_tokens() -> None:
    """50 tokens per second begun, without the surprises of floating point."""
    for samples in (*range(1, 2_000), 464_000, 16_000 * 3_600 * 3 + 1):
        assert audio.billed_tokens(samples / 16_000) == -(-samples // 320)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(AudioError, match="finite number"):
            audio.billed_tokens(wrong)


# real recordings


@pytest.mark.speech
def test_all_recordings_load(speech_dir: Path) -> None:
    """Every real recording is accepted, the shortest digits included."""
    rows = [json.loads(line) for line in (speech_dir / "manifest.jsonl").read_text().splitlines()]
    for row in rows:
        found = audio.load(speech_dir / row["path"])
        assert found.seconds == pytest.approx(row["seconds"], abs=1e-3)
        assert found.lossless


@pytest.mark.speech
def test_cuts_fall_into_pauses(speech_dir: Path) -> None:
    """In read speech the cuts lie where the level is far below the clip's."""
    names = (
        "watson/en-US_Broadband_sample1",
        "watson/es-ES_Broadband_sample1",
        "watson/it-IT_BroadbandModel_sample1",
    )
    clips = [audio.load(speech_dir / f"{name}.flac").samples for name in names]
    reader = [audio.load(path).samples for path in sorted((speech_dir / "ljspeech").glob("LJ001-00*.flac"))]
    for samples in (*clips, np.concatenate(reader)):
        power = samples.astype(np.float64) ** 2
        for _, cut_at in audio.segment(samples, 10 * 16_000)[:-1]:
            around = power[cut_at - 480 : cut_at + 480].mean()
            assert 10 * np.log10((around + 1) / power.mean()) < -20
