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


def resampled(counts: Floats) -> Floats:
    """Return the sums of counts over resampled groups; the same groups are drawn for every column.

    Args:
        counts: (groups, columns).

    Returns:
        (resamples, columns).
    """
    rng, groups = np.random.default_rng(SEED), len(counts)
    sums = []
    for _ in range(0, RESAMPLES, AT_ONCE):
        drawn = rng.integers(groups, size=(AT_ONCE, groups))
        often = np.stack([np.bincount(own, minlength=groups) for own in drawn])
        sums.append(often @ counts)
    return np.concatenate(sums)


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
    sums = resampled(counts)
    low, high = np.quantile(difference(sums), [0.025, 0.975])
    return float(low), float(high)


def difference(sums: Floats) -> Floats:
    """Return the difference of two rates; words are never 0 where each group has some.

    Args:
        sums: Errors and words of one, errors and words of the other, (..., 4).
    """
    result: Floats = sums[..., 0] / sums[..., 1] - sums[..., 2] / sums[..., 3]
    return result
