"""`earmark report` and `earmark compare`: what was measured, in one file that opens anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.cli import PASSED, show
from earmark.cli.bundling import is_bundle, note_bundle, samples_of, task_of
from earmark.cli.options import (
    Attention,
    BatchSize,
    Clips,
    Device,
    Dtype,
    ExampleCount,
    Json,
    Limit,
    StudyLanguage,
    StudyLevel,
    StudyProfile,
)
from earmark.cli.samples import find_samples
from earmark.cli.studying import command, judge_of, measure
from earmark.comparisons import ALL_PRECISIONS, FLOATS, ROUNDED, Task, checkpoints, precisions
from earmark.errors import UsageError
from earmark.judging import PROVISIONAL, RULES
from earmark.loading import load
from earmark.profiles import Profile, load_profile
from earmark.report import FORMATS, Report, build, read_source, write
from earmark.report.sources import read_audit
from earmark.scenarios.naming import short_name

Title = Annotated[str | None, typer.Option(help="Title of the report.")]


def report(
    run: Annotated[list[Path] | None, typer.Argument(help="Runs that `earmark study` or `calibrate` wrote.")] = None,
    *,
    out: Annotated[Path, typer.Option(help="report.html, .md or .json; HTML brings the other two along.")],
    audit: Annotated[list[Path] | None, typer.Option(help="Log of an audit; may be repeated.")] = None,
    profile: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of a profile, for scores and thresholds of the runs that it fits; may be repeated."),
    ] = None,
    title: Title = None,
    as_json: Json = False,
) -> int:
    """Write what runs and audits found into one file without scripts or addresses: HTML, Markdown and JSON."""
    if not run and not audit:
        raise UsageError("nothing to report on; give runs that `earmark study` wrote, or --audit LOG")
    _check(out)
    made = build(
        [read_source(path) for path in run or ()],
        audits=[(path.name, read_audit(path)) for path in audit or ()],
        profiles=[load_profile(folder) for folder in profile or ()],
        title=title or "earmark report",
        command=command(),
    )
    return _write(made, out, as_json=as_json)


def compare(
    a: Annotated[str, typer.Argument(help="The claimed model, or a run.", show_default=False)],
    b: Annotated[
        str,
        typer.Argument(
            help="A checkpoint, a run, a bundle, one of fp16, bf16, fp8, int8, int4, or `precisions` for all.",
            show_default=False,
        ),
    ],
    clips: Clips = None,
    *,
    out: Annotated[Path, typer.Option(help="report.html, .md or .json; the runs go into a folder beside it.")],
    same: Annotated[
        bool, typer.Option("--same", help="B is the same model in another engine or elsewhere: it must PASS.")
    ] = False,
    level: StudyLevel = "scores",
    language: StudyLanguage = "en",
    limit: Limit = None,
    examples: ExampleCount = 4,
    profile: StudyProfile = None,
    title: Title = None,
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    attention: Attention = "sdpa",
    as_json: Json = False,
) -> int:
    """Hold two models, precisions, engines or runs against each other, and write the report."""
    _check(out)
    name = title or f"{short_name(a)} against {short_name(b)}"
    if all(Path(own).suffix == ".jsonl" for own in (a, b)):
        return _write(build([read_source(a), read_source(b)], title=name, command=command()), out, as_json=as_json)
    found = find_samples(clips or [], language=language, limit=None if is_bundle(b) else limit)
    samples = samples_of(b, found) if is_bundle(b) else found

    def opened(source: str, precision: str) -> Any:
        return load(source, device=device, dtype=precision, attention=attention)

    folder, runs, judges = out.with_name(f"{out.stem}.runs"), [], []
    folder.mkdir(parents=True, exist_ok=True)
    for task in _tasks(a, b, opened, dtype, same):
        info = task.reference.info
        runs.append(folder / f"{short_name(info.name)}-{info.precision}-{level}-{info.weights[:8]}.jsonl")
        judges.append(judge_of(task.reference, level) if profile is None else _given(profile))
        options: dict[str, Any] = {"level": level, "profile": profile, "batch_size": batch_size, "examples": examples}
        measure(task, samples, runs[-1], **options, label=f"{short_name(info.name)} {info.precision}")
        if is_bundle(b):
            note_bundle(b, task.reference, found, runs[-1], as_json=as_json)
    sources, profiles = [read_source(run) for run in runs], [judge for judge in judges if judge is not None]
    return _write(build(sources, profiles=profiles, title=name, command=command()), out, as_json=as_json)


def _given(profile: str) -> Profile | None:
    return None if profile in (PROVISIONAL, RULES) else load_profile(profile)


def _tasks(a: str, b: str, opened: Any, dtype: str, same: bool) -> Iterator[Task]:
    """Return the tasks that A and B name."""
    if is_bundle(b):
        return iter([task_of(b, opened(a, dtype))])
    if b == ALL_PRECISIONS:
        return precisions(a, opened)
    if b in (*FLOATS, *ROUNDED):
        return precisions(a, opened, only=b, claim=dtype)
    return checkpoints(opened(a, dtype), opened(b, dtype), b, load=opened, same=same)


def _check(out: Path) -> None:
    """Refuse a name that no report can have before anything is measured."""
    if out.suffix not in FORMATS:
        raise UsageError(f"--out {out.name}: a report is written as {', '.join(FORMATS)}")


def _write(made: Report, out: Path, *, as_json: bool) -> int:
    files = write(made, out, twins=out.suffix == ".html")
    if as_json:
        row = {"report": str(out), "tone": made.banner.tone, "headline": made.banner.headline}
        show.json_line({**row, "files": [*map(str, files)]})
    else:
        print(made.banner.headline)
        print(*files, sep="\n")
    return PASSED
