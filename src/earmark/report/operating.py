"""The errors that every threshold of the score makes."""

from __future__ import annotations

import numpy as np

from earmark.decision.operating import area, operating_points
from earmark.detection import Scored
from earmark.report.contents import Operating

RATES = (0.0, 0.01, 0.1)
"""False-alarm rates at which a table says how many clips are missed."""


def misses_at(own: Operating, rate: float) -> float:
    """Return the smallest miss rate of the thresholds that accuse at most this share of the honest clips.

    Example:
        >>> made = Operating(scenario="a", auc=0.9, honest_clips=9, clips=9, false_alarms=(0, 0.2), misses=(0.5, 0.1))
        >>> misses_at(made, 0.0), misses_at(made, 0.2)
        (0.5, 0.1)
    """
    pairs = zip(own.false_alarms, own.misses, strict=True)
    return min((missed for alarms, missed in pairs if alarms <= rate), default=1.0)


def operating(scored: Scored) -> tuple[Operating, ...]:
    """Return one curve per dishonest provider, on clips that fitted nothing; none where there are too few."""
    honest = scored.honest()
    honest = honest[~np.isnan(honest)]
    names = dict.fromkeys(row.scenario for row in scored.rows if not row.honest)
    found = []
    for name in names:
        scores = scored.of(name)
        scores = scores[~np.isnan(scores)]
        if not honest.size or not scores.size:
            continue
        alarms, misses = operating_points(honest, scores)
        found.append(
            Operating(
                scenario=name,
                auc=area(honest, scores),
                honest_clips=int(honest.size),
                clips=int(scores.size),
                false_alarms=tuple(alarms.round(6).tolist()),
                misses=tuple(misses.round(6).tolist()),
            )
        )
    return tuple(found)
