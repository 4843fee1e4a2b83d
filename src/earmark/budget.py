"""A budget of the verifier: only a share of the segments is replayed, and the verdict says which.

Which segments, nobody can know before the evidence is in the verifier's hands: they follow from a secret of the
verifier and the digest of the evidence. Rules that need no replay are checked for all of them.
"""

from __future__ import annotations

import hashlib
import math
import random
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from earmark.errors import UsageError
from earmark.records.verdict import note, unclear
from earmark.rules import Work

LEAST_SECRET = 16
"""Bytes below which a secret can be guessed."""
EXAMPLE_SHARE = 0.1
"""Share of cheated segments for which a verdict states the power of its choice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much is replayed.

    Attributes:
        share: Expected share of the segments, above 0 and at most 1.
        least: Segments of each clip that are replayed in any case; with 0 whole clips may be left out.
        secret: What chooses them; random by default. One that is kept repeats the choice.

    Raises:
        UsageError: A value is outside its range.

    Example:
        >>> Budget(share=0.0)
        Traceback (most recent call last):
        ...
        earmark.errors.UsageError: a budget of 0; expected a share of the segments, above 0 and at most 1
    """

    share: float
    least: int = 0
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.share <= 1:
            raise UsageError(f"a budget of {self.share:g}; expected a share of the segments, above 0 and at most 1")
        if self.least < 0 or len(self.secret) < LEAST_SECRET:
            expected = f"0 or more, and {LEAST_SECRET} bytes or more"
            raise UsageError(f"a budget with least {self.least} and a secret of {len(self.secret)} bytes; {expected}")


def choose(budget: Budget, evidence: str, segments: int) -> tuple[int, ...]:
    """Return the numbers of the segments of a clip that are replayed, rising.

    Args:
        budget: The budget.
        evidence: Digest of the evidence.
        segments: How many segments the clip has.

    Example:
        >>> choose(Budget(share=0.25, secret=bytes(16)), "e3b0", 8)
        (2, 4)
    """
    seed = hashlib.sha256(budget.secret + evidence.encode()).digest()
    drawn = random.Random(seed)  # noqa: S311 - the seed is secret
    wanted = budget.share * segments
    count = math.floor(wanted) + (drawn.random() < wanted - math.floor(wanted))
    return tuple(sorted(drawn.sample(range(segments), min(segments, max(count, budget.least)))))


def power(segments: int, checked: int, cheated: int) -> float:
    """Return the probability that a cheat is among the segments that were checked.

    Args:
        segments: Segments of the clip.
        checked: How many were replayed.
        cheated: On how many of them the provider cheated.

    Source: the hypergeometric distribution, P(0 of `checked` draws without replacement hits one of `cheated`).

    Example:
        >>> power(12, 3, 1), power(12, 3, 12)
        (0.25, 1.0)
    """
    return 1.0 - math.comb(segments - cheated, checked) / math.comb(segments, checked)


def spend(works: Sequence[Work], budget: Budget) -> None:
    """Leave in each open case what is replayed, and say in its findings what is not.

    Args:
        works: Cases behind their rules.
        budget: The budget.
    """
    if budget.share >= 1:
        return
    for work in works:
        if work.open and work.evidence is not None:
            _limit(work, choose(budget, work.evidence.digest(), len(work.inputs)), budget)


def _limit(work: Work, places: Sequence[int], budget: Budget) -> None:
    segments = len(work.inputs)
    if not places:
        found = f"none of {segments} segments replayed, by a budget of {budget.share:g}"
        work.findings.append(unclear("budget.skipped", "verifier", found, "a replay behind every PASS"))
        return
    work.inputs, work.traces = [work.inputs[i] for i in places], [work.traces[i] for i in places]
    if len(places) < segments:
        cheated = math.ceil(EXAMPLE_SHARE * segments)
        found = f"{len(places)} of {segments} segments replayed, numbers {', '.join(map(str, places))}"
        chance = f"{power(segments, len(places), cheated):.0%}"
        expected = f"all; a cheat on {cheated} of them would be among these with probability {chance}"
        work.findings.append(note("budget.partial", found, expected, "verifier"))
