"""Corpora in the forms of Hugging Face: a folder with a listing, or tables with audio bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from earmark.challenges.manifest import Problem, parse_object, read_lines
from earmark.challenges.sources import (
    AUDIO_KEYS,
    TEXT_KEYS,
    Found,
    Incoming,
    as_text,
    digests_of,
    first_of,
    language_of,
)
from earmark.errors import UsageError


def read_tables(path: Path) -> Found:
    """Yield from a folder with metadata.csv or metadata.jsonl (audiofolder), or from tables with audio bytes."""
    listings, tables = [path], [path]
    if path.is_dir():
        listings = sorted(p for name in ("metadata.csv", "metadata.jsonl") for p in path.rglob(name))
        tables = sorted(p for ending in ("parquet", "arrow") for p in path.rglob(f"*.{ending}"))
        if not listings and not tables:
            raise UsageError(
                f"{path} holds no metadata.csv, metadata.jsonl, *.parquet or *.arrow; give a dataset folder"
            )
    offset = 0
    for listing in (p for p in listings if p.suffix in (".csv", ".jsonl")):
        yield from _audiofolder(listing)
    for table in (p for p in tables if p.suffix in (".parquet", ".arrow")):
        offset = yield from _table(table, offset)


def _audiofolder(listing: Path) -> Found:
    rows: list[tuple[int, Any]] = list(read_lines(listing))
    if listing.suffix == ".csv":
        rows = _csv_rows(listing)
    for number, row in rows:
        try:
            values = parse_object(row) if isinstance(row, str) else {k: v for k, v in row.items() if k}
            name = as_text(first_of(values, ("file_name", *AUDIO_KEYS), "audio file"), "file_name")
            text = as_text(first_of(values, TEXT_KEYS, "transcript"), "text")
            yield Incoming(
                line=number,
                name=name,
                text=text,
                language=language_of(values),
                audio=listing.parent / name,
                digests=digests_of(values),
            )
        except ValueError as error:
            yield Problem(line=number, id="", message=" ".join(str(error).split())[:400])


def _csv_rows(listing: Path) -> list[tuple[int, Any]]:
    found = csv.DictReader(io.StringIO(listing.read_text(encoding="utf-8")))
    try:
        return [(found.line_num, row) for row in found]
    except csv.Error as error:
        raise UsageError(f"{listing} line {found.line_num}: not CSV ({error}); write it again") from error


def _table(path: Path, offset: int) -> Any:
    """Yield the rows of a parquet file or a saved dataset; return how many rows came before the next table."""
    for batch in _batches(path):
        for row in batch.to_pylist():
            offset += 1
            try:
                yield _table_row(row, offset, path.parent)
            except ValueError as error:
                yield Problem(line=offset, id="", message=" ".join(str(error).split())[:400])
    return offset


def _table_row(row: dict[str, Any], number: int, folder: Path) -> Incoming:
    held = next((v for v in row.values() if isinstance(v, dict) and {"bytes", "path"} <= v.keys()), None)
    if held is None or not (held["bytes"] or held["path"]):
        raise UsageError("no column with audio; expected one of type Audio (bytes and path)")
    name = str(held["path"] or number)
    return Incoming(
        line=number,
        name=name,
        text=as_text(first_of(row, TEXT_KEYS, "transcript"), "text"),
        language=language_of(row),
        audio=held["bytes"] or folder / name,
        digests=digests_of(row),
    )


def _batches(path: Path) -> Iterator[Any]:
    try:
        import pyarrow as pa
        from pyarrow import ipc, parquet
    except ImportError as error:
        raise UsageError(f"{path}: reading it needs pyarrow; install earmark[corpora]") from error
    try:
        if path.suffix == ".parquet":
            yield from parquet.ParquetFile(path).iter_batches(batch_size=16)
        else:
            with pa.memory_map(str(path)) as data:
                yield from ipc.open_stream(data)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path}: no readable {path.suffix} file ({str(error)[:120]}); copy it again") from error
