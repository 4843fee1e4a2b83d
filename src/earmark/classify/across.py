"""One classifier over several references: how well it names their deployments, and those of one it never saw."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from earmark.classify.estimator import REFUSE
from earmark.classify.evaluation import fit, folds_of
from earmark.classify.features import Table
from earmark.classify.figures import UNKNOWN, Figures, confusion
from earmark.classify.splits import Indices
from earmark.errors import UsageError
from earmark.runs import Row, Run


def same_labels(run: Run) -> Run:
    """Return the rows with the model's own name taken off its deployments, so that they are called alike everywhere.

    Example:
        >>> row = Row(clip="a", base="a", scenario="a-nano-student", honest=False, model="embedded:a-nano", weights="",
        ...           family="ctc", precision="fp32", level="scores", outcome="FAIL")
        >>> same_labels(Run([row])).scenarios()
        ['student']
    """

    def short(row: Row) -> str:
        return row.scenario.removeprefix(f"{row.model.rpartition(':')[2]}-")

    return Run(replace(row, scenario=short(row)) for row in run)


def shared_labels(data: Table) -> tuple[str, ...]:
    """Return the deployments that every reference has rows of, sorted.

    Raises:
        UsageError: There are fewer than two, or only one reference.
    """
    own = [{data.labels[i] for i in rows} for rows in _by_reference(data).values()]
    shared = tuple(sorted(set.intersection(*own))) if len(own) > 1 else ()
    if len(shared) < 2:
        raise UsageError(
            f"{len(own)} references share the deployments {', '.join(shared) or 'none'}; expected two each"
        )
    return shared


def figures_across(
    data: Table, known: Sequence[str], *, unseen: bool = False, folds: int = 5, seed: int = 0, refuse: float = REFUSE
) -> dict[str, Figures]:
    """Cross-validate one classifier over all references of a table, and say what it gets right for each.

    Test rows share neither base clip nor speaker with training rows, whatever reference they belong to.

    Args:
        data: Features of a run of several references: those that all of them have.
        known: Deployments to name; rows of others are tested and never trained on.
        unseen: Whether rows of a reference are named by a classifier that was trained on the other references alone.
        folds: Number of folds.
        seed: Seed of the folds.
        refuse: Share of rows of known deployments that may be called unknown.

    Returns:
        Name of each reference to its figures, without those of left-out deployments.

    Raises:
        UsageError: There are too few clips for the folds.
    """
    chosen: dict[str, list[int]] = {name: [] for name in _by_reference(data)}
    named, closed = np.full(len(data.labels), "", object), np.full(len(data.labels), "", object)
    for name, train, test in _splits(data, known, unseen=unseen, folds=folds, seed=seed):
        model = fit(data, train, seed)
        closed[test], named[test] = model.predict(data.values[test]), model.predict_open(data.values[test], refuse)
        chosen[name] += test.tolist()
    if not all(chosen.values()):
        raise UsageError(f"{len({row.base for row in data.rows})} clips do not fill {folds} folds; give more clips")
    return {name: _figures(data, rows, known, named, closed) for name, rows in chosen.items()}


def _splits(
    data: Table, known: Sequence[str], *, unseen: bool, folds: int, seed: int
) -> Iterator[tuple[str, Indices, Indices]]:
    """Yield a reference, the rows that are trained on, and its rows that are tested."""
    for train, test in folds_of(data, known, folds, seed):
        for name, rows in _by_reference(data).items():
            taught = np.setdiff1d(train, rows) if unseen else train
            if len({data.labels[i] for i in taught}) == len(known):
                yield name, taught, np.intersect1d(test, rows)


def _by_reference(data: Table) -> dict[str, Indices]:
    names = np.asarray([row.model for row in data.rows], object)
    return {str(name): np.flatnonzero(names == name) for name in dict.fromkeys(names)}


def _figures(data: Table, rows: Sequence[int], known: Sequence[str], named: Indices, closed: Indices) -> Figures:
    inside = [i for i in rows if data.labels[i] in known]
    labels = (*known, *sorted({data.labels[i] for i in rows} - set(known)))
    return Figures(
        labels=labels,
        known=tuple(known),
        counts=confusion(labels, (*known, UNKNOWN), [data.labels[i] for i in rows], [named[i] for i in rows]),
        closed=confusion(known, known, [data.labels[i] for i in inside], [closed[i] for i in inside]),
    )
