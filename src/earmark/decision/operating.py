"""How well scores tell honest from dishonest clips: intervals, areas, operating points; pure functions."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.decision.conformal import lower_bound, upper_bound
from earmark.errors import UsageError

CONFIDENCE = 0.95
"""Confidence of intervals, and probability with which a cheat is to be found."""


def exact_interval(events: int, trials: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the exact two-sided confidence interval of a rate.

    Args:
        events: How often it happened.
        trials: How often it could have happened.
        confidence: Probability with which such intervals hold the true rate, at least.

    Returns:
        Lower and upper end; (0, 1) without trials.

    Source: Clopper & Pearson, Biometrika 26 (1934).

    Example:
        >>> [round(end, 4) for end in exact_interval(24, 24)]
        [0.8575, 1.0]
    """
    if not trials:
        return 0.0, 1.0
    level = (1 - confidence) / 2
    return float(lower_bound(events, trials, level)), float(upper_bound(events, trials, level))


def clips_to_detect(events: int, trials: int, power: float = CONFIDENCE) -> int | None:
    """Return after how many clips, each judged alone, a cheat is found at least once with probability `power`.

    Args:
        events: Clips on which it was found.
        trials: Clips that were tried.
        power: Probability.

    Returns:
        Number of clips, from the counted rate; None where it was never found.

    Example:
        >>> clips_to_detect(24, 24), clips_to_detect(12, 24), clips_to_detect(0, 24)
        (1, 5, None)
    """
    if not events:
        return None
    missed = 1 - events / trials
    return 1 if missed <= 0 else max(1, math.ceil(math.log(1 - power) / math.log(missed) - 1e-9))


def area(honest: ArrayLike, dishonest: ArrayLike) -> float:
    """Return the area under the ROC curve: how often a dishonest score exceeds an honest one, ties counted half.

    Args:
        honest: Scores of honest clips, (n,); NaN are left out.
        dishonest: Scores of dishonest clips, (m,); infinite ones count as larger than all others.

    Returns:
        0 to 1; NaN where one side is empty.

    Source: Mann & Whitney, Annals of Mathematical Statistics 18 (1947).

    Example:
        >>> area([0.1, 0.2, 0.3], [0.3, 0.4])
        0.9166666666666666
    """
    low, high = _known(honest), _known(dishonest)
    if not low.size or not high.size:
        return math.nan
    below = np.searchsorted(low, high, side="left").sum()
    ties = np.searchsorted(low, high, side="right").sum() - below
    return float((below + ties / 2) / (low.size * high.size))


def operating_points(
    honest: ArrayLike, dishonest: ArrayLike, most: int = 200
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the error rates of every threshold: a clip is accused where its score reaches it.

    Args:
        honest: Scores of honest clips, (n,); NaN are left out.
        dishonest: Scores of dishonest clips, (m,).
        most: Most points; the corners of the curve are thinned out evenly beyond.

    Returns:
        False-alarm rate and miss rate, (points,) each, from "accuse nobody" to "accuse everybody".

    Raises:
        UsageError: One side is empty.

    Example:
        >>> alarms, misses = operating_points([0.0, 1.0], [1.0, 2.0])
        >>> alarms.tolist(), misses.tolist()
        ([0.0, 0.0, 0.5, 1.0], [1.0, 0.5, 0.0, 0.0])
    """
    low, high = _known(honest), _known(dishonest)
    if not low.size or not high.size:
        raise UsageError(f"{low.size} honest and {high.size} dishonest scores; at least one of each is needed")
    thresholds = np.unique(np.concatenate([low, high]))[::-1]
    alarms = 1 - np.searchsorted(low, thresholds, side="left") / low.size
    misses = np.searchsorted(high, thresholds, side="left") / high.size
    points = np.column_stack([np.concatenate([[0.0], alarms]), np.concatenate([[1.0], misses])])
    if len(points) > most:
        points = points[np.unique(np.linspace(0, len(points) - 1, most).round().astype(int))]
    return points[:, 0], points[:, 1]


def _known(scores: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64).ravel()
    return np.sort(values[~np.isnan(values)])
