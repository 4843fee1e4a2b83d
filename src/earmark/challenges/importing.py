"""Taking other corpora in: canonical FLAC and a manifest with hashes, whatever they came as."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from earmark import audio
from earmark.audio import CanonicalAudio
from earmark.challenges.manifest import CATEGORIES, MANIFEST, Problem, Row, parse_object, write_manifest
from earmark.challenges.sources import Found, Incoming, frames_of, numbered_lines, read_lhotse, read_nemo
from earmark.challenges.tables import read_tables
from earmark.errors import AudioError, AudioFileNotFoundError, EarmarkError, OutputError, UsageError
from earmark.protocols import Advance

FORMATS: dict[str, Callable[[Path], Found]] = {"nemo": read_nemo, "lhotse": read_lhotse, "huggingface": read_tables}
_TOLERANCE_S = 0.1
_UNKNOWN_LANGUAGE = "und"


def detect(path: Path) -> str:
    """Return the format of a corpus: `nemo`, `lhotse` or `huggingface`.

    Raises:
        UsageError: It is none of them.
    """
    if path.is_dir() or path.suffix in (".parquet", ".arrow", ".csv") or path.name == "metadata.jsonl":
        return "huggingface"
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder; give a manifest or a folder")
    if path.name.endswith((".jsonl", ".jsonl.gz", ".json")):
        first = next(iter(numbered_lines(path)), (0, "{}"))[1]
        try:
            keys = parse_object(first).keys()
        except ValueError:
            return "nemo"  # whose reader names the line
        return "lhotse" if keys & {"recording", "supervisions", "tracks"} else "nemo"
    raise UsageError(f"{path}: of no known format; known: {', '.join(FORMATS)} (name it with --format)")


def import_clips(
    source: Path,
    out: Path,
    *,
    kind: str | None = None,
    category: str = "other",
    language: str | None = None,
    advance: Advance | None = None,
) -> tuple[list[Row], list[Problem]]:
    """Take a corpus in: each clip becomes canonical FLAC, its digests are checked where the corpus states any.

    Args:
        source: NeMo manifest (.jsonl, .json), lhotse cuts (.jsonl, .jsonl.gz), Hugging Face folder or table.
        out: A new folder.
        kind: `nemo`, `lhotse` or `huggingface`; found out by default.
        category: Category of the clips.
        language: Language of clips that do not say; `und` by default.
        advance: Called with the number of finished clips.

    Returns:
        The rows that were written, and one problem per clip that was left out.

    Raises:
        UsageError: The corpus cannot be read, holds nothing usable, or `out` is not empty.
        OutputError: `out` cannot be written.
    """
    if category not in CATEGORIES:
        raise UsageError(f"category {category!r}; known: {', '.join(CATEGORIES)}")
    chosen = kind or detect(source)
    if chosen not in FORMATS:
        raise UsageError(f"format {chosen!r}; known: {', '.join(FORMATS)}")
    found = FORMATS[chosen](source)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty; give a new folder")
    labels = {"category": category, "language": language or _UNKNOWN_LANGUAGE, "source": source.name}
    rows: list[Row] = []
    problems: list[Problem] = []
    for item in found:
        if isinstance(item, Problem):
            problems.append(item)
        else:
            try:
                rows.append(_take(item, len(rows), out, labels))
            except OutputError:
                raise
            except EarmarkError as error:
                problems.append(Problem(line=item.line, id=item.name[:100], message=str(error)))
        if advance is not None:
            advance(1)
    if not rows:
        reason = f"; {problems[0]}" if problems else ""
        raise UsageError(f"{source}: no usable clip{reason}")
    write_manifest(out / MANIFEST, rows)
    return rows, problems


def _take(item: Incoming, number: int, out: Path, labels: dict[str, str]) -> Row:
    if not item.text.strip():
        raise UsageError("the transcript is empty; expected what is said")
    clip = _clip(item)
    _check_stated(item, clip)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", Path(item.name).stem).strip("-")[:60]
    name = f"{number:06d}-{stem}" if stem else f"{number:06d}"
    made = {
        "id": name,
        "category": labels["category"],
        "language": item.language or labels["language"],
        "text": " ".join(item.text.split()),
        "duration": round(clip.seconds, 4),
        "digest": clip.digest,
        "audio_filepath": f"audio/{name}.flac",
        "source": f"{labels['source']}:{item.line}"[:1000],
    }
    try:
        row = msgspec.convert(made, Row)
        (out / "audio").mkdir(parents=True, exist_ok=True)
    except msgspec.ValidationError as error:
        raise UsageError(f"cannot be taken in: {error}") from error
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}; give a folder that can be written") from error
    path = out / row.audio_filepath
    audio.write(path, clip)
    return msgspec.structs.replace(row, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


def _check_stated(item: Incoming, clip: CanonicalAudio) -> None:
    """Compare the clip with what its corpus says of it."""
    if item.duration_s is not None and abs(item.duration_s - clip.seconds) > _TOLERANCE_S:
        raise AudioError(f"duration is {item.duration_s} s by the manifest, the audio lasts {clip.seconds:.3f} s")
    stated = item.digests.get("digest")
    if stated and stated != clip.digest:
        raise AudioError(f"the canonical digest is {clip.digest[:16]}..., expected {stated[:16]}...")
    stated = item.digests.get("sha256")
    if stated:
        data = item.audio if isinstance(item.audio, bytes) else item.audio.read_bytes()
        found = hashlib.sha256(data).hexdigest()
        if found != stated:
            raise AudioError(f"the file has SHA-256 {found[:16]}..., expected {stated[:16]}...")


def _clip(item: Incoming) -> CanonicalAudio:
    if isinstance(item.audio, bytes):
        with tempfile.NamedTemporaryFile(suffix=".audio") as file:
            file.write(item.audio)
            file.flush()
            return audio.load(file.name)
    if item.whole and item.channel is None:
        return audio.load(item.audio)
    return _section(item.audio, item)


def _section(path: Path, item: Incoming) -> CanonicalAudio:
    """Read a part of a file, in the rate and exact sample type of the file."""
    import soundfile

    if not path.is_file():
        raise AudioFileNotFoundError(f"{path}: no such audio file; check the path")
    try:
        with soundfile.SoundFile(path) as file:
            frames, rate_hz = _read_section(file, item), int(file.samplerate)
    except soundfile.LibsndfileError as error:
        raise AudioError(f"{path}: not a sound file that libsndfile decodes; convert it") from error
    if item.channel is not None:
        if item.channel >= frames.shape[1]:
            raise AudioError(f"{path}: channel {item.channel} is asked for, the file has {frames.shape[1]}")
        frames = frames[:, item.channel]
    return audio.from_samples(frames, rate_hz)


def _read_section(file: Any, item: Incoming) -> Any:
    start = frames_of(item.start_s, file.samplerate)
    wanted = file.frames - start
    if item.duration_s is not None:
        wanted = frames_of(item.duration_s, file.samplerate)
    if start >= file.frames or start + wanted > file.frames + 1:  # one frame off is rounding
        raise AudioError(
            f"{file.name}: seconds {item.start_s} to {item.start_s + wanted / file.samplerate:.3f} are asked for, the "
            f"file lasts {file.frames / file.samplerate:.3f} s"
        )
    narrow, wide = file.subtype in ("PCM_16", "PCM_S8", "PCM_U8"), file.subtype in ("PCM_24", "PCM_32")
    file.seek(start)
    return file.read(wanted, dtype="int16" if narrow else "int32" if wide else "float64", always_2d=True)
