"""Many audits at once: after how many clips each would have said FAIL, watched after every clip; pure functions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.decision.betting import STAKES, Bets, mean_log
from earmark.errors import UsageError

CHUNK = 100
"""Audits at once: memory is CHUNK x clips x thresholds x stakes x 8 bytes."""


def first_alarms(scores: ArrayLike, bets: Bets) -> NDArray[np.float64]:
    """Return after how many clips each audit reaches 2 / a, and infinity where it never does.

    Args:
        scores: Score of every clip of every audit, in the order of the audit, (audits, clips).
        bets: What the audits bet on.

    Returns:
        Clips until the alarm, (audits,); the same as `Audit` finds one by one.

    Raises:
        UsageError: The shape is another one, or a score is NaN.

    Example:
        >>> bets = Bets(thresholds=(2.0,), rates=(0.015,), honest=(0.005,))
        >>> first_alarms([[0.0] * 4, [3.0] * 4], bets).tolist()
        [inf, 3.0]
    """
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 2 or np.isnan(values).any():
        raise UsageError(f"scores of shape {values.shape}; expected (audits, clips) without NaN")
    parts = [_first_alarms(values[i : i + CHUNK], bets) for i in range(0, len(values), CHUNK)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _first_alarms(values: NDArray[np.float64], bets: Bets) -> NDArray[np.float64]:
    rates = np.asarray(bets.rates)[:, None]
    stakes = np.asarray(STAKES) / rates
    hits = (values[:, :, None] > np.asarray(bets.thresholds)).cumsum(axis=1)[..., None]
    misses = np.arange(1, values.shape[1] + 1)[:, None, None] - hits
    capital = hits * np.log1p(stakes * (1 - rates)) + misses * np.log1p(-stakes * rates)
    alarms = mean_log(capital.reshape(*values.shape, -1)) >= np.log(2 / bets.rate)
    return np.where(alarms.any(axis=1), alarms.argmax(axis=1) + 1.0, np.inf)
