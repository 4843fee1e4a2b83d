"""Providers that make numbers up: a cheap model runs, and what it said is dressed up (THREATS A10, A11, A12, A25)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.recording import Clip
from earmark.scenarios.clips import own_inputs
from earmark.scenarios.core import Scenario, Settings, clip_numbers, run_record
from earmark.scenarios.traces import Numbers, close_numbers, open_numbers, plausible
from earmark.scenarios.weights import quantise

Forge = Callable[[Numbers], Numbers]
OWN_CLIPS = 24
"""As many clips of its own a provider uses."""


def fabricated(*, writer: Model | None = None, noise: float = 0.05, seed: int = 0) -> Scenario:
    """Return a provider that hands in a cheap model's log-probabilities with noise, renormalised (THREATS A11).

    Args:
        writer: The cheap model; by default the reference in 4 bits.
        noise: Standard deviation of the noise in nats.
        seed: Seed of the noise.

    Example:
        >>> fabricated().name
        'fabricated-0.05'
    """
    if not noise >= 0:
        raise UsageError(f"fabricated takes a noise of 0 or more; got {noise}")

    def forge(numbers: Numbers) -> Numbers:
        rng = np.random.default_rng(seed + len(numbers.emitted))
        added = numbers.logprobs + rng.normal(0.0, noise, numbers.logprobs.shape)
        return dataclasses.replace(
            numbers, logprobs=added, entropy=numbers.entropy * (1 + rng.normal(0.0, noise, len(numbers.entropy)))
        )

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        cheap = run_record(cheap_model(reference, writer), inputs, settings)
        return forged(reference, cheap, forge)

    summary = "a cheap model's log-probabilities with noise"
    return Scenario(name=f"fabricated-{noise:g}", honest=False, summary=summary, saves="everything", produce=produce)


def copied_shapes(*, writer: Model | None = None, clips: Sequence[Clip] | None = None) -> Scenario:
    """Return a provider that dresses a cheap model's tokens in honest shapes (THREATS A12).

    Honest evidence of other audio gives a pool of positions. Each position of the cheap model gets the listed
    probabilities and the entropy of the pool's position of the same rank by the first probability, so that every
    reported number is an honest one, and only the tokens beside them are not.

    Args:
        writer: The cheap model; by default the reference in 4 bits.
        clips: Clips whose honest evidence was seen; by default those that ship with earmark.

    Example:
        >>> copied_shapes().name
        'copied-shapes'
    """

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        seen = own_inputs(reference, OWN_CLIPS, clips=clips, apart_from=inputs)
        pool = [open_numbers(output) for output in run_record(reference, seen, settings)]
        if not pool:
            raise UsageError("copied_shapes has seen no honest evidence: give clips other than those it is tested on")
        shapes = np.concatenate([np.c_[own.entropy, own.logprobs] for own in pool])
        shapes = shapes[np.argsort(-shapes[:, 1], kind="stable")]
        cheap = run_record(cheap_model(reference, writer), inputs, settings)
        return forged(reference, cheap, lambda numbers: _dressed(numbers, shapes))

    summary = "honest shapes of other audio beside a cheap model's tokens"
    return Scenario(name="copied-shapes", honest=False, summary=summary, saves="everything", produce=produce)


def _dressed(numbers: Numbers, shapes: np.ndarray) -> Numbers:
    n = len(numbers.emitted)
    rank = np.argsort(np.argsort(-numbers.logprobs[:, 0], kind="stable"), kind="stable")
    own = shapes[((rank + 0.5) / n * len(shapes)).astype(int)]
    return dataclasses.replace(numbers, entropy=own[:, 0], logprobs=own[:, 1:])


def other_audio(*, clips: Sequence[Clip] | None = None) -> Scenario:
    """Return a provider that hands in what it has of another clip, cut or repeated to the same length (THREATS A10).

    Args:
        clips: What it has; those that are tested are left out. By default the clip recorded before each, and where
            there is only one, the clips that ship with earmark.

    Raises:
        UsageError: When it runs, if all that it has is what is tested.

    Example:
        >>> other_audio().name
        'other-audio'
    """

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        number = clip_numbers(inputs)
        several = clips is None and len(set(number)) > 1
        known = inputs if several else own_inputs(reference, OWN_CLIPS, clips=clips, apart_from=inputs)
        donors = [item.samples for item in known if item.index == 0]
        if not donors:
            raise UsageError("other_audio has no other audio: give clips other than those it is tested on")
        swapped = [
            dataclasses.replace(item, samples=np.resize(donors[(clip - 1) % len(donors)], len(item.samples)))
            for item, clip in zip(inputs, number, strict=True)
        ]
        return run_record(reference, swapped, settings)

    summary = "evidence of another clip, of the same length"
    return Scenario(name="other-audio", honest=False, summary=summary, saves="everything", produce=produce)


def restamped() -> Scenario:
    """Return a provider that hands in what it kept from an earlier request for the same audio (THREATS A19, A25).

    At the level `scores` its numbers are true, and only the receipt, which came before the nonce was known, shows it.

    Example:
        >>> restamped().name
        'restamped'
    """

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        asked = [msgspec.structs.replace(item.request, nonce=_other(item.request.nonce)) for item in inputs]
        earlier = [dataclasses.replace(item, request=own) for item, own in zip(inputs, asked, strict=True)]
        return run_record(reference, earlier, settings)

    summary = "evidence kept from an earlier request for the same audio"
    return Scenario(name="restamped", honest=False, summary=summary, saves="everything, on repeats", produce=produce)


def _other(nonce: str) -> str:
    return f"{int(nonce, 16) ^ (2**128 - 1):032x}"


def cheap_model(reference: Model, writer: Model | None) -> Model:
    """Return the model that really runs: the one given, or the reference in 4 bits."""
    return quantise(bits=4, group=64).alternative(reference) if writer is None else writer


def forged(reference: Model, outputs: Sequence[SegmentOutput], forge: Forge) -> list[SegmentOutput]:
    """Return outputs whose numbers were changed, and made such that no rule refuses them."""
    blank, vocab = getattr(reference, "blank_id", None), reference.info.vocab_size
    opened = [open_numbers(output) for output in outputs]
    made = [plausible(forge(own), own, blank, vocab) for own in opened]
    return [close_numbers(own, output) for own, output in zip(made, outputs, strict=True)]
