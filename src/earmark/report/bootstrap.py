"""How sure a difference of two word error rates is: a paired bootstrap."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 1000
FEWEST = 10
"""Groups below which a bootstrap promises too much; then there is no interval."""
AT_ONCE = 100
"""Resamples that are drawn at once, so that long runs need little memory."""
SEED = 0


def interval(counts: Floats) -> tuple[float, float]:
    """Return the 95 % interval of the difference of two rates that were counted on the same groups.

    Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13: percentiles. Groups are base clips, since
    clips that share one are no independent ones.

    Args:
        counts: Errors and words of one, errors and words of the other, (groups, 4).

    Returns:
        2.5 % and 97.5 % quantile; NaN below `FEWEST` groups.

    Example:
        >>> interval(np.array([[1.0, 4.0, 0.0, 4.0]] * 12))
        (0.25, 0.25)
        >>> interval(np.array([[1.0, 4.0, 0.0, 4.0]]))
        (nan, nan)
    """
    if len(counts) < FEWEST:
        return math.nan, math.nan
    from scipy.stats import bootstrap  # takes long to import

    found = bootstrap(
        tuple(counts.T),
        lambda *columns, axis: difference(np.stack([own.sum(axis=axis) for own in columns], axis=-1)),
        paired=True,
        n_resamples=RESAMPLES,
        batch=AT_ONCE,
        method="percentile",
        random_state=SEED,
    ).confidence_interval
    return float(found.low), float(found.high)


def difference(sums: Floats) -> Floats:
    """Return the difference of two rates; words are never 0 where each group has some.

    Args:
        sums: Errors and words of one, errors and words of the other, (..., 4).
    """
    result: Floats = sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]
    return result
