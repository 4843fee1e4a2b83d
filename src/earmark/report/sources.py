"""What a report is made of: runs with their examples, and logs of audits."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from earmark.audit_log import Entry
from earmark.errors import RecordError, UsageError
from earmark.examples import Examples, load_examples, path_beside
from earmark.runs import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One run.

    Attributes:
        name: Name of its file.
        run: Its rows.
        examples: What lies beside it, or None.
        digests: Name and SHA-256 of every file that was read.
    """

    name: str
    run: Run
    examples: Examples | None = None
    digests: tuple[tuple[str, str], ...] = ()


def read_source(path: str | os.PathLike[str]) -> Source:
    """Read a run and the examples beside it.

    Raises:
        RecordError: A file is damaged.
        UsageError: The run is missing.
    """
    run, examples = Run.read(path), load_examples(path)
    files = [Path(path), *([path_beside(path)] if examples is not None else [])]
    return Source(name=Path(path).name, run=run, examples=examples, digests=tuple((f.name, _digest(f)) for f in files))


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_audit(path: str | os.PathLike[str]) -> list[Entry]:
    """Read the log of an audit; a last line that a kill cut short is left out.

    Raises:
        RecordError: A line is no entry; file and line are named.
        UsageError: The file is missing.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read as the log of an audit: {error}") from error
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(Entry.from_json(line))
        except RecordError as error:
            raise RecordError(f"{path}, line {number}: {error}") from error
    return entries
