"""Who speaks in the clips of a challenge set, so that no voice stands on both sides of a split."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from earmark.challenges.collection import Challenge, ChallengeSet


def speakers_of(clips: ChallengeSet) -> dict[str, tuple[str, ...]]:
    """Return the voices of each clip, the main one first, then the stored clips that a mix is made of.

    Args:
        clips: A challenge set.

    Returns:
        Clip id to keys for `earmark.classify.table`.

    Example:
        >>> from earmark.challenges import load
        >>> speakers_of(load())["clean-001"]
        ('voice flite:rms', 'clip clean-001')
    """
    return {clip.id: _keys(clip) for clip in clips}


def _keys(clip: Challenge) -> tuple[str, ...]:
    parts = [layer.clip for layer in clip.row.layers if layer.clip] or [clip.id]
    said = [row.voice for row in (clip.stored.get(part, clip.row) for part in parts) if row.voice]
    voices = [f"voice {voice.engine}:{voice.name}" for voice in said]
    return tuple(dict.fromkeys([*voices, *(f"clip {part}" for part in parts)]))
