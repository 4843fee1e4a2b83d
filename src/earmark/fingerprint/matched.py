"""The matched filter: does the provider differ from the reference in the direction of a known alternative?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PREFIXES = ("along_", "excess_")
"""What names of statistics begin with that a match with a recipe gives."""
CLIP_NATS = 5.0
"""One coordinate differs at most by this, so that a single tail token does not decide."""
NEIGHBOURS = 2
"""Positions to each side over which the sensitivity of one is averaged."""
WIDE = 8
"""The same where sizes are compared."""
TINY = 1e-20
"""Energy of float64's own rounding: the logarithm of none is not asked for."""
LEAST_ENERGY = 0.02
"""Share of the median energy that is added to each, so that one position of almost none does not decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How one alternative explains what the provider says.

    Attributes:
        projection: T, the length of the provider's deviation along the alternative's, as a share of that: about 0
            for an honest provider, about 1 for one that ran the alternative.
        unexplained: Energy of the provider's deviation that is left once the alternative's is taken off, as a share.
        along: How far the provider deviates in the alternative's direction, in units that scatter equally for short
            clips and long ones, see `along`; 0 where it deviates the other way.
        excess: How large the deviation is against the alternative's, see `excess`.
        share: T again, where every position counts by what it can tell, see `share`.
        sure: The same in standard errors.
        rest: Mean absolute difference, in nats, that is left once the alternative's deviation is taken off.
    """

    projection: float
    unexplained: float
    along: float = float("nan")
    excess: float = float("nan")
    share: float = float("nan")
    sure: float = float("nan")
    rest: float = float("nan")


