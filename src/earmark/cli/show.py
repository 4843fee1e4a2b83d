"""What people and programs see: tables, JSON lines, progress bars."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from earmark.cli import exit_code
from earmark.protocols import Advance
from earmark.records import lines
from earmark.records.verdict import Verdict

COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}


def err() -> Console:
    """Return the console of stderr."""
    return Console(stderr=True)


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Show a progress bar on stderr while the block runs; yields the function that moves it."""
    with _bar() as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


@contextmanager
def betting(label: str, total: int, done: int = 0, log_e: float = 0.0) -> Iterator[Callable[[float], None]]:
    """Show a progress bar with clips per second and the e-value while the block runs.

    Args:
        label: What is going on.
        total: Number of clips.
        done: Clips that an earlier run finished.
        log_e: log e-value behind these.

    Yields:
        The function that counts one clip; it takes the log e-value behind it.
    """
    with _bar(_Speed(), TextColumn("e {task.fields[e_value]:.2g}")) as bar:
        task = bar.add_task(label, total=total, completed=done, done=done, e_value=e_value(log_e))
        yield lambda log_e: bar.update(task, advance=1, e_value=e_value(log_e))


def e_value(log_e: float) -> float:
    """Return an e-value for people, the largest ones cut off.

    Example:
        >>> e_value(0.0), e_value(1e6) == e_value(700.0)
        (1.0, True)
    """
    return math.exp(min(log_e, 700.0))


def _bar(*more: ProgressColumn) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *more, TimeElapsedColumn())
    console = err()
    hidden = not console.is_terminal
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden)


class _Speed(ProgressColumn):
    """Clips per second since the start; clips end in rounds, and rich's own speed would be that of the last burst."""

    def render(self, task: Task) -> Text:
        """Return the speed, without the clips that were done before."""
        count = task.completed - task.fields["done"]
        return Text(f"{count / task.elapsed if task.elapsed else 0:.3g} clips/s")


def json_line(row: dict[str, Any]) -> None:
    """Print one JSON object in one line."""
    print(lines.to_line(row), flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; texts are shown as they are, without markup."""
    drawn = Table(title=title, title_justify="left")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(lines.plain(cell), style=COLOURS.get(cell, "")) for cell in row))
    console = Console()
    console.print(drawn, width=None if console.is_terminal else 160)


def facts(values: Mapping[str, object]) -> None:
    """Print names and values, numbers in three digits; what there is none of is left out."""
    known = {name.replace("_", " "): value for name, value in values.items() if value is not None}
    table(("fact", "value"), [[name, f"{v:.3g}" if isinstance(v, float) else str(v)] for name, v in known.items()])


class Verdicts:
    """Verdicts as they come: JSON lines at once, or at the end one in full, or a table of many with their counts."""

    def __init__(self, *, as_json: bool) -> None:
        """Begin without any."""
        self._as_json = as_json
        self._names: list[str] = []
        self._verdicts: list[Verdict] = []

    def add(self, name: str, place: str, verdict: Verdict) -> None:
        """Take one verdict.

        Args:
            name: What a table calls it.
            place: What a JSON line calls it.
            verdict: The verdict.
        """
        self._names.append(name)
        self._verdicts.append(verdict)
        if self._as_json:
            json_line({"evidence": place, **verdict.to_dict()})

    def finish(self) -> int:
        """Print what was not printed yet, and return the exit code."""
        if not self._as_json:
            self._print()
        return exit_code({verdict.outcome for verdict in self._verdicts})

    def _print(self) -> None:
        if len(self._verdicts) == 1:
            print(self._verdicts[0])
            return
        rows = list(map(_cells, self._names, self._verdicts))
        table(("evidence", "verdict", "statistic", "reason"), rows)
        counts = {outcome: sum(row[1] == outcome for row in rows) for outcome in COLOURS}
        print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))


def _cells(name: str, verdict: Verdict) -> list[str]:
    """Return the table row of one verdict: name, outcome, headline statistic, first reason."""
    reasons = [f for f in verdict.findings if f.severity != "note"]
    more = f" (+{len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return [
        name,
        verdict.outcome,
        verdict.fingerprint.headline(1) if verdict.fingerprint else "-",
        f"{reasons[0]}{more}" if reasons else verdict.agreement,
    ]
