"""Distances between two lists of most probable tokens.

The provider lists k tokens per position with log-probabilities o; the reference gives r for the same tokens and its
own k best. All arrays have one row per position.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ids = NDArray[np.integer]

CLIP_NATS = 5.0
"""One entry adds at most this much, so that a single tail token does not decide a clip."""
PAIRS_AT_ONCE = 1 << 20
"""Pairs of listed tokens that are compared at once: bounds the memory, whatever the length of clip and lists."""


def row_blocks(rows: int, pairs: int) -> list[slice]:
    """Return the blocks of rows that are compared at once, one at least.

    Args:
        rows: Number of rows.
        pairs: Pairs of tokens in each.

    Example:
        >>> row_blocks(3, PAIRS_AT_ONCE // 2)
        [slice(0, 2, None), slice(2, 4, None)]
    """
    step = max(1, PAIRS_AT_ONCE // max(1, pairs))
    return [slice(start, start + step) for start in range(0, max(1, rows), step)]


def _unlisted(provider_ids: Ids, reference_ids: Ids) -> NDArray[np.bool_]:
    """Return which of the reference's tokens the provider does not list, shape (positions, k_reference)."""
    blocks = row_blocks(len(provider_ids), provider_ids.shape[1] * reference_ids.shape[1])
    return np.concatenate(
        [(reference_ids[rows, :, None] != provider_ids[rows, None, :]).all(axis=2) for rows in blocks]
    )


def logprob_l1(
    provider_ids: Ids,
    provider_logprobs: Floats,
    reference_at_provider: Floats,
    reference_ids: Ids,
    reference_logprobs: Floats,
) -> NDArray[np.float64]:
    """Return the distance of log-probabilities per position, in nats.

    A listed token v adds min(|o_v - r_v|, 5); a token among the reference's best that the provider does not list
    adds max(0, r_v - o_min), with o_min the provider's lowest listed value, at most 5; the sum is divided by the
    number of listed tokens. A censored entry (NaN) claims no more than o_min, so it adds max(0, r_v - o_min); a
    position without any value is at distance 5.

    Args:
        provider_ids: Listed tokens, (positions, k).
        provider_logprobs: Their log-probabilities o, (positions, k).
        reference_at_provider: The reference's log-probabilities r of the same tokens, (positions, k).
        reference_ids: The reference's best tokens, (positions, k).
        reference_logprobs: Their log-probabilities, (positions, k).

    Returns:
        One distance per position, (positions,).

    Example:
        >>> ids = np.array([[3, 1]]); o = np.array([[-0.5, -1.5]]); r = np.array([[-0.7, -1.5]])
        >>> float(logprob_l1(ids, o, r, ids, r)[0].round(6))
        0.1

    Source: the headline statistic of earmark's design, section 6.
    """
    return _l1(
        provider_ids, provider_logprobs, reference_at_provider, reference_ids, reference_logprobs, clip=CLIP_NATS
    )


def prob_l1(
    provider_ids: Ids,
    provider_logprobs: Floats,
    reference_at_provider: Floats,
    reference_ids: Ids,
    reference_logprobs: Floats,
) -> NDArray[np.float64]:
    """Return the same distance on probabilities: `logprob_l1` with exp() of every value.

    Args:
        provider_ids: Listed tokens, (positions, k).
        provider_logprobs: Their log-probabilities, (positions, k).
        reference_at_provider: The reference's log-probabilities of the same tokens, (positions, k).
        reference_ids: The reference's best tokens, (positions, k).
        reference_logprobs: Their log-probabilities, (positions, k).

    Returns:
        One distance per position, (positions,).

    Example:
        >>> ids = np.array([[3]]); o = np.log([[0.5]]); r = np.log([[0.25]])
        >>> float(prob_l1(ids, o, r, ids, r)[0].round(6))
        0.25
    """
    return _l1(
        provider_ids,
        np.exp(provider_logprobs),
        np.exp(reference_at_provider),
        reference_ids,
        np.exp(reference_logprobs),
        clip=1.0,
    )


def _l1(
    provider_ids: Ids, o: Floats, r: Floats, reference_ids: Ids, reference: Floats, *, clip: float
) -> NDArray[np.float64]:
    censored = np.isnan(o)
    lowest = np.where(censored, np.inf, o).min(axis=1, keepdims=True)
    known = np.minimum(np.abs(np.where(censored, r, o) - r), clip)
    listed = np.where(censored, np.clip(r - lowest, 0.0, clip), known).sum(axis=1)
    beyond = np.clip(reference - lowest, 0.0, clip)
    missed = np.where(_unlisted(provider_ids, reference_ids), beyond, 0.0).sum(axis=1)
    result: NDArray[np.float64] = np.where(censored.all(axis=1), clip, (listed + missed) / provider_ids.shape[1])
    return result


def topk_distance(provider_ids: Ids, reference_ids: Ids) -> NDArray[np.float64]:
    """Return the share of the reference's best tokens that the provider does not list, per position.

    Args:
        provider_ids: Listed tokens, (positions, k).
        reference_ids: The reference's best tokens, (positions, k).

    Returns:
        Values from 0 (same tokens) to 1 (none in common), (positions,).

    Example:
        >>> topk_distance(np.array([[1, 2, 3, 4]]), np.array([[4, 3, 9, 8]])).tolist()
        [0.5]
    """
    result: NDArray[np.float64] = _unlisted(provider_ids, reference_ids).mean(axis=1)
    return result


def rank_distance(provider_ids: Ids, reference_ids: Ids) -> NDArray[np.float64]:
    """Return the share of ranks at which the two lists name different tokens, per position.

    Args:
        provider_ids: Tokens in falling order of probability, (positions, k).
        reference_ids: The same of the reference, (positions, k).

    Returns:
        Values from 0 to 1, (positions,).

    Example:
        >>> rank_distance(np.array([[1, 2, 3, 4]]), np.array([[1, 2, 4, 3]])).tolist()
        [0.5]
    """
    result: NDArray[np.float64] = (provider_ids != reference_ids).mean(axis=1)
    return result


def loglik_distance(provider_logprobs: Floats, reference_logprobs: Floats) -> float:
    """Return |log P_provider - log P_reference| of the emitted sequence per token, in nats.

    Args:
        provider_logprobs: Log-probability of each emitted token, (positions,).
        reference_logprobs: The same from the replay, (positions,).

    Returns:
        The absolute difference of the sums, divided by the number of tokens.

    Example:
        >>> round(loglik_distance(np.array([-1.0, -2.0]), np.array([-1.5, -2.5])), 6)
        0.5
    """
    return float(abs(np.sum(provider_logprobs - reference_logprobs)) / max(1, len(provider_logprobs)))