def along_names(alternatives: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the statistics `Match.along`.

    Example:
        >>> along_names(["int8"])
        ('along_int8',)
    """
    return tuple(f"{PREFIXES[0]}{name}" for name in alternatives)


def matched_names(alternatives: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all statistics of a match: `along` of every alternative, then `excess` of every one.

    Example:
        >>> matched_names(["int8"])
        ('along_int8', 'excess_int8')
    """
    return (*along_names(alternatives), *(f"{PREFIXES[1]}{name}" for name in alternatives))


def matched_filter(provider: Floats, reference: Floats, alternative: Floats) -> Match:
    """Compare the provider's deviation with that of an alternative.

    T = <z_provider - z_reference, d> / <d, d> with d = z_alternative - z_reference.

    Args:
        provider: What the provider says, (positions, listed); NaN where it says nothing. One row is one position.
        reference: What the reference says at the same places.
        alternative: What the alternative says at the same places.

    Returns:
        The match; NaN where there is nothing to compare.

    Source: the matched filter of signal detection (Kay, Fundamentals of Statistical Signal Processing II, 4.3).

    Example:
        >>> matched_filter(np.array([-1.0, -2.5]), np.array([-1.0, -2.0]), np.array([-1.0, -2.5])).projection
        1.0
    """
    provider, reference, alternative = (np.atleast_2d(values) for values in (provider, reference, alternative))
    known = ~np.isnan(provider)
    deviation_rows, direction_rows = _clipped(provider - reference), _clipped(alternative - reference)
    own, other = deviation_rows[known], direction_rows[known]
    energy, deviation = float(other @ other), float(own @ own)
    if not energy > 0:
        return Match(projection=float("nan"), unexplained=float("nan"))
    rest = own - other
    left = float(rest @ rest) / deviation if deviation > 0 else float("inf")
    projection = float(own @ other) / energy
    estimate, error = share(deviation_rows, direction_rows)
    return Match(
        projection=projection,
        unexplained=left,
        along=along(deviation_rows, direction_rows),
        excess=excess(deviation_rows, direction_rows),
        share=estimate,
        sure=estimate / max(error, TINY),
        rest=float(np.abs(rest).mean()),
    )


def along(deviation: Floats, direction: Floats) -> float:
    """Return how far a deviation goes along a direction, where every position counts by what it can tell.

    Where a network is sensitive, rounding moves its numbers as much as a cheat does, so such positions tell little for
    their size: each is weighted by 1 / (e + median e), e the energy of the direction there and at its neighbours, which
    stands for the variance of the noise. What all listed values of a position have in common is taken off first: it is
    the normaliser of the softmax, and one unlisted token may have moved it.

    Args:
        deviation: z_provider - z_reference, (positions, listed); NaN where the provider says nothing.
        direction: z_alternative - z_reference, same shape.

    Returns:
        sum_p w_p <x_p, d_p> / sqrt(sum_p w_p |d_p|^2), 0 or more; NaN where the direction is 0 everywhere.

    Source: the matched filter for noise of unequal variance (Kay, Detection Theory, 4.4); the weights are our own.

    Example:
        >>> direction = np.array([[0.1, -0.1], [9.0, -9.0], [0.1, -0.1]])
        >>> noise = np.array([[0.0, 0.0], [3.0, -3.0], [0.0, 0.0]])
        >>> along(direction, direction) > 3 * along(noise, direction)
        True
    """
    known = ~np.isnan(deviation)
    x, d = (_centred(values, known) for values in (deviation, direction))
    energy = (d * d).sum(axis=1)
    if not energy.any():
        return float("nan")
    variance = _sensitivity(energy, NEIGHBOURS)
    found = float(((x * d).sum(axis=1) / variance).sum() / np.sqrt((energy / variance).sum()))
    return max(found, 0.0)


def share(deviation: Floats, direction: Floats) -> tuple[float, float]:
    """Return which share of a direction a deviation has, and its standard error; positions weighted as in `along`.

    The error is that of weighted least squares whose noise may be different at every position, so that it is right
    for the noise of any precision without knowing it.

    Args:
        deviation: z_provider - z_reference, (positions, listed); NaN where the provider says nothing.
        direction: z_alternative - z_reference, same shape.

    Returns:
        T = sum_p w_p <x_p, d_p> / sum_p w_p |d_p|^2, and sqrt(sum_p (w_p <x_p - T d_p, d_p>)^2) / sum_p w_p |d_p|^2;
        NaN where the direction is 0 everywhere.

    Source: White, A heteroskedasticity-consistent covariance matrix estimator, Econometrica 48 (1980), equation 2.

    Example:
        >>> direction = np.array([[0.1, -0.1], [0.2, -0.2], [0.1, -0.1]])
        >>> tuple(round(value, 6) for value in share(0.5 * direction, direction))
        (0.5, 0.0)
    """
    known = ~np.isnan(deviation)
    x, d = (_centred(values, known) for values in (deviation, direction))
    energy = (d * d).sum(axis=1)
    if not energy.any():
        return float("nan"), float("nan")
    weights = 1 / _sensitivity(energy, NEIGHBOURS)
    whole = float((weights * energy).sum())
    found = float((weights * (x * d).sum(axis=1)).sum()) / whole
    left = weights * ((x - found * d) * d).sum(axis=1)
    return found, float(np.sqrt((left * left).sum())) / whole


def excess(deviation: Floats, direction: Floats) -> float:
    """Return how large a deviation is against that of an alternative at the same positions, whatever its direction.

    Clips differ in how sensitive the network is to them, and so do the distances of honest providers. The alternative
    is as sensitive, so its energy is the yardstick: rounding has a steady share of it, and a cheat outside the library
    adds to that share. The mean is geometric, so that a few positions decide nothing.

    Args:
        deviation: z_provider - z_reference, (positions, listed); NaN where the provider says nothing.
        direction: z_alternative - z_reference, same shape.

    Returns:
        exp mean_p log((|x_p|^2 + c) / (e_p + median e)), e_p the energy of the direction about p, c a fiftieth of the
        median |x_p|^2 above 0; NaN where the direction is 0 everywhere.

    Source: our own; a ratio of two energies, as in an F test.

    Example:
        >>> direction = np.array([[0.1, -0.1], [9.0, -9.0], [0.1, -0.1]])
        >>> round(excess(2 * direction, direction) / excess(direction, direction), 3)
        4.0
    """
    known = ~np.isnan(deviation)
    x, d = (_centred(values, known) for values in (deviation, direction))
    own, energy = (x * x).sum(axis=1), (d * d).sum(axis=1)
    if not energy.any():
        return float("nan")
    least = LEAST_ENERGY * np.median(own[own > 0]) if own.any() else TINY
    ratios = (own + least) / _sensitivity(energy, WIDE)
    return float(np.exp(np.mean(np.log(ratios))))


def _sensitivity(energy: Floats, neighbours: int) -> Floats:
    """Return the energy of the positions about each one, plus the median energy."""
    window = np.full(2 * neighbours + 1, 1 / (2 * neighbours + 1))
    local = np.convolve(np.pad(energy, neighbours, mode="edge"), window, "valid")
    sensitivity: Floats = local + np.median(energy[energy > 0])
    return sensitivity


def _centred(values: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return values without what a position's known ones have in common, 0 where they are unknown."""
    kept, count = np.where(known, values, 0.0), known.sum(axis=1, keepdims=True)
    mean = np.where(count > 1, kept.sum(axis=1, keepdims=True) / np.maximum(count, 1), 0.0)
    centred: Floats = np.where(known, kept - mean, 0.0)
    return centred


def _clipped(values: Floats) -> Floats:
    return np.clip(values, -CLIP_NATS, CLIP_NATS)
