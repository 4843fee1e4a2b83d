"""How likely an audit finds a cheat, before any clip is verified."""

from __future__ import annotations

import numpy as np

from earmark.decision.betting import Bets, gains, mean_log
from earmark.errors import UsageError

RUNS = 2000
"""Simulated audits; the standard error of a power is at most 0.011."""


def expected_power(bets: Bets, clips: int, cheated: float, *, drawn: float = 1.0, seed: int = 0) -> float:
    """Return the probability that an audit says FAIL by its last clip, where a share of the clips is cheated on.

    Cheated clips exceed every threshold, the others as often as calibration counted. An audit may say FAIL earlier and
    stays with it, so this is a lower bound. A budget that draws clips independently of what they hold loses clips, and
    nothing else.

    Args:
        bets: What the audit bets on.
        clips: Clips of the audit.
        cheated: Share of them that is cheated on.
        drawn: Share of them that is replayed.
        seed: Of the simulation.

    Returns:
        The probability, by simulation of 2000 audits.

    Raises:
        UsageError: A share is no share, or the number of clips is negative.

    Example:
        >>> bets = Bets(thresholds=(1.0, 2.0), rates=(0.06, 0.015), honest=(0.03, 0.005))
        >>> expected_power(bets, 40, 1.0), expected_power(bets, 40, 0.0)
        (1.0, 0.0)
        >>> expected_power(bets, 400, 0.1) > expected_power(bets, 400, 0.1, drawn=0.1)
        True
    """
    if clips < 0 or not (0 <= cheated <= 1 and 0 <= drawn <= 1):
        found = f"{clips} clips, of which {cheated:g} are cheated on and {drawn:g} replayed"
        raise UsageError(f"{found}; expected 0 or more clips, and shares from 0 to 1")
    rng = np.random.default_rng(seed)
    bad = rng.binomial(round(cheated * clips), drawn, RUNS)
    good = rng.binomial(clips - round(cheated * clips), drawn, RUNS)
    honest = np.asarray(bets.honest)
    # an honest clip that exceeds a threshold exceeds those below it
    highest = rng.multinomial(good, [1 - honest[0], *-np.diff([*honest, 0.0])])[:, 1:]
    hits = bad[:, None] + highest[:, ::-1].cumsum(axis=1)[:, ::-1]
    misses = (bad + good)[:, None] - hits
    won, lost = gains(np.array([np.ones_like(honest, bool), np.zeros_like(honest, bool)]), bets)
    capital = hits[:, :, None] * won + misses[:, :, None] * lost
    return float((mean_log(capital.reshape(RUNS, -1)) >= np.log(2 / bets.rate)).mean())
