"""A few clips of a study looked at closely: curves, confidences, attribution and cost, in a file beside the run."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np

from earmark.attribution import attribute
from earmark.errors import RecordError, UsageError
from earmark.fingerprint.reliability import correct_words, reliability
from earmark.limits import DEFAULT_K
from earmark.loading import family_of
from earmark.profiles import provenance
from earmark.protocols import Advance, ConfidenceFamily, CurveFamily, Model
from earmark.records import codec
from earmark.records.codec import Count, Name, Record
from earmark.records.evidence import Level
from earmark.records.policy import Policy
from earmark.rules import Case, Work, prepare
from earmark.scenarios.core import Scenario
from earmark.signature import plain_words
from earmark.study import Sample

MOST_BYTES = 4_000_000
"""No file of examples is read beyond this size."""
MOST_POSITIONS = 2_000
"""Longest curve that is kept."""

Number = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
Numbers = Annotated[tuple[Number, ...], msgspec.Meta(max_length=MOST_POSITIONS)]
Label = Annotated[str, msgspec.Meta(max_length=200)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One scenario's part of the file."""

    scenario: Name


class EntropyCurve(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Entropy along the first piece of one clip.

    Attributes:
        clip: Name of the clip.
        unit: Unit of the places: seconds or tokens.
        places: Where each position lies.
        provider: What the provider says, in nats.
        reference: What the reference says.
        words: Place and text of each word.
    """

    clip: Label
    unit: Literal["s", "tokens"]
    places: Numbers
    provider: Numbers
    reference: Numbers
    words: Annotated[tuple[tuple[Number, Label], ...], msgspec.Meta(max_length=MOST_POSITIONS)]

    def __post_init__(self) -> None:
        """Refuse curves of different lengths."""
        if not len(self.places) == len(self.provider) == len(self.reference):
            raise ValueError("places, provider and reference need one number per position")


class WordConfidence(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Confidence of every word of one clip, by provider and reference, 0 to 1."""

    clip: Label
    words: Annotated[tuple[Label, ...], msgspec.Meta(max_length=MOST_POSITIONS)]
    provider: Numbers
    reference: Numbers

    def __post_init__(self) -> None:
        """Refuse lines of different lengths."""
        if not len(self.words) == len(self.provider) == len(self.reference):
            raise ValueError("provider and reference need one number per word")


class Diagram(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A reliability diagram: mean confidence, accuracy and count of each bin that holds words, and what sums it up."""

    confidence: Numbers
    accuracy: Numbers
    counts: Annotated[tuple[Count, ...], msgspec.Meta(max_length=1000)]
    ece: Number | None
    nce: Number | None
    brier: Number | None

    def __post_init__(self) -> None:
        """Refuse bins of different lengths."""
        if not len(self.confidence) == len(self.accuracy) == len(self.counts):
            raise ValueError("confidence, accuracy and counts need one number per bin")


class Calibration(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How sure provider and reference are of the provider's words, against how right these are."""

    words: Count
    provider: Diagram
    reference: Diagram


class Attributed(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which cheat the clips looked like: name to number of clips."""

    names: Annotated[dict[Name, Count], msgspec.Meta(max_length=100)]


class Cost(_Part, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What some clips cost: seconds of audio, of recording, of verifying, and bytes of evidence."""

    clips: Count
    audio_s: Number
    record_s: Number
    verify_s: Number
    evidence_bytes: Count


class Examples(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The file beside a run.

    Attributes:
        model: Name of the reference.
        weights: Digest of its weights.
        precision: Claimed precision.
        level: Level of the evidence.
        device: Where it ran.
        engine: Software that ran it.
        curves: Entropy curves.
        confidences: Word confidences.
        calibrations: Reliability diagrams.
        attributions: What the evidence looked like.
        costs: What it cost.
        provenance: Command and versions.
    """

    FORMAT: ClassVar[str] = "earmark.examples/1"

    format: Literal["earmark.examples/1"] = "earmark.examples/1"
    model: Name
    weights: Annotated[str, msgspec.Meta(max_length=64)]
    precision: Name
    level: Name
    device: Name
    engine: Name
    curves: Annotated[tuple[EntropyCurve, ...], msgspec.Meta(max_length=200)] = ()
    confidences: Annotated[tuple[WordConfidence, ...], msgspec.Meta(max_length=200)] = ()
    calibrations: Annotated[tuple[Calibration, ...], msgspec.Meta(max_length=200)] = ()
    attributions: Annotated[tuple[Attributed, ...], msgspec.Meta(max_length=200)] = ()
    costs: Annotated[tuple[Cost, ...], msgspec.Meta(max_length=200)] = ()
    provenance: Annotated[dict[Label, Annotated[str, msgspec.Meta(max_length=2000)]], msgspec.Meta(max_length=100)] = (
        msgspec.field(default_factory=dict)
    )


def path_beside(run: str | os.PathLike[str]) -> Path:
    """Return where the examples of a run lie.

    Example:
        >>> path_beside("whisper.jsonl").name
        'whisper.jsonl.examples.json'
    """
    return Path(run).with_name(Path(run).name + ".examples.json")


def load_examples(run: str | os.PathLike[str]) -> Examples | None:
    """Read the examples beside a run; None where there are none.

    Raises:
        RecordError: The file is damaged, too large or of another version.
    """
    path = path_beside(run)
    if not path.exists():
        return None
    data = codec.read_bytes(path)
    if len(data) > MOST_BYTES:
        raise RecordError(f"{path}: more than {MOST_BYTES} bytes; run `earmark study` again", code="record.too_large")
    return codec.decode(data, Examples)


# Collecting


@dataclass(slots=True, kw_only=True)
class _Played:
    """What one scenario did on the example clips."""

    scenario: Scenario
    works: list[Work]
    cost: Cost


def collect(
    reference: Model,
    scenarios: Sequence[Scenario],
    samples: Sequence[Sample],
    *,
    level: Level = "scores",
    k: int = DEFAULT_K,
    batch_size: int = 8,
    command: str = "",
    advance: Advance | None = None,
) -> Examples:
    """Play every scenario on a few clips and keep what a report shows of them.

    Args:
        reference: The model that is claimed.
        scenarios: The providers.
        samples: A few clips.
        level: Level of the evidence.
        k: Listed tokens per position.
        batch_size: Segments at once.
        command: The command, for people.
        advance: Called with 1 for every scenario.

    Returns:
        The examples; a part is missing where its family or its level does not have it.
    """
    played = []
    for scenario in scenarios:
        played.append(_play(reference, scenario, samples, level=level, k=k, batch_size=batch_size))
        if advance is not None:
            advance(1)
    info = reference.info
    return Examples(
        model=info.name,
        weights=info.weights,
        precision=info.precision,
        level=level,
        device=info.device,
        engine=info.engine,
        curves=tuple(found for own in played for found in _curves(own, reference, samples)),
        confidences=tuple(found for own in played for found in _confidences(own, reference, samples)),
        calibrations=tuple(found for own in played for found in _calibrations(own, reference, samples)),
        attributions=_attributions(played, reference, batch_size),
        costs=tuple(own.cost for own in played),
        provenance=provenance(command=command, clips=len(samples)),
    )


def _play(
    reference: Model, scenario: Scenario, samples: Sequence[Sample], *, level: Level, k: int, batch_size: int
) -> _Played:
    clips = [scenario.ask(sample.clip()) for sample in samples]
    start = time.perf_counter()
    evidence = scenario.record(reference, clips, k=k, level=level, batch_size=batch_size)
    recorded = time.perf_counter()
    cases = [
        Case(evidence=e, request=c.request, audio=c.audio, receipt=e.receipt)
        for e, c in zip(evidence, clips, strict=True)
    ]
    works = [prepare(case, reference, Policy()) for case in cases]
    _replay([work for work in works if work.open], reference, batch_size)
    return _Played(
        scenario=scenario,
        works=works,
        cost=Cost(
            scenario=scenario.name,
            clips=len(clips),
            audio_s=sum(clip.audio.seconds for clip in clips),
            record_s=recorded - start,
            verify_s=time.perf_counter() - recorded,
            evidence_bytes=sum(len(e.to_msgpack()) for e in evidence),
        ),
    )


def _replay(works: Sequence[Work], reference: Model, batch_size: int) -> None:
    inputs = [item for work in works for item in work.inputs]
    traces = [trace for work in works for trace in work.traces]
    if not inputs:
        return
    family, model = family_of(reference), reference.in_float32()
    found = iter(family.replay(model, inputs, traces, batch_size=batch_size, advance=lambda _: None))
    for work in works:
        work.replays = [next(found) for _ in work.inputs]
        if work.request is not None:
            work.comparison = family.compare(work.traces, work.replays, model=model, request=work.request)


def _curves(played: _Played, reference: Model, samples: Sequence[Sample]) -> list[EntropyCurve]:
    """Return the curve of the first clip that has one."""
    family = family_of(reference)
    for sample, work in zip(samples, played.works, strict=True):
        if not work.replays or not isinstance(family, CurveFamily):
            continue
        try:
            curve = family.curve(work.traces[0], work.replays[0], reference)
        except UsageError:
            return []
        if 2 <= len(curve.places) <= MOST_POSITIONS and np.isfinite([curve.provider, curve.reference]).all():
            return [
                EntropyCurve(
                    scenario=played.scenario.name,
                    clip=sample.name[:200],
                    unit=curve.unit,
                    places=_rounded(curve.places),
                    provider=_rounded(curve.provider),
                    reference=_rounded(curve.reference),
                    words=tuple((round(place, 4), word[:200]) for place, word in curve.words),
                )
            ]
    return []


def _sure(work: Work, reference: Model) -> tuple[list[str], Any] | None:
    """Return the words of a clip as they were written and their confidences (2, words); None where they do not fit."""
    family = family_of(reference)
    if not work.replays or work.evidence is None or not isinstance(family, ConfidenceFamily):
        return None
    try:
        pairs = [family.confidences(t, r, reference) for t, r in zip(work.traces, work.replays, strict=True)]
    except UsageError:
        return None
    words = " ".join(segment.text for segment in work.evidence.segments).split()
    sure = np.concatenate(pairs, axis=1)
    return (words, sure) if len(words) == sure.shape[1] else None


def _confidences(played: _Played, reference: Model, samples: Sequence[Sample]) -> list[WordConfidence]:
    """Return the words of the first clip that has some."""
    for sample, work in zip(samples, played.works, strict=True):
        found = _sure(work, reference)
        if found is not None and 2 <= len(found[0]) <= MOST_POSITIONS:
            words, sure = found
            return [
                WordConfidence(
                    scenario=played.scenario.name,
                    clip=sample.name[:200],
                    words=tuple(word[:200] for word in words),
                    provider=_rounded(sure[0]),
                    reference=_rounded(sure[1]),
                )
            ]
    return []


def _calibrations(played: _Played, reference: Model, samples: Sequence[Sample]) -> list[Calibration]:
    """Return the reliability of all example clips with transcripts together."""
    right, sure = [], []
    for sample, work in zip(samples, played.works, strict=True):
        found = _sure(work, reference)
        if found is not None and sample.expected is not None and found[0]:
            right.append(correct_words(plain_words(" ".join(found[0])), plain_words(sample.expected)))
            sure.append(found[1])
    if not right:
        return []
    correct, (provider, own) = np.concatenate(right), np.concatenate(sure, axis=1)
    diagrams = [_diagram(reliability(each, correct)) for each in (provider, own)]
    return [Calibration(scenario=played.scenario.name, words=len(correct), provider=diagrams[0], reference=diagrams[1])]


def _diagram(found: Any) -> Diagram:
    some = found.counts > 0
    return Diagram(
        confidence=_rounded(found.confidence[some]),
        accuracy=_rounded(found.accuracy[some]),
        counts=tuple(int(count) for count in found.counts[some]),
        **{name: _number(getattr(found, name)) for name in ("ece", "nce", "brier")},
    )


def _attributions(played: Sequence[_Played], reference: Model, batch_size: int) -> tuple[Attributed, ...]:
    """Attribute all clips of all scenarios together, so that every alternative is made once."""
    works = [work for own in played for work in own.works]
    found = iter(attribute(works, reference.in_float32(), batch_size=batch_size))
    rows = []
    for own in played:
        names = Counter(item.name for item in (next(found) for _ in own.works) if item is not None)
        if names:
            rows.append(Attributed(scenario=own.scenario.name, names=dict(names.most_common())))
    return tuple(rows)


def _number(value: float) -> float | None:
    return round(float(value), 6) if np.isfinite(value) else None


def _rounded(values: Any) -> tuple[float, ...]:
    return tuple(round(float(value), 7) for value in values)
