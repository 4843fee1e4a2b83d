"""Drift: did an honest provider turn dishonest, some time after the audit began?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.decision.betting import STAKES, Bets, gains, mean_log
from earmark.errors import UsageError


@dataclass(slots=True, kw_only=True)
class Drift:
    """The Shiryaev-Roberts e-detector R_n = (R_{n-1} + 1) e_n, averaged over thresholds and stakes.

    The mean time to a false alarm at R >= c is at least c clips.

    Attributes:
        bets: What is bet on; the same as in the audit.
        log_r: log R per threshold and stake, (thresholds, stakes).

    Source: Shin, Ramdas & Rinaldo, E-detectors (New England Journal of Statistics in Data Science, 2024), section 2.
    """

    bets: Bets
    log_r: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        """Start at R = 0."""
        if not self.log_r.size:
            self.log_r = np.full((len(self.bets.rates), len(STAKES)), -np.inf)

    def update(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Take the next clips and return log R after each, (n,); see `Audit.update`.

        Raises:
            UsageError: A score is NaN.

        Example:
            >>> drift = Drift(bets=Bets(thresholds=(2.0,), rates=(0.015,), honest=(0.005,)))
            >>> quiet, loud = drift.update([0.0] * 50)[-1], drift.update([9.0] * 3)[-1]
            >>> bool(quiet < np.log(100) < loud)
            True
        """
        values = np.atleast_1d(np.asarray(scores, dtype=np.float64))
        if np.isnan(values).any():
            raise UsageError("a score is NaN; leave clips without a score out, or count them as inf")
        path = np.zeros(len(values))
        for i, gain in enumerate(gains(values[:, None] > np.asarray(self.bets.thresholds), self.bets)):
            self.log_r = np.logaddexp(self.log_r, 0.0) + gain
            path[i] = mean_log(self.log_r.reshape(1, -1))[0]
        return path
