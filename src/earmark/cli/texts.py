"""`earmark verify --text`: transcripts without evidence."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from earmark.cli import files, show
from earmark.cli.files import Named
from earmark.errors import RecordError, UsageError
from earmark.records import codec
from earmark.text_only import TextSegment, verify_text

SUFFIXES = (".txt", ".json")


@dataclass(frozen=True, slots=True)
class Given:
    """One transcript and where it was found; `path` does not exist where it stood on the command line."""

    text: str | list[TextSegment]
    place: Named


def find_texts(given: Sequence[str]) -> list[Given]:
    """Read transcripts: files, folders of them, or the words themselves.

    A JSON file holds `text`, or `segments` with `text` and where known `avg_logprob` each.

    Raises:
        UsageError: A folder holds no transcripts, or a text is empty.
        RecordError: A JSON file is damaged.
    """
    found = []
    for entry in given:
        path = Path(entry)
        if path.suffix in SUFFIXES and not path.exists():
            raise UsageError(f"{entry}: no such file")
        if _is_dir(path):
            inside = sorted(p for p in path.iterdir() if p.suffix in SUFFIXES and not _is_record(p))
            if not inside:
                raise UsageError(f"{entry} holds no .txt or .json transcripts")
            found += [Given(_read(p), Named(p, p.stem)) for p in inside]
        elif path.suffix in SUFFIXES:
            found.append(Given(_read(path), Named(path, path.stem)))
        elif entry.strip():
            found.append(Given(entry, Named(Path(), entry)))
        else:
            raise UsageError("an empty text; give the transcript or its file")
    return found


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a long sentence is no file name
        return False


def _is_record(path: Path) -> bool:
    return path.stem.endswith((".evidence", ".request", ".receipt"))


def _read(path: Path) -> str | list[TextSegment]:
    data = codec.read_bytes(path)
    try:
        content = data.decode()
        return content.strip() if path.suffix == ".txt" else _parse(json.loads(content))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise RecordError(f"{path} holds no transcript: expected text, or segments with text each") from error


def _parse(row: Any) -> str | list[TextSegment]:
    if "segments" not in row:
        return _string(row["text"])
    return [
        TextSegment(text=_string(part["text"]), mean_logprob=_number(part.get("avg_logprob")))
        for part in row["segments"]
    ]


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def verify_texts(
    given: Sequence[str],
    model: str,
    audio: Path | None,
    request: Path | None,
    language: str | None,
    batch_size: int,
    as_json: bool,
    settings: dict[str, Any],
) -> int:
    """Judge transcripts, print the verdicts and return the exit code."""
    import earmark

    found = find_texts(given)
    alone = len(found) == 1
    pairs = []
    for item in found:
        clip = audio if audio is not None and audio.is_file() and alone else _clip(item, audio, alone)
        asked = files.request_of(item.place, request, alone)
        pairs.append((clip, asked))
    reference = earmark.load(model, arithmetic="float32", **settings)
    shown = show.Verdicts(as_json=as_json)
    with show.progress("verifying", len(found)) as step:
        for item, (clip, asked) in zip(found, pairs, strict=True):
            bound = earmark.request(clip, language=language) if asked is None and language else asked
            verdict = verify_text(item.text, bound, clip, reference, batch_size=batch_size)
            shown.add(item.place.name[:60], item.place.name, verdict)
            step(1)
    return shown.finish()


def _clip(item: Given, audio: Path | None, alone: bool) -> Path:
    if audio is None and not item.place.path.name:
        raise UsageError("name the clip of this text with --audio")
    return files.audio_of(item.place, audio, alone)
