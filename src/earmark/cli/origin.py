"""Where a profile comes from: its clips, each of them once, the machine and the command."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import PurePath

from earmark.audio import load
from earmark.cli.files import Named
from earmark.errors import UsageError
from earmark.protocols import Advance


def check_distinct(clips: Sequence[Named], advance: Advance) -> None:
    """Refuse clips of equal audio: copies would count as so many clips, and promise a rate that they do not prove.

    Compared are the digests of the canonical audio, so that a copy in another lossless format is found too; one that
    was cut, mixed or compressed anew is another clip. The 583 minutes of the calibration corpus take about 50 s.

    Args:
        clips: The clips.
        advance: Called with the number of clips that were read.

    Raises:
        AudioError: A clip cannot be used.
        UsageError: Two clips are equal.
    """
    first: dict[str, str] = {}
    copies: list[tuple[str, str]] = []
    for item in clips:
        digest = load(item.path).digest
        if (name := first.setdefault(digest, item.name)) != item.name:
            copies.append((name, item.name))
        advance(1)
    if copies:
        found = f"{copies[0][0]} and {copies[0][1]} hold equal audio; {len(copies)} of {len(clips)} clips are copies"
        raise UsageError(f"{found}; expected distinct clips: give each once")


def origin(clips: Sequence[Named], words: Sequence[str]) -> dict[str, str]:
    """Return what a profile says of its origin.

    Args:
        clips: The clips that it was measured on.
        words: The command line.

    Returns:
        Digest of the clips, instructions that torch uses on this CPU, command.
    """
    import torch

    cpu = torch.backends.cpu.get_cpu_capability()
    return {"clips_digest": clips_digest(clips), "cpu": cpu, "command": command_of(words)}


def clips_digest(clips: Sequence[Named]) -> str:
    """Return the SHA-256 over the lines "name, NUL, SHA-256 of the file" of all clips in the order of their names."""
    state = hashlib.sha256()
    for item in sorted(clips, key=lambda item: item.name):
        with item.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        state.update(f"{item.name}\0{digest}\n".encode("utf-8", "surrogatepass"))
    return state.hexdigest()


def command_of(words: Sequence[str]) -> str:
    """Return a command line in which absolute paths are file names, since a profile goes to others.

    Example:
        >>> command_of(["calibrate", "embedded:whisper-nano", "/recordings/clips", "--out=/profiles/profile"])
        'earmark calibrate embedded:whisper-nano clips --out=profile'
    """
    return " ".join(["earmark", *map(_without_folders, words)])


def _without_folders(word: str) -> str:
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + (PurePath(value).name if PurePath(value).is_absolute() else value)
