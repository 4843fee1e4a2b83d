"""An audit with a detector beside it: a PASS covers the clips up to its own, and the detector runs on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from earmark.decision.betting import Audit, Bets, Outcome, gains, mean_log
from earmark.decision.drift import Drift
from earmark.errors import UsageError

RUN_LENGTH = 100_000.0
"""Clips of an honest provider between two false alarms of the detector, on average at least."""


@dataclass(slots=True, kw_only=True)
class Watch:
    """An audit and its detector of change; the detector alters nothing of what the audit decides.

    Attributes:
        bets: What both bet on.
        run_length: The detector alarms at R of this size.
        audit: The audit.
        drift: The detector.
        scores: Scores of the clips that counted.
        log_r: log R behind these.
        passed_at: Number of the clip, from 1 among those that counted, at which the audit said PASS; None before.
        changed_at: Number of the clip since which, about, the provider is another one; None without an alarm.

    Raises:
        UsageError: The run length is not a number of clips.
    """

    bets: Bets
    run_length: float = RUN_LENGTH
    audit: Audit = field(init=False)
    drift: Drift = field(init=False)
    scores: list[float] = field(default_factory=list)
    log_r: float = -math.inf
    passed_at: int | None = None
    changed_at: int | None = None

    def __post_init__(self) -> None:
        """Start both."""
        if not 1 < self.run_length < math.inf:
            found = f"{self.run_length:g} clips between two false alarms"
            raise UsageError(f"{found}; expected more than 1, such as {RUN_LENGTH:g}")
        self.audit, self.drift = Audit(bets=self.bets), Drift(bets=self.bets)

    def update(self, score: float) -> None:
        """Take the score of the next clip that counts.

        Example:
            >>> watch = Watch(bets=Bets(thresholds=(2.0,), rates=(0.015,), honest=(0.005,)))
            >>> for score in [0.0] * 300 + [9.0] * 5:
            ...     watch.update(score)
            >>> watch.outcome, watch.changed_at
            ('PASS', 301)
        """
        self.audit.update([score])
        self.log_r = float(self.drift.update([score])[-1])
        self.scores.append(score)
        if self.passed_at is None and self.outcome == "PASS":
            self.passed_at = self.clips
        if self.changed_at is None and self.log_r >= math.log(self.run_length):
            self.changed_at = change_point(self.scores, self.bets)

    @property
    def outcome(self) -> Outcome:
        """What the audit says of all clips, whatever the detector found."""
        return self.audit.outcome

    @property
    def clips(self) -> int:
        """Clips that counted."""
        return self.audit.clips

    @property
    def log_e(self) -> float:
        """The log e-value of the audit."""
        return self.audit.log_e

    @property
    def ended(self) -> bool:
        """Whether no more clips are needed: found out, or changed behind a PASS.

        An alarm before any decision ends nothing: more clips may still lead to a FAIL.
        """
        return self.outcome == "FAIL" or (self.outcome == "PASS" and self.changed_at is not None)


def change_point(scores: ArrayLike, bets: Bets) -> int:
    """Return the number of the clip, from 1, since which the evidence against honesty is largest.

    Example:
        >>> change_point([0.0, 0.0, 0.0, 9.0, 9.0], Bets(thresholds=(2.0,), rates=(0.015,), honest=(0.005,)))
        4
    """
    hits = np.asarray(scores, np.float64)[:, None] > np.asarray(bets.thresholds)
    since = np.cumsum(gains(hits, bets)[::-1], axis=0)[::-1]
    return int(np.argmax(mean_log(since.reshape(len(since), -1)))) + 1
