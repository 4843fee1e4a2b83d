"""Speed, memory and filter quality of canonical audio, beside soxr HQ in the same run.

    python benchmarks/audio.py --json audio.json            # all rows, about a minute
    python benchmarks/audio.py --json audio.json --quick    # without the three-hour file

One thread. Speeds are seconds of audio per second, the best of several runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

# numpy reads these when it is imported
os.environ |= dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")

import numpy as np
import soundfile

from earmark import audio
from earmark._resample import UNIT_GAIN, Ratio, Resampler, coefficients

if TYPE_CHECKING:
    from numpy.typing import NDArray

Row = dict[str, Any]
CASES = ((44_100, 2), (48_000, 2), (22_050, 1), (8_000, 1), (96_000, 2), (192_000, 2), (44_056, 1))
SECONDS = 60
REPEATS = 7


def best_seconds(work: Callable[[], object]) -> float:
    """Return the least wall time of several runs."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def noise(rate_hz: int, channels: int, seconds: float) -> NDArray[np.int16]:
    """Return white noise below full scale."""
    return np.random.default_rng(0).integers(-9_000, 9_000, (int(rate_hz * seconds), channels)).astype(np.int16)


def resample_soxr(samples: NDArray[np.int16], rate_hz: int) -> NDArray[np.int16]:
    """Mix and resample with soxr HQ, int16 to int16, as one would without earmark."""
    import soxr

    mono = samples[:, 0].astype(np.float32)
    for channel in range(1, samples.shape[1]):
        mono += samples[:, channel]
    mono *= np.float32(1 / samples.shape[1])
    resampled: NDArray[np.float32] = soxr.resample(mono, rate_hz, 16_000, "HQ")
    return np.clip(np.rint(resampled), -32_768, 32_767).astype(np.int16)


def speed_rows() -> Iterator[Row]:
    """Time mixing and resampling of arrays."""
    for rate_hz, channels in CASES:
        samples = noise(rate_hz, channels, SECONDS)
        ours = best_seconds(lambda: audio.from_samples(samples, rate_hz))  # noqa: B023 - called at once
        theirs = best_seconds(lambda: resample_soxr(samples, rate_hz))  # noqa: B023 - called at once
        yield {
            "row": f"resample {rate_hz} Hz, {channels} channels",
            "x_real_time": round(SECONDS / ours),
            "soxr_hq_x_real_time": round(SECONDS / theirs),
            "ratio_to_soxr": round(theirs / ours, 2),
        }


def design_rows() -> Iterator[Row]:
    """Time the first second of a rate, coefficients included."""
    for rate_hz in (44_100, 192_000, 44_056, 44_057, 383_999):
        start = time.perf_counter()
        resampler = Resampler(rate_hz, 1)
        resampler.push(np.zeros(rate_hz))
        resampler.finish()
        yield {"row": f"first second at {rate_hz} Hz", "seconds": round(time.perf_counter() - start, 4)}


def quality_rows() -> Iterator[Row]:
    """Measure ripple up to 7/16 of the band and attenuation from half of it."""
    for rate_hz in (8_000, 11_025, 22_050, 44_100, 48_000, 192_000):
        ratio = Ratio.of(rate_hz)
        half, rows = ratio.taps // 2, coefficients(ratio, np.arange(ratio.up, dtype=np.int64))
        taps = np.zeros(ratio.up * ratio.taps)
        for phase, row in enumerate(rows):
            taps[phase - (np.arange(ratio.taps) + 1 - half) * ratio.up + half * ratio.up - 1] = row
        response = np.abs(np.fft.rfft(taps, 16 * 2 ** int(np.ceil(np.log2(len(taps)))))) / UNIT_GAIN / ratio.up
        frequency_hz = np.linspace(0, rate_hz * ratio.up / 2, len(response))
        band_hz = min(rate_hz, 16_000)
        yield {
            "row": f"filter {rate_hz} Hz",
            "taps_per_output": ratio.taps,
            "ripple_db": round(float(np.abs(20 * np.log10(response[frequency_hz <= band_hz * 7 / 16])).max()), 6),
            "attenuation_db": round(-20 * float(np.log10(response[frequency_hz >= band_hz / 2].max())), 2),
        }


