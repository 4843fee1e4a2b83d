"""What a scenario is, and the registry of scenarios."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import msgspec

from earmark.errors import UsageError
from earmark.limits import DEFAULT_K
from earmark.loading import family_of
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.recording import Clip, assemble, segment_inputs
from earmark.records.evidence import Evidence, Level
from earmark.records.request import Decoding, Request
from earmark.registry import registry


@dataclass(frozen=True, slots=True)
class Settings:
    """How evidence is recorded: listed tokens per position, level, segments at once."""

    k: int = DEFAULT_K
    level: Level = "scores"
    batch_size: int = 8


Produce = Callable[[Model, Sequence[SegmentInput], Settings], list[SegmentOutput]]
"""(reference, inputs, settings) to outputs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A simulated provider.

    Attributes:
        name: Name with its parameters, for instance `int4-g64`.
        honest: Whether it must PASS.
        summary: What it does, in one line.
        saves: What the cheat saves the provider.
        produce: Makes the outputs that are claimed to be the reference's.
        model: Makes the model that runs in the reference's place; None where the reference itself runs.
        asked: Decoding that its customers ask for; None takes requests as they are.
        only_text: Whether it cheats in what it writes alone: where that is what an honest provider writes, nothing was
            gained and its evidence is honest, so that a PASS is no miss.
        rewritten: What it makes of a request before it runs the reference; None where it takes requests as they are.
    """

    name: str
    honest: bool
    summary: str
    saves: str
    produce: Produce
    model: Callable[[Model], Model] | None = None
    asked: Decoding | None = None
    only_text: bool = False
    rewritten: Callable[[Request], Request] | None = None

    def ask(self, clip: Clip) -> Clip:
        """Return the clip with the request that the customers of this provider make."""
        if self.asked is None:
            return clip
        return replace(clip, request=msgspec.structs.replace(clip.request, decoding=self.asked))

    def obeys(self, clip: Clip) -> bool:
        """Tell whether it rewrites requests, and this one into itself: what it would hand in is honest."""
        return self.rewritten is not None and self.rewritten(clip.request) == clip.request

    def alternative(self, reference: Model) -> Model:
        """Return the model that this provider runs in the reference's place.

        Raises:
            UsageError: It runs the reference itself, or cannot be made from this one.
        """
        if self.model is None:
            raise UsageError(f"scenario {self.name} runs the reference itself")
        return self.model(reference)

    def record(
        self,
        reference: Model,
        clips: Sequence[Clip],
        *,
        k: int = DEFAULT_K,
        level: Level = "scores",
        batch_size: int = 8,
    ) -> list[Evidence]:
        """Return the evidence that this provider hands in for each clip.

        Args:
            reference: The model that is claimed.
            clips: Audio and requests; see `ask`.
            k: Listed tokens per position.
            level: What the family records, or `listed`: what an API would show of the scores.
            batch_size: Segments at once.

        Returns:
            One evidence per clip, claiming `reference`.
        """
        if level == "listed":
            whole = self.record(reference, clips, k=k, batch_size=batch_size)
            return [_as_listed(own, clip, reference) for own, clip in zip(whole, clips, strict=True)]
        cut = [segment_inputs(clip, reference) for clip in clips]
        settings = Settings(k, level, batch_size)
        outputs = iter(self.produce(reference, [item for items in cut for item in items], settings))
        return [
            assemble(reference, clip, items, [next(outputs) for _ in items], level=level)
            for clip, items in zip(clips, cut, strict=True)
        ]


def _as_listed(evidence: Evidence, clip: Clip, reference: Model) -> Evidence:
    """Return what an API would show of evidence: tokens, and the candidates of each."""
    family: Any = family_of(reference)
    items = segment_inputs(clip, reference)
    traces = [family.read(segment, clip.request, reference, evidence.level) for segment in evidence.segments]
    outputs = [
        family.reported(reference, item, family.report(trace)) for item, trace in zip(items, traces, strict=True)
    ]
    return assemble(reference, clip, items, outputs, level="listed")


def run_record(model: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
    """Transcribe with one model, as an honest provider does."""
    return family_of(model).record(
        model, inputs, k=settings.k, level=settings.level, batch_size=settings.batch_size, advance=lambda _: None
    )


def run_score(
    model: Model, inputs: Sequence[SegmentInput], outputs: Sequence[SegmentOutput], settings: Settings
) -> list[SegmentOutput]:
    """Score given outputs with one model."""
    return family_of(model).score(
        model,
        inputs,
        outputs,
        k=settings.k,
        level=settings.level,
        batch_size=settings.batch_size,
        advance=lambda _: None,
    )


def running(name: str, summary: str, saves: str, make: Callable[[Model], Model], *, honest: bool = False) -> Scenario:
    """Return a provider that runs a model made from the reference; the latest one is kept.

    Args:
        name: Name of the scenario.
        summary: What it does, in one line.
        saves: What the cheat saves.
        make: Makes the model that runs in the reference's place.
        honest: Whether it must PASS.

    Returns:
        The scenario.
    """
    kept: dict[int, tuple[Model, Model]] = {}

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        if id(reference) not in kept:
            kept.clear()
            kept[id(reference)] = (reference, make(reference))
        return run_record(kept[id(reference)][1], inputs, settings)

    return Scenario(name=name, honest=honest, summary=summary, saves=saves, produce=produce, model=make)


def clip_numbers(inputs: Sequence[SegmentInput]) -> list[int]:
    """Return for each piece the number of the clip that it belongs to: a clip begins with its segment 0.

    Example:
        >>> from types import SimpleNamespace as Piece
        >>> clip_numbers([Piece(index=0), Piece(index=1), Piece(index=0)])
        [0, 0, 1]
    """
    return [int(number) - 1 for number in accumulate(item.index == 0 for item in inputs)]


def scenario(name: str, /, **parameters: Any) -> Scenario:
    """Make a registered scenario.

    Args:
        name: Registered name, for instance `quantise`.
        **parameters: Its parameters.

    Returns:
        The scenario.

    Raises:
        UnknownNameError: Nobody registered the name.
        UsageError: A parameter is outside its range.

    Example:
        >>> scenario("quantise", bits=4, group=64).name
        'int4-g64'
    """
    made: Scenario = registry("scenario").get(name)(**parameters)
    return made


def scenario_names() -> list[str]:
    """Return the names of all registered scenarios.

    Example:
        >>> "drop_audio" in scenario_names()
        True
    """
    return registry("scenario").names()
