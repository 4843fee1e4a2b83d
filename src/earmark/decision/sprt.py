"""Wald's sequential test on passed and failed clips: optimal where both rates are right, brittle otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass

from earmark.errors import UsageError


@dataclass(slots=True, kw_only=True)
class Sprt:
    """A running test of "clips fail at rate p0" against "at rate p1".

    Attributes:
        p0: Failure rate of an honest provider.
        p1: Failure rate of a cheat, larger than p0.
        alpha: Promised rate of false alarms.
        beta: Promised rate of misses.
        clamp: Keep the ratio at 0 or above (CUSUM), so that honest clips buy no later frauds; then the test cannot
            accept, and alpha is a rate per run, not per audit.
        ratio: The log-likelihood ratio so far.

    Source: Wald, Sequential Analysis (1947), chapter 3; Page, Biometrika 41 (1954) for the clamp.

    Example:
        >>> test = Sprt(p0=0.01, p1=0.5)
        >>> [test.update(failed) for failed in (False, True, True)]
        ['go on', 'go on', 'reject']
    """

    p0: float
    p1: float
    alpha: float = 1e-3
    beta: float = 0.05
    clamp: bool = True
    ratio: float = 0.0

    def __post_init__(self) -> None:
        """Check the rates.

        Raises:
            UsageError: A rate is out of range or p1 is not above p0.
        """
        rates_right = 0 < self.p0 < self.p1 < 1 and 0 < self.alpha < 1 and 0 < self.beta < 1
        if not rates_right:
            found = f"p0 {self.p0:g}, p1 {self.p1:g}, alpha {self.alpha:g}, beta {self.beta:g}"
            raise UsageError(f"{found}; expected 0 < p0 < p1 < 1 and error rates between 0 and 1")

    def update(self, failed: bool) -> str:
        """Take one clip and return `accept`, `reject` or `go on`."""
        p0, p1 = (self.p0, self.p1) if failed else (1 - self.p0, 1 - self.p1)
        self.ratio += math.log(p1 / p0)
        if self.clamp:
            self.ratio = max(0.0, self.ratio)
        if self.ratio >= math.log((1 - self.beta) / self.alpha):
            return "reject"
        return "accept" if self.ratio <= math.log(self.beta / (1 - self.alpha)) else "go on"
