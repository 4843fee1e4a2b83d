"""Cross-validation by base clip and speaker: how often a deployment is named, refused, or taken for another."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.classify.estimator import REFUSE, DeploymentClassifier
from earmark.classify.features import REFERENCE, SIZE, TOKEN, Table, columns
from earmark.classify.figures import UNKNOWN, Figures, confusion
from earmark.classify.splits import Indices, check_apart, purged_splits
from earmark.errors import UsageError

Floats = NDArray[np.float64]
BINS = 10
"""Bins of the calibration error."""


def estimator_for(names: Sequence[str], seed: int = 0) -> DeploymentClassifier:
    """Return an unfitted estimator for the features of a table.

    Where there are matches with alternatives the open set looks at them, else at signature and size; without either at
    all features.

    Args:
        names: Names of the features, in order.
        seed: Seed of its splits.

    Example:
        >>> estimator_for(["shape_rms", "logprob_l1", "shape_token_0"])
        DeploymentClassifier(guarded='reference', novelty=[0], signature=[2])
    """
    signature = columns(names, TOKEN) or None
    novelty = columns(names, "match_") or columns(names, SIZE) if signature else None
    return DeploymentClassifier(signature=signature, novelty=novelty, guarded=REFERENCE, random_state=seed)


def cross_validate(
    data: Table, *, exclude: Collection[str] = (), folds: int = 5, seed: int = 0, refuse: float = REFUSE
) -> Figures:
    """Train and test on recordings that share neither base clip nor speaker, fold by fold.

    Args:
        data: Features of a run.
        exclude: Deployments that are tested and never trained on.
        folds: Number of folds.
        seed: Seed of the folds.
        refuse: Share of rows of known deployments that may be called unknown.

    Returns:
        The figures; each known deployment but the reference is also left out of the training once.

    Raises:
        UsageError: There are fewer than two deployments, or too few clips for the folds.
    """
    known = _known(data, exclude)
    named, closed, own = _run(data, known, folds=folds, seed=seed, refuse=refuse)
    labels = (*known, *sorted(set(data.labels) - set(known)))
    tested = [i for i, name in enumerate(named) if name]
    inside = [i for i in tested if data.labels[i] in known]
    losses, error = _calibration(own, [known.index(data.labels[i]) for i in inside], inside)
    return Figures(
        labels=labels,
        known=known,
        counts=confusion(labels, (*known, UNKNOWN), [data.labels[i] for i in tested], [named[i] for i in tested]),
        closed=confusion(known, known, [data.labels[i] for i in inside], [closed[i] for i in inside]),
        left_out=_leave_out(data, known, folds=folds, seed=seed, refuse=refuse),
        log_loss=losses,
        calibration_error=error,
    )


def _known(data: Table, exclude: Collection[str]) -> tuple[str, ...]:
    missing = sorted(set(exclude) - set(data.labels))
    if missing:
        raise UsageError(f"no rows of {', '.join(missing)}; the run holds {', '.join(sorted(set(data.labels)))}")
    known = tuple(sorted(set(data.labels) - set(exclude)))
    if len(known) < 2:
        raise UsageError(f"deployments to train on: {', '.join(known) or 'none'}; expected two or more")
    return known


def _run(
    data: Table, known: Sequence[str], *, folds: int, seed: int, refuse: float
) -> tuple[list[str], list[str], Floats]:
    """Return each row's name, its name among the known ones, and its probabilities; empty where it was not tested."""
    labels = np.asarray(data.labels, dtype=object)
    named, closed = np.full(len(labels), "", object), np.full(len(labels), "", object)
    own = np.full((len(labels), len(known)), np.nan)
    for train, test in folds_of(data, known, folds, seed):
        model = fit(data, train, seed)
        closed[test], own[test] = model.predict(data.values[test]), model.predict_proba(data.values[test])
        named[test] = model.predict_open(data.values[test], refuse)
    if not named.any():
        raise UsageError(f"{len({row.base for row in data.rows})} clips do not fill {folds} folds; give more clips")
    return named.tolist(), closed.tolist(), own


