"""`earmark study`: simulated providers over many clips, measured into a run."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from earmark.attribution import library
from earmark.cli import PASSED, show
from earmark.cli.options import (
    Attention,
    BatchSize,
    Checkpoint,
    Clips,
    Device,
    Dtype,
    ExampleCount,
    Json,
    Limit,
    StudyLanguage,
    StudyLevel,
    StudyProfile,
    loading,
)
from earmark.cli.origin import command_of
from earmark.cli.samples import find_samples
from earmark.comparisons import Task, usual
from earmark.detection import Detection, detections
from earmark.errors import RecordError
from earmark.examples import collect, load_examples, path_beside
from earmark.judging import PROVISIONAL
from earmark.loading import family_of, load
from earmark.profiles import Profile, find_profile
from earmark.protocols import Model
from earmark.recording import check_level
from earmark.runs import Run
from earmark.scenarios.core import Scenario
from earmark.scenarios.naming import parse_scenario
from earmark.study import Sample
from earmark.study import study as run_study

UNREPLAYED = "not replayed"


def study(
    model: Checkpoint,
    clips: Clips = None,
    *,
    out: Annotated[Path, typer.Option(help="The run; one line per clip and provider, and a killed study goes on.")],
    scenario: Annotated[
        list[str] | None,
        typer.Option(help="NAME, NAME:KEY=VALUE,... or a checkpoint that stands in; may be repeated."),
    ] = None,
    level: StudyLevel = "scores",
    language: StudyLanguage = "en",
    limit: Limit = None,
    examples: ExampleCount = 8,
    profile: StudyProfile = None,
    match: Annotated[
        bool, typer.Option("--match", help="Say of every clip which cheat it looks like; one more replay for each.")
    ] = False,
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    attention: Attention = "sdpa",
    as_json: Json = False,
) -> int:
    """Play providers, honest and not, over clips and measure what verification says of each."""
    samples = find_samples(clips or [], language=language, limit=limit)
    settings = loading(device, dtype, attention)

    def other(source: str) -> Model:
        return load(source, **settings)

    reference = other(model)
    check_level(level, family_of(reference), played=True)
    if scenario:
        task = Task(reference=reference, scenarios=tuple(parse_scenario(text, other) for text in scenario))
    else:
        task = usual(reference, lambda source, _: other(source))
    options: dict[str, Any] = {"level": level, "profile": profile, "batch_size": batch_size, "examples": examples}
    run = measure(task, samples, out, **options, recipes=recipes_for(task) if match else (), label="studying")
    print_detections(detections(run), as_json=as_json)
    if match:
        _print_likenesses(run, as_json=as_json)
    return PASSED


def recipes_for(task: Task) -> list[Scenario]:
    """Return what clips are matched with: the library, and the networks of the study's own cheats."""
    known = {recipe.name: recipe for recipe in library()}
    return [*{**known, **{own.name: own for own in task.scenarios if not own.honest and own.model}}.values()]


def measure(
    task: Task,
    samples: list[Sample],
    out: Path,
    *,
    level: str,
    profile: str | None,
    batch_size: int,
    examples: int,
    label: str,
    recipes: Sequence[Scenario] = (),
) -> Run:
    """Measure a task into a run, and write its examples beside it."""
    kind: Any = level
    reference = task.reference
    judge = profile or judge_of(reference, level) or PROVISIONAL
    with show.progress(label, len(samples) * len(task.scenarios)) as step:
        run = run_study(
            reference,
            task.scenarios,
            samples,
            out,
            level=kind,
            batch_size=batch_size,
            profile=judge,
            recipes=recipes,
            advance=step,
        )
    close = samples[:: max(1, len(samples) // examples)][:examples] if examples else []
    if close and not _has_examples(out, task, len(close)):
        with show.progress("looking closely", len(task.scenarios)) as step:
            made = collect(
                reference, task.scenarios, close, level=kind, batch_size=batch_size, command=command(), advance=step
            )
        made.save(path_beside(out))
    return run


def judge_of(reference: Model, level: str) -> Profile | None:
    """Return the calibrated profile that judges greedy evidence of a model, where there is one."""
    return find_profile(reference.info, "greedy", level)


def _has_examples(out: Path, task: Task, clips: int) -> bool:
    """Tell whether the examples of an earlier call are of this task."""
    try:
        found = load_examples(out)
    except RecordError:
        return False
    names = {scenario.name for scenario in task.scenarios}
    if found is None or found.weights != task.reference.info.weights:
        return False
    return {cost.scenario for cost in found.costs} == names and all(cost.clips == clips for cost in found.costs)


def command() -> str:
    """Return the command line for people, without the folders of this machine."""
    return command_of(sys.argv[1:])[:2000]


def print_detections(found: list[Detection], *, as_json: bool) -> None:
    """Print what was found of each provider."""
    if as_json:
        for own in found:
            show.json_line(msgspec.json.decode(msgspec.json.encode(own)))
        return
    columns = ("provider", "clips", "found", "95 % interval", "clips to detect", "AUC")
    for kind in dict.fromkeys((own.model, own.precision, own.level) for own in found):
        rows = [_cells(own) for own in found if (own.model, own.precision, own.level) == kind]
        show.table(columns, rows, title=", ".join(kind))


def _print_likenesses(run: Run, *, as_json: bool) -> None:
    """Print which cheat the clips of each provider look like."""
    counts = {name: Counter[str]() for name in run.scenarios()}
    for row in run:
        counts[row.scenario].update([row.looks_like or UNREPLAYED])
    if as_json:
        for name, found in counts.items():
            show.json_line({"scenario": name, "looks_like": dict(found.most_common())})
        return
    rows = [[name, ", ".join(f"{own} ({n})" for own, n in found.most_common())] for name, found in counts.items()]
    show.table(("provider", "looks like (clips)"), rows)


def _cells(own: Detection) -> list[str]:
    return [
        own.scenario + (" (honest)" if own.honest else ""),
        str(own.clips),
        f"{own.detected_one_clip:.1%}" if own.clips else "-",
        f"{own.ci_low:.1%} to {own.ci_high:.1%}",
        "-" if own.honest else str(own.clips_to_detect or "not found"),
        "-" if math.isnan(own.auc) else f"{own.auc:.3f}",
    ]
