"""Which clips calibrate, which are held out, and which rows of them count."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from earmark.runs import Row

OPEN = ("audio.", "positions.", "replay.", "request.")
"""How findings begin that keep honest clips open by the input's or the verifier's fault; others are the provider's."""
JUDGED = ("statistics.", "profile.")
"""How findings begin by which another profile, or bounds, judged the statistics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """How base clips are divided: `development` fits the scale, `conformal` calibrates, the rest is held out."""

    development: float = 1 / 7
    conformal: float = 3 / 7


@dataclass(frozen=True, slots=True)
class Split:
    """Base clips of each part; no clip is in two."""

    development: frozenset[str]
    conformal: frozenset[str]
    held_out: frozenset[str]


def split_bases(bases: Sequence[str], shares: Shares | None = None, *, seed: str = "earmark") -> Split:
    """Divide base clips at random, but the same way every time.

    Args:
        bases: Names of base clips; repeats count once.
        shares: Sizes of the parts.
        seed: Another word gives another division.

    Returns:
        The parts.

    Example:
        >>> split = split_bases([f"clip{i}" for i in range(70)])
        >>> len(split.development), len(split.conformal), len(split.held_out)
        (10, 30, 30)
    """
    sizes = shares or Shares()
    order = sorted(set(bases), key=lambda base: _digest(f"{seed}/{base}"))
    first = round(sizes.development * len(order))
    second = first + round(sizes.conformal * len(order))
    return Split(frozenset(order[:first]), frozenset(order[first:second]), frozenset(order[second:]))


def turns(bases: Collection[str], scenarios: Sequence[str]) -> dict[str, str]:
    """Return under which scenario each held-out clip is tested: one each, in turn.

    Args:
        bases: Names of the held-out base clips.
        scenarios: Names of the honest scenarios, in their order.

    Example:
        >>> turns(["b", "a", "c"], ["honest-batch-1", "honest-batch-3"])
        {'a': 'honest-batch-1', 'b': 'honest-batch-3', 'c': 'honest-batch-1'}
    """
    return {base: scenarios[i % len(scenarios)] for i, base in enumerate(sorted(bases))}


def one_each(rows: Iterable[Row], bases: Collection[str]) -> list[Row]:
    """Return one row of every base clip that was measured: its own scenarios in turn, whatever the order of the rows.

    Args:
        rows: Honest rows.
        bases: Names of the base clips to return, such as the held-out ones.

    Returns:
        The rows, by name of the base clip.

    Example:
        >>> from earmark.runs import Row
        >>> facts = {"model": "m", "weights": "", "family": "ctc", "precision": "fp32", "level": "sketch"}
        >>> said = {"honest": True, "outcome": "PASS"}
        >>> rows = [Row(clip=clip, base=clip, scenario=name, **facts, **said) for name in ("s", "t") for clip in "ab"]
        >>> [(row.base, row.scenario) for row in one_each(rows, ["a", "b"])]
        [('a', 's'), ('b', 't')]
    """
    measured: dict[str, list[Row]] = {}
    for row in rows:
        if row.base in bases:
            measured.setdefault(row.base, []).append(row)
    sorted_rows = [sorted(measured[base], key=lambda row: (row.scenario, row.clip)) for base in sorted(measured)]
    return [each[i % len(each)] for i, each in enumerate(sorted_rows)]


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()  # names of files may hold any bytes


def counted(rows: Iterable[Row], matched: Sequence[str] = ()) -> list[Row]:
    """Return honest rows as an audit counts them (`earmark.audit.score_of`), by rules alone: PASS, or FAIL.

    Args:
        rows: Rows, judged by anything.
        matched: Statistics of the recipes, without which a clip stays open.

    Returns:
        The rows without those that stay open by the input's or the verifier's fault; one that does so by the
        provider's counts as a broken rule.

    Example:
        >>> from earmark.runs import Row
        >>> facts = {"model": "m", "weights": "", "family": "ctc", "precision": "fp32", "level": "sketch"}
        >>> said = {"scenario": "s", "honest": True, "outcome": "INCONCLUSIVE"}
        >>> faint = Row(clip="a", base="a", findings=("audio.faint",), **facts, **said)
        >>> partly = replace(faint, clip="b", statistics={"logprob_l1": 1e-6})
        >>> censored = replace(partly, clip="c", findings=("trace.censored",))
        >>> [(row.clip, row.outcome) for row in counted([faint, partly, censored])]
        [('b', 'PASS'), ('c', 'FAIL')]
    """
    return [own for row in rows if (own := _counted(row, matched))]


def _counted(row: Row, matched: Sequence[str]) -> Row | None:
    if row.broke_a_rule:
        return row
    judged = (*JUDGED, "audio.faint") if row.statistics else JUDGED  # by the segments that are not faint
    left = [code for code in row.findings if not code.startswith(judged)]
    if not all(code.startswith(OPEN) for code in left):
        return replace(row, outcome="FAIL")
    if left or all(math.isnan(value) for value in row.statistics.values()):
        return None
    unmatched = any(math.isnan(row.statistics.get(name, math.nan)) for name in matched)
    return None if unmatched else replace(row, outcome="PASS")
