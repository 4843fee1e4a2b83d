"""A set of clips on disk: loading, mixing, and checking that nothing changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from earmark import audio
from earmark.audio import CanonicalAudio
from earmark.challenges.manifest import MANIFEST, MULTIPLE, Problem, Row, read_manifest
from earmark.challenges.mixing import Samples, mix
from earmark.errors import AudioError, EarmarkError, UsageError
from earmark.protocols import Advance


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """One clip of a set.

    Attributes:
        row: What the manifest says.
        line: Where it says so.
        folder: The folder of the manifest.
        stored: The stored clips of the set by id, of which mixes are made.
    """

    row: Row
    line: int
    folder: Path
    stored: Mapping[str, Row]

    @property
    def id(self) -> str:
        """Short name."""
        return self.row.id

    @property
    def category(self) -> str:
        """Category."""
        return self.row.category

    @property
    def text(self) -> str:
        """What is said."""
        return self.row.text

    @property
    def language(self) -> str | None:
        """Language code for a request; None for a clip in several languages."""
        return None if self.row.language == MULTIPLE else self.row.language

    def audio(self) -> CanonicalAudio:
        """Return the canonical audio, read or mixed.

        Raises:
            AudioError: It is not the audio of the manifest's digest, or cannot be read.
            UsageError: The recipe asks for samples that are not there.
        """
        made = audio.from_samples(self._samples(), audio.CANONICAL_RATE_HZ)
        if made.digest != self.row.digest:
            raise AudioError(
                f"{self.id}: the audio has digest {made.digest[:16]}..., expected {self.row.digest[:16]}...; "
                "it was changed: fetch the set again"
            )
        return made

    def _samples(self) -> Samples:
        if self.row.layers:
            return mix(self.row.layers, lambda part: _read(self.folder, self.stored[part]))
        return _read(self.folder, self.row)


def _read(folder: Path, row: Row) -> Samples:
    return audio.load(folder / row.audio_filepath).samples


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeSet:
    """The clips of one manifest, and the faults of the lines that are left out."""

    folder: Path
    clips: tuple[Challenge, ...]
    problems: tuple[Problem, ...]

    def __iter__(self) -> Iterator[Challenge]:
        """Go through the clips in the order of the manifest."""
        return iter(self.clips)

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.clips)

    def __getitem__(self, name: str) -> Challenge:
        """Return the clip of an id.

        Raises:
            UsageError: There is none.
        """
        for clip in self.clips:
            if clip.id == name:
                return clip
        raise UsageError(f"no clip {name!r} in {self.folder}; `earmark challenges list` names all")

    def check(self, advance: Advance | None = None) -> list[Problem]:
        """Return every fault: of the manifest, of stored bytes, of digests, of durations.

        Args:
            advance: Called with the number of clips that were checked.
        """
        found = list(self.problems)
        for clip in self.clips:
            message = _fault(clip)
            if message:
                found.append(Problem(line=clip.line, id=clip.id, message=message))
            if advance is not None:
                advance(1)
        return sorted(found, key=lambda problem: problem.line)


def _fault(clip: Challenge) -> str | None:
    row = clip.row
    try:
        if row.sha256:
            found = hashlib.sha256((clip.folder / row.audio_filepath).read_bytes()).hexdigest()
            if found != row.sha256:
                return f"{row.audio_filepath} has SHA-256 {found[:16]}..., expected {row.sha256[:16]}..."
        made = clip.audio()
    except (EarmarkError, OSError) as error:
        return str(error)
    if abs(made.seconds - row.duration) > 0.001:
        return f"duration is {row.duration} s, the audio lasts {made.seconds:.3f} s"
    return None


def default_folder() -> Path:
    """Return the folder of the set that ships with earmark."""
    return Path(str(files("earmark.data"))) / "challenges"


def load(
    folder: str | os.PathLike[str] | None = None, *, category: str | None = None, language: str | None = None
) -> ChallengeSet:
    """Load a set of clips; audio is read when it is asked for.

    Args:
        folder: Folder with a `manifest.jsonl`, or a manifest; the set that ships with earmark by default.
        category: Only clips of this category.
        language: Only clips in this language.

    Returns:
        The set; lines with faults are in its `problems`, the others load.

    Raises:
        UsageError: There is no manifest, or no clip fits.

    Example:
        >>> load(category="long")["long-001"].audio().seconds > 60
        True
    """
    given = default_folder() if folder is None else Path(folder)
    path = given / MANIFEST if given.is_dir() else given
    numbered, problems = read_manifest(path)
    stored = {item.row.id: item.row for item in numbered if item.row.audio_filepath}
    clips = tuple(
        Challenge(row=item.row, line=item.line, folder=path.parent, stored=stored)
        for item in numbered
        if category in (None, item.row.category) and language in (None, item.row.language)
    )
    if not clips and not problems:
        raise UsageError(
            f"{path}: no clip fits category={category}, language={language}; see `earmark challenges list`"
        )
    return ChallengeSet(folder=path.parent, clips=clips, problems=tuple(problems))
