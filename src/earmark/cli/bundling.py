"""Bundles on the command line: made by `earmark record --bundle`, held against a model by `earmark compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from earmark.bundles import (
    BUNDLE_FILE,
    STATE_CLIPS,
    difference,
    elsewhere,
    encoder_states,
    facts_of,
    load_bundle,
    load_states,
    make_bundle,
)
from earmark.cli import PASSED, show
from earmark.cli.samples import find_samples
from earmark.comparisons import Task, two_honest
from earmark.errors import UsageError
from earmark.examples import load_examples, path_beside
from earmark.loading import load
from earmark.protocols import Model
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
    """Return the clips that a bundle holds.

    Raises:
        UsageError: None of them is in it.
    """
    names = {own.clip for own in load_bundle(folder).clips}
    found = [sample for sample in samples if sample.name in names]
    if not found:
        raise UsageError(f"none of the {len(samples)} clips is in the bundle; give those that it was made of")
    return found


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


def note_bundle(folder: str, reference: Model, samples: Sequence[Sample], run: Path) -> None:
    """Write down beside the run what both machines are, and how far their encoders are apart."""
    examples = load_examples(run)
    if examples is None:
        return
    bundle = load_bundle(folder)
    known = {sample.name: sample for sample in samples}
    chosen = [own.clip for own in bundle.clips[:STATE_CLIPS]]
    first = [known[name].clip() for name in chosen if name in known]
    facts = {f"here, {name}": value for name, value in facts_of(reference).items()}
    facts |= {f"elsewhere, {name}": value for name, value in bundle.facts.items()}
    if len(first) == len(chosen):
        apart = difference(encoder_states(reference, first), load_states(folder))
        facts["encoder states, largest relative difference"] = f"{apart:.2g}"
    msgspec.structs.replace(examples, provenance={**examples.provenance, **facts}).save(path_beside(run))
