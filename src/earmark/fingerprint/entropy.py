"""Entropy of the next-token distribution, and distances between two entropy curves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def entropy_l1(provider: Floats, reference: Floats) -> float:
    """Return the mean absolute difference of two entropy curves, in nats.

    Args:
        provider: Entropy per position, (positions,).
        reference: The same from the replay, (positions,).

    Returns:
        The mean of |difference|; NaN for an empty curve.

    Example:
        >>> entropy_l1(np.array([0.5, 1.0]), np.array([0.5, 0.5]))
        0.25
    """
    return float(np.mean(np.abs(provider - reference))) if len(provider) else float("nan")


def entropy_rmse(provider: Floats, reference: Floats) -> float:
    """Return the root of the mean squared difference of two entropy curves, in nats.

    Args:
        provider: Entropy per position, (positions,).
        reference: The same from the replay, (positions,).

    Returns:
        The root mean squared difference; NaN for an empty curve.

    Example:
        >>> entropy_rmse(np.array([3.0, 1.0]), np.array([0.0, 1.0])) == (9 / 2) ** 0.5
        True
    """
    return float(np.sqrt(np.mean((provider - reference) ** 2))) if len(provider) else float("nan")


def entropy_correlation_distance(provider: Floats, reference: Floats) -> float:
    """Return 1 - Pearson correlation of two entropy curves.

    Args:
        provider: Entropy per position, (positions,).
        reference: The same from the replay, (positions,).

    Returns:
        0 for proportional curves to 2 for opposite ones; NaN below 3 positions or for a flat curve.

    Example:
        >>> round(entropy_correlation_distance(np.array([0.0, 1.0, 2.0]), np.array([0.0, 2.0, 4.0])), 9)
        0.0
    """
    if len(provider) < 3 or np.std(provider) < 1e-9 or np.std(reference) < 1e-9:
        return float("nan")
    return float(1.0 - np.corrcoef(provider, reference)[0, 1])


def tsallis_from_power(log_power: Floats, order: float) -> NDArray[np.float64]:
    """Return the Tsallis entropy of distributions whose power sums are known.

    Args:
        log_power: log of sum p**order of each distribution, (positions,).
        order: The order, positive and not 1.

    Returns:
        (1 - sum p**order) / (order - 1), (positions,).

    Example:
        >>> round(float(tsallis_from_power(np.log(2 * 0.5**0.33), 0.33)), 6)  # a fair coin
        0.882198

    Source: Laptev & Ginsburg, arXiv 2212.08703, equation 6.
    """
    result: NDArray[np.float64] = -np.expm1(np.asarray(log_power, np.float64)) / (order - 1.0)
    return result


def renyi_from_power(log_power: Floats, order: float) -> NDArray[np.float64]:
    """Return the Renyi entropy of distributions whose power sums are known, in nats.

    Args:
        log_power: log of sum p**order of each distribution, (positions,).
        order: The order, positive and not 1.

    Returns:
        log(sum p**order) / (1 - order), (positions,).

    Example:
        >>> bool(np.isclose(renyi_from_power(np.log(2 * 0.5**0.33), 0.33), np.log(2)))  # a fair coin
        True

    Source: Laptev & Ginsburg, arXiv 2212.08703, equation 9.
    """
    result: NDArray[np.float64] = np.asarray(log_power, np.float64) / (1.0 - order)
    return result
