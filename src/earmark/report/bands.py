"""The honest band of every statistic against the dishonest ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from earmark.detection import Scored
from earmark.errors import UnknownNameError
from earmark.fingerprint.types import Statistic
from earmark.profiles import Profile
from earmark.registry import registry
from earmark.report.contents import Band, Spread
from earmark.runs import Run

Floats = NDArray[np.float64]
TINY = 1e-9
"""Values below count as this when they are compared by factors."""


def thresholds(scored: Scored, profile: Profile | None) -> tuple[dict[str, float], str]:
    """Return the value of each statistic beyond which a clip FAILs, and where these come from."""
    if profile is not None:
        return profile.limits(), f"profile {profile.name}"
    _, _, precision, _ = scored.kind
    family = {row.family for row in scored.rows}.pop()
    try:
        bounds = dict(registry("family").get(family).provisional_bounds(precision))
    except (UnknownNameError, KeyError):
        return {}, "none: nobody here knows the family"
    return bounds, "provisional bounds of the family; no guaranteed rate"


def bands(rows: Run, limit: Mapping[str, float]) -> tuple[Band, ...]:
    """Return every statistic that applied to some row: those with a threshold first, then by how far they separate."""
    names = list(dict.fromkeys(name for row in rows for name in row.statistics))
    if not names:
        return ()
    values, honest = rows.matrix(names), np.asarray([row.honest for row in rows], bool)
    clips = np.asarray([row.clip for row in rows], object)
    masks = {
        name: np.asarray([row.scenario == name for row in rows], bool)
        for name in dict.fromkeys(row.scenario for row in rows if not row.honest)
    }
    known = _statistics({row.family for row in rows})
    found = [
        Band(
            statistic=name,
            unit=known[name].unit if name in known else "",
            meaning=known[name].meaning if name in known else "",
            honest=spread(column[honest], clips[honest]),
            cheats={cheat: spread(column[mask], clips[mask]) for cheat, mask in masks.items()},
            threshold=limit.get(name),
        )
        for name, column in zip(names, values.T, strict=True)
        if not np.isnan(column).all()
    ]
    return tuple(sorted(found, key=lambda band: (band.threshold is not None, _separation(band)), reverse=True))


def spread(values: Floats, clips: NDArray[np.object_]) -> Spread:
    """Return where the finite values lie, and on how many clips there are infinite ones.

    Args:
        values: One per row, (rows,).
        clips: Name of each row's clip, (rows,).

    Example:
        >>> spread(np.array([1.0, 2.0, 9.0, np.nan, np.inf]), np.array(list("abcde"), object))
        Spread(count=3, least=1.0, median=2.0, most=9.0, infinite=1)
    """
    some, infinite = values[np.isfinite(values)], len(set(clips[np.isposinf(values)]))
    if not some.size:
        return Spread(count=0, least=math.nan, median=math.nan, most=math.nan, infinite=infinite)
    least, median, most = float(some.min()), float(np.median(some)), float(some.max())
    return Spread(count=int(some.size), least=least, median=median, most=most, infinite=infinite)


def _separation(band: Band) -> float:
    """Return by what factor the most conspicuous provider's median exceeds the largest honest value, as a logarithm."""
    cheats = [own for own in band.cheats.values() if own.count or own.infinite]
    medians = [math.inf if own.infinite > own.count else own.median for own in cheats]
    if not medians or not band.honest.count or band.honest.infinite:
        return -math.inf
    return math.log(max(*medians, TINY)) - math.log(max(band.honest.most, TINY))


def _statistics(families: set[str]) -> dict[str, Statistic]:
    found: dict[str, Statistic] = {}
    for family in sorted(families):
        try:
            found.update({own.name: own for own in registry("family").get(family).statistics})
        except UnknownNameError:
            continue
    return found
