"""How far honest batches of one machine differ on quiet and band-limited audio, by how little the quietest band varies.

    python benchmarks/faint.py embedded:parakeet-ctc-nano [--clips 30]

Clips of the challenge set are scaled to a peak in steps of the 16-bit scale, or lose the upper half of their band; a
provider records each alone, and the reference replays them in batches of eight. Per range of the least deviation of a
band's log energy (`earmark.protocols.BandModel`): how many clips, and the largest difference of a log-probability.
"""

from __future__ import annotations

import argparse
from itertools import pairwise

import numpy as np
from detection import samples, usable
from numpy.typing import NDArray
from scipy.signal import resample_poly

import earmark
from earmark import faint, replaying
from earmark.audio import from_samples
from earmark.cli import show
from earmark.protocols import BandModel, Model
from earmark.scenarios.honest import honest
from earmark.study import Sample, measure

PEAKS = (32_000, 1_000, 300, 100, 30, 8, 3)
EDGES = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, np.inf)
RATE_HZ = 16_000


def scaled(audio: NDArray[np.int16], peak: int) -> NDArray[np.int16]:
    """Return audio whose largest sample is `peak`."""
    found: NDArray[np.int16] = np.round(audio * (peak / max(1, int(np.abs(audio).max())))).astype(np.int16)
    return found


def telephone(audio: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return what is left of audio that was stored at 8 kHz."""
    halved = np.clip(np.round(resample_poly(audio.astype(np.float64), 1, 2)), -32768, 32767).astype(np.int16)
    return from_samples(halved, RATE_HZ // 2).samples


def differences(model: Model, clips: list[Sample]) -> list[float]:
    """Return `logprob_l1_max` of each clip: recorded alone, replayed in batches."""
    return [row.statistics.get("logprob_l1_max", np.nan) for row in measure(model, honest(batch_size=1), clips)]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--clips", type=int, default=30)
    given = parser.parse_args()
    model = earmark.load(given.model, device="cpu")
    if not isinstance(model, BandModel):
        raise SystemExit(f"{given.model} does not normalise band by band")
    replaying.FAINT = faint.FAINT = 0.0
    found: list[tuple[float, float]] = []
    base = [earmark.load_audio(sample.audio).samples for sample in usable(model, samples(given.clips, 0, 10.0))]
    narrow = [telephone(clip) for clip in base]
    sets = [[scaled(clip, peak) for clip in base] for peak in PEAKS] + [narrow]
    with show.progress("measuring", len(sets)) as step:
        for audio in sets:
            made = [from_samples(own, RATE_HZ) for own in audio]
            clips = [Sample(name=f"{i}", audio=own, language=None) for i, own in enumerate(made)]
            found += zip(map(model.least_deviation, audio), differences(model, clips), strict=True)
            step(1)
    values = np.asarray(found)
    print("| least deviation of a band | clips | largest difference of a log-probability |\n|---|---|---|")
    for low, high in pairwise(EDGES):
        inside = values[(values[:, 0] >= low) & (values[:, 0] < high), 1]
        if len(inside):
            print(f"| {low:g} to {high:g} | {len(inside)} | {np.nanmax(inside):.2g} |")


if __name__ == "__main__":
    main()
