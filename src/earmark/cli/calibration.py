"""`earmark calibrate`: from honest runs over many clips to a profile."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from earmark.attribution import applies, recipes_of
from earmark.calibrate import calibrate as profile_of
from earmark.calibrate import channels_of, clips_in_all
from earmark.cli import PASSED, files, origin, show
from earmark.cli.options import (
    Attention,
    Audio,
    BatchSize,
    Checkpoint,
    Device,
    Dtype,
    Json,
    Language,
    loading,
)
from earmark.decision.betting import MOST_TOLERANCE
from earmark.errors import UsageError
from earmark.fingerprint.matched import matched_names
from earmark.loading import family_of, load
from earmark.profiles import Profile
from earmark.protocols import Model
from earmark.recording import check_level
from earmark.records.profile import MOST_RECIPES
from earmark.scenarios.core import Scenario
from earmark.scenarios.honest import honest_scenarios
from earmark.splits import split_bases, turns
from earmark.study import Sample, study

DEFAULT_RECIPES = {"bf16": ("int8", "fp8", "kv-fp8")}
"""By claimed precision; the weights' errors of these are smaller than the honest noise of the precision."""
DEFAULT_SLACK = {"fp32": 300.0, "fp16": 3.0}
"""By claimed precision: float32 noise lies four orders below int8 weights' and float16's one; bfloat16's touches it."""
NO_RECIPE = "none"


def calibrate(
    model: Checkpoint,
    audio: Audio,
    out: Annotated[Path, typer.Option(help="Folder of the profile.")],
    rate: Annotated[float | None, typer.Option(help="False-alarm rate of one clip; 1e-3 if it can be.")] = None,
    level: Annotated[
        str, typer.Option(help="Level of the evidence: scores, sketch, compact, or listed as APIs show it.")
    ] = "scores",
    language: Language = "en",
    tolerance: Annotated[
        float, typer.Option(min=1.0, max=MOST_TOLERANCE, help="Factor by which honest noise may drift.")
    ] = 1.5,
    slack: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            help="Factor by which honest machines that were not measured may differ beyond the largest value here "
            "before it counts at all; beyond the documented bounds, only what was measured. By default 300 for float32 "
            "and 3 for float16, whose noise lies far below int8 weights in the embedded models, and 1 for bfloat16.",
        ),
    ] = None,
    recipe: Annotated[
        list[str] | None,
        typer.Option(
            help="Known cheat whose direction the score looks along, at most three; may be repeated; none: no recipe. "
            "By default int8, fp8 and kv-fp8 for bfloat16, whose own noise hides them, and none for other precisions."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="File of the measured rows; a killed run goes on from it. Rows of other clips count for nothing; "
            "those of other audio or another language are measured anew."
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    attention: Attention = "sdpa",
    as_json: Json = False,
) -> int:
    """Measure honest behaviour on many clips and write a profile with a guaranteed false-alarm rate."""
    found, beside = files.find_audio(audio), _beside(out)
    if rate is not None:
        _check_number(len(found), rate)  # before a large model is loaded
    reference = load(model, **loading(device, dtype, attention))
    family, precision = family_of(reference), reference.info.precision
    check_level(level, family, played=True)
    recipes = _recipes(reference, recipe, level)
    slack = DEFAULT_SLACK.get(precision, 1.0) if slack is None else slack
    channels, names = channels_of(family, slack=slack), [each.name for each in recipes]
    _check_number(len(found), rate, len(channels) + len(matched_names(names)))
    with show.progress("comparing", len(found)) as step:
        origin.check_distinct(found, step)
    facts = origin.origin(found, sys.argv[1:])
    scenarios = honest_scenarios()
    samples = [Sample(name=item.name, audio=item.path, language=language) for item in found]
    turn = turns(split_bases([each.name for each in samples]).held_out, [each.name for each in scenarios])

    def wanted(scenario: Scenario, sample: Sample) -> bool:
        return turn.get(sample.name, scenario.name) == scenario.name  # a held-out clip is tested once

    with show.progress("calibrating", len(samples) * len(scenarios) - len(turn) * (len(scenarios) - 1)) as step:
        rows = study(
            reference,
            scenarios,
            samples,
            run or beside,
            level=level,  # type: ignore[arg-type]  # checked above
            batch_size=batch_size,
            recipes=recipes,
            wanted=wanted,
            advance=step,
        )
    asked, given = {each.name for each in scenarios}, {each.name for each in samples}
    rows = rows.where(lambda row: row.base in given)  # the file may hold those of other clips
    rows = rows.where(lambda row: not row.honest or row.scenario in asked)  # an honest beam is no greedy clip
    profile = profile_of(
        rows,
        channels,
        rate=rate,
        tolerance=tolerance,
        source=str(len(found)),
        facts=facts,
        recipes=names,
        slack=slack,
        limits=family.provisional_bounds(precision),
    )
    profile.save(out)
    _report(profile, out, as_json=as_json)
    return PASSED


def _check_number(clips: int, rate: float | None, channels: int = 0) -> None:
    """Refuse too few clips before any of them is measured."""
    if clips < (needed := clips_in_all(rate, channels)):
        what = "a calibration" if rate is None else f"a rate of {rate:g}"
        raise UsageError(f"{what} needs {needed} clips; {clips} were given")


def _beside(out: Path) -> Path:
    """Return the file of the run beside the folder of the profile."""
    folder = out.resolve()
    if not folder.name:
        raise UsageError(f"--out {out}; expected a folder of its own for the profile")
    return folder.with_name(folder.name + ".run.jsonl")


def _recipes(reference: Model, asked: Sequence[str] | None, level: str) -> list[Scenario]:
    """Return the recipes that were asked for, or those of the precision that this model can be made into."""
    if level == "compact":
        if asked and {*asked} != {NO_RECIPE}:
            raise UsageError(f"the recipe {asked[0]} at the level compact, which shows no lists: leave the recipe out")
        return []
    if asked is not None:
        names = [name for name in asked if name != NO_RECIPE]
        if len(names) > MOST_RECIPES:
            raise UsageError(f"{len(names)} recipes; at most {MOST_RECIPES}")
        chosen = recipes_of(names)
        if unfit := [each.name for each in chosen if not applies(each, reference)]:
            raise UsageError(f"{reference.info.name} cannot be made into {unfit[0]}: leave this recipe out")
        return chosen
    return [each for each in recipes_of(DEFAULT_RECIPES.get(reference.info.precision, ())) if applies(each, reference)]


def _report(profile: Profile, out: Path, *, as_json: bool) -> None:
    header, share = profile.header, profile.bets().undetectable_share()
    facts = {
        "profile": str(out),
        "model": header.model,
        "precision": header.precision,
        "level": header.level,
        "recipes": ", ".join(header.recipes) or "none",
        "slack": header.provenance["slack"],
        "rate": header.rate,
        "calibration_clips": len(profile.scores),
        "development_clips": header.development,
        "undecided_clips": int(header.provenance["undecided"]),
        "held_out_clips": header.held_out.clips,
        "held_out_alarms": header.held_out.alarms,
        "held_out_upper_95": header.held_out.upper(),
        "undetectable_share": share,
    }
    if as_json:
        show.json_line(facts)
        return
    show.facts(facts)
