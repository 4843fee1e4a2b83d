"""Drift: did an honest provider turn dishonest, some time after the audit began?"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.decision.betting import STAKES, Bets, gains, mean_log
from earmark.errors import UsageError
from earmark.records.lines import from_float, to_float


@dataclass(slots=True, kw_only=True)
class Drift:
    """The Shiryaev-Roberts e-detector R_n = (R_{n-1} + 1) e_n, averaged over thresholds and stakes.

    The mean time to a false alarm at R >= c is at least c clips. `as_dict` and `from_dict` keep it across restarts.

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
        if not values.size:
            return np.zeros(0)
        logs = np.cumsum(gains(values[:, None] > np.asarray(self.bets.thresholds), self.bets), axis=0)
        starts = np.concatenate([self.log_r[None], np.zeros_like(logs[:1]), -logs[:-1]])  # R_0, and a bet before each
        path = logs + np.logaddexp.accumulate(starts, axis=0)[1:]
        self.log_r = path[-1]
        return mean_log(path.reshape(len(values), -1))

    def as_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and lists; an infinite log R is a word, as JSON has no infinity."""
        return {"bets": asdict(self.bets), "log_r": [list(map(from_float, row)) for row in self.log_r.tolist()]}

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Drift:
        """Return the detector that `as_dict` described.

        Raises:
            UsageError: The state is damaged.

        Example:
            >>> drift = Drift(bets=Bets(thresholds=(2.0,), rates=(0.015,), honest=(0.005,)))
            >>> drift.as_dict()["log_r"][0][0]
            '-infinite'
            >>> bool((Drift.from_dict(drift.as_dict()).log_r == drift.log_r).all())
            True
        """
        try:
            bets = msgspec.convert(state["bets"], Bets)
            log_r = np.asarray([[to_float(value) for value in row] for row in state["log_r"]])
        except (KeyError, TypeError, ValueError) as error:
            raise UsageError(f"the state of the detector is damaged: {error}") from error
        shape = (len(bets.rates), len(STAKES))
        if log_r.shape != shape or np.isnan(log_r).any():
            raise UsageError(f"the state of the detector is damaged: log R {log_r.shape}, expected {shape} without NaN")
        return cls(bets=bets, log_r=log_r)
