"""The matched filter: does the provider differ from the reference in the direction of a known alternative?"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CLIP_NATS = 5.0
"""One coordinate differs at most by this, so that a single tail token does not decide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """How one alternative explains what the provider says.

    Attributes:
        projection: T, the length of the provider's deviation along the alternative's, as a share of that: about 0
            for an honest provider, about 1 for one that ran the alternative.
        unexplained: Energy of the provider's deviation that is left once the alternative's is taken off, as a share.
        along: <z_provider - z_reference, d> / |d|, how far the provider deviates in the alternative's direction, in
            nats; 0 where it deviates the other way. Unlike T it scatters equally for short clips and for long ones.
    """

    projection: float
    unexplained: float
    along: float = float("nan")


def along_name(alternative: str) -> str:
    """Return the name of the statistic `Match.along` of an alternative.

    Example:
        >>> along_name("int8")
        'along_int8'
    """
    return f"along_{alternative}"


def matched_filter(provider: Floats, reference: Floats, alternative: Floats) -> Match:
    """Compare the provider's deviation with that of an alternative.

    T = <z_provider - z_reference, d> / <d, d> with d = z_alternative - z_reference.

    Args:
        provider: What the provider says, any shape; NaN where it says nothing.
        reference: What the reference says at the same places.
        alternative: What the alternative says at the same places.

    Returns:
        The match; NaN where there is nothing to compare.

    Source: the matched filter of signal detection (Kay, Fundamentals of Statistical Signal Processing II, 4.3).

    Example:
        >>> matched_filter(np.array([-1.0, -2.5]), np.array([-1.0, -2.0]), np.array([-1.0, -2.5])).projection
        1.0
    """
    known = ~np.isnan(provider)
    own = _clipped(provider[known] - reference[known])
    other = _clipped(alternative[known] - reference[known])
    energy, deviation = float(other @ other), float(own @ own)
    if not energy > 0:
        return Match(projection=float("nan"), unexplained=float("nan"))
    rest = own - other
    left = float(rest @ rest) / deviation if deviation > 0 else float("inf")
    projection = float(own @ other) / energy
    return Match(projection=projection, unexplained=left, along=max(projection, 0.0) * math.sqrt(energy))


def _clipped(values: Floats) -> Floats:
    return np.clip(values, -CLIP_NATS, CLIP_NATS)
