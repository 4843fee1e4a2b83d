"""A budget of the verifier: only a share of the segments is replayed, and the verdict says which.

Which segments, nobody can know before the evidence is in the verifier's hands: they follow from a secret of the
verifier and the digest of the evidence. Rules that need no replay are checked for all of them. Where evidence holds a
sketch, the encoder can be run over the others as well, up to a depth (`earmark.probing`).
"""

from __future__ import annotations

import hashlib
import math
import random
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from earmark.errors import UsageError
from earmark.records.profile import Power
from earmark.records.verdict import note, unclear
from earmark.rules import Work

LEAST_SECRET = 16
"""Bytes below which a secret can be guessed."""
EXAMPLE_SHARE = 0.1
"""Share of cheated segments for which a verdict states the power of its choice."""
TOTALS: Mapping[Literal["segments", "clips"], int] = {"segments": 60, "clips": 100}
"""For which a profile states the power of a budget: half an hour in pieces of 30 s, and a small audit."""
SHARES = (0.1, 0.25, 0.5)
"""Budgets for which it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How much is replayed.

    Attributes:
        share: Expected share of the segments, above 0 and at most 1.
        least: Segments of each clip that are replayed in any case; with 0 whole clips may be left out. With `whole`, a
            clip that is whole by `least` alone says so (`budget.undrawn`), and bets nothing in an audit.
        whole: Draw clips instead of segments: each is replayed whole with the probability `share`, else `least`
            segments of it.
        depth: Layers of the encoder that are run over the segments that are left out, to compare what evidence with a
            sketch shows of these layers; None for none. No token is looked at, so it never leads to a PASS.
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
    whole: bool = False
    depth: int | None = None
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.share <= 1:
            raise UsageError(f"a budget of {self.share:g}; expected a share of the segments, above 0 and at most 1")
        if self.least < 0 or len(self.secret) < LEAST_SECRET:
            expected = f"0 or more, and {LEAST_SECRET} bytes or more"
            raise UsageError(f"a budget with least {self.least} and a secret of {len(self.secret)} bytes; {expected}")
        if self.depth is not None and self.depth < 1:
            raise UsageError(f"a budget with a depth of {self.depth}; expected 1 or more layers, or None")


def check_seed(seed: str, what: str) -> bytes:
    """Return the bytes of a seed that nobody can guess.

    Args:
        seed: The verifier's secret.
        what: What it draws, for the message.

    Raises:
        UsageError: It is too short.

    Example:
        >>> len(check_seed("sixteen letters or more", "a budget"))
        23
    """
    secret = seed.encode("utf-8", "surrogateescape")
    if len(secret) < LEAST_SECRET:
        expected = f"{LEAST_SECRET} or more, or a provider could foresee what is drawn: give --seed, and keep it"
        raise UsageError(f"{what} with a seed of {len(secret)} bytes; expected {expected}")
    return secret


def from_seed(seed: str, share: float, least: int = 0, depth: int | None = None) -> Budget:
    """Return the budget of an audit: it draws whole clips, and the same ones after a restart.

    Args:
        seed: The verifier's secret.
        share: Share of the clips that is replayed whole.
        least: Segments of each of the others that are replayed.
        depth: Layers of the encoder that are run over what is left out; see `Budget`.

    Raises:
        UsageError: The seed could be guessed, or a value is outside its range.

    Example:
        >>> budget = from_seed("sixteen letters or more", 0.5)
        >>> choose(budget, "e3b0", 3), choose(budget, "a1c4", 3)
        ((0, 1, 2), ())
    """
    given = check_seed(seed, "a budget") if share < 1 else b""
    secret = hashlib.sha256(b"earmark/budget\0" + given).digest()
    return Budget(share=share, least=least, whole=True, depth=depth, secret=secret)


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
    drawn = _source(budget, evidence)
    wanted = budget.share * segments
    if budget.whole:
        count = segments * (drawn.random() < budget.share)
    else:
        count = math.floor(wanted) + (drawn.random() < wanted - math.floor(wanted))
    return tuple(sorted(drawn.sample(range(segments), min(segments, max(count, budget.least)))))


def draws(budget: Budget, evidence: str) -> bool:
    """Say whether a budget of whole clips drew this one; of the others `least` segments are replayed.

    Args:
        budget: The budget.
        evidence: Digest of the evidence.

    Example:
        >>> budget = from_seed("sixteen letters or more", 0.5, least=3)
        >>> choose(budget, "e3b0", 3) == choose(budget, "a1c4", 3), draws(budget, "e3b0"), draws(budget, "a1c4")
        (True, True, False)
    """
    return _source(budget, evidence).random() < budget.share


def _source(budget: Budget, evidence: str) -> random.Random:
    """Return what chooses within a clip; the first number of it draws the clip."""
    seed = hashlib.sha256(budget.secret + evidence.encode()).digest()
    return random.Random(seed)  # noqa: S311 - the seed is secret


def power(segments: int, checked: int, cheated: int, found: float = 1.0) -> float:
    """Return the probability that a cheat is found among the segments that were checked.

    Args:
        segments: Segments of the clip.
        checked: How many were replayed.
        cheated: On how many of them the provider cheated.
        found: Probability that a cheat stands out where it is replayed.

    Source: 1 - E (1 - found)^H, with H hits among `checked` draws without replacement (hypergeometric distribution).

    Example:
        >>> power(12, 3, 1), power(12, 3, 12), power(12, 3, 12, found=0.5)
        (0.25, 1.0, 0.875)
    """
    every = math.comb(segments, checked)
    missed = (
        math.comb(cheated, hits) * math.comb(segments - cheated, checked - hits) / every * (1.0 - found) ** hits
        for hits in range(min(cheated, checked) + 1)
    )
    return 1.0 - math.fsum(missed)


def powers(found: Mapping[str, float]) -> tuple[Power, ...]:
    """Return what budgets find of each provider: a tenth, a quarter and a half, of segments and of clips.

    Args:
        found: Provider to the share of its clips that stand out when they are replayed whole.

    Returns:
        Rows of a table, with a cheat on a tenth and on all of the segments or clips.

    Example:
        >>> row = powers({"int8": 0.9})[0]
        >>> row.unit, row.total, row.share, row.cheated, round(row.power, 3)
        ('segments', 60, 0.1, 0.1, 0.445)
    """
    return tuple(
        Power(
            provider=name,
            found=rate,
            unit=unit,
            total=total,
            share=share,
            cheated=cheated,
            power=power(total, round(share * total), round(cheated * total), rate),
        )
        for name, rate in found.items()
        for unit, total in TOTALS.items()
        for share in SHARES
        for cheated in (EXAMPLE_SHARE, 1.0)
    )


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
            _limit(work, work.evidence.digest(), budget)


def _limit(work: Work, evidence: str, budget: Budget) -> None:
    segments = len(work.inputs)
    places = choose(budget, evidence, segments)
    work.left = [(work.inputs[i], work.traces[i]) for i in range(segments) if i not in places]
    if not places:
        found = f"none of {segments} segments replayed, by a budget of {budget.share:g}"
        work.findings.append(unclear("budget.skipped", "verifier", found, "a replay behind every PASS"))
        return
    work.inputs, work.traces = [work.inputs[i] for i in places], [work.traces[i] for i in places]
    if len(places) < segments:
        work.part = True
        cheated = math.ceil(EXAMPLE_SHARE * segments)
        found = f"{len(places)} of {segments} segments replayed, numbers {', '.join(map(str, places))}"
        chance = f"{power(segments, len(places), cheated):.0%}"
        expected = f"all; a cheat on {cheated} of them would be among these with probability {chance}"
        work.findings.append(note("budget.partial", found, expected, "verifier"))
    elif budget.whole and not draws(budget, evidence):
        found = f"all {segments} segments replayed by a least of {budget.least}, in a clip that was not drawn"
        work.findings.append(note("budget.undrawn", found, "a clip that was drawn, for an audit to bet on", "verifier"))
