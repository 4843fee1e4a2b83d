r"""JSON lines: logs and lists that hold one object per line.

Transcripts and names come from others and may hold any character. Only a line feed ends a line here, where
`str.splitlines` breaks at U+0085, U+2028 and others too; and what is written holds none of them, so that it stays whole
in readers that do.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from earmark.errors import OutputError, RecordError, UsageError

MAX_LINE_BYTES = 64 * 1024 * 1024
"""No line is read beyond this size."""

INFINITE = "infinite"
"""JSON has no infinity, and null says that a number does not apply."""

_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Ends of lines elsewhere, control characters of terminals, and halves of characters, which UTF-8 cannot hold."""

T = TypeVar("T")


def to_line(row: Mapping[str, Any]) -> str:
    r"""Return an object as one line of strict JSON, without the line feed.

    Example:
        >>> print(to_line({"text": "größer\u2028\n"}))
        {"text": "größer\u2028\n"}
    """
    text = json.dumps(row, ensure_ascii=False, allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # such characters stand in strings alone


def plain(text: str) -> str:
    r"""Return a text of others in one line that a terminal shows as it is.

    Example:
        >>> plain("größer\n\x1b[2J")
        'größer��[2J'
    """
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def from_line(line: str) -> dict[str, Any]:
    """Return the object of one line; NaN and infinities are read as such, to be refused by name.

    Raises:
        RecordError: The line is no JSON object.
    """
    try:
        found = json.loads(line)
    except RecursionError as error:
        raise RecordError("brackets nested too deep for JSON; expected one flat object") from error
    except ValueError as error:
        raise RecordError(f"not JSON ({str(error)[:100]}); expected one JSON object per line") from error
    if not isinstance(found, dict):
        raise RecordError(f"{type(found).__name__} found, expected a JSON object")
    return found


def from_float(value: float) -> float | str | None:
    """Return a number as JSON can hold it: an infinite one as a word, NaN as null.

    Example:
        >>> from_float(0.5), from_float(-math.inf), from_float(math.nan)
        (0.5, '-infinite', None)
    """
    if math.isnan(value):
        return None
    return value if math.isfinite(value) else INFINITE if value > 0 else f"-{INFINITE}"


def to_float(value: object) -> float:
    """Return the number that `from_float` wrote.

    Raises:
        RecordError: It is neither a number nor one of the words.

    Example:
        >>> to_float(2), to_float("infinite"), to_float(None)
        (2.0, inf, nan)
    """
    if value is None:
        return math.nan
    if value in (INFINITE, f"-{INFINITE}"):
        return math.inf if value == INFINITE else -math.inf
    if type(value) in (int, float) and abs(value) <= sys.float_info.max:  # type: ignore[arg-type]  # a number
        return float(value)  # type: ignore[arg-type]
    raise RecordError(f"{value!r:.60} found, expected a number, {INFINITE!r}, '-{INFINITE}' or null")


def numbered(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    """Yield number, from 1, and text of each line of a file that is not blank; a byte order mark is none of the text.

    Raises:
        UsageError: The file cannot be read.
        RecordError: A line is too long, or not UTF-8.
    """
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), 1):
                text = _decode(line.removeprefix(codecs.BOM_UTF8 * (number == 1)), f"{path}, line {number}")
                if text.strip():
                    yield number, text.rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; give an existing file") from error


def _decode(line: bytes, where: str) -> str:
    if len(line) > MAX_LINE_BYTES:
        raise RecordError(f"{where}: more than {MAX_LINE_BYTES} bytes; at most as many are read")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise RecordError(f"{where}: no UTF-8 text ({error.reason})") from error


def read(path: str | os.PathLike[str], parse: Callable[[str], T]) -> Iterator[tuple[int, T]]:
    """Yield number and content of each line that is not blank.

    Args:
        path: The file.
        parse: Makes something of one line; what it raises names file and line.

    Raises:
        UsageError: The file cannot be read.
        RecordError: A line is not what it should be.
    """
    for number, line in numbered(path):
        try:
            content = parse(line)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            reason = " ".join(str(error).split())[:400]
            raise RecordError(f"{path}, line {number}: {reason}") from error
        yield number, content


def drop_torn_line(path: Path) -> None:
    """Cut off a last line without its end: the process was killed while writing it.

    Raises:
        OutputError: The file cannot be read or written, or is a device or a folder.
    """
    if path.exists() and not path.is_file():
        raise OutputError(f"{path} is no regular file; give a file that can be written and read again")
    try:
        data = path.read_bytes() if path.exists() else b""
        if data and not data.endswith(b"\n"):
            path.write_bytes(data[: data.rfind(b"\n") + 1])
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror or error}; give a file that can be written") from error
