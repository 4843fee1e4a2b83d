"""Which clips a study is made of, with their transcripts where these are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from earmark.challenges import load as load_challenges
from earmark.challenges.manifest import MANIFEST
from earmark.cli import files
from earmark.records import lines
from earmark.study import Sample

TEXT_KEYS = ("text", "transcript", "sentence")


def find_samples(clips: Sequence[Path], *, language: str | None, limit: int | None = None) -> list[Sample]:
    """Return the clips of a study.

    Args:
        clips: Files, folders or manifests; without any, those of the challenge set in the language.
        language: Language that is requested.
        limit: Most clips, spread evenly.

    Raises:
        AudioFileNotFoundError: A path does not exist, or a folder holds no audio.
        RecordError: A manifest is damaged.
        UsageError: No clip is in the language.
    """
    found = _given(clips, language) if clips else _challenges(language)
    if limit is not None and limit < len(found):
        found = [found[i * len(found) // limit] for i in range(limit)]
    return found


def _challenges(language: str | None, folder: Path | None = None) -> list[Sample]:
    """Return the clips of a challenge set."""
    return [
        Sample(
            name=clip.id,
            audio=clip.audio() if clip.row.layers else clip.folder / clip.row.audio_filepath,
            language=clip.language,
            expected=clip.text,
        )
        for clip in load_challenges(folder, language=language)
    ]


def _given(clips: Sequence[Path], language: str | None) -> list[Sample]:
    paths = [path / MANIFEST if (path / MANIFEST).is_file() else path for path in clips]
    sets = [path for path in paths if path.name == MANIFEST and _is_challenge_set(path)]
    others = [path for path in paths if path not in sets]
    texts = {audio: text for path in others if path.suffix == ".jsonl" for audio, text in _texts(path).items()}
    found = [sample for path in sets for sample in _challenges(language, path)]
    return found + [
        Sample(name=item.name, audio=item.path, language=language, expected=texts.get(item.path))
        for item in files.find_audio(others)
    ]


def _is_challenge_set(manifest: Path) -> bool:
    found = load_challenges(manifest)
    return bool(found.clips) and not found.problems


def _texts(manifest: Path) -> dict[Path, str]:
    """Return the transcripts of a manifest; `find_audio` says what is wrong with its lines."""
    found: dict[Path, str] = {}
    for _, row in lines.read(manifest, lines.from_line):
        name = next((row[key] for key in files.MANIFEST_KEYS if key in row), None)
        text = next((row[key] for key in TEXT_KEYS if isinstance(row.get(key), str)), None)
        if name is not None and text:
            found[manifest.parent / str(name)] = text
    return found
