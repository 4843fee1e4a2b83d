"""`earmark calibrate`: from honest runs over many clips to a profile."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from earmark.calibrate import calibrate, channels_of
from earmark.cli import PASSED, show
from earmark.cli.files import Named
from earmark.decision.conformal import clips_needed
from earmark.errors import UsageError
from earmark.loading import family_of, load
from earmark.profiles import Profile
from earmark.scenarios.honest import honest_scenarios
from earmark.study import Sample, study

CLIPS_FOR_RATE = 7 / 3
"""Clips per calibration clip: a seventh fits the scale, three sevenths calibrate, three are held out."""


def make_profile(
    model: str,
    found: Sequence[Named],
    out: Path,
    *,
    run: Path | None,
    rate: float | None,
    level: str,
    language: str | None,
    tolerance: float,
    batch_size: int,
    settings: dict[str, Any],
    as_json: bool,
) -> int:
    """Run every honest scenario on every clip, calibrate, save and report."""
    if rate is not None and len(found) < clips_needed(rate) * CLIPS_FOR_RATE:
        needed = round(clips_needed(rate) * CLIPS_FOR_RATE + 1)
        raise UsageError(f"a rate of {rate:g} needs {needed} clips; {len(found)} were given")
    reference = load(model, arithmetic=None, **settings)
    scenarios = honest_scenarios()
    samples = [Sample(name=item.name, audio=item.path, language=language) for item in found]
    rows_file = run or out.with_name(out.name + ".run.jsonl")
    with show.progress("calibrating", len(samples) * len(scenarios)) as step:
        rows = study(
            reference,
            scenarios,
            samples,
            rows_file,
            level=level,  # type: ignore[arg-type]  # checked when it is recorded
            batch_size=batch_size,
            advance=step,
        )
    profile = calibrate(rows, channels_of(family_of(reference)), rate=rate, tolerance=tolerance, source=str(len(found)))
    profile.save(out)
    _report(profile, out, as_json=as_json)
    return PASSED


def _report(profile: Profile, out: Path, *, as_json: bool) -> None:
    header, share = profile.header, profile.bets().undetectable_share()
    facts = {
        "profile": str(out),
        "model": header.model,
        "precision": header.precision,
        "level": header.level,
        "rate": header.rate,
        "calibration_clips": len(profile.scores),
        "development_clips": header.development,
        "held_out_clips": header.held_out.clips,
        "held_out_alarms": header.held_out.alarms,
        "held_out_upper_95": header.held_out.upper(),
        "undetectable_share": share,
    }
    if as_json:
        show.json_line(facts)
        return
    show.table(("fact", "value"), [[name.replace("_", " "), f"{value}"] for name, value in facts.items()])
