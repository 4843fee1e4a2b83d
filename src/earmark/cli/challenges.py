"""`earmark challenges`: the set of clips that ships with earmark, fresh ones, and those of others."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from earmark.cli import FAILED, PASSED, UNUSABLE, files, show
from earmark.cli.options import BatchSize, Device, Dtype, Json
from earmark.errors import UsageError

if TYPE_CHECKING:
    from earmark.challenges import ChallengeSet, Problem

app = typer.Typer(help="Clips on which models differ, with known transcripts.", no_args_is_help=True)

Folder = Annotated[Path | None, typer.Argument(help="Folder of a set; by default the one that ships with earmark.")]
Languages = Annotated[list[str] | None, typer.Option("--language", help="en, de, fr, es; may be repeated.")]
Processes = Annotated[int, typer.Option(min=1, help="How many clips are synthesised at once.")]
Seconds = Annotated[float, typer.Option(help="Longest clip.")]

CALIBRATION_SEED = "ca11b4a7e0"
"""Seed of the calibration corpus: public, because nothing is hidden from a provider by it."""


@app.command("list")
def list_clips(
    folder: Folder = None,
    category: Annotated[str | None, typer.Option(help="Only this category.")] = None,
    language: Annotated[str | None, typer.Option(help="Only this language.")] = None,
    as_json: Json = False,
) -> int:
    """List the clips of a set."""
    import msgspec

    from earmark.challenges import load

    clips = load(folder, category=category, language=language)
    if as_json:
        for clip in clips:
            show.json_line(msgspec.to_builtins(clip.row))
    else:
        rows = [[c.id, c.category, c.row.language, f"{c.row.duration:.1f}", c.text[:200]] for c in clips]
        show.table(("clip", "category", "language", "seconds", "transcript"), rows)
        minutes = sum(clip.row.duration for clip in clips) / 60
        print(f"{len(clips)} clips, {minutes:.1f} minutes")
    return _report(clips.problems)


@app.command()
def check(folder: Folder = None, as_json: Json = False) -> int:
    """Name every clip whose bytes or digest changed, and every faulty line."""
    from earmark.challenges import load

    clips = load(folder)
    with show.progress("checking", len(clips)) as step:
        problems = clips.check(step)
    return _summary(clips, problems, "as committed", as_json)


@app.command()
def build(
    folder: Folder = None,
    out: Annotated[Path | None, typer.Option(help="New folder for all clips as FLAC; without it, compare.")] = None,
    stored: Annotated[bool, typer.Option(help="Mix the stored clips; do not synthesise.")] = False,
    calibration: Annotated[int, typer.Option(min=0, help="Make this many clips for calibration instead.")] = 0,
    language: Languages = None,
    seconds: Seconds = 6.0,
    processes: Processes = 2,
    as_json: Json = False,
) -> int:
    """Build the set again from its recipes and the synthesiser it was made with, to the same digests."""
    from earmark.challenges import load
    from earmark.challenges.building import build as build_set
    from earmark.challenges.building import synthesisers

    if calibration:
        return _calibration(calibration, out, language or ["en"], seconds, processes)
    clips = load(folder)
    made_with = ", ".join(synthesisers(clips).values())
    print(f"earmark: the set was built with {made_with}", file=sys.stderr)
    with show.progress("building", len(clips)) as step:
        problems = build_set(clips, out, stored=stored, advance=step)
    return _summary(clips, problems, "built to the committed digests", as_json)


def _calibration(count: int, out: Path | None, languages: Sequence[str], seconds: float, processes: int) -> int:
    from earmark.challenges.drawing import draw as draw_clips
    from earmark.challenges.drawing import make_drawing

    if out is None:
        raise UsageError("--calibration needs --out DIR, a new folder (it is never shipped)")
    engines: Any = ("espeak", "flite")
    drawing = make_drawing(CALIBRATION_SEED, seconds=seconds, languages=languages, engines=engines)
    with show.progress("synthesising", count) as step:
        rows = draw_clips(drawing, count, out, processes=processes, advance=step)
    minutes = sum(row.duration for row in rows) / 60
    print(f"{len(rows)} clips, {minutes:.1f} minutes in {out}, made with {', '.join(drawing.engines.values())}")
    return PASSED


@app.command()
def draw(
    seed: Annotated[str, typer.Option(help="Hexadecimal digits that nobody knew before, such as a block's hash.")],
    out: Annotated[Path, typer.Option(help="New folder for the clips and their manifest.")],
    n: Annotated[int, typer.Option("--n", min=1, help="How many clips.")] = 20,
    seconds: Seconds = 10.0,
    language: Languages = None,
    processes: Processes = 2,
    as_json: Json = False,
) -> int:
    """Make fresh clips from a seed: one seed gives one set, the same on every machine with this synthesiser."""
    import msgspec

    from earmark.challenges.drawing import draw as draw_clips
    from earmark.challenges.drawing import make_drawing

    drawing = make_drawing(seed, seconds=seconds, languages=language or ())
    with show.progress("drawing", n) as step:
        rows = draw_clips(drawing, n, out, processes=processes, advance=step)
    for row in rows:
        if as_json:
            show.json_line(msgspec.to_builtins(row))
        else:
            print(f"{row.digest}  {out / row.audio_filepath}  {row.text}")
    print(f"earmark: made with {', '.join(drawing.engines.values())}", file=sys.stderr)
    return PASSED


@app.command("import")
def import_corpus(
    source: Annotated[Path, typer.Argument(help="NeMo manifest, lhotse cuts, or Hugging Face folder or table.")],
    out: Annotated[Path, typer.Option(help="New folder for the clips and their manifest.")],
    kind: Annotated[str | None, typer.Option("--format", help="nemo, lhotse or huggingface; found out else.")] = None,
    category: Annotated[str, typer.Option(help="Category of the clips.")] = "other",
    language: Annotated[str | None, typer.Option(help="Language of clips that do not state one.")] = None,
    as_json: Json = False,
) -> int:
    """Take another corpus in: canonical FLAC and a manifest, stated hashes checked; faulty lines are named."""
    import msgspec

    from earmark.challenges.importing import import_clips

    with show.progress("importing", 0) as step:
        rows, problems = import_clips(source, out, kind=kind, category=category, language=language, advance=step)
    for row in rows if as_json else ():
        show.json_line(msgspec.to_builtins(row))
    if not as_json:
        print(f"{len(rows)} clips in {out}")
    return _report(problems)


@app.command()
def mine(
    folder: Annotated[Path, typer.Argument(help="Folder of a set, or of audio files.")],
    model: Annotated[str, typer.Option(help="The reference whose uncertainty counts.")],
    border: Annotated[bool, typer.Option("--border", help="Rank by near-ties of the two best tokens.")] = False,
    cheat: Annotated[list[str] | None, typer.Option(help="NAME:key=value,... of `earmark scenarios`.")] = None,
    language: Annotated[str | None, typer.Option(help="Language that is requested; a set's own by default.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of the table.")] = 30,
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    as_json: Json = False,
) -> int:
    """Rank clips by the reference's uncertainty, by near-ties, or by how well they show given cheats."""
    from earmark.challenges import mining
    from earmark.loading import load as load_model

    candidates, problems = _candidates(folder, language)
    cheats = [mining.parse_cheat(text) for text in cheat or ()]
    reference = load_model(model, device=device, dtype=dtype)
    with show.progress("mining", len(candidates)) as step:
        found = list(mining.mine(reference, candidates, cheats=cheats, batch_size=batch_size, advance=step))
    ranked = mining.rank(found, border=border, cheats=bool(cheats))
    if as_json:
        for item in ranked:
            show.json_line(_mined_row(item))
    else:
        names = [scenario.name for scenario in cheats]
        rows = [_mined_cells(item, names) for item in ranked[:top]]
        show.table(("clip", "seconds", "entropy", "near-ties", "least margin", *names, "text"), rows)
    return _report(problems)


