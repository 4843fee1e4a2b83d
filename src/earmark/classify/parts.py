"""The parts of the estimator: matched signatures, the linear model behind them, and the mathematics of its open set."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.base import BaseEstimator
from sklearn.covariance import LedoitWolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.impute import SimpleImputer
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from earmark.classify.splits import Indices, purged_splits

Floats = NDArray[np.float64]
Groups = Sequence[Hashable | Collection[Hashable]] | None
Splits = Sequence[tuple[Indices, Indices]]

LEAST_SPREAD = 1e-3
"""Columns that spread less than this are taken to spread as much; empty ones are not blown up."""
LEAST_WIDTH = 0.05
"""A class is taken to be at least this wide, in standard deviations over all classes, where strangers are looked for:
honest machines that nobody trained on differ by more from the few that were."""
LEAST_LOG = -60.0
"""Log-probabilities below this are cut: they say no more than that a class is out of the question."""


class Parts(BaseEstimator):  # type: ignore[misc]  # sklearn ships no types
    """Mean signatures and the linear model behind them, for classes numbered from 0."""

    def __init__(self, signature: Sequence[int] | None, folds: int, random_state: int) -> None:
        """Keep the options."""
        self.signature = signature
        self.folds = folds
        self.random_state = random_state

    def fit(self, X: Floats, own: Indices, classes: int, groups: Groups = None) -> Self:  # noqa: N803
        """Fit the linear model to matches with mean signatures of rows that share no group with the row matched."""
        self.rest_ = np.asarray(rest(X.shape[1], self.signature), np.int64)
        matches, apart = np.zeros((len(X), 0)), np.ones(len(X), bool)
        if self.signature is not None:
            signatures = X[:, list(self.signature)]
            self.spread_, self.templates_ = templates_of(signatures, own, classes)
            matches, apart = correlations(signatures, self.spread_, self.templates_), np.zeros(len(X), bool)
            for train, test in splits_by(own, groups, self.folds, self.random_state):
                if len(set(own[train])) == classes:
                    held = templates_of(signatures[train], own[train], classes)
                    matches[test], apart[test] = correlations(signatures[test], *held), True
        if len(set(own[apart])) < classes:  # few rows, or rows tied to all others: their own fit has to do
            apart[:] = True
        shares = np.full(classes, 1 / classes)
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=shares)
        self.model_ = make_pipeline(*(step for _, step in scaler().steps), model)
        self.model_.fit(np.hstack([matches, X[:, self.rest_]])[apart], own[apart])
        return self

    def score(self, X: Floats) -> tuple[Floats, Floats]:  # noqa: N803
        """Return log-probabilities and matches, (rows, classes) each; (rows, 0) matches without a signature."""
        matches = np.zeros((len(X), 0))
        if self.signature is not None:
            matches = correlations(X[:, list(self.signature)], self.spread_, self.templates_)
        if not len(X):
            return np.zeros((0, len(self.model_[-1].classes_))), matches
        scores = self.model_.predict_log_proba(np.hstack([matches, X[:, self.rest_]]))
        return np.maximum(scores, LEAST_LOG), matches


def scaler() -> Pipeline:
    """Return what fills in missing values and brings every column to one scale."""
    return make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())


def rest(width: int, signature: Sequence[int] | None) -> list[int]:
    """Return the columns that are no part of the signature.

    Example:
        >>> rest(3, [1])
        [0, 2]
    """
    taken = set(signature or ())
    return [i for i in range(width) if i not in taken]


def splits_by(own: Indices, groups: Groups, folds: int, seed: int) -> Iterator[tuple[Indices, Indices]]:
    """Yield splits by groups where there are any, else by class; none where a class has one row alone."""
    if groups is not None:
        keys = [(key,) if isinstance(key, str) or not isinstance(key, Collection) else tuple(key) for key in groups]
        yield from purged_splits(keys, folds, seed)
    elif (count := min(folds, int(np.bincount(own).min()))) >= 2:
        yield from StratifiedKFold(count, shuffle=True, random_state=seed).split(own, own)


def templates_of(signatures: Floats, own: Indices, classes: int) -> tuple[Floats, Floats]:
    """Return the spread of each column, (width,), and each class's mean in units of it, (classes, width)."""
    spread = signatures.std(axis=0) + LEAST_SPREAD
    return spread, np.stack([(signatures[own == label] / spread).mean(axis=0) for label in range(classes)])


def correlations(signatures: Floats, spread: Floats, templates: Floats) -> Floats:
    """Return the length of each signature along each template, as a share of what independent noise would have."""
    lengths = np.linalg.norm(templates, axis=1) * np.sqrt(templates.shape[1])
    found: Floats = np.nan_to_num(signatures / spread) @ templates.T / np.maximum(lengths, 1e-12)
    return found


def temperature_of(scores: Floats, own: Indices) -> float:
    """Return the temperature under which the right classes are most probable."""

    def loss(log_temperature: float) -> float:
        found = log_softmax(scores / np.exp(log_temperature), axis=1)
        return -float(found[np.arange(len(own)), own].mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded").x))


def gaussian(rows: Floats) -> tuple[Floats, Floats]:
    """Return mean and inverse of the covariance of rows, their correlations shrunk; of equal rows, the identity."""
    mean = rows.mean(axis=0)
    centred = rows - mean
    if len(rows) < 2 or not centred.any():
        return mean, np.eye(rows.shape[1])
    spread = np.maximum(centred.std(axis=0), LEAST_WIDTH)  # shrinking would else drown the narrow columns
    scaled = centred / spread
    shrunk = LedoitWolf(assume_centered=True).fit(scaled).covariance_
    shrunk += np.diag(np.maximum(1.0 - scaled.var(axis=0), 0.0))  # narrow columns are as wide as was said
    return mean, np.linalg.pinv(shrunk) / np.outer(spread, spread)


def held_out_distances(seen: Floats, chosen: NDArray[np.bool_], held: Splits) -> Floats:
    """Return the distances of one class's rows from Gaussians fitted to others of them.

    Args:
        seen: What the open set looks at, (rows, columns).
        chosen: Which rows are of the class.
        held: Training and test rows of each split; where no split tests rows of the class, its own fit has to do.
    """
    found = []
    for train, test in held:
        others, own = seen[train[chosen[train]]], seen[test[chosen[test]]]
        if len(others) > 1 and len(own):
            mean, precision = gaussian(others)
            found.append(distances(own - mean, precision))
    if found:
        return np.concatenate(found)
    mean, precision = gaussian(seen[chosen])
    return distances(seen[chosen] - mean, precision)


def distances(centred: Floats, precision: Floats) -> Floats:
    """Return the squared Mahalanobis distance of each row from 0, the number of columns at least.

    That is what a row of the class has on average. Nearer ones are all alike: a class whose rows are nearly equal, like
    honest ones in float32, would else call unknown whoever is a little less equal.

    Args:
        centred: Rows less the mean of their class, (rows, columns).
        precision: Inverse covariance, (columns, columns).

    Example:
        >>> distances(np.array([[3.0, 4.0]]), np.eye(2)).tolist()
        [25.0]
    """
    found: Floats = np.maximum(np.einsum("ij,jk,ik->i", centred, precision, centred), centred.shape[1])
    return found
