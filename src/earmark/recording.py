"""The customer's request and the provider's evidence."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from earmark import audio as audio_module
from earmark.audio import CanonicalAudio
from earmark.errors import UsageError
from earmark.limits import DEFAULT_K, MOST_K
from earmark.loading import family_of
from earmark.protocols import Advance, Family, Model, SegmentInput, SegmentOutput
from earmark.records.evidence import Claim, Evidence, Level, Segment, join_texts
from earmark.records.request import Decoding, Request, Segmentation, Task, make_request

AudioLike = CanonicalAudio | str | os.PathLike[str]


def load_audio(audio: AudioLike) -> CanonicalAudio:
    """Return canonical audio from a file; canonical audio passes through.

    Raises:
        AudioError: The file is missing, damaged, empty or too short.
    """
    return audio if isinstance(audio, CanonicalAudio) else audio_module.load(audio)


def request(
    audio: AudioLike,
    *,
    language: str | None = None,
    task: Task = "transcribe",
    prompt: str = "",
    decoding: Decoding | None = None,
    segmentation: Segmentation | None = None,
    nonce: str | None = None,
) -> Request:
    """Make the request of a customer: which audio, how to transcribe it, and a fresh nonce.

    Args:
        audio: File or canonical audio.
        language: Language code such as `en`; None lets the model detect it.
        task: `transcribe` or `translate`.
        prompt: Text that precedes the transcript.
        decoding: How tokens are chosen; greedy by default.
        segmentation: How long audio is cut; at silence, to the model's window, by default.
        nonce: 32 hex digits; random by default.

    Returns:
        The request.

    Raises:
        AudioError: The audio cannot be used.
        UsageError: An option is outside its range.
    """
    canonical = load_audio(audio)
    return make_request(
        audio_digest=canonical.digest,
        audio_samples=len(canonical.samples),
        lossless=canonical.lossless,
        language=language,
        task=task,
        prompt=prompt,
        decoding=decoding,
        segmentation=segmentation,
        nonce=nonce,
    )


def boundaries(canonical: CanonicalAudio, asked: Request, window: int) -> tuple[tuple[int, int], ...]:
    """Return the segments of a request: its explicit boundaries, or those that its rule finds.

    Args:
        canonical: The audio.
        asked: The request.
        window: The model's own window in samples.

    Returns:
        Pairs (start, end) in samples.

    Raises:
        UsageError: The rule is unknown, or explicit boundaries do not cover the audio.
    """
    rule = asked.segmentation
    if rule.boundaries:
        return _explicit(rule.boundaries, len(canonical.samples), window)
    if rule.rule != audio_module.SEGMENTATION_RULE:
        raise UsageError(f"segmentation rule {rule.rule!r}; this version knows {audio_module.SEGMENTATION_RULE!r}")
    if 0 < rule.max_samples < audio_module.CANONICAL_RATE_HZ:
        raise UsageError(f"segments of at most {rule.max_samples} samples; at least a second (16000) is needed")
    return audio_module.segment(canonical.samples, min(rule.max_samples or window, window))


def _explicit(inner: Sequence[int], samples: int, window: int) -> tuple[tuple[int, int], ...]:
    edges = [0, *(b for b in inner if 0 < b < samples), samples]
    pieces = tuple(pairwise(edges))
    least = audio_module.MIN_SAMPLES
    if any(not least <= end - start <= window for start, end in pieces) or max(inner) > samples:
        expected = f"cut {samples} samples into pieces of {least} to {window}"
        raise UsageError(f"boundaries {list(inner)[:6]} do not {expected}")
    return pieces


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One clip to record: its audio and the request."""

    audio: CanonicalAudio
    request: Request


def segment_inputs(clip: Clip, model: Model) -> list[SegmentInput]:
    """Cut one clip into the pieces that the model sees."""
    pieces = boundaries(clip.audio, clip.request, model.info.window_samples)
    return [
        SegmentInput(samples=clip.audio.samples[start:end], request=clip.request, index=i)
        for i, (start, end) in enumerate(pieces)
    ]


def record(
    model: Model,
    request: Request,
    audio: AudioLike,
    *,
    k: int = DEFAULT_K,
    level: Level = "scores",
    batch_size: int = 8,
    advance: Advance | None = None,
) -> Evidence:
    """Transcribe a clip and write down the evidence (the provider's side).

    Args:
        model: The model that really runs.
        request: The customer's request.
        audio: The clip.
        k: Listed tokens per position.
        level: `scores`; `sketch` to add hidden states that the nonce selects; `compact` for these and sums alone.
        batch_size: Segments at once.
        advance: Called with the number of finished segments.

    Returns:
        The evidence; its `receipt` goes back with the text.

    Raises:
        AudioError: The audio cannot be used.
        UsageError: The request is for other audio, or asks what the model cannot do.
    """
    clip = Clip(audio=load_audio(audio), request=request)
    return next(record_many(model, [clip], k=k, level=level, batch_size=batch_size, advance=advance))


