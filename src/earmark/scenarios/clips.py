"""The clips that ship with earmark, for providers that need audio of their own: to calibrate, to learn, to copy."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from earmark.protocols import Model, SegmentInput
from earmark.recording import Clip, load_audio, request, segment_inputs
from earmark.records import lines


def own_inputs(
    model: Model, count: int, *, clips: Sequence[Clip] | None = None, apart_from: Sequence[SegmentInput] = ()
) -> list[SegmentInput]:
    """Return pieces of audio that a provider has of its own.

    Args:
        model: The model that takes them.
        count: At most so many clips.
        clips: Take these; by default those that ship with earmark (English).
        apart_from: Audio that must not be among them: what the provider is tested on.

    Returns:
        The pieces.
    """
    tested = {item.request.audio_digest for item in apart_from}
    chosen = [clip for clip in clips or shipped_clips(model) if clip.audio.digest not in tested]
    return [item for clip in chosen[:count] for item in segment_inputs(clip, model)]


def shipped_clips(model: Model) -> list[Clip]:
    """Return the clips that ship with earmark, requested as the model takes them, with fixed nonces."""
    folder = Path(str(files("earmark.data"))) / "clips"
    rows = [row for _, row in lines.read(folder / "manifest.jsonl", lines.from_line)]
    language = "en" if getattr(model, "languages", None) else None
    audio = [load_audio(folder / row["audio_filepath"]) for row in rows]
    return [Clip(audio=one, request=request(one, language=language, nonce=f"{i:032x}")) for i, one in enumerate(audio)]
