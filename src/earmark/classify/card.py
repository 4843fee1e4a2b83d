"""The model card of a classifier: what it knows, how it was trained, and what it got right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from earmark.classify.features import KINDS
from earmark.classify.figures import UNKNOWN, Figures, Rate

if TYPE_CHECKING:
    from earmark.classify.header import Header

CARD = """# {name}

Names the deployment behind a recording of {references}: {classes}, or unknown.

| | |
|---|---|
| features | {features}: {meaning} ({count} of them) |
| evidence | level {level}, fingerprint version {fingerprint}, shape version {shape} |
| trained on | {rows} rows, {clips} base clips |
| never trained on | {excluded} |
| command | `{command}` |
| versions | {versions} |

## Figures

Cross-validation in {folds} folds, seed {seed}; training and test rows share no base clip and no speaker that the
command knew of. Shares with exact 95 % intervals, one row per recording. At most {refuse:.0f} % of the rows of a known
deployment are to be called unknown, of the reference a tenth of that.

{figures}

## What it looks at

Fall of balanced accuracy on held-out rows when a feature is shuffled (`signature`: all buckets of tokens together).

{importance}

## Limits

It knows deployments of these weights alone, and the kind of audio it was trained on. A name is a likeness and no proof:
verdicts come from `earmark verify`. An adversary who knows the classifier can add noise until it says unknown.
"""


def card(header: Header, name: str) -> str:
    """Return the model card as Markdown.

    Args:
        header: Header of the classifier.
        name: Its name.
    """
    own = dict(header.provenance)
    command, seed, folds = (own.pop(key, "") for key in ("command", "seed", "folds"))
    return CARD.format(
        name=name,
        references=", ".join(f"{r.model} ({r.precision}, weights `{r.weights[:12]}`)" for r in header.references),
        classes=", ".join(header.classes),
        features=header.features,
        meaning=KINDS[header.features],
        count=len(header.names),
        level=header.level,
        fingerprint=header.fingerprint_version,
        shape=header.shape_version,
        rows=header.rows,
        clips=header.clips,
        excluded=", ".join(header.excluded) or "nothing",
        command=command or "earmark.classify.train",
        versions=", ".join(f"{library} {found}" for library, found in own.items()),
        folds=folds,
        seed=seed,
        refuse=100 * header.refuse,
        figures=figures_markdown(header.figures),
        importance=_table(("feature", "fall"), [(n, f"{fall:.3f}") for n, fall in header.importance.items()]),
    )


def figures_markdown(figures: Figures) -> str:
    """Return figures as Markdown: rates, and the confusion matrix with the open set."""
    closed, opened = figures.closed_rates(), figures.open_rates()
    rates = [
        (label, str(closed[label]) if label in closed else "-", str(opened[label]), _left_out(figures, label))
        for label in figures.labels
    ]
    heads = ("deployment", "named right, one of the known", "named right, or unknown", "unknown when left out")
    matrix = [(label, *map(str, row)) for label, row in zip(figures.labels, figures.counts, strict=True)]
    log_loss = max(figures.log_loss, 0.0) + 0.0  # no negative zero
    summary = (
        f"Balanced accuracy among the known: **{100 * figures.balanced_accuracy:.1f} %**. Known ones refused: "
        f"{figures.refused()}. Log-loss {log_loss:.3f} nats, calibration error {figures.calibration_error:.3f}."
    )
    return "\n\n".join(
        (
            summary,
            _table(heads, rates),
            "Rows: what ran; columns: what it was called.",
            _table(("", *figures.known, UNKNOWN), matrix),
        )
    )


def _left_out(figures: Figures, label: str) -> str:
    found: Rate | None = figures.left_out_rates().get(label)
    return str(found) if found else "-"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    drawn: list[Sequence[str]] = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in drawn)
