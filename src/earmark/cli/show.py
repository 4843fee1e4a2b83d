"""What people and programs see: tables, JSON lines, progress bars."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from earmark.protocols import Advance
from earmark.records.verdict import Verdict

COLOURS = {"PASS": "green", "FAIL": "red", "INCONCLUSIVE": "yellow"}


def err() -> Console:
    """Return the console of stderr."""
    return Console(stderr=True)


@contextmanager
def progress(label: str, total: int) -> Iterator[Advance]:
    """Show a progress bar on stderr while the block runs; yields the function that moves it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = err()
    hidden = not console.is_terminal
    with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(label, total=total)
        yield lambda count: bar.advance(task, count)


def json_line(row: dict[str, Any]) -> None:
    """Print one JSON object in one line."""
    print(json.dumps(row, ensure_ascii=False, allow_nan=False), flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str | None = None) -> None:
    """Print a table; texts are shown as they are, without markup."""
    drawn = Table(title=title, title_justify="left")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    console = Console()
    console.print(drawn, width=None if console.is_terminal else 160)


def verdict_row(name: str, verdict: Verdict) -> dict[str, Any]:
    """Return the JSON row of one verdict."""
    return {"evidence": name, **verdict.to_dict()}


def verdict_cells(name: str, verdict: Verdict) -> list[str]:
    """Return the table row of one verdict: name, outcome, headline statistic, first reason."""
    reasons = [f for f in verdict.findings if f.severity != "note"]
    more = f" (+{len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return [
        name,
        verdict.outcome,
        verdict.fingerprint.headline(1) if verdict.fingerprint else "-",
        f"{reasons[0]}{more}" if reasons else "evidence and replay agree",
    ]


def verdicts(rows: Sequence[Sequence[str]], alone: Verdict | None) -> None:
    """Print one verdict in full, or a table of many with their counts."""
    if alone is not None:
        print(alone)
        return
    table(("evidence", "verdict", "statistic", "reason"), rows)
    counts = {outcome: sum(row[1] == outcome for row in rows) for outcome in COLOURS}
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
