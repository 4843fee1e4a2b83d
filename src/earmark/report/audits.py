"""The e-value of audits: of logs that were kept, and of the clips of a run played as an audit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from earmark.audit_log import Entry
from earmark.decision.betting import Audit, Bets, place_bets
from earmark.detection import Scored
from earmark.errors import UsageError
from earmark.profiles import Profile
from earmark.report.contents import AuditPath

MOST_POINTS = 500
"""Points of an audit's path that a report draws."""
RATE = 1e-3
"""Promised false-alarm rate of an audit that is played on a run without a profile."""


def log_path(name: str, entries: Sequence[Entry]) -> AuditPath:
    """Return the path of a log."""
    decided = next((i for i, entry in enumerate(entries, 1) if entry.decision == "FAIL"), None)
    decision = entries[-1].decision if entries else "INCONCLUSIVE"
    return _thinned([entry.log_e for entry in entries], name=name, decided=decided, decision=decision)


def simulated(scored: Scored, profile: Profile | None) -> tuple[AuditPath, ...]:
    """Play the clips of each provider as an audit, in their order.

    Without a profile, bets are placed on the honest base clips that calibrate, honest providers play on those that are
    held out, and dishonest ones on both.

    Args:
        scored: The rows with their scores.
        profile: A profile that gives the bets where it fits, or None.

    Returns:
        One path per provider; none where the honest clips are too few to bet with.
    """
    bets = _bets(scored, profile)
    if bets is None:
        return ()
    honest = {row.scenario: row.honest for row in scored.rows}
    return tuple(_path(scored, name, own, bets) for name, own in honest.items())


def _bets(scored: Scored, profile: Profile | None) -> Bets | None:
    if profile is not None:
        return profile.bets()
    if scored.scale is None:
        return None
    best: dict[str, float] = {}
    for row, value in zip(scored.rows, scored.scores, strict=True):
        if row.honest and row.base in scored.split.conformal and not math.isnan(value):
            best[row.base] = max(best.get(row.base, -math.inf), float(value))
    try:
        return place_bets([best[base] for base in sorted(best)], rate=RATE)
    except UsageError:
        return None


def _path(scored: Scored, scenario: str, honest: bool, bets: Bets) -> AuditPath:
    used = scored.split.development | (scored.split.conformal if honest else frozenset())
    scores = scored.chosen(lambda row: row.scenario == scenario and row.base not in used)
    state = Audit(bets=bets)
    path = state.update(scores[~np.isnan(scores)])
    limit = math.log(2 / bets.rate)
    over = np.flatnonzero(path >= limit)
    decided = int(over[0]) + 1 if over.size else None
    return _thinned(
        path.tolist(), name=scenario, honest=honest, fails_at=limit, decided=decided, decision=state.outcome
    )


def _thinned(
    path: Sequence[float],
    *,
    name: str,
    honest: bool | None = None,
    fails_at: float | None = None,
    decided: int | None,
    decision: str,
) -> AuditPath:
    """Return a path with at most `MOST_POINTS` points and a few: evenly chosen, and where it peaks and decides."""
    places = set(np.linspace(1, len(path), min(len(path), MOST_POINTS)).round().astype(int).tolist())
    if path:
        places |= {int(np.argmax(path)) + 1, decided or 1}
    chosen = sorted(places)
    return AuditPath(
        name=name,
        honest=honest,
        clips=len(path),
        final_log_e=round(path[-1], 6) if path else math.nan,
        places=tuple(chosen),
        log_e=tuple(round(path[place - 1], 6) for place in chosen),
        fails_at=fails_at,
        decided=decided,
        decision=decision,
    )
