"""The `Run` table: what every statistic said about each clip of each provider; benchmarks and reports share it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import OutputError, RecordError, UsageError

if TYPE_CHECKING:
    import pandas as pd

RUN_VERSION = 1
"""Rises when a column is added, removed or changes its meaning."""


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
        statistics: Value of each statistic; NaN where it does not apply; empty where there was no replay.
        text: What the provider says was said.
        expected: The true transcript, or None where it is not known.
        seconds: Length of the audio.
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
    text: str = ""
    expected: str | None = None
    seconds: float = 0.0

    def to_json(self) -> str:
        """Return the row as one line of strict JSON; NaN becomes null."""
        known = {name: value if math.isfinite(value) else None for name, value in self.statistics.items()}
        return json.dumps({"run": RUN_VERSION, **asdict(self), "statistics": known}, ensure_ascii=False)

    @classmethod
    def from_json(cls, line: str) -> Row:
        """Return the row that `to_json` wrote.

        Raises:
            RecordError: The line is no row of this version.
        """
        try:
            values = json.loads(line)
            version = values.pop("run")
            statistics = {n: math.nan if v is None else float(v) for n, v in values.pop("statistics").items()}
            row = cls(**values | {"statistics": statistics, "findings": tuple(values.get("findings", ()))})
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise RecordError(f"no row of a run: {' '.join(str(error).split())[:200]}") from error
        if version != RUN_VERSION:
            raise RecordError(f"row of run version {version!r}; this version of earmark reads {RUN_VERSION}")
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
        rows = []
        for path in paths:
            try:
                lines = Path(path).read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise UsageError(f"{path} cannot be read as a run: {error}") from error
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        rows.append(Row.from_json(line))
                    except RecordError as error:
                        raise RecordError(f"{path}, line {number}: {error}") from error
        return cls(rows)

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
        try:
            self.to_pandas().to_parquet(path)
        except ImportError as error:
            raise UsageError("Parquet needs pandas and pyarrow; install earmark[table]") from error

    def to_pandas(self) -> pd.DataFrame:
        """Return the long table, one row per clip, provider and statistic.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise UsageError("to_pandas needs pandas; install earmark[table]") from error
        return pd.DataFrame(
            [
                {
                    **{name: value for name, value in asdict(row).items() if name not in ("statistics", "findings")},
                    "findings": " ".join(row.findings),
                    "statistic": name,
                    "value": value,
                }
                for row in self._rows
                for name, value in (row.statistics or {"": math.nan}).items()
            ]
        )