def tone_rows() -> Iterator[Row]:
    """Measure the error of a tone against the ideal, in units of int16, for both resamplers."""
    import soxr

    for rate_hz, frequency_hz in ((44_100, 997.0), (44_100, 6_889.0), (48_000, 6_889.0), (44_100, 9_000.0)):
        before, after = np.arange(rate_hz) / rate_hz, np.arange(16_000) / 16_000
        wave = 0.75 * np.sin(2 * np.pi * frequency_hz * before) * np.sin(np.pi * before) ** 2
        ideal = 0.75 * np.sin(2 * np.pi * frequency_hz * after) * np.sin(np.pi * after) ** 2 * 32_768
        ideal *= frequency_hz < 8_000
        theirs = np.rint(soxr.resample(wave, rate_hz, 16_000, "HQ") * 32_768)
        yield {
            "row": f"tone {frequency_hz:g} Hz from {rate_hz} Hz",
            "largest_error": round(float(np.abs(audio.from_samples(wave, rate_hz).samples - ideal).max()), 2),
            "soxr_hq_largest_error": round(float(np.abs(theirs - ideal).max()), 2),
        }


def file_rows(folder: Path) -> Iterator[Row]:
    """Time decoding, digest, segments and writing."""
    path = folder / "in.flac"
    soundfile.write(path, noise(44_100, 2, SECONDS), 44_100)
    clip = audio.load(path)
    long_clip = np.tile(clip.samples, 10)
    for name, work, seconds in (
        ("load FLAC 44.1 kHz stereo", lambda: audio.load(path), SECONDS),
        ("write canonical FLAC", lambda: audio.write(folder / "out.flac", clip), SECONDS),
        ("digest", lambda: audio.digest(long_clip), 10 * SECONDS),
        ("segment, 30 s", lambda: audio.segment(long_clip, 480_000), 10 * SECONDS),
    ):
        yield {"row": name, "x_real_time": round(seconds / best_seconds(work))}


STREAM = r"""
import json, re, sys, time
from pathlib import Path
from earmark import audio
start = time.perf_counter()
info = audio.canonicalise_file(sys.argv[1], sys.argv[2])
status = Path("/proc/self/status")  # ru_maxrss would count the parent, from before exec
peak_mb = int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1024 if status.exists() else None
print(json.dumps({"hours": info.seconds / 3600, "seconds": time.perf_counter() - start, "peak_mb": peak_mb}))
"""


def stream_row(folder: Path, hours: float) -> Row:
    """Canonicalise a long 44.1 kHz stereo file in a process of its own and report its peak memory."""
    source = folder / "long.wav"
    minute = noise(44_100, 2, 60)
    with soundfile.SoundFile(source, "w", 44_100, 2, subtype="PCM_16") as file:
        for _ in range(round(hours * 60)):
            file.write(minute)
    command = [sys.executable, "-c", STREAM, str(source), str(folder / "long.flac")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {
        "row": f"canonicalise a file of {found['hours']:g} h (44.1 kHz stereo WAV to FLAC)",
        "x_real_time": round(found["hours"] * 3600 / found["seconds"]),
        "peak_memory_mb": found["peak_mb"] and round(found["peak_mb"]),
    }


def main() -> None:
    """Run all rows, print them, and write them where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="a long file of 0.1 h instead of 3 h")
    options = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in (speed_rows(), quality_rows(), tone_rows(), design_rows(), file_rows(folder)):
            for row in source:
                rows.append(row)
                print(row, flush=True)
        rows.append(stream_row(folder, 0.1 if options.quick else 3.0))
        print(rows[-1])
    if options.json:
        machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
        report = {"machine": machine, "numpy": np.__version__, "threads": 1, "rows": rows}
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
