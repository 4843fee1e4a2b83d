"""Seconds and bytes of a report on many clips; the run is made up, with seed 0, and no model is needed.

python benchmarks/report.py [--clips N] [--providers N] [--statistics N] [--shape N]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from earmark.report import build, read_source, write
from earmark.runs import Row, Run

SAID, WROTE = "the quick brown fox jumps over the lazy dog", "the quick brown fox jumped over a lazy dog"


def rows(clips: int, providers: int, statistics: int, shape: int) -> Iterator[Row]:
    """Yield lognormal statistics and a normal shape; every second provider is honest."""
    rng, names = np.random.default_rng(0), [f"statistic_{i}" for i in range(statistics)]
    shapes = [f"shape_{i}" for i in range(shape)]
    for provider in range(providers):
        honest = provider % 2 == 0
        sizes = (1e-6 if honest else 1e-3 * 4**provider) * np.exp(rng.standard_normal((clips, statistics)))
        for i, values in enumerate(sizes):
            yield Row(
                clip=f"clip-{i}",
                base=f"clip-{i}",
                scenario=f"provider-{provider}",
                honest=honest,
                model="made-up",
                weights="0" * 64,
                family="made-up",
                precision="fp32",
                level="scores",
                outcome="PASS" if honest else "FAIL",
                findings=() if honest else ("statistics.statistic_0",),
                positions=20,
                statistics=dict(zip(names, values.tolist(), strict=True)),
                shape=dict(zip(shapes, rng.standard_normal(shape).tolist(), strict=True)),
                text=f"{WROTE} {i}",
                expected=f"{SAID} {i}",
                seconds=3.0,
            )


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=10_000)
    parser.add_argument("--providers", type=int, default=8)
    parser.add_argument("--statistics", type=int, default=35)
    parser.add_argument("--shape", type=int, default=307)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run.jsonl"
        Run(rows(given.clips, given.providers, given.statistics, given.shape)).write(run)
        read = run.stat().st_size
        start, busy = time.perf_counter(), time.process_time()
        files = write(build([read_source(run)]), Path(folder) / "report.html", twins=True)
        wall, cpu = time.perf_counter() - start, time.process_time() - busy
        sizes = ", ".join(f"{file.suffix} {file.stat().st_size / 1e3:.0f} kB" for file in files)
    what = f"{given.clips} clips x {given.providers} providers ({read / 1e6:.0f} MB)"
    print(f"{what}: {cpu:.1f} s CPU, {wall:.1f} s, {sizes}")


if __name__ == "__main__":
    main()