def record_many(
    model: Model,
    clips: Iterable[Clip],
    *,
    k: int = DEFAULT_K,
    level: Level = "scores",
    batch_size: int = 8,
    advance: Advance | None = None,
) -> Iterator[Evidence]:
    """Record many clips; segments of different clips share a batch. Yields evidence in order."""
    family, step = family_of(model), advance or _ignore
    check_level(level, family)
    if k > MOST_K:
        largest = min(MOST_K, model.info.vocab_size)
        raise UsageError(f"k = {k}; evidence of {model.info.name} lists between 1 and {largest} tokens per position")
    for group in _groups(clips, batch_size):
        cut = [segment_inputs(_same_audio(clip), model) for clip in group]
        inputs = [item for items in cut for item in items]
        outputs = iter(family.record(model, inputs, k=k, level=level, batch_size=batch_size, advance=step))
        for clip, items in zip(group, cut, strict=True):
            yield assemble(model, clip, items, [next(outputs) for _ in items], level=level)


def check_level(level: str, family: Family, *, played: bool = False) -> None:
    """Refuse a level that a family does not record.

    Args:
        level: The level.
        family: The family.
        played: Whether a scenario records, which also plays an API that lists candidates.

    Raises:
        UsageError: It is none, or one that is made of what APIs return.
    """
    shows = played and hasattr(family, "report") and hasattr(family, "reported")
    others = ("text",) if shows else ("text", "listed")  # those come from what APIs return
    recorded = [own for own in family.levels if own not in others]
    if level not in recorded:
        raise UsageError(f"level {level!r}; expected one that the {family.name} family records: {', '.join(recorded)}")


def _ignore(_: int) -> None:
    return None


def _groups(clips: Iterable[Clip], size: int) -> Iterator[list[Clip]]:
    group: list[Clip] = []
    for clip in clips:
        group.append(clip)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _same_audio(clip: Clip) -> Clip:
    if clip.request.audio_digest != clip.audio.digest:
        raise UsageError(
            f"the request is for audio {clip.request.audio_digest[:12]}..., this is {clip.audio.digest[:12]}...; "
            "make a request for this audio"
        )
    return clip


def score(
    model: Model,
    outputs: Evidence,
    audio: AudioLike,
    *,
    k: int = DEFAULT_K,
    level: Level = "scores",
    batch_size: int = 8,
    advance: Advance | None = None,
) -> Evidence:
    """Write the evidence of `model` for the ids of another evidence: it scores, it does not decode.

    Args:
        model: The model that scores.
        outputs: Evidence whose ids are taken over.
        audio: The clip.
        k: Listed tokens per position.
        level: `scores`; `sketch` to add hidden states that the nonce selects; `compact` for these and sums alone.
        batch_size: Segments at once.
        advance: Called with the number of finished segments.

    Returns:
        Evidence with the same text and the numbers of `model`.

    Raises:
        UsageError: The evidence carries no request.
    """
    family = family_of(model)
    check_level(level, family)
    if outputs.request is None:
        raise UsageError("this evidence carries no request; scoring needs it")
    clip = Clip(audio=load_audio(audio), request=outputs.request)
    items = segment_inputs(_same_audio(clip), model)
    given = [SegmentOutput(ids=s.ids, text=s.text, trace=s.trace) for s in outputs.segments]
    step = advance or _ignore
    scored = family.score(model, items, given, k=k, level=level, batch_size=batch_size, advance=step)
    return assemble(model, clip, items, scored, level=level)


def assemble(
    model: Model,
    clip: Clip,
    items: Sequence[SegmentInput],
    outputs: Sequence[SegmentOutput],
    *,
    level: Level = "scores",
) -> Evidence:
    """Put the outputs of all segments of a clip together as evidence that claims `model`."""
    info, start = model.info, 0
    segments = []
    for item, output in zip(items, outputs, strict=True):
        end = start + len(item.samples)
        segments.append(Segment(start=start, end=end, text=output.text, ids=output.ids, trace=output.trace))
        start = end
    claim = Claim(
        model=info.name,
        family=info.family,
        weights=info.weights,
        precision=info.precision,
        decoding=clip.request.decoding,
        features=info.features,
        engine=info.engine,
    )
    return Evidence(
        level=level,
        request_digest=clip.request.digest(),
        request=clip.request,
        claim=claim,
        text=join_texts([output.text for output in outputs]),
        segments=tuple(segments),
    )
