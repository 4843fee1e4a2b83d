"""Bundles on the command line: made by `earmark record --bundle`, held against a model by `earmark compare`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from earmark.bundles import BUNDLE_FILE, elsewhere, facts_of, hold_against, load_bundle, make_bundle
from earmark.cli import PASSED, show
from earmark.cli.samples import find_samples
from earmark.comparisons import Task, two_honest
from earmark.errors import UsageError
from earmark.examples import load_examples, path_beside
from earmark.loading import load
from earmark.protocols import Model
from earmark.recording import load_audio
from earmark.records import lines
from earmark.stages import UNITS, parting
from earmark.study import Sample


def record_bundle(
    model: str,
    audio: Sequence[Path],
    folder: Path,
    level: Any,
    language: str | None,
    batch_size: int,
    *,
    settings: dict[str, Any],
    as_json: bool,
) -> int:
    """Record clips into a bundle and say what it holds."""
    samples = find_samples(audio, language=language)
    reference = load(model, **settings)
    with show.progress("recording", len(samples)) as step:
        made = make_bundle(reference, samples, folder, level=level, batch_size=batch_size, advance=step)
    facts = {"bundle": str(folder), "model": made.model, "clips": len(made.clips), **made.facts}
    if as_json:
        show.json_line(facts)
    else:
        show.table(("fact", "value"), [[name, str(value)] for name, value in facts.items()])
    return PASSED


def is_bundle(source: str) -> bool:
    """Tell whether a word names the folder of a bundle."""
    return (Path(source) / BUNDLE_FILE).is_file()


def samples_of(folder: str, samples: Sequence[Sample]) -> list[Sample]:
    """Return the clips that a bundle holds and whose audio is the same on both machines.

    Raises:
        UsageError: None of them is in it, or their audio is other audio there.
    """
    there = {own.clip: own.audio for own in load_bundle(folder).clips}
    found = [sample for sample in samples if sample.nonce in there]
    if not found:
        raise UsageError(f"none of the {len(samples)} clips is in the bundle; give those that it was made of")
    same = [sample for sample in found if load_audio(sample.audio).digest == there[sample.nonce]]
    if not same:
        expected = "the files that the bundle was made of, decoded and resampled alike"
        raise UsageError(f"the machines part ways at the audio: all {len(found)} digests differ; expected {expected}")
    return same


def task_of(folder: str, reference: Model) -> Task:
    """Return what a bundle is asked: two honest providers here, and the one elsewhere, which must PASS too.

    Raises:
        UsageError: The bundle is of another model or precision.
    """
    bundle, info = load_bundle(folder), reference.info
    if (bundle.weights, bundle.precision) != (info.weights, info.precision):
        found = f"{bundle.model} ({bundle.precision}, weights {bundle.weights[:12]})"
        expected = f"{info.name} ({info.precision}, weights {info.weights[:12]})"
        raise UsageError(f"the bundle is of {found}; expected {expected}: give its checkpoint and --dtype")
    return Task(reference=reference, scenarios=(*two_honest(), elsewhere(folder)))


def note_bundle(folder: str, reference: Model, samples: Sequence[Sample], run: Path, *, as_json: bool) -> None:
    """Say where the machines part ways first, and write it down beside the run with what both machines are.

    Args:
        folder: The bundle.
        reference: The model on this machine.
        samples: The clips, those with other audio among them.
        run: The run.
        as_json: Whether to print one JSON line instead of a table.
    """
    stages, bundle = hold_against(reference, folder, samples), load_bundle(folder)
    if as_json:
        found = [{**dataclasses.asdict(own), "difference": lines.from_float(own.difference)} for own in stages]
        show.json_line({"parting": parting(stages), "stages": found})
    else:
        rows = [[own.name, f"{own.difference:.2g}", f"{own.tolerance:g}", UNITS[own.name]] for own in stages]
        show.table(("stage", "largest difference", "honest up to", "unit"), rows, title=parting(stages))
    examples = load_examples(run)
    if examples is None:
        return
    facts = {"stages": parting(stages), **{f"stage {own.name}": str(own) for own in stages}}
    facts |= {f"here, {name}": value for name, value in facts_of(reference).items()}
    facts |= {f"elsewhere, {name}": value for name, value in bundle.facts.items()}
    msgspec.structs.replace(examples, provenance={**examples.provenance, **facts}).save(path_beside(run))
