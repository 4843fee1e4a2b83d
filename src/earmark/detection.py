"""From a `Run` to figures of detection: who was accused, how surely, and how well scores tell honest from dishonest."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earmark.calibrate import channels_of
from earmark.decision.operating import area, clips_to_detect, exact_interval
from earmark.decision.score import Scale, fit_scale
from earmark.errors import UnknownNameError
from earmark.profiles import Profile, covers
from earmark.registry import registry
from earmark.runs import UNDECIDED, Row, Run
from earmark.splits import Shares, Split, split_bases

Floats = NDArray[np.float64]
FEW = 80
"""Below so many honest base clips, a seventh is too few to fit a scale on."""
FEW_SHARES = Shares(development=1 / 4, conformal=3 / 8)
Kind = tuple[str, str, str, str]
"""Model, weights, precision and level: what a scale belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """What was found of one provider.

    Attributes:
        model: Name of the reference.
        precision: Claimed precision.
        level: Level of the evidence.
        scenario: Name of the provider.
        honest: Whether it is honest; what is "detected" is then a false alarm.
        clips: Clips that were judged PASS or FAIL.
        undecided: Clips that stayed INCONCLUSIVE.
        detected: Clips that FAILed.
        detected_one_clip: Share of the judged clips that FAILed; NaN without any.
        ci_low: Lower end of its exact 95 % interval.
        ci_high: Upper end.
        clips_to_detect: Clips after which it is found with 95 %, each judged alone; None where it never was.
        auc: Area under the ROC curve of the score against honest clips; NaN where there are too few.
    """

    model: str
    precision: str
    level: str
    scenario: str
    honest: bool
    clips: int
    undecided: int
    detected: int
    detected_one_clip: float
    ci_low: float
    ci_high: float
    clips_to_detect: int | None
    auc: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """The rows of one model, precision and level with a score each.

    Attributes:
        kind: Model, weights, precision, level.
        rows: The rows.
        scores: S of each row, (rows,): infinite where a rule was broken, NaN where nothing can be said.
        split: Base clips that fitted the scale, that calibrate, and that are held out.
        scale: The scale; None where there are too few honest clips.
    """

    kind: Kind
    rows: Run
    scores: Floats
    split: Split
    scale: Scale | None

    def of(self, scenario: str) -> Floats:
        """Return the scores of one provider on clips that fitted nothing, in order."""
        return self.chosen(lambda row: row.scenario == scenario and row.base not in self.split.development)

    def honest(self) -> Floats:
        """Return the scores of all honest rows on clips that fitted nothing."""
        return self.chosen(lambda row: row.honest and row.base not in self.split.development)

    def chosen(self, keep: Callable[[Row], bool]) -> Floats:
        """Return the scores of the rows that `keep` accepts."""
        found: Floats = self.scores[np.asarray([keep(row) for row in self.rows], bool)]
        return found


def without_coinciding(run: Run, cheats: Collection[str]) -> Run:
    """Leave out the clips on which a cheat wrote what an honest provider wrote: nothing was gained there.

    The same words from another number of positions are other evidence, and stay: a PASS of them is a miss.

    Args:
        run: Rows.
        cheats: Names of the scenarios that cheat in what they write alone (`Scenario.only_text`).

    Returns:
        The other rows, in order.

    Example:
        >>> made = dict(base="a", model="m", weights="", family="ctc", precision="fp32", level="scores", outcome="PASS")
        >>> rows = [Row(clip="a", scenario="honest", honest=True, text="one", **made),
        ...         Row(clip="a", scenario="rescored", honest=False, text="one", **made)]
        >>> without_coinciding(Run(rows), {"rescored"}).scenarios()
        ['honest']
    """
    honest = {_written(row) for row in run if row.honest}
    return run.where(lambda row: row.scenario not in cheats or _written(row) not in honest)


def _written(row: Row) -> tuple[str, str, int]:
    return row.clip, row.text, row.positions


def kinds_of(run: Run) -> list[Kind]:
    """Return the kinds of a run in order of appearance."""
    return list(dict.fromkeys((row.model, row.weights, row.precision, row.level) for row in run))


def channels_in(rows: Run) -> tuple[str, ...]:
    """Return the statistics that a score is made of: the family's channels, or all where nobody knows the family."""
    present = dict.fromkeys(name for row in rows for name in row.statistics)
    families = {row.family for row in rows}
    try:
        known = channels_of(registry("family").get(families.pop())) if len(families) == 1 else ()
    except UnknownNameError:
        known = ()
    return tuple(name for name in known if name in present) or tuple(present)


def fitting(profiles: Sequence[Profile], kind: Kind) -> Profile | None:
    """Return the profile of these weights at this precision that judges this level, of the very level first."""
    _, weights, precision, level = kind
    headers = [(own, own.header) for own in profiles]
    fits = [own for own, h in headers if (h.weights, h.precision) == (weights, precision) and covers(h.level, level)]
    return min(fits, key=lambda own: own.header.level != level, default=None)


def score(run: Run, profiles: Sequence[Profile] = ()) -> list[Scored]:
    """Give every row of a run a score.

    A profile that fits the weights, precision and level gives the scale; else a seventh of the honest base clips does
    (a quarter where they are few), which then takes no part in any figure.

    Args:
        run: Rows of one or more kinds.
        profiles: Calibrated profiles; each judges the kinds that it fits.

    Returns:
        One part per kind.
    """
    return [
        _scored(kind, Run(row for row in run if _kind(row) == kind), fitting(profiles, kind)) for kind in kinds_of(run)
    ]


