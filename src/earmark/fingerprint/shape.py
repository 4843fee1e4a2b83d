"""The shape of a deviation: numbers that decide nothing, and tell one deployment from another.

Statistics say how far a provider lies from the reference and grow with suspicion. The shape says in which way it
differs, whatever the size: altered weights move the same tokens in the same direction on every clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.distances import row_blocks
from earmark.fingerprint.sequence import Forced, Listed

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Pairs = Sequence[tuple[Listed, Forced]]

SHAPE_VERSION = 1
"""Rises when a number of the shape is added, removed, renamed or computed in another way."""
TOKEN_BUCKETS = 256
"""Tokens are hashed into this many buckets; a clip lists a few hundred tokens."""
DIGITS = 5
"""Decimals of the signature, whose values lie below 1; more would only make records longer."""
CLIP_NATS = 5.0
"""One entry deviates at most by this, as in `logprob_l1`."""
FLOOR_NATS = 1e-12
"""Below every deviation of float64 arithmetic; keeps the shape of equal numbers finite."""
UNSURE_NATS = 0.1
"""A position is unsure where the reference's entropy exceeds this."""


def token_buckets(ids: Ints) -> Ints:
    """Return the bucket of each token.

    Args:
        ids: Token ids, any shape.

    Returns:
        Buckets from 0 to `TOKEN_BUCKETS` - 1, same shape.

    Example:
        >>> token_buckets(np.array([0, 1, 2, 1])).tolist()
        [0, 158, 60, 158]

    Source: multiplicative hashing, 2^32 over the golden ratio (Knuth, The Art of Computer Programming 3, 6.4).
    """
    hashed = (ids.astype(np.uint64) * np.uint64(2654435769)) & np.uint64(0xFFFFFFFF)
    result: Ints = ((hashed * np.uint64(TOKEN_BUCKETS)) >> np.uint64(32)).astype(np.int64)
    return result


def token_signature(ids: Ints, deviations: Floats) -> Floats:
    """Return the sum of the deviations in each bucket of tokens, over all entries' root sum of squares.

    The noise of a bucket's sum grows with the root of its entries, as the sum of independent deviations does; the inner
    product with the mean signature of a deployment is therefore a matched filter.

    Args:
        ids: Listed tokens, (positions, k).
        deviations: Provider less reference in nats, (positions, k); NaN where the provider says nothing.

    Returns:
        One value per bucket, (TOKEN_BUCKETS,).

    Example:
        >>> signature = token_signature(np.array([[0, 1], [0, 1]]), np.array([[1.0, -1.0], [1.0, -1.0]]))
        >>> signature[token_buckets(np.array([0, 1, 2]))].tolist()
        [1.0, -1.0, 0.0]
    """
    known = ~np.isnan(deviations)
    values = deviations[known]
    sums = np.bincount(token_buckets(ids[known]), values, minlength=TOKEN_BUCKETS)
    result: Floats = np.round(sums / (np.sqrt(np.sum(values**2)) + FLOOR_NATS), DIGITS)
    return result


def clip_shape(pairs: Pairs) -> dict[str, float]:
    """Return the whole shape of one clip: how the provider deviates, and what it says of itself.

    Args:
        pairs: Scores and replay of each segment.

    Returns:
        Name to value; NaN where there is nothing to compare. Names begin with `shape_` where they need the replay, with
        `own_` where they do not.
    """
    with np.errstate(all="ignore"):  # evidence of any content has a shape
        return {**deviation_shape(pairs), **own_shape([scores for scores, _ in pairs])}


def deviation_shape(pairs: Pairs) -> dict[str, float]:
    """Return how a provider deviates from the reference, size apart, for one clip.

    Args:
        pairs: Scores and replay of each segment.

    Returns:
        Name to value; NaN where there is nothing to compare.
    """
    ids = np.concatenate([scores.ids for scores, _ in pairs])
    said = np.concatenate([scores.logprobs for scores, _ in pairs])
    expected = np.concatenate([replay.at_listed for _, replay in pairs])
    entropy = np.concatenate([scores.entropy for scores, _ in pairs])
    own_entropy = np.concatenate([replay.scores.entropy for _, replay in pairs])
    deviations = np.clip(said - expected, -CLIP_NATS, CLIP_NATS)
    size = _rms(deviations)
    signature = token_signature(ids, deviations)
    return {
        "shape_rms": size,
        **_moments(deviations / size),
        **_by_rank(deviations / size),
        **_by_position(deviations / size, own_entropy),
        "shape_slope": _slope(expected, deviations / size),
        "shape_repeat": _repeat(ids, deviations / size),
        "shape_entropy_mean": _mean(entropy - own_entropy) / size,
        "shape_entropy_rms": _rms(entropy - own_entropy) / size,
        **{f"shape_token_{bucket}": float(value) for bucket, value in enumerate(signature)},
    }


