"""Providers that run another model, or that do not do what was asked (THREATS A1, A4, A6, A9, A16, A17)."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.records.request import Decoding, Request
from earmark.scenarios.core import Scenario, Settings, run_record, run_score, running


def other_checkpoint(*, model: Model, name: str = "other-checkpoint") -> Scenario:
    """Return a provider that runs another checkpoint and claims the reference.

    Args:
        model: What really runs; it must share the reference's tokens.
        name: Name of the scenario, for instance `student`.

    Returns:
        The scenario.
    """

    def checked(reference: Model) -> Model:
        same_tokens(model, reference)
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
        same_tokens(writer, reference)
        return run_score(reference, inputs, run_record(writer, inputs, settings), settings)

    summary = f"{writer.info.name} writes, the reference scores"
    saves = "token-by-token decoding"
    return Scenario(name="rescored", honest=False, summary=summary, saves=saves, produce=produce, only_text=True)


def other_request(
    *, language: str | None = None, prompt: str | None = None, temperature: float | None = None, greedy: bool = False
) -> Scenario:
    """Return a provider that runs the reference, but not as the request says.

    A request that already says so is refused when it runs, since nothing would be changed: see `Scenario.obeys`.

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

    def rewritten(request: Request) -> Request:
        return msgspec.structs.replace(request, **changes)

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        asked = [dataclasses.replace(item, request=rewritten(item.request)) for item in inputs]
        same = sum(own.request == item.request for own, item in zip(asked, inputs, strict=True))
        if same:
            found = f"{same} of {len(inputs)} pieces already ask for {'-'.join(names)}"
            raise UsageError(f"{found}; expected other requests: leave out the clips that `Scenario.obeys`")
        return run_record(reference, asked, settings)

    summary = f"the reference runs with {', '.join(changes)} other than asked"
    return Scenario(
        name="-".join(names),
        honest=False,
        summary=summary,
        saves="little",
        produce=produce,
        only_text=set(changes) == {"decoding"},
        rewritten=rewritten,
    )


def other_precision(*, dtype: str = "bfloat16") -> Scenario:
    """Return a provider that computes in another 16-bit format than it claims (THREATS A16).

    It is honest only towards a policy that accepts either.

    Args:
        dtype: `float16` or `bfloat16`.

    Example:
        >>> other_precision().name
        'computed-in-bfloat16'
    """
    if dtype not in ("float16", "bfloat16"):
        raise UsageError(f"other_precision takes float16 or bfloat16; got {dtype!r}")

    def make(reference: Model) -> Model:
        import torch

        if not any(True for _ in reference.module.parameters()):
            raise UsageError(f"{reference.info.name} runs elsewhere, in its own arithmetic")
        made: Any = reference.with_module(copy.deepcopy(reference.module).to(getattr(torch, dtype)))
        made.info = dataclasses.replace(made.info, arithmetic="fp16" if dtype == "float16" else "bf16")
        other: Model = made
        return other

    return running(f"computed-in-{dtype}", f"weights and arithmetic in {dtype}", "memory and time", make)


def same_tokens(model: Model, reference: Model) -> None:
    """Refuse a model that cannot stand in for the reference.

    Raises:
        UsageError: Family or number of tokens differ.
    """
    if (model.info.family, model.info.vocab_size) != (reference.info.family, reference.info.vocab_size):
        raise UsageError(
            f"{model.info.name} ({model.info.family}, {model.info.vocab_size} tokens) cannot stand in for "
            f"{reference.info.name} ({reference.info.family}, {reference.info.vocab_size} tokens)"
        )
