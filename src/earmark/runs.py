"""The `Run` table: what every statistic said about each clip of each provider; benchmarks and reports share it."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from earmark.errors import OutputError, RecordError
from earmark.extras import need
from earmark.records import lines
from earmark.records.verdict import Outcome

if TYPE_CHECKING:
    import pandas as pd

RUN_VERSION = 2
"""Rises when a column is removed or changes its meaning; one that is added has a default, as older runs lack it."""
NUMBERS = ("statistics", "shape")
"""Columns that hold numbers by name."""
OUTCOMES = get_args(Outcome)
MOST = sys.float_info.max
UNDECIDED = ("audio.faint", "positions.few")
"""Findings that stand beside the size of a statistic and decide no FAIL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One clip of one provider against one reference.

    Attributes:
        clip: Name of the clip.
        base: The clip it was made from; clips that share a base never stand on both sides of a split.
        scenario: Name of the provider.
        honest: Whether the provider is honest.
        model: Name of the reference.
        weights: Digest of the reference's weights.
        family: Its family.
        precision: Claimed precision.
        level: Level of the evidence.
        outcome: Outcome by rules, and by a profile where one judged.
        findings: Codes of the findings that decided.
        positions: Positions that were compared.
        statistics: Value of each statistic; NaN where it does not apply, infinite where no honest provider can come;
            empty where there was no replay.
        shape: In which way the provider deviates (`earmark.fingerprint.shape`); empty where there was no replay.
        text: What the provider says was said.
        expected: The true transcript, or None where it is not known.
        seconds: Length of the audio.
        request: Digest of the request, which binds audio and language; empty in runs of the days before.
    """

    clip: str
    base: str
    scenario: str
    honest: bool
    model: str
    weights: str
    family: str
    precision: str
    level: str
    outcome: str
    findings: tuple[str, ...] = ()
    positions: int = 0
    statistics: Mapping[str, float] = field(default_factory=dict)
    shape: Mapping[str, float] = field(default_factory=dict)
    text: str = ""
    expected: str | None = None
    seconds: float = 0.0
    request: str = ""

    @property
    def looks_like(self) -> str | None:
        """The known cheat that the clip looks like (`earmark.attribution`); None where it was matched with none."""
        from earmark.attribution import named_in

        return named_in(self.shape)

    @property
    def broke_a_rule(self) -> bool:
        """Whether the clip FAILed by something else than the size of a statistic."""
        known = (code.startswith("statistics.") or code in UNDECIDED for code in self.findings)
        return self.outcome == "FAIL" and not (self.findings and all(known))

    def to_json(self) -> str:
        """Return the row as one line of strict JSON; NaN becomes null, infinity a word."""
        numbers = {
            kind: {name: lines.from_float(value) for name, value in getattr(self, kind).items()} for kind in NUMBERS
        }
        return lines.to_line({"run": RUN_VERSION, **asdict(self), **numbers})

    @classmethod
    def from_json(cls, line: str) -> Row:
        """Return the row that `to_json` wrote.

        Raises:
            RecordError: The line is no row of this version.
        """
        try:
            values = lines.from_line(line)
            if (version := values.pop("run")) != RUN_VERSION:
                raise RecordError(f"version {version!r}; this version of earmark reads {RUN_VERSION}")
            numbers = {kind: _numbers(values[kind]) for kind in NUMBERS}
            return _checked(msgspec.convert(values | numbers, cls), values)
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise RecordError(f"no row of a run: {' '.join(str(error).split())[:200]}") from error


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """Return numbers by name; finite ones come first and names are shared, since each row has hundreds."""
    return {
        sys.intern(name): value if type(value) is float and -MOST <= value <= MOST else lines.to_float(value)
        for name, value in values.items()
    }


COLUMNS = frozenset(own.name for own in fields(Row))


def _checked(row: Row, values: Mapping[str, Any]) -> Row:
    """Return a row that was read from these values where they are in range and no column is unknown."""
    if unknown := sorted(values.keys() - COLUMNS):
        raise RecordError(f"unknown columns {', '.join(unknown)}; expected {', '.join(sorted(COLUMNS))}")
    if row.outcome not in OUTCOMES:
        raise RecordError(f"outcome {row.outcome!r:.60}; expected one of {', '.join(OUTCOMES)}")
    if not 0 <= row.seconds < math.inf or row.positions < 0:
        found = f"{row.seconds:g} seconds and {row.positions} positions"
        raise RecordError(f"{found}; expected finite numbers from 0 on")
    return row


class Run(Sequence[Row]):
    """Rows in the order in which they were measured.

    Example:
        >>> row = Row(clip="a", base="a", scenario="int8", honest=False, model="m", weights="", family="ctc",
        ...           precision="fp32", level="scores", outcome="FAIL", statistics={"logprob_l1": 0.5})
        >>> Run([row]).matrix(["logprob_l1", "margin_max"]).tolist()
        [[0.5, nan]]
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        """Keep the rows."""
        self._rows = list(rows)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        """Return one row, or a run of some."""
        return Run(self._rows[index]) if isinstance(index, slice) else self._rows[index]

    def __iter__(self) -> Iterator[Row]:
        """Iterate over the rows."""
        return iter(self._rows)

    def where(self, keep: Callable[[Row], bool]) -> Run:
        """Return the rows that `keep` accepts."""
        return Run(row for row in self._rows if keep(row))

    def scenarios(self) -> list[str]:
        """Return the names of the providers in order of appearance."""
        return list(dict.fromkeys(row.scenario for row in self._rows))

    def matrix(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return statistics as an array (rows, names); NaN where a row has none of that name."""
        values = [[row.statistics.get(name, math.nan) for name in names] for row in self._rows]
        return np.asarray(values, dtype=np.float64).reshape(len(self._rows), len(names))

    @classmethod
    def read(cls, *paths: str | os.PathLike[str]) -> Run:
        """Read JSON lines.

        Raises:
            RecordError: A line is no row; file and line are named.
            UsageError: A file is missing.
        """
        return cls(row for path in paths for _, row in lines.read(path, Row.from_json))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table: one JSON line per row, or Parquet with one row per statistic where the name says so.

        Raises:
            OutputError: The file cannot be written.
            UsageError: Parquet was asked for and pandas or pyarrow is missing.
        """
        target = Path(path)
        partial = target.with_name(target.name + ".part")
        try:
            if target.suffix == ".parquet":
                self._write_parquet(partial)
            else:
                partial.write_text("".join(row.to_json() + "\n" for row in self._rows), encoding="utf-8")
            partial.replace(target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise OutputError(f"{target} cannot be written: {error}") from error

    def _write_parquet(self, path: Path) -> None:
        need("pyarrow", what="Parquet", extra="corpora")
        self.to_pandas().to_parquet(path, engine="pyarrow")

    def to_pandas(self) -> pd.DataFrame:
        """Return the long table, one row per clip, provider and statistic.

        Raises:
            UsageError: pandas is not installed.
        """
        table: pd.DataFrame = need("pandas", what="to_pandas", extra="table").DataFrame(
            [
                {
                    **{name: value for name, value in asdict(row).items() if name not in (*NUMBERS, "findings")},
                    "findings": " ".join(row.findings),
                    "statistic": name,
                    "value": value,
                }
                for row in self._rows
                for name, value in (row.statistics or {"": math.nan}).items()
            ]
        )
        return table
