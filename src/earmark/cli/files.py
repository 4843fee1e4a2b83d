"""Which files a command reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from earmark.errors import AudioFileNotFoundError, RecordError, UsageError
from earmark.records import codec, lines
from earmark.records.receipt import Receipt

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".w64", ".caf"}
RECORD_SUFFIXES = (".json", ".msgpack")
NOTE = ".unanswered.json"
EVIDENCE_KEYS = ("evidence", "audio", "request", "receipt")
OTHER_RECORDS = ("request", "receipt")
MANIFEST_KEYS = ("audio_filepath", "path", "audio")


@dataclass(frozen=True, slots=True)
class Named:
    """A file and the name by which its records are known, relative to the folder it was found in, if in one (`inside`).

    What belongs to evidence is None where no manifest names it.
    """

    path: Path
    name: str
    audio: Path | None = None
    request: Path | None = None
    receipt: Path | None = None
    inside: bool = False


def find_audio(given: Sequence[Path]) -> list[Named]:
    """Expand files, folders and JSONL manifests to audio files.

    Raises:
        AudioFileNotFoundError: A path does not exist, or a folder holds no audio.
        UsageError: A manifest is empty, or two files would share one name.
        RecordError: A manifest is damaged; the message names the line.
    """
    found: list[Named] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
            if not inside:
                raise AudioFileNotFoundError(f"{path} holds no audio; known: {', '.join(sorted(AUDIO_SUFFIXES))}")
            found += [Named(p, p.relative_to(path).as_posix()) for p in inside]
        elif not path.exists():
            raise AudioFileNotFoundError(f"{path}: no such file or folder")
        elif path.suffix == ".jsonl":
            found += _manifest(path)
        else:
            found.append(Named(path, path.name))
    seen: dict[str, Path] = {}
    for item in found:
        if item.name in seen:
            raise UsageError(f"{seen[item.name]} and {item.path} would write the same files; record them apart")
        seen[item.name] = item.path
    return found


def _manifest(path: Path) -> list[Named]:
    """Read a manifest with one JSON object per line; paths are relative to the manifest."""
    rows = []
    for number, name in lines.read(path, _audio_name):
        audio = path.parent / name
        if not audio.is_file():
            raise AudioFileNotFoundError(f"{path}, line {number}: {audio} does not exist")
        rows.append(Named(audio, name.replace("..", "").lstrip("/")))
    if not rows:
        raise UsageError(f"{path} is an empty manifest; expected one JSON object per line")
    return rows


def _audio_name(line: str) -> str:
    row = lines.from_line(line)
    found = [row[key] for key in MANIFEST_KEYS if key in row]
    if not found or not isinstance(found[0], str):
        raise RecordError(f"expected a JSON object with one of {', '.join(MANIFEST_KEYS)}")
    return found[0]


def find_evidence(given: Sequence[Path]) -> list[Named]:
    """Expand files, folders and manifests to evidence files; names leave out `.evidence.json`.

    Raises:
        UsageError: A path does not exist, a folder or manifest names no evidence, or a file is another record.
        RecordError: A manifest is damaged; the message names the line.
    """
    found: list[Named] = []
    for path in given:
        if path.is_dir():
            inside = evidence_in(path)
            if not inside:
                raise UsageError(f"{path} holds no *.evidence.json or *.evidence.msgpack")
            found += inside
        elif not path.exists():
            raise UsageError(f"{path}: no such file or folder; give evidence that `earmark record` wrote")
        elif path.suffix == ".jsonl":
            found += _evidence_manifest(path)
        else:
            found.append(Named(_evidence(path), _stem(path.name)))
    return found


def _evidence(path: Path) -> Path:
    """Refuse by its name a file that is another record, as no provider is to answer for a wrong file of ours."""
    kinds = [kind for kind in OTHER_RECORDS for suffix in RECORD_SUFFIXES if path.name.endswith(f".{kind}{suffix}")]
    if kinds:
        raise UsageError(f"{path} is a {kinds[0]} by its name; expected evidence, and a {kinds[0]} with --{kinds[0]}")
    return path


def _evidence_manifest(path: Path) -> list[Named]:
    """Read a manifest of evidence with what belongs to it; all files are named relative to the manifest."""
    found = []
    for number, row in lines.read(path, _evidence_row):
        places = {key: path.parent / name for key, name in row.items()}
        for place in places.values():
            if not place.is_file():
                raise UsageError(f"{path}, line {number}: {place} does not exist; name files relative to the manifest")
        evidence = _evidence(places.pop("evidence"))
        name = _stem(row["evidence"].replace("..", "").lstrip("/"))
        beside = {key: places.get(key) for key in EVIDENCE_KEYS[1:]}
        found.append(Named(evidence, name, beside["audio"], beside["request"], beside["receipt"]))
    if not found:
        raise UsageError(f"{path} is an empty manifest; expected one JSON object per line")
    return found


def _evidence_row(line: str) -> dict[str, str]:
    row = lines.from_line(line)
    if "evidence" not in row or not row.keys() <= {*EVIDENCE_KEYS} or not all(isinstance(v, str) for v in row.values()):
        expected = f"a JSON object of file names with evidence, and at most {', '.join(EVIDENCE_KEYS[1:])} beside it"
        raise RecordError(f"{', '.join(map(str, row)) or 'nothing'} found; expected {expected}")
    return row


def evidence_in(folder: Path) -> list[Named]:
    """Return the evidence in a folder, once for each name: of two files of one name, .json comes before .msgpack."""
    inside = sorted(p for s in RECORD_SUFFIXES for p in folder.rglob(f"*.evidence{s}"))
    by_name = {_stem(p.relative_to(folder).as_posix()): p for p in reversed(inside)}
    return [Named(p, name, inside=True) for name, p in sorted(by_name.items())]


def find_notes(given: Sequence[Path]) -> list[Named]:
    """Return the notes of `earmark record --endpoint` in files or folders; a folder may hold none.

    Raises:
        UsageError: A path does not exist.
    """
    found: list[Named] = []
    for path in given:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder; give what `earmark record` wrote")
        inside = sorted(path.rglob(f"*{NOTE}")) if path.is_dir() else [path] * path.name.endswith(NOTE)
        root = path if path.is_dir() else path.parent
        found += [Named(p, p.relative_to(root).as_posix().removesuffix(NOTE)) for p in inside]
    return found


def request_target(name: str, out: Path, alone: bool) -> Path:
    """Return where to write the request of a clip: the file given, or `NAME.request.json` in a folder.

    Raises:
        UsageError: One file is given for many clips.
    """
    one = not out.is_dir() and (out.exists() or out.suffix in RECORD_SUFFIXES)
    if one and alone:
        return out
    if one:
        raise UsageError(f"{out} is one file; requests of many clips need a folder")
    place = out / f"{name}.request.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def note_of(place: Targets) -> Path | None:
    """Return where it is noted that a server gave no evidence of a clip; None where the output is a device."""
    return None if place.request is None else place.evidence.with_name(_stem(place.evidence.name) + NOTE)


def _stem(name: str) -> str:
    for suffix in RECORD_SUFFIXES:
        name = name.removesuffix(suffix)
    return name.removesuffix(".evidence")


def audio_of(evidence: Named, audio: Path | None, alone: bool) -> Path:
    """Return the audio file of an evidence: the file given, or the one of its name in a folder.

    Raises:
        UsageError: One file is given for many evidences.
        AudioFileNotFoundError: There is no such audio.
    """
    if evidence.audio is not None:
        return evidence.audio
    if audio is not None and not audio.exists():
        raise AudioFileNotFoundError(f"{audio}: no such file or folder")
    if audio is not None and audio.is_file():
        if not alone:
            raise UsageError("--audio names one file for many evidences; give the folder that holds the clips")
        return audio
    folder = audio or evidence.path.parent
    found = folder / evidence.name
    if not found.is_file():
        raise AudioFileNotFoundError(f"{found} does not exist; name the clip or its folder with --audio")
    return found


def request_of(evidence: Named, given: Path | None, alone: bool) -> Path | None:
    """Return the request of an evidence: the file given, or `NAME.request.json` in a folder, which must hold it."""
    found = evidence.request or _record_of(evidence, given, "request", alone)
    if given is not None and found is None:
        raise UsageError(f"{given} holds no {evidence.name}.request.json; give the folder of the stored requests")
    return found


def receipt_of(evidence: Named, given: Path | None, alone: bool) -> Path | None:
    """Return the receipt of an evidence in the same way; None where the folder has none, as the provider gave none."""
    return evidence.receipt or _record_of(evidence, given, "receipt", alone)


def _record_of(evidence: Named, given: Path | None, kind: str, alone: bool) -> Path | None:
    if given is None:
        return None
    if not given.exists():
        raise UsageError(f"{given}: no such file or folder; give the stored {kind}")
    if given.is_file():
        if not alone:
            raise UsageError(f"--{kind} names one file for many clips; give the folder that holds them")
        return given
    return _record_in(given, evidence, kind)


def _record_in(folder: Path, evidence: Named, kind: str) -> Path | None:
    places = (folder / f"{evidence.name}.{kind}{suffix}" for suffix in RECORD_SUFFIXES)
    return next((place for place in places if place.is_file()), None)


def text_of(evidence: Named, given: Path, alone: bool) -> str:
    """Return the text that was received for an evidence: of the file given, or of `NAME.txt` in a folder.

    Raises:
        UsageError: There is none, or one file is given for many evidences.
        RecordError: It is no UTF-8.
    """
    if given.is_dir():
        path = given / f"{evidence.name}.txt"
    elif alone:
        path = given
    else:
        raise UsageError("--transcript names one file for many evidences; give the folder that holds NAME.txt of each")
    try:
        return codec.read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise RecordError(f"{path} is no UTF-8 text; expected the transcript that was received") from error


def find_receipts(given: Sequence[Path]) -> list[tuple[str, Receipt]]:
    """Expand receipt files, folders of them, and text files with one short receipt per line.

    Raises:
        UsageError: A path does not exist, or there are no receipts.
        RecordError: A receipt is damaged; the message names it.
    """
    found: list[tuple[str, Receipt]] = []
    for path in given:
        if path.is_dir():
            inside = sorted(p for s in RECORD_SUFFIXES for p in path.rglob(f"*.receipt{s}"))
            found += [(p.relative_to(path).as_posix(), codec.load(p, Receipt)) for p in inside]
        elif not path.exists():
            raise UsageError(f"{path}: no such file or folder; give the receipts that were handed in")
        elif path.suffix in RECORD_SUFFIXES:
            found.append((path.name, codec.load(path, Receipt)))
        else:
            found += _short_receipts(path)
    if not found:
        raise UsageError(f"{', '.join(map(str, given))}: no receipts there")
    return found


def _short_receipts(path: Path) -> list[tuple[str, Receipt]]:
    return [(f"{path.name}:{number}", receipt) for number, receipt in lines.read(path, Receipt.from_token)]


@dataclass(frozen=True, slots=True)
class Targets:
    """Where the records of one clip go; the receipt is None where the output is a device."""

    evidence: Path
    request: Path | None
    receipt: Path | None


def targets(name: str, out: Path, alone: bool, suffix: str = ".json") -> Targets:
    """Return where to write the records of a clip: beside a file, or under its name in a folder.

    Args:
        name: Name of the clip.
        out: Evidence file, or a folder.
        alone: Whether it is the only clip.
        suffix: That of evidence files in a folder.
    """
    if alone and not out.is_dir() and (out.suffix in RECORD_SUFFIXES or (out.exists() and not out.is_file())):
        if out.exists() and not out.is_file():
            return Targets(out, None, None)
        stem = out.with_name(_stem(out.name))
        return Targets(out, stem.with_name(f"{stem.name}.request.json"), stem.with_name(f"{stem.name}.receipt.json"))
    if out.is_file():
        raise UsageError(f"{out} is a file; records of many clips need a folder")
    base = out / name
    base.parent.mkdir(parents=True, exist_ok=True)
    kinds = (f"evidence{suffix}", "request.json", "receipt.json")
    parts = [base.with_name(f"{base.name}.{kind}") for kind in kinds]
    return Targets(*parts)
