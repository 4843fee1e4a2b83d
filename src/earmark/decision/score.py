"""The score of a clip: its statistics put on one scale, and the largest of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError

Floats = NDArray[np.floating]

LEAST_WIDTH = 0.3
"""A channel reaches at least this far above its median, in log units: rounding noise is no yardstick."""
TAIL = 0.05
"""Share of the honest values that the tail of a channel is measured on."""
BEYOND = 1e-4
"""Share of honest values that score above 1, if the tail goes on as it begins."""
FARTHEST = 2.0
"""A channel reaches at most this many times its largest honest value: the tail of one that is 0 on nearly every honest
clip (margins) is no exponential one."""
FLOOR_SHARE = 0.1
"""The floor below a channel is this share of its largest honest value."""
TINY = 1e-12
"""The floor of a channel that is 0 on every honest clip."""
ROUNDING = 1e-6
"""With a slack, honest machines are taken to differ by this much at least: float32 numbers of the order of ten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Where honest values of each channel lie: log(x + floor) has this median, and reaches this far above it.

    A channel in `linear` is taken as it is, without logarithm and floor: a projection on a direction, whose honest
    values scatter about 0 with tails like the normal distribution's. Values below `least` count as that.

    Attributes:
        channels: Names of statistics, in their fixed order.
        floor: Added before the logarithm, one per channel.
        median: Median of the honest logarithms.
        width: Distance from the median to where one honest value in 10 000 lies, by its tail, or to the largest.
        least: What any honest machine may differ by, one per channel; no number for none.
    """

    channels: tuple[str, ...]
    floor: tuple[float, ...]
    median: tuple[float, ...]
    width: tuple[float, ...]
    linear: frozenset[str] = frozenset()
    least: tuple[float, ...] = ()

    def channel_scores(self, values: Floats) -> NDArray[np.float64]:
        """Return c = (log(x + floor) - median) / width per clip and channel.

        Args:
            values: Statistics, (clips, channels), 0 or larger; NaN where one does not apply.

        Returns:
            Scores, (clips, channels), unbounded above; NaN stays NaN.
        """
        x = np.maximum(np.asarray(values, dtype=np.float64), self.least or 0.0)
        linear = np.asarray([name in self.linear for name in self.channels], bool)
        floor = np.where(linear, 1.0, self.floor)
        placed = np.where(linear, x, np.log(np.where(linear, 1.0, x) + floor))
        result: NDArray[np.float64] = (placed - np.asarray(self.median)) / np.asarray(self.width)
        if self.least:  # exactly 0, whatever the last bit of this machine's logarithm
            result[(np.asarray(self.least) > 0) & (x <= self.least)] = 0.0
        return result

    def scores(self, values: Floats) -> NDArray[np.float64]:
        """Return S = the largest channel score of each clip; NaN where no channel applies.

        Args:
            values: Statistics, (clips, channels).

        Returns:
            One score per clip, (clips,).

        Example:
            >>> scale = Scale(channels=("a", "b"), floor=(0.0, 0.0), median=(0.0, 0.0), width=(1.0, 1.0))
            >>> scale.scores(np.array([[1.0, np.e], [np.nan, np.nan]])).tolist()
            [1.0, nan]
        """
        each = self.channel_scores(values)
        known = ~np.isnan(each)
        best = np.where(known, each, -np.inf).max(axis=1)
        result: NDArray[np.float64] = np.where(known.any(axis=1), best, np.nan)
        return result

    def values_at(self, score: float) -> list[float]:
        """Return the value of each channel at which it alone gives a score: the inverse of `channel_scores`.

        Example:
            >>> scale = Scale(channels=("a",), floor=(0.5,), median=(0.0,), width=(1.0,))
            >>> scale.values_at(0.0), scale.scores(np.array([[0.5]])).tolist()
            ([0.5], [0.0])
        """
        placed = [median + width * score for median, width in zip(self.median, self.width, strict=True)]
        return [
            value if name in self.linear else float(np.exp(value)) - floor
            for name, value, floor in zip(self.channels, placed, self.floor, strict=True)
        ]

    def row(self, fingerprint: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the channels of one fingerprint as a row, (1, channels).

        Raises:
            UsageError: The fingerprint lacks a channel.
        """
        missing = [name for name in self.channels if name not in fingerprint]
        if missing:
            raise UsageError(f"the fingerprint has no statistic {missing[0]!r}; it is of another version or family")
        return np.array([[fingerprint[name] for name in self.channels]], dtype=np.float64)


