"""Features that are normalised band by band: how much each band varied before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.models._transformers import waveforms

EPSILON = 1e-5
"""What NeMo and transformers add to a band's standard deviation before they divide by it."""
LARGEST = 1e6


def least_deviation(normalised: ArrayLike) -> float:
    """Return the standard deviation that the log energy had in the band that varied least.

    Normalisation leaves s / (s + epsilon) of a deviation s, close below 1, from which s follows. It divides each band
    by its deviation and so magnifies the rounding of a band that hardly varies: of clips that are nearly silent, or
    that have no energy in some band at all.

    Args:
        normalised: Features of one clip without padding, (frames, bands), float32 or finer.

    Returns:
        The least deviation, in units of the logarithm; infinite where there are fewer than two frames.

    Example:
        >>> band = np.sin(np.arange(50.0))
        >>> scaled = 0.002 * (band - band.mean()) / band.std(ddof=1)
        >>> round(least_deviation((scaled / (scaled.std(ddof=1) + EPSILON))[:, None]), 6)
        0.002
    """
    values = np.asarray(normalised, np.float64)
    if len(values) < 2:
        return float("inf")
    left = np.sqrt((values**2).sum(axis=0) / (len(values) - 1))
    return float((EPSILON * left / np.maximum(1 - left, EPSILON / LARGEST)).min(initial=np.inf))


def deviation_by(extractor: Any, samples: NDArray[np.int16]) -> float:
    """Return the least deviation of a piece of audio by a feature extractor of transformers that normalises bands."""
    made = extractor(waveforms([samples]), sampling_rate=16_000)
    return least_deviation(made.input_features[0][made.attention_mask[0].bool()])
