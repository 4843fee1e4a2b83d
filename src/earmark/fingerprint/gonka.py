"""Gonka's comparison of an executor's and a validator's top log-probabilities, reproduced to compare with.

The rules stand as they are in use there, gaps included (docs/explanation/gonka.md shows what passes them and should
not). Nothing in earmark decides by them.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rule = Literal["legacy", "current", "policy"]
Result = Literal["Similarity", "DifferentLength", "DifferentTokens", "Invalid:support", "Invalid:ceiling"]
Entry = tuple[Hashable, float]
Ids = NDArray[np.integer]
Floats = NDArray[np.floating]

SENTINEL = -9999.0
"""What stands where a log-probability is missing or minus infinity."""
EPSILON = 1e-6
LEAST_POSITIONS = 100
"""Shorter outputs are divided by this number, which is why they pass."""
WORST = 0.5
"""The largest distance of a position, and what a number that is not finite counts."""


class Position(NamedTuple):
    """One position of a response: the chosen token, its log-probability, and the listed tokens with theirs."""

    token: Hashable
    logprob: float
    top: Sequence[Entry]


class Outcome(NamedTuple):
    """What a rule says: the reason why similarity is 0, or `Similarity`, and the similarity."""

    result: Result
    similarity: float

    def passes(self, threshold: float) -> bool:
        """Tell whether the similarity is above a threshold; one that equals it fails."""
        return self.similarity > threshold


def term(one: float, other: float) -> float:
    """Return |a - b| / (1e-6 + |a| + |b|) / 2, always below 0.5; NaN where infinities meet.

    Example:
        >>> round(term(-0.0001, -0.0002), 3)  # a token that is certain either way
        0.166
    """
    # one rounding after the other, as in the source
    scale = EPSILON + abs(one) + abs(other)
    return abs(one - other) / scale / 2.0


def position_terms(executor: Sequence[Entry], validator: Sequence[Entry]) -> list[float]:
    """Return the term of every validator token; one that the executor does not list is extrapolated.

    Args:
        executor: Listed tokens with log-probabilities.
        validator: The same of the validator.

    Returns:
        One term per validator entry, duplicates included.

    Raises:
        ValueError: A list is empty; similarity is 0 then.
    """
    if not executor or not validator:
        raise ValueError("an empty list of top log-probabilities")
    known = dict(executor)
    lowest = sorted(known.values())[:2]
    first = lowest[0]
    second = lowest[1] if len(lowest) == 2 else first - 100.0
    missing = first - (second - first)
    return [term(value, known.get(token, missing)) for token, value in validator]


def _legacy_distance(executor: Sequence[Position], validator: Sequence[Position]) -> float:
    terms = [t for o, v in zip(executor, validator, strict=False) for t in position_terms(o.top, v.top)]
    total = sum(t for t in terms if not math.isnan(t))
    return total / (max(LEAST_POSITIONS, len(executor)) * len(executor[0].top))


def _position_distance(executor: Position, validator: Position) -> float:
    terms = position_terms(executor.top[: len(validator.top)], validator.top)
    return sum(t if math.isfinite(t) else WORST for t in terms) / len(terms)


def position_distances(executor: Sequence[Position], validator: Sequence[Position]) -> list[float]:
    """Return the distance of every executor position, 0 to 0.5, as the current rule has it."""
    return [_position_distance(o, v) for o, v in zip(executor, validator, strict=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """What of a request decides how many positions may lack support."""

    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    @property
    def narrow(self) -> bool:
        """Whether the sampler leaves few candidates.

        Example:
            >>> Sampler(top_k=40, top_p=0.95).narrow, Sampler(top_k=20).narrow
            (False, True)
        """
        return 0 < self.top_k < 40 or self.top_p < 0.95 or self.min_p > 0


def support_budget(positions: int, *, narrow: bool) -> int:
    """Return how many positions may have a chosen token that the validator excludes.

    Example:
        >>> support_budget(40, narrow=False), support_budget(40, narrow=True)
        (2, 20)
    """
    return -(-positions // 2) if narrow else max(1, -(-3 * positions // 100))


def ceiling_budget(positions: int, *, processed: bool) -> int:
    """Return how many positions may lie beyond a distance of 0.30.

    Example:
        >>> ceiling_budget(100, processed=False), ceiling_budget(100, processed=True)
        (2, 3)
    """
    return max(3 if processed else 0, 2 * positions // 100)


def compare(
    executor: Sequence[Position],
    validator: Sequence[Position],
    rule: Rule = "current",
    *,
    processed: bool = False,
    sampler: Sampler | None = None,
    enforce: bool = True,
) -> Outcome:
    """Compare two responses by one of Gonka's rules.

    Args:
        executor: What the provider reported.
        validator: What the validator's replay of the same tokens reported; what goes beyond is ignored.
        rule: `legacy` (to v0.2.13), `current`, or `policy` (with checks of short outputs).
        processed: Whether the log-probabilities are those after sampling rules; for `policy`.
        sampler: The request's sampler; for `policy`.
        enforce: Whether the checks of `policy` decide; else they are only logged.

    Returns:
        The outcome; similarity 0 where lengths or tokens differ, or a list is empty.

    Source: gonka common/validation; see docs/explanation/gonka.md.

    Example:
        >>> a = [Position("a", -0.1, [("a", -0.1), ("b", -2.0)])]
        >>> b = [Position("a", -0.2, [("a", -0.2), ("b", -2.0)])]
        >>> round(compare(a, b).similarity, 6)
        0.999167
    """
    if len(validator) < len(executor):
        return Outcome("DifferentLength", 0.0)
    if any(o.token != v.token for o, v in zip(executor, validator, strict=False)):
        return Outcome("DifferentTokens", 0.0)
    try:
        if not executor:
            raise ValueError("no positions")
        if rule == "legacy":
            return _similarity(_legacy_distance(executor, validator))
        distances = position_distances(executor, validator)
    except ValueError:
        return Outcome("Similarity", 0.0)
    if rule == "current":
        return _similarity(sum(distances) / max(LEAST_POSITIONS, len(distances)))
    excluded = sum(v.logprob <= SENTINEL for v in validator[: len(distances)]) if processed else 0
    broken = _broken_check(distances, excluded, processed=processed, sampler=sampler or Sampler()) if enforce else None
    return Outcome(broken, 0.0) if broken else _similarity(_policy_distance(distances))


def _broken_check(distances: Sequence[float], excluded: int, *, processed: bool, sampler: Sampler) -> Result | None:
    count = len(distances)
    if excluded > support_budget(count, narrow=sampler.narrow):
        return "Invalid:support"
    if sum(d > 0.30 for d in distances) > ceiling_budget(count, processed=processed):
        return "Invalid:ceiling"
    return None


def _policy_distance(distances: Sequence[float]) -> float:
    count, total = len(distances), sum(distances)
    return max(total / count - 0.10 / math.sqrt(count), total / max(LEAST_POSITIONS, count))


def _similarity(distance: float) -> Outcome:
    value = 1.0 - distance
    return Outcome("Similarity", max(0.0, value) if math.isfinite(value) else 0.0)


def current_distance(
    executor_ids: Ids, executor_logprobs: Floats, validator_ids: Ids, validator_logprobs: Floats, k: int = 5
) -> float:
    """Return 1 - similarity of the current rule, from arrays.

    Args:
        executor_ids: Listed tokens, (positions, k or more).
        executor_logprobs: Their log-probabilities in nats; NaN where censored.
        validator_ids: The validator's most probable tokens, (positions, k or more).
        validator_logprobs: Their log-probabilities.
        k: Entries of a list that count.

    Returns:
        The distance, at most 1.

    Example:
        >>> import numpy as np
        >>> ids, o, r = np.array([[7, 9]]), np.array([[-0.1, -2.0]]), np.array([[-0.2, -2.0]])
        >>> round(current_distance(ids, o, ids, r), 6)
        0.000833
    """
    executor, validator = (
        [
            Position(None, 0.0, [(i, SENTINEL if math.isnan(v) else v) for i, v in zip(*row, strict=True)])
            for row in zip(ids[:, :k].tolist(), values[:, :k].tolist(), strict=True)
        ]
        for ids, values in ((executor_ids, executor_logprobs), (validator_ids, validator_logprobs))
    )
    return 1.0 - compare(executor, validator).similarity


def mae_distance(executor: Sequence[Position], validator: Sequence[Position]) -> float:
    """Return the mean absolute difference over the executor's tokens; a missing one counts 10, so does a length.

    Source: an early rule of the same network.
    """
    if len(executor) != len(validator):
        return 10.0
    terms = []
    for o, v in zip(executor, validator, strict=True):
        known = dict(v.top)
        terms += [abs(value - known[token]) if token in known else 10.0 for token, value in o.top]
    return sum(terms) / len(terms)


def older_distance(executor: Sequence[Position], validator: Sequence[Position]) -> float:
    """Return (S + 1) / (max(100, N) k + 1), with S over the executor's tokens; 10 where lengths differ.

    Source: an early rule of the same network: epsilon 1e-10, a missing token at 5 below the validator's lowest.
    """
    if len(executor) != len(validator):
        return 10.0
    total = 0.0
    for o, v in zip(executor, validator, strict=True):
        known = dict(v.top)
        missing = min(known.values()) - 5.0
        for token, value in o.top:
            other = known.get(token, missing)
            total += abs(value - other) / (1e-10 + abs(value) + abs(other)) / 2.0
    return (total + 1.0) / (max(LEAST_POSITIONS, len(executor)) * len(executor[0].top) + 1.0)


# The sequential test on passed and failed validations


def log_ratio(p1: float, p0: float, *, failed: bool) -> float:
    """Return the increment of the log-likelihood ratio; 0 where an argument of a logarithm is degenerate.

    Example:
        >>> round(log_ratio(0.2, 0.1, failed=True), 6), log_ratio(1.0, 0.1, failed=False)
        (0.693147, 0.0)
    """
    above, below = (p1, p0) if failed else (1.0 - p1, 1.0 - p0)
    return math.log(above / below) if above > 0 and below > 0 else 0.0


def sprt_status(
    passes: int,
    failures: int,
    *,
    consecutive: int = 0,
    p0: float = 0.05,
    p1: float = 0.10,
    bound: float = 4.0,
    quick_cut: float = 1e-6,
) -> str:
    """Return what the network's test says of an executor; passes of the past are banked without limit.

    Args:
        passes: Validations that passed.
        failures: Validations that failed.
        consecutive: Failures in a row.
        p0: Failure rate of an honest executor.
        p1: Failure rate of a cheat.
        bound: Log-likelihood ratio at which an executor is invalid.
        quick_cut: Failures in a row that are less likely than this make it invalid at once.

    Returns:
        `ACTIVE`, `INVALID statistical_invalidations` or `INVALID consecutive_failures`.

    Example:
        >>> sprt_status(95, 5), sprt_status(7, 7)
        ('ACTIVE', 'INVALID statistical_invalidations')
    """
    if consecutive and p0**consecutive < quick_cut:
        return "INVALID consecutive_failures"
    ratio = failures * log_ratio(p1, p0, failed=True) + passes * log_ratio(p1, p0, failed=False)
    return "INVALID statistical_invalidations" if ratio >= bound else "ACTIVE"
