"""The calibration signature of a model over a set of transcribed clips: are its words as right as it is sure?

Quantised and distilled models err as often where they are sure as the real one does where it is not: their words may be
the same, their calibration is not. All functions take any words' confidences, so they serve every family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

BINS = 10
"""Bins of equal width between 0 and 1."""
LEAST = 1e-6
"""Confidences are cut to [1e-6, 1 - 1e-6] before logarithms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How confidences relate to correctness.

    Attributes:
        words: Number of words.
        edges: Edges of the bins, (bins + 1,).
        counts: Words in each bin, (bins,).
        confidence: Mean confidence of each bin, NaN where it is empty, (bins,).
        accuracy: Share of correct words in each bin, NaN where it is empty, (bins,).
        ece: Expected calibration error.
        nce: Normalised cross-entropy: 1 is perfect, 0 says no more than the accuracy does; NaN without both outcomes.
        brier: Mean squared difference of confidence and correctness.
    """

    words: int
    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    ece: float
    nce: float
    brier: float


def correct_words(hypothesis: Sequence[str], truth: Sequence[str]) -> Bools:
    """Return which words of a hypothesis are right under an alignment with the fewest edits.

    Args:
        hypothesis: Words that were written.
        truth: Words that were spoken.

    Returns:
        Right or not, one per word of the hypothesis.

    Example:
        >>> correct_words("turn of the the light".split(), "turn off the light".split()).tolist()
        [True, False, False, True, True]
    """
    n, m = len(hypothesis), len(truth)
    cost = np.zeros((n + 1, m + 1), np.int64)
    cost[:, 0], cost[0] = np.arange(n + 1), np.arange(m + 1)
    for i in range(1, n + 1):
        for j in range(1, m + 1):
            kept = cost[i - 1, j - 1] + (hypothesis[i - 1] != truth[j - 1])
            cost[i, j] = min(kept, cost[i - 1, j] + 1, cost[i, j - 1] + 1)
    right, i, j = np.zeros(n, bool), n, m
    while i and j:
        same = hypothesis[i - 1] == truth[j - 1]
        if cost[i, j] == cost[i - 1, j - 1] + (not same):
            right[i - 1] = same
            i, j = i - 1, j - 1
        elif cost[i, j] == cost[i - 1, j] + 1:
            i -= 1
        else:
            j -= 1
    return right


def reliability(confidences: Floats, correct: Bools, bins: int = BINS) -> Reliability:
    """Return the calibration signature of words over a set.

    Args:
        confidences: Confidence of each word, 0 to 1, (words,).
        correct: Whether it is right, (words,).
        bins: Number of bins of equal width.

    Returns:
        Curve, ECE, NCE and Brier score; NaN without words.

    Example:
        >>> r = reliability(np.array([0.9, 0.9, 0.6, 0.2]), np.array([True, True, False, False]))
        >>> round(r.ece, 3), round(r.brier, 3), round(r.nce, 3)
        (0.25, 0.105, 0.513)

    Source: Guo et al. 2017, arXiv 1706.04599, equation 3 (ECE); NIST, The Rich Transcription evaluation plans (NCE);
        Brier 1950, Monthly Weather Review 78.
    """
    c, y = np.asarray(confidences, np.float64), np.asarray(correct, bool)
    edges = np.linspace(0.0, 1.0, bins + 1)
    where = np.clip(np.searchsorted(edges, c, side="left") - 1, 0, bins - 1)
    counts = np.bincount(where, minlength=bins)
    some = np.where(counts > 0, counts, np.nan)
    confidence = np.bincount(where, c, minlength=bins) / some
    accuracy = np.bincount(where, y, minlength=bins) / some
    gaps = np.nansum(counts * np.abs(accuracy - confidence))
    return Reliability(
        words=len(c),
        edges=edges,
        counts=counts,
        confidence=confidence,
        accuracy=accuracy,
        ece=float(gaps / len(c)) if len(c) else float("nan"),
        nce=_normalised_cross_entropy(c, y),
        brier=float(np.mean((c - y) ** 2)) if len(c) else float("nan"),
    )


def _normalised_cross_entropy(confidences: Floats, correct: Bools) -> float:
    right, total = int(correct.sum()), len(correct)
    if right in (0, total):
        return float("nan")
    share = right / total
    most = -right * np.log2(share) - (total - right) * np.log2(1.0 - share)
    c = np.clip(confidences, LEAST, 1.0 - LEAST)
    spent = -np.log2(c[correct]).sum() - np.log2(1.0 - c[~correct]).sum()
    return float((most - spent) / most)


def reliability_shifts(provider: Reliability, reference: Reliability) -> dict[str, float]:
    """Return how far two signatures of the same words differ; every value grows with suspicion.

    Args:
        provider: Signature of the provider's confidences.
        reference: Signature of the reference's, with the same bins.

    Returns:
        `reliability_curve`, the difference of the two curves' gaps weighted by their counts, `reliability_ece`,
        `reliability_nce` and `reliability_brier`, absolute differences; NaN where a signature has no value.

    Example:
        >>> right = np.array([True, True, False])
        >>> a, b = reliability(np.array([0.9, 0.8, 0.3]), right), reliability(np.array([0.6, 0.5, 0.3]), right)
        >>> {name: round(value, 3) for name, value in reliability_shifts(a, b).items()}
        {'reliability_curve': 0.4, 'reliability_ece': 0.2, 'reliability_nce': 0.458, 'reliability_brier': 0.12}
    """
    gaps = [np.nan_to_num(r.counts * (r.accuracy - r.confidence)) / max(1, r.words) for r in (provider, reference)]
    return {
        "reliability_curve": float(np.abs(gaps[0] - gaps[1]).sum()),
        "reliability_ece": abs(provider.ece - reference.ece),
        "reliability_nce": abs(provider.nce - reference.nce),
        "reliability_brier": abs(provider.brier - reference.brier),
    }
