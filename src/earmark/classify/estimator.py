"""The estimator: a linear model that names a deployment, with calibrated probabilities and an open set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from earmark.classify.figures import UNKNOWN
from earmark.classify.parts import (
    Groups,
    Parts,
    Splits,
    distances,
    gaussian,
    held_out_distances,
    rest,
    scaler,
    splits_by,
    temperature_of,
)
from earmark.classify.splits import Indices

Floats = NDArray[np.float64]

REFUSE = 0.05
"""Share of rows of known deployments that may be called unknown."""
GUARD = 0.1
"""The guarded deployment may be called unknown this much more rarely: it lies far from all others."""


class DeploymentClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]  # sklearn ships no types
    """Linear discriminant analysis over features and matched signatures, calibrated, with a conformal open set.

    1. Columns of a signature are replaced with their correlation with the mean signature of each class: a matched
       filter that is learned from recordings.
    2. Linear discriminant analysis with a shrunk covariance gives log-probabilities, divided by a temperature.
    3. A row is unknown where its distance from the most probable class, in the space of matched signatures and novelty
       columns, has a conformal p-value of at most `refuse`.

    Temperature, distances and p-values come from rows that the model behind them was not fitted on.

    Args:
        signature: Columns that hold a signature; None for none.
        novelty: Further columns that the open set looks at; None for all but the signature.
        guarded: The honest deployment, which is refused ten times more rarely; None for none.
        folds: Splits behind temperature and p-values.
        random_state: Seed of the splits.

    Attributes:
        classes_: Known deployments.
        temperature_: What log-probabilities are divided by.

    Source: Ledoit & Wolf 2004, J. Multivariate Analysis 88 (shrinkage); Guo et al. 2017, arXiv 1706.04599, section 4.2
        (temperature); Vovk et al. 2005, Algorithmic Learning in a Random World, section 4.5 (one p-value per class).

    Example:
        >>> rng = np.random.default_rng(0)
        >>> X, y = rng.normal(size=(60, 2)), np.repeat(["int4", "int8", "reference"], 20)
        >>> X[:20] += 8; X[20:40] -= 8
        >>> model = DeploymentClassifier().fit(X, y)
        >>> model.predict([[8, 8], [0, 0]]).tolist(), model.predict_open([[8, 8], [-90, 90]]).tolist()
        (['int4', 'reference'], ['int4', 'unknown'])
    """

    def __init__(
        self,
        signature: Sequence[int] | None = None,
        novelty: Sequence[int] | None = None,
        guarded: str | None = None,
        folds: int = 5,
        random_state: int = 0,
    ) -> None:
        """Keep the options."""
        self.signature = signature
        self.novelty = novelty
        self.guarded = guarded
        self.folds = folds
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        """Say that missing values are allowed."""
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        return tags

    def fit(self, X: Any, y: Any, groups: Groups = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Fit model, temperature and open set.

        Args:
            X: Features, (rows, columns); NaN where one is missing.
            y: Deployment of each row, (rows,).
            groups: What each row shares with others, a key or several; rows that share one never stand on both sides.

        Returns:
            The estimator itself.
        """
        X, y = validate_data(self, X, y, ensure_all_finite="allow-nan", dtype=np.float64)  # noqa: N806
        check_classification_targets(y)
        self.classes_, own = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"1 class found ({self.classes_[0]!r}); a classifier needs 2 deployments or more")
        held = list(splits_by(own, groups, self.folds, self.random_state))
        scores, matches = np.full((len(y), len(self.classes_)), np.nan), self._no_matches(len(y))
        for train, test in held:
            if len(set(own[train])) == len(self.classes_):
                inner = None if groups is None else [groups[i] for i in train]
                scores[test], matches[test] = self._fit_parts(X[train], own[train], inner).score(X[test])
        self.parts_ = self._fit_parts(X, own, groups)
        open_ones = np.isnan(scores).any(axis=1)  # few rows, or rows tied to all others: their own fit has to do
        scores[open_ones], matches[open_ones] = self.parts_.score(X[open_ones])
        self.temperature_ = temperature_of(scores, own)
        self._fit_open(X, matches, own, held)
        return self

    def predict(self, X: Any) -> NDArray[Any]:  # noqa: N803
        """Return the most probable known deployment of each row."""
        best = np.argmax(self.predict_proba(X), axis=1)
        found: NDArray[Any] = self.classes_[best]
        return found

    def predict_proba(self, X: Any) -> Floats:  # noqa: N803
        """Return the probability of each known deployment, (rows, classes), given that it is one of them."""
        scores, _ = self._checked(X)[1]
        found: Floats = np.exp(log_softmax(scores / self.temperature_, axis=1))
        return found

    def p_values(self, X: Any) -> Floats:  # noqa: N803
        """Return for each known deployment how usual the row would be for it, (rows, classes).

        Under a known deployment its p-value is at most a in about a share a of new rows: the distances are those of
        rows that their Gaussians were not fitted to, several of each recording.
        """
        values, (_, matches) = self._checked(X)
        seen = self._seen(values, matches)
        found = []
        for mean, precision, kept in zip(self.means_, self.precisions_, self.distances_, strict=True):
            own = distances(seen - mean, precision)
            beyond = len(kept) - np.searchsorted(kept, own, side="left")
            found.append((1 + beyond) / (1 + len(kept)))
        return np.stack(found, axis=1)

    def predict_open(self, X: Any, refuse: float = REFUSE) -> NDArray[np.object_]:  # noqa: N803
        """Return the deployment of each row, or `unknown`.

        Args:
            X: Features, (rows, columns).
            refuse: Share of rows of a known deployment that may be called unknown, between 0 and 1.
        """
        named = self.predict(X).astype(object)
        named[self.is_unknown(X, refuse)] = UNKNOWN
        return named

    def is_unknown(self, X: Any, refuse: float = REFUSE) -> NDArray[np.bool_]:  # noqa: N803
        """Return which rows look like no known deployment.

        Args:
            X: Features, (rows, columns).
            refuse: See `predict_open`.
        """
        best = np.argmax(self.predict_proba(X), axis=1)
        limits = np.where(self.classes_ == self.guarded, GUARD * refuse, refuse)
        least = np.asarray([1 / (1 + len(kept)) for kept in self.distances_])  # no p-value is smaller
        usual = self.p_values(X)[np.arange(len(best)), best]
        unusual: NDArray[np.bool_] = usual <= np.maximum(limits, least)[best]
        return unusual

    def _checked(self, X: Any) -> tuple[Floats, tuple[Floats, Floats]]:  # noqa: N803
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, ensure_all_finite="allow-nan", dtype=np.float64)  # noqa: N806
        return X, self.parts_.score(X)

    def _no_matches(self, rows: int) -> Floats:
        return np.zeros((rows, len(self.classes_) if self.signature is not None else 0))

    def _fit_parts(self, X: Floats, own: Indices, groups: Groups) -> Parts:  # noqa: N803
        return Parts(self.signature, self.folds, self.random_state).fit(X, own, len(self.classes_), groups)

    def _fit_open(self, X: Floats, matches: Floats, own: Indices, held: Splits) -> None:  # noqa: N803
        """Fit one Gaussian per class, and keep the distances of rows from Gaussians that were fitted to others."""
        chosen = self.novelty if self.novelty is not None else rest(X.shape[1], self.signature)
        self.novelty_ = np.asarray(chosen, np.int64)
        self.open_scaler_ = scaler().fit(X[:, self.novelty_]) if len(self.novelty_) else None
        seen = self._seen(X, matches)
        self.means_, self.precisions_, self.distances_ = [], [], []
        for label in range(len(self.classes_)):
            mean, precision = gaussian(seen[own == label])
            self.means_.append(mean)
            self.precisions_.append(precision)
            self.distances_.append(np.sort(held_out_distances(seen, own == label, held)))

    def _seen(self, X: Floats, matches: Floats) -> Floats:  # noqa: N803
        """Return what the open set looks at, (rows, columns)."""
        if self.open_scaler_ is None:
            return matches
        return np.hstack([matches, self.open_scaler_.transform(X[:, self.novelty_])])
