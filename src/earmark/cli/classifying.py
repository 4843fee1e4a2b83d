"""`earmark train` and `earmark classify`: a classifier of deployments from runs, and its names for recordings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.cli import PASSED, show
from earmark.cli.options import Json
from earmark.errors import UsageError
from earmark.records import lines
from earmark.runs import Row, Run

Runs = Annotated[list[Path], typer.Argument(help="Runs, as `earmark study` writes them.", show_default=False)]
Sources = Annotated[
    list[Path],
    typer.Argument(help="Runs, or verdicts as `earmark verify --json` prints them.", show_default=False),
]


def train(
    run: Runs,
    out: Annotated[Path, typer.Option(help="Folder of the classifier: header, estimator and model card.")],
    exclude: Annotated[list[str] | None, typer.Option(help="A provider to test and not train on; repeat.")] = None,
    features: Annotated[str, typer.Option(help="alone, replay or matched.")] = "replay",
    clips: Annotated[Path | None, typer.Option(help="Challenge set that names the speakers; by default ours.")] = None,
    refuse: Annotated[float, typer.Option(min=0.0, max=0.5, help="Share of known ones to call unknown.")] = 0.05,
    folds: Annotated[int, typer.Option(min=2, max=50, help="Folds of the cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the folds.")] = 0,
    as_json: Json = False,
) -> int:
    """Train a classifier that names deployments, and measure it on clips and speakers it never saw."""
    from earmark.challenges import load as load_clips
    from earmark.classify import train as train_classifier
    from earmark.classify.speakers import speakers_of
    from earmark.cli.studying import command

    kind: Any = features
    made = train_classifier(
        Run.read(*run),
        features=kind,
        exclude=exclude or (),
        speakers=speakers_of(load_clips(clips)),
        refuse=refuse,
        folds=folds,
        seed=seed,
        source=command(),
    )
    made.save(out)
    figures = made.header.figures
    closed, left_out = figures.closed_rates(), figures.left_out_rates()
    rows = [
        {
            "deployment": label,
            "named_right": closed[label].value if label in closed else None,
            "named_right_or_unknown": rate.value,
            "unknown_when_left_out": left_out[label].value if label in left_out else None,
            "rows": rate.total,
        }
        for label, rate in figures.open_rates().items()
    ]
    if as_json:
        for row in rows:
            show.json_line(row)
        show.json_line({"classifier": str(out), "balanced_accuracy": figures.balanced_accuracy})
        return PASSED
    show.table([name.replace("_", " ") for name in rows[0]], [[_cell(value) for value in row.values()] for row in rows])
    print(f"balanced accuracy {figures.balanced_accuracy:.1%}, known ones refused {figures.refused()}; {out}")
    return PASSED


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:.1%}" if isinstance(value, float) else str(value)


def classify(
    classifier: Annotated[Path, typer.Argument(help="Folder that `earmark train` wrote.")],
    source: Sources,
    by_provider: Annotated[
        bool, typer.Option("--by-provider", help="How often each provider of a run is called what, not each recording.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Name the deployment behind recordings: one of those the classifier knows, or unknown."""
    from earmark.classify import load as load_classifier

    own = load_classifier(classifier)
    found = [pair for path in source for pair in _recordings(path)]
    namings = own.classify_many([recording for _, recording in found])
    if by_provider:
        called = [(getattr(each, "scenario", "-"), n.label) for (_, each), n in zip(found, namings, strict=True)]
        _print_counts(called, as_json=as_json)
        return PASSED
    rows = [
        {"recording": name, "label": n.label, "known": n.known, "probabilities": dict(n.probabilities)}
        for (name, _), n in zip(found, namings, strict=True)
    ]
    if as_json:
        for row in rows:
            show.json_line(row)
        return PASSED
    cells = [[name, n.label, str(n)] for (name, _), n in zip(found, namings, strict=True)]
    show.table(("recording", "deployment", "why"), cells)
    counts = {label: sum(n.label == label for n in namings) for label in dict.fromkeys(n.label for n in namings)}
    print(", ".join(f"{count} {label}" for label, count in counts.items()) or "no recordings")
    return PASSED


def _print_counts(called: Sequence[tuple[str, str]], *, as_json: bool) -> None:
    """Print what ran in rows and what it was called in columns."""
    providers, labels = (list(dict.fromkeys(pair[place] for pair in called)) for place in (0, 1))
    counts = Counter(called)
    if as_json:
        for own in providers:
            show.json_line({"provider": own, "called": {name: counts[own, name] for name in labels}})
        return
    show.table(["provider", *labels], [[own, *(str(counts[own, name]) for name in labels)] for own in providers])


def _recordings(path: Path) -> Iterator[tuple[str, Row | Mapping[str, Any]]]:
    """Yield name and content of each recording in a file: rows of a run, or verdicts, one per line."""
    for number, line in lines.read(path, str):
        content = lines.from_line(line)
        if "run" in content:
            row = Row.from_json(line)
            if row.statistics:  # without a replay there is nothing to classify
                yield f"{row.scenario} {row.clip}", row
        elif "outcome" in content:
            yield str(content.get("evidence", path)), content
        else:
            raise UsageError(f"{path}, line {number}: neither a row of a run nor a verdict of `earmark verify --json`")
