"""Audits put together from real scores: how often honest providers are accused, how soon cheats on a share are found.

    python benchmarks/audits.py PROFILE CALIBRATION_RUN [DETECTION_RUN] [--audits 10000 --clips 1000] [--json FILE]

PROFILE and CALIBRATION_RUN are what `earmark calibrate MODEL ... --out PROFILE --run CALIBRATION_RUN` left; honest
clips are the held-out ones of that run, each under one honest scenario, in turn. An audit draws them with replacement
and is watched after every clip. Drift multiplies every statistic of every clip by exp(drift). DETECTION_RUN is a run
file of `benchmarks/detection.py` for the same model, precision and level; its cheats are mixed in at the rates given,
and its honest providers serve whole audits: a control, whose clips are of another kind than those of the calibration.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.decision.conformal import conformal_p, upper_bound
from earmark.decision.operating import exact_interval
from earmark.decision.simulation import first_alarms
from earmark.profiles import Profile, load_profile
from earmark.records import lines
from earmark.records.codec import write_atomically
from earmark.runs import Row, Run
from earmark.splits import counted, one_each, split_bases

DRIFTS = (0.0, 0.15, 0.30)
TOLERANCES = (1.0, 1.5)
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many audits of how many clips, and the seed of the draws."""

    audits: int
    clips: int
    seed: int

    def rng(self, number: float) -> np.random.Generator:
        """Return the source of randomness of one row."""
        return np.random.default_rng((self.seed, round(1000 * number)))


def held_out(run: Run) -> list[Row]:
    """Return one honest row of every held-out base clip, as the calibration tests them."""
    honest = run.where(lambda row: row.honest)
    return one_each(honest, split_bases([row.base for row in honest]).held_out)


def scores_of(rows: list[Row], profile: Profile, drift: float = 0.0) -> Floats:
    """Return the score of each row, infinity where a rule was broken; what an audit does not count is left out."""
    rows = [row for row in counted(rows, profile.header.matched) if profile.header.promises(row.seconds)]
    values = Run(rows).matrix(profile.scale.channels) * np.exp(drift)
    broken = np.asarray([row.outcome == "FAIL" for row in rows], bool)
    scores = np.where(broken, np.inf, profile.scale.scores(values))
    kept: Floats = scores[~np.isnan(scores)]
    return kept


def clip_row(rows: list[Row], profile: Profile) -> dict[str, Any]:
    """Return how many single clips are accused at the promised rate."""
    scores = scores_of(rows, profile)
    alarms = int((conformal_p(scores, profile.scores) <= profile.header.rate).sum())
    upper = float(upper_bound(alarms, len(scores), 0.05))
    return {"provider": "honest, one clip", "clips": len(scores), "alarms": alarms, "upper_95": upper}


def honest_rows(rows: list[Row], profile: Profile, size: Size) -> Iterator[dict[str, Any]]:
    """Yield how many honest audits ever alarm, for each drift and tolerance."""
    for drift in DRIFTS:
        pool = scores_of(rows, profile, drift)
        for tolerance in TOLERANCES:
            drawn = size.rng(drift).choice(pool, (size.audits, size.clips))
            found = int(np.isfinite(first_alarms(drawn, profile.bets(tolerance=tolerance))).sum())
            yield {
                "provider": f"honest, drift {drift:+.2f}",
                "tolerance": tolerance,
                "alarmed": found / size.audits,
                "upper_95": exact_interval(found, size.audits)[1],
                "audits": size.audits,
            }


def mixing_rows(
    run: Run, honest: Floats, profile: Profile, shares: Sequence[float], size: Size
) -> Iterator[dict[str, Any]]:
    """Yield after how many clips audits find a provider that cheats on a share of them; honest ones serve all clips."""
    shape = (size.audits, size.clips)
    for name in run.scenarios():
        rows = [row for row in run if row.scenario == name]
        pool = scores_of(rows, profile)
        for share in ([1.0] if rows[0].honest else shares) if len(pool) else ():
            rng = size.rng(share)
            mixed = np.where(rng.random(shape) < share, rng.choice(pool, shape), rng.choice(honest, shape))
            alarms = first_alarms(mixed, profile.bets())
            yield {
                "provider": f"{name} on {share:.0%}",
                "tolerance": profile.header.tolerance,
                "alarmed": float(np.isfinite(alarms).mean()),
                "median": float(np.median(alarms)),
                "audits": size.audits,
            }


def shown(row: dict[str, Any]) -> str:
    """Return a row of the Markdown table."""
    if "alarms" in row:
        return f"| {row['provider']} | - | {row['alarms']} of {row['clips']} (upper {row['upper_95']:.2g}) | - |"
    upper = f" (upper {row['upper_95']:.2g})" if "upper_95" in row else ""
    median = f"{row['median']:.0f}" if np.isfinite(row.get("median", np.inf)) else "-"
    return f"| {row['provider']} | {row['tolerance']:g} | {row['alarmed']:.2%}{upper} | {median} |"


def main() -> None:
    """Put audits together, print a table, write the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("detection", type=Path, nargs="?")
    parser.add_argument("--audits", type=int, default=10_000)
    parser.add_argument("--clips", type=int, default=1000)
    parser.add_argument("--shares", type=float, nargs="+", default=[1.0, 0.1, 0.05])
    parser.add_argument("--mixed-audits", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    profile = load_profile(given.profile)
    rows = held_out(Run.read(given.calibration))
    print(f"{profile.name}\n\n| provider | tolerance | accused | median clips |\n|---|---|---|---|")
    made: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        made.append({"profile": profile.name, **row})
        print(shown(row), flush=True)

    keep(clip_row(rows, profile))
    for row in honest_rows(rows, profile, Size(audits=given.audits, clips=given.clips, seed=given.seed)):
        keep(row)
    if given.detection:
        size = Size(audits=given.mixed_audits, clips=given.clips, seed=given.seed)
        run = Run.read(given.detection)
        for row in mixing_rows(run, scores_of(rows, profile), profile, given.shares, size):
            keep(row)
    if given.json:
        write_atomically(given.json, "".join(lines.to_line(_plain(row)) + "\n" for row in made).encode())


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {key: lines.from_float(value) if isinstance(value, float) else value for key, value in row.items()}


if __name__ == "__main__":
    main()
