"""What a classifier got right on recordings that took no part in its training, with exact intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec
import numpy as np

from earmark.records.codec import Count, Name

UNKNOWN = "unknown"
"""Column of rows that look like no deployment of the training."""
LEVEL = 0.95
"""Level of the intervals."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """A share with its exact interval.

    Attributes:
        hits: Successes.
        total: Trials.
    """

    hits: int
    total: int

    @property
    def value(self) -> float:
        """The share; NaN without trials."""
        return self.hits / self.total if self.total else float("nan")

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """Return the exact interval of Clopper and Pearson.

        Example:
            >>> [round(bound, 3) for bound in Rate(hits=9, total=10).interval()]
            [0.555, 0.997]
        """
        if not self.total:
            return 0.0, 1.0
        from scipy.stats import binomtest

        found = binomtest(self.hits, self.total).proportion_ci(level, method="exact")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        """Return share and interval in percent.

        Example:
            >>> str(Rate(hits=9, total=10))
            '90.0 % (55.5 to 99.7)'
        """
        low, high = self.interval()
        return f"{100 * self.value:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


class Figures(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Results of a cross-validation grouped by base clip and speaker.

    Attributes:
        labels: What really ran, one per row of the matrices: the known deployments, then those never trained on.
        known: Deployments that were trained on, one per column.
        counts: Rows named as each known deployment, the last column as unknown, (labels, known + 1).
        closed: The same where a known deployment must be named, of the known ones only, (known, known).
        left_out: Rows of each known deployment when it was left out of the training, and how many were called unknown.
        log_loss: Mean of -log probability of the right name, nats, known deployments.
        calibration_error: Expected calibration error of the probabilities, in 10 bins.
    """

    labels: Annotated[tuple[Name, ...], msgspec.Meta(max_length=256)]
    known: Annotated[tuple[Name, ...], msgspec.Meta(max_length=256)]
    counts: Annotated[tuple[tuple[Count, ...], ...], msgspec.Meta(max_length=256)]
    closed: Annotated[tuple[tuple[Count, ...], ...], msgspec.Meta(max_length=256)]
    left_out: dict[Name, tuple[Count, Count]] = msgspec.field(default_factory=dict)
    log_loss: float = 0.0
    calibration_error: float = 0.0

    def __post_init__(self) -> None:
        """Refuse matrices that do not fit their labels."""
        columns = len(self.known)
        fits = len(self.counts) == len(self.labels) and all(len(row) == columns + 1 for row in self.counts)
        if not fits or len(self.closed) != columns or any(len(row) != columns for row in self.closed):
            raise ValueError(f"matrices do not fit {len(self.labels)} labels and {columns} known deployments")

    @property
    def balanced_accuracy(self) -> float:
        """Mean over the known deployments of the share that is named right, where one of them must be named."""
        return float(np.mean([rate.value for rate in self.closed_rates().values()]))

    def closed_rates(self) -> dict[str, Rate]:
        """Return the share of each known deployment that is named right, where one of them must be named."""
        rows = zip(self.known, self.closed, strict=True)
        return {name: Rate(hits=row[i], total=sum(row)) for i, (name, row) in enumerate(rows)}

    def open_rates(self) -> dict[str, Rate]:
        """Return the share of each label that is named right: its own name if known, else unknown."""
        found = {}
        for label, row in zip(self.labels, self.counts, strict=True):
            right = self.known.index(label) if label in self.known else len(self.known)
            found[label] = Rate(hits=row[right], total=sum(row))
        return found

    def refused(self) -> Rate:
        """Return the share of rows of known deployments that are called unknown."""
        rows = [row for label, row in zip(self.labels, self.counts, strict=True) if label in self.known]
        return Rate(hits=sum(row[-1] for row in rows), total=sum(map(sum, rows)))

    def left_out_rates(self) -> dict[str, Rate]:
        """Return the share called unknown of each deployment while it was left out of the training."""
        return {name: Rate(hits=hits, total=total) for name, (hits, total) in self.left_out.items()}


def confusion(
    rows: Sequence[str], columns: Sequence[str], real: Sequence[str], named: Sequence[str]
) -> tuple[tuple[int, ...], ...]:
    """Count which label was named what.

    Example:
        >>> confusion(["a", "b"], ["a", "unknown"], ["a", "b", "b"], ["a", "a", "unknown"])
        ((1, 0), (1, 1))
    """
    counts = np.zeros((len(rows), len(columns)), np.int64)
    for own, found in zip(real, named, strict=True):
        counts[rows.index(own), columns.index(found)] += 1
    return tuple(tuple(int(value) for value in row) for row in counts)
