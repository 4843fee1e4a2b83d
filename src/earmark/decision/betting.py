"""An audit: betting against the claim that the provider is honest, valid however often one looks.

X_i says whether the score of clip i exceeds a threshold that honest clips exceed with probability at most m. The
capital E_n = prod(1 + lambda (X_i - m)) is a non-negative supermartingale for an honest provider, so it ever reaches
1/a with probability at most a (Ville). Bets at several thresholds and stakes are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.decision.conformal import upper_bound
from earmark.errors import UsageError

QUANTILES = (0.8, 0.9, 0.97, 0.995)
STAKES = (0.02, 0.1, 0.3, 0.6, 0.95)
"""Shares of the largest allowed stake; the capital is averaged over them."""
TOLERANCE = 1.5
"""Honest exceedance may grow by this factor (a new GPU, a new kernel) before it counts against a provider."""

MOST_TOLERANCE = 10.0
"""Largest such factor; with more a profile would accuse nobody."""

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bets:
    """What is bet on: thresholds, and how often honest clips may exceed each.

    Attributes:
        thresholds: Score that clip i must exceed, one per quantile.
        rates: Largest honest exceedance m, tolerance included, one per threshold.
        honest: Exceedance that calibration counted, one per threshold.
        rate: Promised false-alarm rate a; half of it pays for the rates' own uncertainty.
        miss: Promised rate b of wrong PASSes.
        margin: A PASS says that the exceedance lies below m + margin.
    """

    thresholds: tuple[float, ...]
    rates: tuple[float, ...]
    honest: tuple[float, ...]
    rate: float = 1e-3
    miss: float = 0.05
    margin: float = 0.05

    def undetectable_share(self) -> float:
        """Return the share of requests that can be served by any cheat without ever being found.

        A cheat that exceeds every threshold on a share s of the requests stays below rate m while
        s <= (m - h) / (1 - h), h the honest exceedance; the best threshold decides.

        Example:
            >>> bets = Bets(thresholds=(2.0,), rates=(0.015,), honest=(0.005,))
            >>> round(bets.undetectable_share(), 4)
            0.0101
        """
        shares = [(m - h) / (1 - h) for m, h in zip(self.rates, self.honest, strict=True)]
        return max(0.0, min(shares))


def place_bets(
    calibration: ArrayLike,
    *,
    rate: float = 1e-3,
    tolerance: float = TOLERANCE,
    quantiles: Sequence[float] = QUANTILES,
    miss: float = 0.05,
    margin: float = 0.05,
) -> Bets:
    """Choose thresholds and rates from the scores of honest clips.

    Args:
        calibration: Scores of n distinct honest clips that were not used to fit the scale, (n,).
        rate: False-alarm rate a that the audit promises.
        tolerance: Declared factor by which honest exceedance may grow.
        quantiles: Quantiles of the calibration at which thresholds lie.
        miss: Promised rate of wrong PASSes.
        margin: See `Bets`.

    Returns:
        The bets. Each rate is the Clopper-Pearson upper bound at level a / (2 x quantiles), times the tolerance;
        a threshold whose rate would reach 1 is left out.

    Raises:
        UsageError: No threshold is usable, or an argument is out of range.
    """
    scores = np.asarray(calibration, dtype=np.float64).ravel()
    if not 0 < rate < 1:
        raise UsageError(f"a rate of {rate:g}; expected one between 0 and 1, such as 0.001")
    if not 1 <= tolerance <= MOST_TOLERANCE:
        raise UsageError(f"a tolerance of {tolerance:g}; expected a factor of 1 to {MOST_TOLERANCE:g}")
    if not scores.size or np.isnan(scores).any():
        raise UsageError(f"{scores.size} scores, {np.isnan(scores).sum()} of them NaN; expected some, without NaN")
    thresholds = np.quantile(scores, list(quantiles), method="higher")
    counts = (scores[:, None] > thresholds).sum(axis=0)
    rates = upper_bound(counts, scores.size, rate / (2 * len(quantiles))) * tolerance
    usable = rates + margin < 1
    if not usable.any():
        raise UsageError(f"{scores.size} calibration clips are too few to bet with; some hundreds are needed")
    return Bets(
        thresholds=tuple(map(float, thresholds[usable])),
        rates=tuple(map(float, rates[usable])),
        honest=tuple(map(float, counts[usable] / scores.size)),
        rate=rate,
        miss=miss,
        margin=margin,
    )


@dataclass(slots=True, kw_only=True)
class Audit:
    """The running state of one audit; `as_dict` and `from_dict` keep it across restarts.

    Attributes:
        bets: What is bet on.
        clips: Clips that counted.
        exceeded: How often each threshold was exceeded.
        log_capital: log of the capital per threshold and stake against honesty, (thresholds, stakes).
        log_pass: log of the capital per stake against "exceedance >= m + margin" at the strictest threshold.
        peak: Largest log e-value so far.
        peak_pass: Largest log e-value for a PASS so far.
    """

    bets: Bets
    clips: int = 0
    exceeded: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    log_capital: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    log_pass: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    peak: float = 0.0
    peak_pass: float = 0.0

    def __post_init__(self) -> None:
        """Start with one unit of capital on every bet."""
        if not self.log_capital.size:
            self.exceeded = np.zeros(len(self.bets.rates), np.int64)
            self.log_capital = np.zeros((len(self.bets.rates), len(STAKES)))
            self.log_pass = np.zeros(len(STAKES))

    def update(self, scores: ArrayLike) -> NDArray[np.float64]:
        """Bet on the next clips and return the log e-value after each.

        Args:
            scores: Scores in the order in which the clips were drawn, (n,); `inf` for a clip that the provider left
                INCONCLUSIVE by its own fault. Clips that failed by the verifier's or the input's fault are left out.

        Returns:
            log E after each clip, (n,).

        Raises:
            UsageError: A score is NaN.
        """
        values = np.atleast_1d(np.asarray(scores, dtype=np.float64))
        if np.isnan(values).any():
            raise UsageError("a score is NaN; leave clips without a score out, or count them as inf")
        if not values.size:
            return np.zeros(0)
        hits = values[:, None] > np.asarray(self.bets.thresholds)
        path = self.log_capital + np.cumsum(gains(hits, self.bets), axis=0)
        passing = self.log_pass + np.cumsum(pass_gains(hits[:, -1], self.bets), axis=0)
        evidence, for_pass = mean_log(path.reshape(len(values), -1)), mean_log(passing)
        self.clips += len(values)
        self.exceeded = self.exceeded + hits.sum(axis=0)
        self.log_capital, self.log_pass = path[-1], passing[-1]
        self.peak = max(self.peak, float(evidence.max()))
        self.peak_pass = max(self.peak_pass, float(for_pass.max()))
        return evidence

    @property
    def log_e(self) -> float:
        """The log e-value against honesty as it stands."""
        return float(mean_log(self.log_capital.reshape(1, -1))[0])

    @property
    def outcome(self) -> Outcome:
        """FAIL once the e-value reached 2 / a; PASS once the other one reached 1 / b; else INCONCLUSIVE."""
        if self.peak >= np.log(2 / self.bets.rate):
            return "FAIL"
        return "PASS" if self.peak_pass >= np.log(1 / self.bets.miss) else "INCONCLUSIVE"

    def as_dict(self) -> dict[str, Any]:
        """Return the state as plain numbers and lists."""
        return {
            "bets": asdict(self.bets),
            "clips": self.clips,
            "exceeded": self.exceeded.tolist(),
            "log_capital": self.log_capital.tolist(),
            "log_pass": self.log_pass.tolist(),
            "peak": self.peak,
            "peak_pass": self.peak_pass,
        }

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Audit:
        """Return the audit that `as_dict` described.

        Raises:
            UsageError: The state is damaged.

        Example:
            >>> audit = Audit(bets=Bets(thresholds=(2.0,), rates=(0.015,), honest=(0.005,)))
            >>> path = audit.update([0.0, 3.0])
            >>> Audit.from_dict(audit.as_dict()).log_e == audit.log_e
            True
        """
        try:
            bets = msgspec.convert(state["bets"], Bets)
            exceeded = np.asarray(state["exceeded"], np.int64)
            capital = np.asarray(state["log_capital"], np.float64)
            passing = np.asarray(state["log_pass"], np.float64)
            clips, peak, peak_pass = int(state["clips"]), float(state["peak"]), float(state["peak_pass"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UsageError(f"the state of the audit is damaged: {error}") from error
        shape = (len(bets.rates), len(STAKES))
        if (capital.shape, exceeded.shape, passing.shape) != (shape, shape[:1], shape[1:]) or not capital.size:
            raise UsageError(f"the state of the audit is damaged: capital {capital.shape}, expected {shape}")
        numbers = [*capital.flat, *passing.flat, peak, peak_pass]
        if not np.isfinite(numbers).all() or min(peak, peak_pass, clips, *exceeded) < 0 or max(exceeded) > clips:
            raise UsageError("the state of the audit is damaged: NaN, infinity or impossible counts")
        return cls(
            bets=bets,
            clips=clips,
            exceeded=exceeded,
            log_capital=capital,
            log_pass=passing,
            peak=peak,
            peak_pass=peak_pass,
        )


def gains(hits: NDArray[np.bool_], bets: Bets) -> NDArray[np.float64]:
    """Return log(1 + lambda (X - m)) per clip, threshold and stake; lambda is a share of 1 / m."""
    m = np.asarray(bets.rates)[:, None]
    stakes = np.asarray(STAKES) / m
    result: NDArray[np.float64] = np.log1p(stakes * (hits[:, :, None] - m))
    return result


def pass_gains(hits: NDArray[np.bool_], bets: Bets) -> NDArray[np.float64]:
    """Return log(1 + lambda (m' - X)), m' = m + margin of the strictest threshold, lambda a share of 1 / (1 - m')."""
    limit = bets.rates[-1] + bets.margin
    stakes = np.asarray(STAKES) / (1 - limit)
    result: NDArray[np.float64] = np.log1p(stakes * (limit - hits[:, None]))
    return result


def mean_log(logs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return log of the mean of exp over the last axis."""
    top = logs.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = top[..., 0] + np.log(np.exp(logs - top).mean(axis=-1))
    return result