def fit_scale(
    channels: Sequence[str],
    values: Floats,
    linear: Collection[str] = (),
    slack: float = 1.0,
    limits: Mapping[str, float] | None = None,
) -> Scale:
    """Measure a scale on honest clips of a development split.

    What decides is the largest of many channels, so all are to be equally rare where they score 1: at the quantile
    1 - 1e-4, where an exponential tail with the mean excess of the largest 5 % has it, or at the largest honest value
    where that lies farther, and at twice that at most. A tenth of the largest honest value is added before the
    logarithm, so that a channel that is 0 on nearly every honest clip (margins) does not drown all others with its rare
    values. A channel that never applies scores 0. An infinite value lies beyond any scale and takes no part in fitting
    one.

    Honest providers own machines that were not measured. With a slack of 10, ten times the largest honest value of each
    channel, or ten times 1e-6 where that is more, is no difference at all (score 0), and scores begin there; channels
    in `linear` have none. Beyond a channel's limit only what the clips showed is allowed.

    Args:
        channels: Names of the statistics.
        values: Their honest values, (clips, channels); NaN where one does not apply.
        linear: Channels that are taken without the logarithm.
        slack: Factor, 1 or more, by which honest machines may differ beyond what was measured; 1 for no such allowance.
        limits: Most that a slack may allow, by channel; a channel that is not named has none.

    Returns:
        The scale.

    Raises:
        UsageError: There are no clips, the shape does not fit, or the slack is below 1.

    Example:
        >>> scale = fit_scale(["a"], np.exp(np.linspace(0, 0.1, 101))[:, None])
        >>> scale.channels, bool(scale.width[0] == LEAST_WIDTH)
        (('a',), True)
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or not len(x) or x.shape[1] != len(channels):
        raise UsageError(f"honest values of shape {x.shape}; expected (clips, {len(channels)}) with at least one clip")
    if not channels:
        raise UsageError("no channels to fit; expected one statistic at least that applies to a development clip")
    if not 1 <= slack < np.inf:
        raise UsageError(f"a slack of {slack:g}; expected 1 or more")
    most = limits or {}
    fitted = [
        _fit_linear(known) if name in linear else _fit_channel(known, slack, most.get(name, np.inf))
        for name, known in zip(channels, (column[np.isfinite(column)] for column in x.T), strict=True)
    ]
    floors, medians, widths, least = zip(*fitted, strict=True)
    return Scale(
        channels=tuple(channels),
        floor=floors,
        median=medians,
        width=widths,
        linear=frozenset(linear) & set(channels),
        least=least if any(least) else (),
    )


def _fit_channel(values: Floats, slack: float, limit: float) -> tuple[float, float, float, float]:
    """Return floor, median, width and least; with a slack, the score begins at the least value."""
    if not len(values):
        return 1.0, 0.0, 1.0, 0.0
    floor = FLOOR_SHARE * float(values.max()) + TINY
    logs = np.log(np.maximum(values, 0.0) + floor)
    highest = float(values.max())
    median = float(np.median(logs))
    width = max(min(_reach(logs), float(np.log(FARTHEST * highest + floor)) - median), LEAST_WIDTH)
    if slack == 1:
        return floor, median, width, 0.0
    least = max(highest, min(slack * max(highest, ROUNDING), limit))
    return floor, float(np.log(least + floor)), width, least


def _fit_linear(values: Floats) -> tuple[float, float, float, float]:
    if not len(values):
        return 0.0, 0.0, 1.0, 0.0
    return 0.0, float(np.median(values)), max(_reach(values), TINY), 0.0


def _reach(values: Floats) -> float:
    """Return how far above the median honest values reach: to the quantile 1 - 1e-4 of an exponential tail, or farther.

    The largest of many channels is compared, so all must be equally rare where they score 1, whatever their tails.
    """
    start = np.quantile(values, 1 - TAIL)
    beyond = float(np.mean(np.maximum(values - start, 0.0))) / TAIL * np.log(TAIL / BEYOND)
    return float(max(start + beyond, values.max()) - np.median(values))
