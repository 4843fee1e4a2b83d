"""Providers that run another model, or that do not do what was asked (THREATS A1, A4, A6, A9, A13, A17)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.records.request import Decoding
from earmark.scenarios.core import Scenario, Settings, run_record, run_score


def other_checkpoint(*, model: Model, name: str = "other-checkpoint") -> Scenario:
    """Return a provider that runs another checkpoint and claims the reference.

    Args:
        model: What really runs; it must share the reference's tokens.
        name: Name of the scenario, for instance `student`.

    Returns:
        The scenario.
    """

    def checked(reference: Model) -> Model:
        _same_tokens(model, reference)
        return model

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        return run_record(checked(reference), inputs, settings)

    summary = f"{model.info.name} runs in its place"
    return Scenario(name=name, honest=False, summary=summary, saves="a smaller model", produce=produce, model=checked)


def rescored(*, writer: Model) -> Scenario:
    """Return a provider whose cheap model writes and whose real model scores in one pass.

    Where the cheap model writes the same text as the reference nothing was gained, and the evidence is the honest one.

    Args:
        writer: The cheap model; it must share the reference's tokens.

    Returns:
        The scenario.
    """

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        _same_tokens(writer, reference)
        return run_score(reference, inputs, run_record(writer, inputs, settings), settings)

    summary = f"{writer.info.name} writes, the reference scores"
    return Scenario(name="rescored", honest=False, summary=summary, saves="token-by-token decoding", produce=produce)


def other_request(
    *, language: str | None = None, prompt: str | None = None, temperature: float | None = None, greedy: bool = False
) -> Scenario:
    """Return a provider that runs the reference, but not as the request says.

    Args:
        language: Another language than asked.
        prompt: Another prompt than asked; empty drops it.
        temperature: Sampling at this temperature.
        greedy: Greedy decoding in place of what was asked.

    Returns:
        The scenario.

    Raises:
        UsageError: Nothing is changed.

    Example:
        >>> other_request(temperature=0.4).name
        'temperature-0.4'
    """
    changes: dict[str, Any] = {}
    names = []
    if language is not None:
        changes["language"] = language
        names.append(f"language-{language}")
    if prompt is not None:
        changes["prompt"] = prompt
        names.append("prompt" if prompt else "no-prompt")
    if temperature is not None:
        changes["decoding"] = Decoding(strategy="sample", temperature=temperature, seed=1)
        names.append(f"temperature-{temperature:g}")
    elif greedy:
        changes["decoding"] = Decoding()
        names.append("greedy")
    if not changes:
        raise UsageError("other_request changes nothing; give a language, a prompt, a temperature or greedy=True")

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        asked = [dataclasses.replace(i, request=msgspec.structs.replace(i.request, **changes)) for i in inputs]
        return run_record(reference, asked, settings)

    summary = f"the reference runs with {', '.join(changes)} other than asked"
    return Scenario(name="-".join(names), honest=False, summary=summary, saves="little", produce=produce)


def _same_tokens(model: Model, reference: Model) -> None:
    if (model.info.family, model.info.vocab_size) != (reference.info.family, reference.info.vocab_size):
        raise UsageError(
            f"{model.info.name} ({model.info.family}, {model.info.vocab_size} tokens) cannot stand in for "
            f"{reference.info.name} ({reference.info.family}, {reference.info.vocab_size} tokens)"
        )
