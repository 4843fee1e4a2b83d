"""Building a set again from its recipes and the synthesiser, to the committed digests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from earmark import audio
from earmark.audio import CanonicalAudio
from earmark.challenges.collection import Challenge, ChallengeSet
from earmark.challenges.manifest import MANIFEST, Problem, Row, write_manifest
from earmark.challenges.mixing import mix
from earmark.challenges.synthesis import Engine, require, say
from earmark.errors import EarmarkError, OutputError, UsageError
from earmark.protocols import Advance


def synthesisers(clips: ChallengeSet) -> dict[Engine, str]:
    """Return the synthesisers that a set was built with.

    Raises:
        UsageError: It was built with two versions of one.
    """
    found: dict[Engine, str] = {}
    for row in _stored(clips):
        if row.voice is not None and found.setdefault(row.voice.engine, row.voice.synthesiser) != row.voice.synthesiser:
            raise UsageError(f"{clips.folder}: {row.id} was built with another {row.voice.engine} than the rest")
    return found


def build(
    clips: ChallengeSet, out: Path | None = None, *, stored: bool = False, advance: Advance | None = None
) -> list[Problem]:
    """Make every clip again: say each text with its voice, mix each recipe, and compare with the manifest.

    Args:
        clips: The set.
        out: A new folder for all clips as FLAC, mixes too, with a manifest; None only compares.
        stored: Take the stored clips in place of the synthesiser and mix only.
        advance: Called with the number of finished clips.

    Returns:
        One problem per clip that came out otherwise; none of those is written.

    Raises:
        UsageError: Another synthesiser is installed than the one the set was built with, or `out` is not empty.
        OutputError: `out` cannot be written.
    """
    if not stored:
        for engine, expected in synthesisers(clips).items():
            require(engine, expected)
    if out is not None:
        _make_folder(out)
    rows, problems = [], list(clips.problems)
    for clip, made in _make_all(clips, stored=stored):
        if isinstance(made, str):
            problems.append(Problem(line=clip.line, id=clip.id, message=made))
        elif out is not None:
            rows.append(_write(clip.row, made, out))
        if advance is not None:
            advance(1)
    if out is not None:
        write_manifest(out / MANIFEST, rows)
    return problems


def _stored(clips: ChallengeSet) -> list[Row]:
    """Return the stored clips that the set needs."""
    known = {name: row for clip in clips for name, row in clip.stored.items()}
    needed = {layer.clip for clip in clips for layer in clip.row.layers if layer.clip}
    needed |= {clip.id for clip in clips if not clip.row.layers}
    return [row for name, row in known.items() if name in needed]


def _make_all(clips: ChallengeSet, *, stored: bool) -> Iterator[tuple[Challenge, CanonicalAudio | str]]:
    """Yield each clip as it was made again, or why it could not be."""
    said: dict[str, CanonicalAudio] = {}

    def part(clip: Challenge, name: str) -> CanonicalAudio:
        if name not in said:
            row = clip.stored[name]
            resaid = row.voice is not None and not stored
            said[name] = (
                say(row.text, row.voice) if resaid and row.voice else audio.load(clip.folder / row.audio_filepath)
            )
        return said[name]

    for clip in clips:
        try:
            made = _make(clip, part)
        except EarmarkError as error:
            yield clip, str(error)
            continue
        differs = f"came out with digest {made.digest[:16]}..., expected {clip.row.digest[:16]}..."
        yield clip, made if made.digest == clip.row.digest else differs


def _make(clip: Challenge, part: Callable[[Challenge, str], CanonicalAudio]) -> CanonicalAudio:
    if not clip.row.layers:
        return part(clip, clip.id)
    samples = mix(clip.row.layers, lambda name: part(clip, name).samples)
    return audio.from_samples(samples, audio.CANONICAL_RATE_HZ)


def _make_folder(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; give a new folder")
    try:
        (out / "audio").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}; give a folder that can be written") from error


def _write(row: Row, made: CanonicalAudio, out: Path) -> Row:
    name = f"audio/{row.id}.flac"
    audio.write(out / name, made)
    digest = hashlib.sha256((out / name).read_bytes()).hexdigest()
    source = row.source or ("mixed by its recipe" if row.layers else "")
    return msgspec.structs.replace(row, audio_filepath=name, sha256=digest, layers=(), source=source)
