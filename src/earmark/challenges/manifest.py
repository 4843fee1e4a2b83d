"""The manifest of a set of clips: one JSON object per line, read strictly; every fault names its line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import msgspec

from earmark.challenges.mixing import MAX_LAYERS, Layer
from earmark.challenges.synthesis import Voice
from earmark.errors import UsageError
from earmark.records import lines
from earmark.records.codec import Digest, write_atomically

MANIFEST = "manifest.jsonl"
CATEGORIES = {
    "clean": "one voice, nothing else",
    "accents": "regional and unusual voices",
    "multilingual": "German, French, Spanish, and two languages in one clip",
    "noisy": "white, pink and babble noise at several levels, echo",
    "overlapping": "two or three speakers at once; the transcript is the first one's",
    "long": "one to three minutes",
    "ambiguous": "homophones, minimal pairs, nearly silent, clipped, cut into a word",
    "rare": "rare terms, names and places",
    "other": "clips from elsewhere",
}
MULTIPLE = "mul"
"""Language code of clips in several languages (ISO 639-2)."""

MAX_MANIFEST_BYTES = 256 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One clip: what is said, the digest of its canonical audio, and where it comes from.

    Attributes:
        id: Short name, unique in the set.
        category: One of `CATEGORIES`.
        language: Language code; `mul` for several.
        text: What is said, not empty.
        duration: Seconds.
        digest: Digest of the canonical audio.
        audio_filepath: The stored file, relative to the manifest; empty for a mix.
        sha256: SHA-256 of the stored file's bytes; empty where unknown.
        voice: Who said it, where it was synthesised.
        layers: What a mix is the sum of; empty for a stored clip.
        source: Where an imported clip comes from.
    """

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    category: str
    language: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9-]{1,40}$")]
    text: Annotated[str, msgspec.Meta(max_length=100_000)]
    duration: float
    digest: Digest
    audio_filepath: Annotated[str, msgspec.Meta(max_length=1_000)] = ""
    sha256: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{64})?$")] = ""
    voice: Voice | None = None
    layers: Annotated[tuple[Layer, ...], msgspec.Meta(max_length=MAX_LAYERS)] = ()
    source: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One fault of a set.

    Attributes:
        line: Line of the manifest, from 1.
        id: Id of the clip, or empty where it is not known.
        message: What was found and what was expected.
    """

    line: int
    id: str
    message: str

    def __str__(self) -> str:
        """Return line, clip and fault."""
        return f"line {self.line}{f' ({self.id})' if self.id else ''}: {self.message}"


@dataclass(frozen=True, slots=True)
class Numbered:
    """A row and the line that it stands in."""

    line: int
    row: Row


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines of a text file that are not blank.

    Raises:
        UsageError: The file is missing, too large, or no text.
    """
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise UsageError(f"{path}: {path.stat().st_size} bytes; at most {MAX_MANIFEST_BYTES} are read")
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: is not UTF-8 text, expected one JSON object per line") from error
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; give an existing manifest") from error
    return [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def parse_object(line: str) -> dict[str, Any]:
    """Return the JSON object of one line; NaN and infinities are read as such, to be refused by name.

    Raises:
        ValueError: The line is too long, no JSON, or no object.
    """
    if len(line) > MAX_LINE_BYTES:
        raise UsageError(f"{len(line)} characters in one line; at most {MAX_LINE_BYTES} are read")
    return lines.from_line(line)


def read_manifest(path: Path) -> tuple[list[Numbered], list[Problem]]:
    """Read a manifest; rows with faults are left out and named.

    Args:
        path: The manifest; its folder holds the stored files.

    Returns:
        The good rows, and the problems in order of their lines.

    Raises:
        UsageError: The file cannot be read at all.
    """
    rows: dict[str, Numbered] = {}
    problems: list[Problem] = []
    for number, line in read_lines(path):
        name = ""
        try:
            found = parse_object(line)
            name = str(found.get("id", ""))[:100]
            row = _checked(found, path.parent)
            if row.id in rows:
                raise UsageError(f"id {row.id!r} stands in line {rows[row.id].line} already; ids are unique")
        except ValueError as error:  # msgspec's errors are ValueErrors
            problems.append(Problem(line=number, id=name, message=" ".join(str(error).split())[:400]))
            continue
        rows[row.id] = Numbered(number, row)
    return _with_parts(rows, problems)


def _checked(found: dict[str, Any], folder: Path) -> Row:
    row = msgspec.convert(found, Row)
    if row.category not in CATEGORIES:
        raise UsageError(f"unknown category {row.category[:60]!r}; known: {', '.join(CATEGORIES)}")
    if not row.text.strip():
        raise UsageError("the transcript is empty; expected what is said")
    if not (math.isfinite(row.duration) and row.duration > 0):
        raise UsageError(f"duration is {row.duration}, expected a positive number of seconds")
    if bool(row.audio_filepath) == bool(row.layers):
        raise UsageError("expected either audio_filepath (a stored clip) or layers (a mix)")
    if row.audio_filepath:
        _check_file(row.audio_filepath, folder)
    return row


def _check_file(name: str, folder: Path) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or os.sep != "/":
        raise UsageError(f"audio_filepath {name[:100]!r} leaves the folder of the manifest")
    if not (folder / name).is_file():
        raise UsageError(f"{name[:200]}: no such file beside the manifest")


def _with_parts(rows: dict[str, Numbered], problems: list[Problem]) -> tuple[list[Numbered], list[Problem]]:
    """Leave out mixes of clips that are not there."""
    good = []
    for item in rows.values():
        parts = {layer.clip for layer in item.row.layers if layer.clip}
        missing = sorted(p for p in parts if p not in rows or rows[p].row.layers)
        if missing:
            message = f"is mixed from {', '.join(missing)[:200]}, expected ids of stored clips that are in order"
            problems.append(Problem(line=item.line, id=item.row.id, message=message))
        else:
            good.append(item)
    return good, sorted(problems, key=lambda problem: problem.line)


def write_manifest(path: Path, rows: Iterable[Row]) -> None:
    """Write a manifest, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_atomically(path, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
