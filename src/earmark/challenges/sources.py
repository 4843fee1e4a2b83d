"""Manifests of others, read as plain data: NeMo and lhotse."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

from earmark.challenges.manifest import MAX_MANIFEST_BYTES, Problem, parse_object, read_lines
from earmark.errors import UsageError

TEXT_KEYS = ("text", "sentence", "transcription", "transcript", "normalized_text")
LANGUAGE_KEYS = ("language", "lang", "locale", "source_lang")
AUDIO_KEYS = ("audio_filepath", "audio", "path", "file_name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """One clip of another corpus, not yet read.

    Attributes:
        line: Line or row in its manifest, from 1.
        name: What it is called there.
        text: What is said.
        language: Language code, or empty.
        audio: File, or the bytes of one.
        start_s: Where the clip begins in the file.
        duration_s: How long it lasts by the manifest; None where it does not say.
        whole: Whether the clip is the whole file, so that the duration is only compared.
        channel: Channel to take; None mixes all.
        digests: What its manifest says of it: `digest` (canonical audio) or `sha256` (bytes of the file).
    """

    line: int
    name: str
    text: str
    audio: Path | bytes
    language: str = ""
    start_s: float = 0.0
    duration_s: float | None = None
    whole: bool = True
    channel: int | None = None
    digests: dict[str, str]


Found = Iterator[Incoming | Problem]


def frames_of(seconds: float, rate_hz: int) -> int:
    """Return seconds as frames, halves rounded up in decimal arithmetic, as lhotse does.

    Example:
        >>> frames_of(0.1, 44_105), frames_of(0.00003125, 16_000)
        (4411, 1)
    """
    return int((Decimal(str(seconds)) * rate_hz).to_integral_value(ROUND_HALF_UP))


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """Return the numbered lines of a text file, gzipped or not, that are not blank."""
    if not path.name.endswith(".gz"):
        return read_lines(path)
    try:
        with gzip.open(path, "rb") as file:
            data = file.read(MAX_MANIFEST_BYTES + 1)
        if len(data) > MAX_MANIFEST_BYTES:
            raise UsageError(f"{path}: more than {MAX_MANIFEST_BYTES} bytes; at most as many are read")
        return [(n, line) for n, line in enumerate(data.decode("utf-8").split("\n"), 1) if line.strip()]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: no gzip file of text ({str(error)[:100]}); copy it again") from error


def _objects(path: Path, make: Callable[[int, dict[str, Any]], Incoming]) -> Found:
    for number, line in numbered_lines(path):
        try:
            yield make(number, parse_object(line))
        except ValueError as error:
            yield Problem(line=number, id="", message=" ".join(str(error).split())[:400])


def first_of(row: dict[str, Any], keys: tuple[str, ...], what: str) -> Any:
    """Return the first value that a row has under some names."""
    for key in keys:
        if row.get(key) is not None:
            return row[key]
    raise UsageError(f"no {what}; expected one of {', '.join(keys)}")


def as_text(value: Any, what: str) -> str:
    """Return a text as it is, and refuse anything else."""
    if not isinstance(value, str):
        raise UsageError(f"{what} is {type(value).__name__}, expected text")
    return value


def _number(value: Any, what: str, least: float = 0.0) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(f"{what} is {value!r:.60}, expected a number")
    if not least <= value < 1e9:
        raise UsageError(f"{what} is {value}, expected a finite number of seconds")
    return float(value)


def language_of(row: dict[str, Any]) -> str:
    """Return the language code that a row states, or an empty text."""
    return next((str(row[key]) for key in LANGUAGE_KEYS if isinstance(row.get(key), str)), "")


def digests_of(row: dict[str, Any]) -> dict[str, str]:
    """Return the digests that a row states."""
    return {key: row[key].lower() for key in ("digest", "sha256") if isinstance(row.get(key), str) and row[key]}


def read_nemo(path: Path) -> Found:
    """NeMo: audio_filepath, text, duration, perhaps offset, one JSON object per line."""

    def make(number: int, row: dict[str, Any]) -> Incoming:
        name = as_text(first_of(row, AUDIO_KEYS, "audio file"), "audio_filepath")
        duration = None if row.get("duration") is None else _number(row["duration"], "duration")
        offset = None if row.get("offset") is None else _number(row["offset"], "offset")
        return Incoming(
            line=number,
            name=name,
            text=as_text(first_of(row, TEXT_KEYS, "transcript"), "text"),
            language=language_of(row),
            audio=path.parent / name,
            start_s=offset or 0.0,
            duration_s=duration,
            whole=offset is None,
            digests=digests_of(row),
        )

    return _objects(path, make)


def read_lhotse(path: Path) -> Found:
    """lhotse: single-channel cuts with their recording and supervisions inside, one per line."""

    def make(number: int, row: dict[str, Any]) -> Incoming:
        kind = row.get("type", "MonoCut")
        if kind != "MonoCut":
            raise UsageError(f"a cut of type {str(kind)[:40]!r}, expected MonoCut; save mixed cuts as audio first")
        recording, said, custom = row.get("recording"), row.get("supervisions") or [], row.get("custom") or {}
        if not isinstance(recording, dict) or not isinstance(said, list) or not isinstance(custom, dict):
            raise UsageError("no recording in the cut; expected a cut manifest, not a recording or feature manifest")
        if not all(isinstance(item, dict) for item in said):
            raise UsageError("supervisions are no objects; expected lhotse's own")
        texts = [as_text(item.get("text") or "", "text") for item in sorted(said, key=_start)]
        return Incoming(
            line=number,
            name=str(row.get("id", number)),
            text=" ".join(text for text in texts if text),
            language=language_of(said[0]) if said else "",
            audio=path.parent / _lhotse_file(recording),
            start_s=_number(row.get("start", 0), "start"),
            duration_s=_number(row.get("duration"), "duration"),
            whole=False,
            channel=_lhotse_channel(row.get("channel", 0)),
            digests=digests_of(custom),
        )

    return _objects(path, make)


def _start(supervision: dict[str, Any]) -> float:
    return _number(supervision.get("start", 0), "start of a supervision", -1e9)  # negative in cut-off cuts


def _lhotse_channel(channel: Any) -> int:
    if isinstance(channel, bool) or not isinstance(channel, int) or not 0 <= channel < 8:
        raise UsageError(f"channel {channel!r:.40}, expected one of 0 to 7")
    return channel


def _lhotse_file(recording: dict[str, Any]) -> str:
    sources = recording.get("sources")
    if not isinstance(sources, list) or len(sources) != 1 or not isinstance(sources[0], dict):
        raise UsageError("expected a recording with one source")
    if sources[0].get("type") != "file":  # commands of a manifest are never run, links never fetched
        raise UsageError(
            f"a source of type {str(sources[0].get('type'))[:40]!r}, expected 'file'; save the audio first"
        )
    if recording.get("transforms"):
        raise UsageError("the recording is transformed on the fly; save the audio first")
    return as_text(sources[0].get("source"), "source")
