"""Canonical audio: golden digests, lossless and lossy files, rounding, what the digest covers."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from audio_cases import GOLDEN, GOLDEN_RATES_HZ, clip, golden_samples
from hypothesis import given, settings
from hypothesis import strategies as st

from earmark import audio


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