def folds_of(data: Table, known: Sequence[str], folds: int, seed: int) -> list[tuple[Indices, Indices]]:
    """Return training and test rows of each fold; only known deployments are trained on, and nothing is shared.

    Args:
        data: Features of a run.
        known: Deployments that are trained on.
        folds: Number of folds.
        seed: Seed of the folds.
    """
    inside = np.isin(np.asarray(data.labels), list(known))
    splits = [(train[inside[train]], test) for train, test in purged_splits(data.keys, folds, seed)]
    for train, test in splits:
        check_apart(data.keys, train, test)
    return [(train, test) for train, test in splits if len({data.labels[i] for i in train}) == len(known)]


def fit(data: Table, rows: Indices, seed: int = 0) -> DeploymentClassifier:
    """Return an estimator fitted on some rows of a table.

    Args:
        data: The table.
        rows: Indices of the rows.
        seed: Seed of its inner splits.
    """
    labels = np.asarray([data.labels[i] for i in rows])
    return estimator_for(data.names, seed).fit(data.values[rows], labels, groups=[data.keys[i] for i in rows])


def _leave_out(
    data: Table, known: Sequence[str], *, folds: int, seed: int, refuse: float
) -> dict[str, tuple[int, int]]:
    """Return of each deployment how many rows are called unknown, and of how many, when nothing was known of it."""
    found = {}
    for name in known:
        rest = [other for other in known if other != name]
        if name == REFERENCE or len(rest) < 2:
            continue
        kept = data.where(label in known for label in data.labels).without(f"match_{name}_")
        named, _, _ = _run(kept, rest, folds=folds, seed=seed, refuse=refuse)
        own = [found for label, found in zip(kept.labels, named, strict=True) if label == name and found]
        found[name] = (own.count(UNKNOWN), len(own))
    return found


def _calibration(own: Floats, right: Sequence[int], rows: Sequence[int]) -> tuple[float, float]:
    """Return log-loss and expected calibration error of the most probable deployment."""
    chosen = own[list(rows)]
    best = chosen.max(axis=1)
    correct = chosen.argmax(axis=1) == np.asarray(right)
    bins = np.minimum((best * BINS).astype(int), BINS - 1)
    gaps = [abs(np.sum(correct[bins == b]) - np.sum(best[bins == b])) for b in range(BINS)]
    loss = -np.log(np.maximum(chosen[np.arange(len(right)), list(right)], 1e-12)).mean()
    return float(loss), float(np.sum(gaps) / len(right))


def importance(data: Table, *, exclude: Collection[str] = (), folds: int = 5, seed: int = 0) -> dict[str, float]:
    """Return how much balanced accuracy falls on held-out rows when a feature is shuffled, the signature as one.

    Args:
        data: Features of a run.
        exclude: Deployments that are left out.
        folds: Number of folds; the first one is looked at.
        seed: Seed of the folds and of the shuffling.

    Source: Breiman 2001, Machine Learning 45 (permutation importance).
    """
    from sklearn.metrics import balanced_accuracy_score

    known = _known(data, exclude)
    inside = data.where(label in known for label in data.labels)
    train, test = folds_of(inside, known, folds, seed)[0]
    model, rng = fit(inside, train, seed), np.random.default_rng(seed)
    labels, values = [inside.labels[i] for i in test], inside.values[test]
    whole = balanced_accuracy_score(labels, model.predict(values))
    groups = {name: [i] for i, name in enumerate(data.names) if not name.startswith(TOKEN)}
    if model.signature is not None:
        groups["signature"] = list(model.signature)
    falls = {}
    for name, group in groups.items():
        shuffled = values.copy()
        shuffled[:, group] = values[rng.permutation(len(values))][:, group]
        falls[name] = float(whole - balanced_accuracy_score(labels, model.predict(shuffled)))
    return dict(sorted(falls.items(), key=lambda item: -item[1]))