def _kind(row: Row) -> Kind:
    return row.model, row.weights, row.precision, row.level


def _scored(kind: Kind, rows: Run, profile: Profile | None) -> Scored:
    split, scale = _scale(rows, profile)
    values = np.full(len(rows), math.nan) if scale is None else scale.scores(rows.matrix(scale.channels))
    broken = np.asarray([row.broke_a_rule for row in rows], bool)
    return Scored(kind=kind, rows=rows, scores=np.where(broken, np.inf, values), split=split, scale=scale)


def _scale(rows: Run, profile: Profile | None) -> tuple[Split, Scale | None]:
    bases = [row.base for row in rows if row.honest]
    if profile is not None:
        return Split(frozenset(), frozenset(), frozenset(bases)), profile.scale
    split, channels = split_bases(bases, FEW_SHARES if len(set(bases)) < FEW else None), channels_in(rows)
    development = rows.where(lambda row: row.honest and row.base in split.development)
    values = development.matrix(channels)
    if not np.isfinite(values).any():
        return Split(frozenset(), frozenset(), frozenset(bases)), None
    return split, fit_scale(channels, values)


def judged(run: Run, profile: Profile) -> Run:
    """Judge rows that were measured before by a profile; rules that were broken and open questions stay what they are.

    Args:
        run: Rows of the profile's model, precision and level.
        profile: The profile.

    Returns:
        The rows in order, with the outcomes that `verify` gives under this profile; under one with slack, the fewest
        positions that a clip needs stay those of the day when it was measured.

    Raises:
        UsageError: Rows were measured without a statistic that the profile judges by.
    """
    return Run(_judged(row, profile) for row in run)


def _judged(row: Row, profile: Profile) -> Row:
    aside = tuple(code for code in row.findings if code in UNDECIDED)
    open_ = any(not code.startswith("statistics.") for code in row.findings if code not in aside)
    if row.broke_a_rule or open_ or not row.statistics:
        return row
    failed, undecided = _said(row, profile)
    outcome = "FAIL" if failed else "INCONCLUSIVE" if aside or undecided else "PASS"
    return replace(row, outcome=outcome, findings=(*aside, *failed, *undecided))


def _said(row: Row, profile: Profile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the findings of the statistics, those that FAIL the clip and those that keep it open."""
    p_value = profile.judge(row.statistics).p_value
    beyond = p_value <= profile.header.rate
    if not profile.header.promises(row.seconds):
        return _beyond(row, profile), ("statistics.length",) if beyond else ()
    if beyond and row.positions < profile.header.positions:
        return (), ("statistics.few",)
    if beyond:
        return ("statistics.profile",), ()
    if math.isnan(p_value):
        return (), ("statistics.none",)
    recipe = any(math.isnan(row.statistics[name]) for name in profile.header.matched)
    return (), ("statistics.recipe",) if recipe else ()


def _beyond(row: Row, profile: Profile) -> tuple[str, ...]:
    bounds = registry("family").get(row.family).provisional_bounds(profile.header.precision)
    return tuple(f"statistics.{name}" for name, bound in bounds.items() if row.statistics.get(name, 0.0) > bound)


def detections(run: Run, profiles: Sequence[Profile] = ()) -> list[Detection]:
    """Return one row per model, precision, level and provider, in order of appearance.

    Example:
        >>> made = dict(base="a", model="m", weights="", family="ctc", precision="fp32", level="scores")
        >>> rows = [Row(clip="a", scenario="honest", honest=True, outcome="PASS", **made),
        ...         Row(clip="a", scenario="int8", honest=False, outcome="FAIL", **made)]
        >>> [(d.scenario, d.detected, d.clips, d.clips_to_detect) for d in detections(Run(rows))]
        [('honest', 0, 1, None), ('int8', 1, 1, 1)]
    """
    return [detection(scored, scenario) for scored in score(run, profiles) for scenario in scored.rows.scenarios()]


def detection(scored: Scored, scenario: str) -> Detection:
    """Return the figures of one provider."""
    rows: Sequence[Row] = [row for row in scored.rows if row.scenario == scenario]
    judged = [row for row in rows if row.outcome != "INCONCLUSIVE"]
    found = sum(row.outcome == "FAIL" for row in judged)
    low, high = exact_interval(found, len(judged))
    model, _, precision, level = scored.kind
    return Detection(
        model=model,
        precision=precision,
        level=level,
        scenario=scenario,
        honest=rows[0].honest,
        clips=len(judged),
        undecided=len(rows) - len(judged),
        detected=found,
        detected_one_clip=found / len(judged) if judged else math.nan,
        ci_low=low,
        ci_high=high,
        clips_to_detect=clips_to_detect(found, len(judged)),
        auc=math.nan if rows[0].honest else area(scored.honest(), scored.of(scenario)),
    )


def accused(scored: Scored) -> tuple[int, int]:
    """Return on how many honest base clips there was any false alarm, and how many were judged."""
    alarms: dict[str, bool] = {}
    for row in scored.rows:
        if row.honest and row.outcome != "INCONCLUSIVE":
            alarms[row.base] = alarms.get(row.base, False) or row.outcome == "FAIL"
    return sum(alarms.values()), len(alarms)
