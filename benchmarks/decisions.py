"""Simulated audits: how many clips a deviation takes, how often honest providers alarm, and what peeking does.

Run `python benchmarks/decisions.py [--runs N] [--json FILE]`; scores are lognormal with sigma 0.6, no model is needed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from earmark.decision.betting import Audit, place_bets
from earmark.decision.sprt import Sprt

SIGMA, RATE = 0.6, 1e-3
Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], Floats]


def scores(shift: float, share: float = 1.0) -> Draw:
    """Return the function that draws scores of which a share is shifted (log units)."""

    def draw(rng: np.random.Generator, clips: int) -> Floats:
        moved = shift * (rng.random(clips) < share)
        return np.exp(SIGMA * rng.standard_normal(clips) + moved)

    return draw


def first_alarms(draw: Draw, *, runs: int, clips: int, calibration: int, tolerance: float) -> Floats:
    """Return after how many clips each audit alarmed; infinity where it did not."""
    rng, found = np.random.default_rng(1), np.full(runs, np.inf)
    for i in range(runs):
        bets = place_bets(scores(0.0)(rng, calibration), rate=RATE, tolerance=tolerance)
        over = np.flatnonzero(Audit(bets=bets).update(draw(rng, clips)) >= np.log(2 / RATE))
        found[i] = over[0] + 1 if over.size else np.inf
    return found


def audits(runs: int) -> Iterator[dict[str, Any]]:
    """Yield one row per kind of provider."""
    cases = [
        ("honest", scores(0.0), 1000, 1.0),
        ("honest, benign drift +0.15", scores(0.15), 1000, 1.0),
        ("honest, benign drift +0.15", scores(0.15), 1000, 1.5),
        ("honest, benign drift +0.30", scores(0.30), 1000, 1.5),
        ("shift 0.3", scores(0.3), 1000, 1.0),
        ("shift 0.6", scores(0.6), 1000, 1.0),
        ("shift 1.2", scores(1.2), 1000, 1.0),
        ("shift 2.5 on 10 %", scores(2.5, 0.1), 2000, 1.0),
        ("shift 2.5 on 10 %", scores(2.5, 0.1), 2000, 1.5),
        ("shift 2.5 on 5 %", scores(2.5, 0.05), 2000, 1.5),
    ]
    for name, draw, calibration, tolerance in cases:
        found = first_alarms(draw, runs=runs, clips=3000, calibration=calibration, tolerance=tolerance)
        yield {
            "provider": name,
            "calibration": calibration,
            "tolerance": tolerance,
            "alarmed": float(np.isfinite(found).mean()),
            "median_clips": float(np.median(found)) if np.isfinite(np.median(found)) else None,
        }


def peeking(runs: int) -> dict[str, Any]:
    """How often Kolmogorov-Smirnov at nominal 5 %, looked at every 20 clips, accuses an honest provider."""
    rng, alarms = np.random.default_rng(2), 0
    for _ in range(runs):
        known, seen = scores(0.0)(rng, 1000), scores(0.0)(rng, 400)
        alarms += any(ks_2samp(known, seen[:n]).pvalue <= 0.05 for n in range(20, 401, 20))
    return {"provider": "honest, KS at 5 % every 20 clips (for comparison)", "alarmed": alarms / runs}


def unclamped() -> dict[str, Any]:
    """How many frauds 500 honest clips buy in an SPRT whose ratio may fall below 0."""
    bought = []
    for clamp in (False, True):
        test = Sprt(p0=0.01, p1=0.1, clamp=clamp)
        for _ in range(500):
            test.update(failed=False)
        frauds = 1
        while test.update(failed=True) != "reject":
            frauds += 1
        bought.append(frauds)
    return {
        "provider": "frauds in a row until SPRT rejects, behind 500 honest clips",
        "free": bought[0],
        "clamped": bought[1],
    }


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = list(audits(arguments.runs))
    print("| provider | calibration clips | tolerance | audits that alarmed | median clips |\n|---|---|---|---|---|")
    for row in rows:
        clips = "-" if row["median_clips"] is None else f"{row['median_clips']:.0f}"
        cells = (row["provider"], row["calibration"], row["tolerance"], f"{row['alarmed']:.1%}", clips)
        print("| " + " | ".join(map(str, cells)) + " |")
    extra = [peeking(arguments.runs), unclamped()]
    for row in extra:
        print(json.dumps(row))
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows + extra), encoding="utf-8")


if __name__ == "__main__":
    main()
