"""The errors that every threshold of the score makes."""

from __future__ import annotations

import numpy as np

from earmark.decision.operating import area, operating_points
from earmark.detection import Scored
from earmark.report.contents import Operating


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