def _moments(scaled: Floats) -> dict[str, float]:
    values = scaled[~np.isnan(scaled)]
    sizes = np.quantile(np.abs(values), (0.5, 0.9, 0.99)) if values.size else np.full(3, np.nan)
    return {
        "shape_mean": _mean(values),
        "shape_skew": _mean(values**3),
        "shape_kurtosis": _mean(values**4),
        **{f"shape_q{q}": float(size) for q, size in zip((50, 90, 99), sizes, strict=True)},
    }


def _by_rank(scaled: Floats) -> dict[str, float]:
    """Return mean and size at the first, second, middle and last rank of the lists."""
    last = scaled.shape[1] - 1
    places = {"first": 0, "second": min(1, last), "middle": last // 2, "last": last}
    return {
        f"shape_{name}_{kind}": value
        for name, place in places.items()
        for kind, value in (("mean", _mean(scaled[:, place])), ("rms", _rms(scaled[:, place])))
    }


def _by_position(scaled: Floats, entropy: Floats) -> dict[str, float]:
    """Return what a position's entries share, how it lasts, and how it depends on the reference's entropy."""
    known = ~np.isnan(scaled)
    counts = known.sum(axis=1)
    shared = np.where(known, scaled, 0.0).sum(axis=1) / np.maximum(counts, 1)
    sizes = np.sqrt(np.where(known, scaled**2, 0.0).sum(axis=1) / np.maximum(counts, 1))
    unsure = entropy > UNSURE_NATS
    return {
        "shape_shared": _mean(shared**2),
        "shape_lasting": _mean(shared[1:] * shared[:-1]),
        "shape_spread": float(np.std(np.log(sizes + FLOOR_NATS))) if len(sizes) else float("nan"),
        "shape_steady": _mean((sizes[1:] - 1.0) * (sizes[:-1] - 1.0)),
        "shape_sure_rms": _rms(scaled[~unsure]),
        "shape_unsure_rms": _rms(scaled[unsure]),
        "shape_unsure_mean": _mean(scaled[unsure]),
    }


def _slope(expected: Floats, scaled: Floats) -> float:
    """Return the slope of the deviation over what the reference says: a temperature, apart from its size."""
    known = ~np.isnan(scaled)
    x, y = expected[known], scaled[known]
    if len(x) < 2 or np.var(x) == 0:
        return float("nan")
    return float(np.mean((x - x.mean()) * (y - y.mean())) / np.var(x))


def _repeat(ids: Ints, scaled: Floats) -> float:
    """Return the mean product of a token's deviations at neighbouring positions that both list it."""
    products = []
    for rows in row_blocks(len(ids) - 1, ids.shape[1] ** 2):
        same = ids[1:][rows, :, None] == ids[:-1][rows, None, :]
        products.append((scaled[1:][rows, :, None] * scaled[:-1][rows, None, :])[same])
    return _mean(np.concatenate(products))


def own_shape(parts: Sequence[Listed]) -> dict[str, float]:
    """Return what can be said of one clip without any reference: how sure the provider's model was.

    Args:
        parts: Scores of each segment.

    Returns:
        Name to value; NaN where there is nothing.
    """
    said = np.concatenate([scores.logprobs for scores in parts])
    entropy = np.concatenate([scores.entropy for scores in parts])
    chosen = np.concatenate([scores.chosen for scores in parts])
    gaps = said[:, 0] - said[:, min(1, said.shape[1] - 1)]
    return {
        "own_chosen_mean": _mean(chosen),
        "own_entropy_mean": _mean(entropy),
        "own_unsure_share": _mean((entropy > UNSURE_NATS).astype(np.float64)),
        **_quantiles("own_entropy", np.log(entropy + 1e-6)),
        **_quantiles("own_gap", gaps),
        **_quantiles("own_depth", said[:, 0] - said[:, -1]),
        **_quantiles("own_last", said[:, -1]),
        "own_float16_share": _bits_share(said, 13),
        "own_bfloat16_share": _bits_share(said, 16),
    }


def _quantiles(name: str, values: Floats) -> dict[str, float]:
    known = values[~np.isnan(values)]
    found = np.quantile(known, (0.1, 0.5, 0.9)) if known.size else np.full(3, np.nan)
    return {f"{name}_q{q}": float(value) for q, value in zip((10, 50, 90), found, strict=True)}


def _bits_share(values: Floats, bits: int) -> float:
    """Return the share of float32 numbers whose lowest bits are 0: float16 keeps 10 bits of 23, bfloat16 7."""
    raw = values[~np.isnan(values)].astype(np.float32).view(np.uint32)
    return float(np.mean((raw & np.uint32((1 << bits) - 1)) == 0)) if raw.size else float("nan")


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _rms(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(np.sqrt(np.mean(known**2)) + FLOOR_NATS) if known.size else float("nan")