def _candidates(folder: Path, language: str | None) -> tuple[list[Any], Sequence[Problem]]:
    from earmark.audio import load as load_audio
    from earmark.challenges import load
    from earmark.challenges.manifest import MANIFEST
    from earmark.challenges.mining import Candidate

    if folder.suffix == ".jsonl" or (folder / MANIFEST).is_file():
        clips = load(folder)
        made = [Candidate(name=c.id, audio=c.audio(), language=language or c.language) for c in clips]
        if made:  # else it is a manifest of another kind, whose files are taken as they are
            return made, clips.problems
    found = files.find_audio([folder])
    return [Candidate(name=f.name, audio=load_audio(f.path), language=language) for f in found], ()


def _mined_row(item: Any) -> dict[str, Any]:
    return {
        "clip": item.name,
        "seconds": round(item.seconds, 3),
        "entropy": item.entropy,
        "near_ties": item.near_ties,
        "smallest_margin": item.smallest_margin,
        "separations": {k: (None if math.isinf(v) else v) for k, v in item.separations.items()},
        "text": item.text,
    }


def _mined_cells(item: Any, names: Sequence[str]) -> list[str]:
    numbers = [f"{item.seconds:.1f}", f"{item.entropy:.3f}", f"{item.near_ties:.0%}", f"{item.smallest_margin:.1e}"]
    return [item.name, *numbers, *(f"{item.separations[name]:.2f}" for name in names), item.text[:120]]


def _summary(clips: ChallengeSet, problems: Sequence[Problem], good: str, as_json: bool) -> int:
    if as_json:
        show.json_line({"clips": len(clips), "problems": [_problem_row(problem) for problem in problems]})
        return FAILED if problems else PASSED
    for problem in problems:
        print(problem)
    print(f"{len({p.line for p in problems})} faulty, {len(clips)} clips" if problems else f"{len(clips)} clips {good}")
    return FAILED if problems else PASSED


def _problem_row(problem: Problem) -> dict[str, Any]:
    return {"line": problem.line, "clip": problem.id, "message": problem.message}


def _report(problems: Sequence[Problem]) -> int:
    for problem in problems:
        print(f"earmark: {problem}", file=sys.stderr)
    return UNUSABLE if problems else PASSED
