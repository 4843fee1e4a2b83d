"""Word confidence: a profile of how sure the model was of each word, and the distance between two profiles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def word_confidence(token_logprobs: Floats, words: Sequence[int]) -> NDArray[np.float64]:
    """Return the confidence of each word: the least probability among its tokens.

    Args:
        token_logprobs: Log-probability of each emitted token, (positions,).
        words: Index of the word each token belongs to, rising from 0; -1 for tokens outside words.

    Returns:
        One probability per word, (words,).

    Example:
        >>> word_confidence(np.log([0.5, 0.25, 1.0]), [0, 0, 1]).tolist()
        [0.25, 1.0]

    Source: Laptev & Ginsburg, arXiv 2212.08703, section 3 (minimum as the aggregation over a word).
    """
    index = np.asarray(words, dtype=np.int64)
    count = int(index.max()) + 1 if index.size else 0
    result = np.full(max(count, 0), np.inf)
    inside = index >= 0
    np.minimum.at(result, index[inside], np.exp(np.asarray(token_logprobs, np.float64)[inside]))
    finite: NDArray[np.float64] = result[np.isfinite(result)]
    return finite


def wasserstein(a: Floats, b: Floats) -> float:
    """Return the 1-Wasserstein distance of two samples of equal or different size.

    Args:
        a: First sample, (n,).
        b: Second sample, (m,).

    Returns:
        The area between the two empirical distribution functions; NaN where a sample is empty.

    Example:
        >>> wasserstein(np.array([0.0, 1.0]), np.array([0.5, 1.5]))
        0.5
    """
    if not len(a) or not len(b):
        return float("nan")
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(a, b))


def confidence_distance(provider: Floats, reference: Floats, words: Sequence[int]) -> float:
    """Return the mean absolute difference of word confidences, word by word.

    Args:
        provider: Log-probability of each emitted token, (positions,).
        reference: The same from the replay, (positions,).
        words: Index of the word of each token; -1 for tokens outside words.

    Returns:
        A value from 0 to 1; NaN without words.

    Example:
        >>> confidence_distance(np.log([0.5, 1.0]), np.log([0.25, 1.0]), [0, 1])
        0.125
    """
    a, b = word_confidence(provider, words), word_confidence(reference, words)
    return float(np.mean(np.abs(a - b))) if len(a) else float("nan")


TAIL_QUANTILES = (0.05, 0.1, 0.25)
"""Quantiles of word confidences that describe their lower tail."""


def profile_shifts(provider: Floats, reference: Floats) -> tuple[float, float, float]:
    """Return how far two confidence profiles differ in mean, in variance and in the lower tail.

    Args:
        provider: Confidence of each word, (n,).
        reference: The same from the replay, (m,).

    Returns:
        |difference| of the means, of the variances, and the largest of the quantiles 5, 10 and 25 %; NaN without words.

    Example:
        >>> [round(x, 3) for x in profile_shifts(np.array([0.5, 1.0]), np.array([1.0, 1.0]))]
        [0.25, 0.062, 0.475]
    """
    if not len(provider) or not len(reference):
        return float("nan"), float("nan"), float("nan")
    tails = np.abs(np.quantile(provider, TAIL_QUANTILES) - np.quantile(reference, TAIL_QUANTILES))
    return (
        float(abs(np.mean(provider) - np.mean(reference))),
        float(abs(np.var(provider) - np.var(reference))),
        float(tails.max()),
    )
