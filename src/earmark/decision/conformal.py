"""One clip: conformal p-values, and the exact bounds of a rate that was counted."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.errors import UsageError


def conformal_p(scores: ArrayLike, calibration: ArrayLike) -> NDArray[np.float64]:
    """Return p = (1 + #{calibration >= score}) / (n + 1) of each score.

    For an honest clip that is exchangeable with the n calibration clips, P(p <= a) <= a for every a.

    Args:
        scores: Scores that grow with suspicion, any shape; NaN (not applicable) gives NaN.
        calibration: Scores of n distinct honest clips, (n,), none NaN.

    Returns:
        One p-value per score, same shape.

    Raises:
        UsageError: The calibration is empty or holds NaN.

    Source: Vovk, Gammerman & Shafer, Algorithmic Learning in a Random World (2005), section 2.2.

    Example:
        >>> conformal_p([0.5, 9.0, float("nan")], [1.0, 2.0, 3.0]).tolist()
        [1.0, 0.25, nan]
    """
    ranked = np.sort(np.asarray(calibration, dtype=np.float64).ravel())
    if not ranked.size or np.isnan(ranked).any():
        raise UsageError(f"{ranked.size} calibration scores; at least one is needed, and none may be NaN")
    values = np.asarray(scores, dtype=np.float64)
    as_extreme = ranked.size - np.searchsorted(ranked, values, side="left")
    result: NDArray[np.float64] = np.where(np.isnan(values), np.nan, (1 + as_extreme) / (ranked.size + 1))
    return result


def clips_needed(rate: float) -> int:
    """Return the fewest calibration clips with which a conformal p-value can be as small as `rate`.

    Raises:
        UsageError: The rate is not between 0 and 1.

    Example:
        >>> clips_needed(1e-3), clips_needed(3e-4)
        (999, 3333)
    """
    if not 0 < rate < 1:
        raise UsageError(f"false-alarm rate {rate:g}; expected a number between 0 and 1")
    return math.ceil(1 / rate - 1e-9) - 1


def promised_rate(calibration: ArrayLike) -> float:
    """Return the smallest false-alarm rate that calibration clips can promise: the least p-value there is.

    Args:
        calibration: Their scores, (n,); an infinite one, of an honest clip that broke a rule, exceeds any score.

    Example:
        >>> promised_rate(np.zeros(999)), promised_rate([*np.zeros(998), np.inf])
        (0.001, 0.002)
    """
    return float(conformal_p([np.inf], calibration)[0])


def upper_bound(events: ArrayLike, trials: int, level: float) -> NDArray[np.float64]:
    """Return the exact one-sided upper confidence bound of a rate (Clopper-Pearson).

    Args:
        events: How often it happened, any shape, each 0 to `trials`.
        trials: How often it could have happened.
        level: Probability with which the bound may be below the true rate.

    Returns:
        Bounds, same shape as `events`.

    Source: Clopper & Pearson, Biometrika 26 (1934).

    Example:
        >>> round(float(upper_bound(0, 3000, 0.05)), 6)  # the rule of three: about 3 / n
        0.000998
    """
    from scipy.stats import beta

    counted = np.asarray(events, dtype=np.float64)
    result: NDArray[np.float64] = np.where(
        counted >= trials, 1.0, beta.ppf(1 - level, counted + 1, np.maximum(trials - counted, 1e-9))
    )
    return result


def lower_bound(events: ArrayLike, trials: int, level: float) -> NDArray[np.float64]:
    """Return the exact one-sided lower confidence bound of a rate (Clopper-Pearson).

    Args:
        events: How often it happened, any shape, each 0 to `trials`.
        trials: How often it could have happened.
        level: Probability with which the bound may be above the true rate.

    Returns:
        Bounds, same shape as `events`.

    Example:
        >>> round(float(lower_bound(24, 24, 0.025)), 4)
        0.8575
    """
    result: NDArray[np.float64] = 1 - upper_bound(trials - np.asarray(events), trials, level)
    return result
