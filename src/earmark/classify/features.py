"""From rows of a run to a table of features: one row per recording, named columns, labels and what rows share."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.fingerprint.matched import PREFIXES
from earmark.runs import Row

Floats = NDArray[np.float64]
Features = Literal["alone", "replay", "matched"]
KINDS: dict[Features, str] = {
    "alone": "what the evidence says of itself, without any reference",
    "replay": "evidence against one replay with the reference",
    "matched": "the same, and against one replay with each known alternative",
}
REFERENCE = "reference"
"""Label of every honest provider."""
TOLD = ("_projection", "_unexplained")
"""What names of the features of a match end with."""
SIZE = "shape_rms"
"""The size of the deviation."""
TOKEN = "shape_token_"  # noqa: S105 - a prefix of names
FLOOR, CEILING = 1e-3, 1e9
"""Added to a magnitude before its logarithm: the documented bound of float32 noise, below which honest machines and
kernels differ, and the direction of such a difference says nothing; and the largest magnitude."""
MATCHED = ("match_", *PREFIXES)
"""Prefixes of what only a replay with a known alternative says."""
BOUND = 1e3
"""Other numbers are cut to +-1e3; honest ones lie below 100."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Features of many recordings.

    Attributes:
        values: Features, (rows, names); NaN where one does not apply.
        names: Name of each column.
        labels: Deployment of each row; `reference` for honest ones.
        keys: Base clip and speakers of each row, see `purged_splits`.
        rows: The rows of the run.
    """

    values: Floats
    names: tuple[str, ...]
    labels: tuple[str, ...]
    keys: tuple[tuple[Hashable, ...], ...]
    rows: tuple[Row, ...]

    def without(self, prefix: str) -> Table:
        """Return the table without the columns whose names begin with a prefix."""
        kept = [i for i, name in enumerate(self.names) if not name.startswith(prefix)]
        return replace(self, values=self.values[:, kept], names=tuple(self.names[i] for i in kept))

    def where(self, keep: Iterable[bool]) -> Table:
        """Return the rows that are kept."""
        chosen = [i for i, kept in enumerate(keep) if kept]
        return replace(
            self,
            values=self.values[chosen],
            labels=tuple(self.labels[i] for i in chosen),
            keys=tuple(self.keys[i] for i in chosen),
            rows=tuple(self.rows[i] for i in chosen),
        )


def table(
    run: Iterable[Row], features: Features = "replay", *, speakers: Mapping[str, Sequence[Hashable]] | None = None
) -> Table:
    """Return the features of a run.

    Rows of several references share fewer features: only statistics that all have, and no signatures of tokens, whose
    directions belong to one model.

    Args:
        run: Rows; those without a replay are left out.
        features: `alone`, `replay` or `matched`, see `KINDS`.
        speakers: Speakers of each clip by its name, the main one first; None where they are not known.

    Returns:
        The table.

    Raises:
        UsageError: No row holds such features.

    Example:
        >>> row = Row(clip="a", base="a", scenario="int8", honest=False, model="m", weights="", family="ctc",
        ...           precision="fp32", level="scores", outcome="FAIL", statistics={"logprob_l1": 0.01},
        ...           shape={"shape_rms": 0.1, "own_chosen_mean": -1.0})
        >>> made = table([row])
        >>> made.names, made.values.round(2).tolist(), made.labels
        (('logprob_l1', 'shape_rms'), [[-1.96, -1.0]], ('int8',))
    """
    if features not in KINDS:
        raise UsageError(f"features {features!r}; known: {', '.join(KINDS)}")
    rows = tuple(row for row in run if row.statistics and row.shape)
    names = _shared_names(rows, features)
    if not names or (features == "matched" and not any(name.startswith("match_") for name in names)):
        raise UsageError(f"no row holds features of the kind {features} ({KINDS[features]}); measure them again")
    known = speakers or {}
    return Table(
        values=np.asarray([vector(row.statistics, row.shape, names) for row in rows]),
        names=names,
        labels=tuple(REFERENCE if row.honest else row.scenario for row in rows),
        keys=tuple((*known.get(row.clip, ()), f"clip {row.base}") for row in rows),
        rows=rows,
    )


def vector(statistics: Mapping[str, float], shape: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Return the features of one recording: logarithms of magnitudes, other numbers as they are, all of them bounded.

    What a deviation looks like counts for less where it is no larger than what honest machines differ by.

    Args:
        statistics: The fingerprint.
        shape: Its shape.
        names: Names of the features, in order.

    Returns:
        One value per name; NaN where it does not apply.

    Raises:
        UsageError: A feature is missing altogether.

    Example:
        >>> vector({"logprob_l1": 0.0}, {"shape_mean": -0.5}, ["logprob_l1", "shape_mean"])
        [-3.0, -0.5]
    """
    missing = [name for name in names if name not in statistics and name not in shape]
    if missing:
        shown = ", ".join(missing[:3])
        message = f"{len(missing)} of {len(names)} features are missing ({shown})"
        raise UsageError(f"{message}; expected a fingerprint of the classifier's family, level and kind of features")
    size = abs(shape.get(SIZE, math.inf))
    trust = size / (size + FLOOR) if math.isfinite(size) else 1.0
    return [_feature(name, statistics[name] if name in statistics else shape[name], trust) for name in names]


def _feature(name: str, value: float, trust: float) -> float:
    if math.isnan(value):
        return value
    if not name.startswith(("shape_", "own_", "match_")) or name.endswith(("_unexplained", SIZE)):
        return math.log10(min(abs(value), CEILING) + FLOOR)
    return min(max(value, -BOUND), BOUND) * (trust if name.startswith("shape_") else 1.0)


def _shared_names(rows: Sequence[Row], features: Features) -> tuple[str, ...]:
    """Return the names that every row has, in the order of the first."""
    if not rows:
        return ()
    several = len({row.weights for row in rows}) > 1
    first = [*rows[0].statistics, *rows[0].shape]

    def wanted(name: str) -> bool:
        if features == "alone" or name.startswith("own_"):
            return features == "alone" and name.startswith("own_")
        if name.startswith(MATCHED):
            return features == "matched" and name.endswith(TOLD)  # the others say the same in other words
        return not (several and name.startswith(TOKEN))

    everywhere = set(first).intersection(*({*row.statistics, *row.shape} for row in rows))
    return tuple(name for name in first if name in everywhere and wanted(name))


def columns(names: Sequence[str], *prefixes: str) -> list[int]:
    """Return the columns whose names begin with one of some prefixes.

    Example:
        >>> columns(["shape_rms", "shape_token_0", "shape_token_1"], "shape_token_")
        [1, 2]
    """
    return [i for i, name in enumerate(names) if name.startswith(prefixes)]
