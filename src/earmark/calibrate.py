"""Calibration: from honest runs over many clips to a profile with a rate that it can promise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
from numpy.typing import NDArray

from earmark.attribution import recipes_of
from earmark.budget import powers
from earmark.decision.betting import TOLERANCE, check_tolerance
from earmark.decision.conformal import clips_needed, conformal_p, promised_rate
from earmark.decision.score import Scale, fit_scale
from earmark.errors import UsageError
from earmark.fingerprint.matched import along_names, matched_names
from earmark.fingerprint.types import FINGERPRINT_VERSION
from earmark.limits import DEFAULT_K
from earmark.profiles import Profile, provenance
from earmark.protocols import Family
from earmark.records.profile import LEAST_POSITIONS, MOST_RECIPES, Header, HeldOut
from earmark.runs import Row, Run
from earmark.splits import Shares, Split, counted, one_each, split_bases

LEAST_DEVELOPMENT = 20
"""Fewest clips on which a scale is fitted."""


def channels_of(family: Family, *, slack: float = math.inf) -> tuple[str, ...]:
    """Return the statistics of a family that take part in the score: its `channels`, or all where it names none.

    Without slack honest noise is what the thresholds are made of, and only steady statistics score: those whose honest
    size does not depend on what is said. The others would accuse an honest provider of audio in which the model is
    more in doubt than it was in the calibration's.

    Args:
        family: The family.
        slack: The profile's; 1 for none.

    Example:
        >>> from earmark.registry import registry
        >>> ctc = registry("family").get("ctc")
        >>> [name for name in channels_of(ctc) if name not in channels_of(ctc, slack=1)][:3]
        ['prob_l1', 'loglik_distance_frame', 'path_distance']
    """
    steady = {statistic.name: statistic.steady for statistic in family.statistics}
    names = tuple(getattr(family, "channels", steady))
    return tuple(name for name in names if slack > 1 or steady.get(name, True))


def clips_in_all(rate: float | None, channels: int = 0, shares: Shares | None = None) -> int:
    """Return the fewest clips of which enough fit a scale, and enough calibrate for a rate.

    Args:
        rate: The rate, or None for any.
        channels: How many statistics take part in the score.
        shares: Sizes of the parts.

    Raises:
        UsageError: The rate is not between 0 and 1.

    Example:
        >>> clips_in_all(None), clips_in_all(1e-3)
        (137, 2330)
    """
    sizes, fitting = shares or Shares(), max(LEAST_DEVELOPMENT, channels)
    promising = 1 if rate is None else clips_needed(rate)

    def enough(clips: int) -> bool:
        return round(sizes.development * clips) >= fitting and round(sizes.conformal * clips) >= promising

    least = max((fitting - 1) / sizes.development, (promising - 1) / sizes.conformal)
    return next(clips for clips in count(int(least)) if enough(clips))


def calibrate(
    run: Run,
    channels: Sequence[str],
    *,
    rate: float | None = None,
    tolerance: float = TOLERANCE,
    least_positions: int = LEAST_POSITIONS,
    shares: Shares | None = None,
    k: int = DEFAULT_K,
    source: str = "",
    facts: Mapping[str, str] | None = None,
    recipes: Sequence[str] = (),
    slack: float = 1.0,
    limits: Mapping[str, float] | None = None,
) -> Profile:
    """Make a profile from the honest rows of a run.

    The scale is fitted on the development clips under every honest scenario. A calibration clip counts once, with the
    largest score of its scenarios. A held-out clip is tested under one scenario, in turn. Clips that stayed undecided
    count nowhere, as in an audit: what is promised is the rate among clips that are decided.

    Args:
        run: Rows of one model, precision and level; see `earmark.study`. Of dishonest rows, where there are some, the
            profile states what budgets find.
        channels: Statistics that may take part, in the family's fixed order. One that applies to no development clip
            takes none: nothing is known of its honest values.
        rate: False-alarm rate of one clip; by default the smallest that the clips can promise, at least 1e-3.
        tolerance: Declared drift in audits.
        least_positions: Fewest positions of a clip that may PASS.
        shares: Sizes of the three parts.
        k: Listed tokens per position of the evidence.
        source: Where the clips came from, for people.
        facts: What else the provenance holds, such as the command.
        recipes: Known cheats whose direction takes part in the score, at most three; the rows were measured with them.
        slack: Factor by which other honest machines may differ beyond the largest value here; see `fit_scale`.
        limits: Most that the slack may allow, by channel: what is too much whatever the clips say.

    Returns:
        The profile.

    Raises:
        UsageError: The run mixes models, has no honest rows, or too few clips for the rate; a rate or tolerance is out
            of range.
    """
    check_tolerance(tolerance)
    matched = _matched(recipes)
    channels = (*channels, *matched)
    honest = [row for row in run if row.honest]
    first = _one_kind(honest, run)
    _check_matched(honest, matched)
    bases = {row.base for row in honest}
    split = split_bases([*bases], shares)
    rows = counted(honest, matched)
    undecided = len(bases) - len({row.base for row in rows})
    development = Run(row for row in rows if row.base in split.development)
    fitted, needed = len({row.base for row in development}), max(LEAST_DEVELOPMENT, len(channels))
    if fitted < needed:
        left = f", {undecided} of {len(bases)} clips being undecided" if undecided else ""
        whole = f"give {clips_in_all(rate, len(channels), shares)} decided clips in all"
        raise UsageError(f"{fitted} development clips{left}; {needed} or more are needed to fit the scale: {whole}")
    channels = [name for name in channels if np.isfinite(development.matrix([name])).any()]
    scale = fit_scale(channels, development.matrix(channels), linear=along_names(recipes), slack=slack, limits=limits)
    scores = _largest(rows, split.conformal, scale)
    promised = _rate(rate, scores)
    return Profile(
        header=Header(
            model=first.model,
            weights=first.weights,
            family=first.family,
            precision=first.precision,  # type: ignore[arg-type]  # checked by the struct when it is read back
            strategy="greedy",
            level=first.level,  # type: ignore[arg-type]
            k=k,
            fingerprint_version=FINGERPRINT_VERSION,
            channels=tuple(channels),
            floor=scale.floor,
            median=scale.median,
            width=scale.width,
            least=scale.least,
            rate=promised,
            tolerance=tolerance,
            least_positions=least_positions,
            development=fitted,
            held_out=_test(rows, split.held_out, scale, scores, promised),
            scenarios=tuple(Run(honest).scenarios()),
            recipes=tuple(recipes),
            seconds=_lengths(rows, split) if slack == 1 else None,
            positions=_positions(rows, split) if slack == 1 else 0,
            power=powers(_found([row for row in run if not row.honest], split, scale, scores, promised)),
            provenance=provenance(
                source=source, clips=len(bases), undecided=undecided, slack=f"{slack:g}", **(facts or {})
            ),
        ),
        scores=np.sort(scores),
    )


def _lengths(rows: Sequence[Row], split: Split) -> tuple[float, float] | None:
    """Return the shortest and the longest clip of the calibration; None where the rows do not say."""
    found = [row.seconds for row in rows if row.base not in split.held_out]
    return (min(found), max(found)) if min(found) > 0 else None


def _positions(rows: Sequence[Row], split: Split) -> int:
    """Return the fewest positions of a decided clip of the calibration."""
    return min((row.positions for row in rows if row.base not in split.held_out and row.statistics), default=0)


def _one_kind(rows: Sequence[Row], run: Sequence[Row]) -> Row:
    if not rows:
        raise UsageError("the run holds no honest rows; calibration needs honest scenarios")
    kinds = {(row.model, row.weights, row.precision, row.level) for row in run}
    if len(kinds) > 1:
        shown = ", ".join(f"{model} {precision} {level}" for model, _, precision, level in sorted(kinds)[:4])
        raise UsageError(f"the run mixes {shown}; a profile belongs to one model, precision and level")
    return rows[0]


def _matched(recipes: Sequence[str]) -> tuple[str, ...]:
    if len(recipes) > MOST_RECIPES:
        raise UsageError(f"{len(recipes)} recipes; expected {MOST_RECIPES} at most")
    return matched_names([recipe.name for recipe in recipes_of(recipes)])


def _check_matched(rows: Sequence[Row], matched: Sequence[str]) -> None:
    """Refuse rows that were not measured with the recipes: a channel fitted to nothing would accuse at random."""
    for name in matched:
        if missing := [row.clip for row in rows if row.statistics and name not in row.statistics]:
            found = f"{len(missing)} honest rows without {name}, of clip {missing[0]!r} first"
            raise UsageError(f"{found}; expected rows that were all measured with this recipe")
        if not np.isfinite(Run(rows).matrix([name])).any():
            raise UsageError(f"{name} applies to no clip; leave this recipe out")


def _rate(asked: float | None, scores: NDArray[np.float64]) -> float:
    possible, broken = promised_rate(scores), int(np.isposinf(scores).sum())
    if asked is None:
        return max(1e-3, possible)
    needed = clips_needed(asked)  # raises out of range
    if asked < possible * (1 - 1e-9):
        message = f"a rate of {asked:g} needs {needed} calibration clips; there are {len(scores)}"
        broke = f", of which {broken} broke a rule" if broken else ""
        allowed = f"which allow {possible:.4g}: give more clips, or --rate {rounded_up(possible):g}"
        raise UsageError(f"{message}{broke}, {allowed}")
    return asked


def rounded_up(rate: float) -> float:
    """Return a rate with two digits that is no smaller.

    Example:
        >>> rounded_up(1 / 66), rounded_up(0.02), rounded_up(1 / 1030)
        (0.016, 0.02, 0.00098)
    """
    places = 1 - math.floor(math.log10(rate))
    return math.ceil(rate * 10.0**places - 1e-9) / 10.0**places


def _largest(rows: Sequence[Row], bases: frozenset[str], scale: Scale) -> NDArray[np.float64]:
    """Return the largest score of each base clip over its rows; a clip that broke a rule scores infinity."""
    best: dict[str, float] = {}
    chosen = [row for row in rows if row.base in bases]
    for row, score in zip(chosen, _scores(chosen, scale), strict=True):
        if not math.isnan(score):
            best[row.base] = max(best.get(row.base, -np.inf), float(score))
    return np.asarray([best[base] for base in sorted(best)])


def _scores(rows: Sequence[Row], scale: Scale) -> NDArray[np.float64]:
    """Return S per row; infinity where a rule was broken, NaN where nothing applied."""
    if not rows:
        return np.empty(0)
    scores = scale.scores(Run(rows).matrix(scale.channels))
    failed = np.asarray([row.outcome == "FAIL" for row in rows])
    return np.where(failed, np.inf, scores)


def _test(
    rows: Sequence[Row],
    bases: frozenset[str],
    scale: Scale,
    calibration: NDArray[np.float64],
    rate: float,
) -> HeldOut:
    """Count false alarms on held-out clips that are decided, one row of each."""
    scores = _scores(one_each(rows, bases), scale)
    scores = scores[~np.isnan(scores)]
    alarms = int((conformal_p(scores, calibration) <= rate).sum()) if len(scores) else 0
    broken = sum(bool(np.isposinf(score)) for score in scores)
    return HeldOut(clips=len(scores), alarms=max(alarms, broken))


def _found(
    rows: Sequence[Row], split: Split, scale: Scale, calibration: NDArray[np.float64], rate: float
) -> dict[str, float]:
    """Return the share of each cheat's clips that the profile FAILs, and `any` for one that is found everywhere."""
    kept = [_by_rules(row) for row in rows if row.base not in split.development]
    shares = {"any": 1.0}
    for name in Run(kept).scenarios():
        scores = _scores([row for row in kept if row.scenario == name], scale)
        shares[name] = float((conformal_p(scores, calibration) <= rate).mean())
    return shares


def _by_rules(row: Row) -> Row:
    """Return a row without what another profile, or bounds, said of its statistics."""
    return replace(row, outcome="PASS") if row.outcome == "FAIL" and not row.broke_a_rule else row
