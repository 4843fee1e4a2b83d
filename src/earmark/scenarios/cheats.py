"""Cheating providers: cheaper weights, dropped audio, another checkpoint, a cheap writer behind the real model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.core import Scenario, Settings, run_record, run_score

if TYPE_CHECKING:
    import torch

Part = Literal["all", "encoder", "decoder"]


def quantise(*, bits: int = 8, group: int | None = None, symmetric: bool = True, part: Part = "all") -> Scenario:
    """Return a provider that runs integer weights (THREATS A2): a round trip of every linear and convolution weight.

    Args:
        bits: Bits per weight, 2 to 8.
        group: Weights that share a scale, along the input; None shares one per output channel.
        symmetric: Whether the grid is symmetric about 0; else it has an offset.
        part: `all`, `encoder` or `decoder`.

    Returns:
        The scenario.

    Raises:
        UsageError: A parameter is outside its range.

    Example:
        >>> quantise(bits=8).name, quantise(bits=4, group=64, symmetric=False).name
        ('int8', 'int4-g64-asymmetric')
    """
    if not 2 <= bits <= 8 or (group is not None and group < 2) or part not in ("all", "encoder", "decoder"):
        raise UsageError(f"quantise takes 2 to 8 bits, groups of 2 or more, a known part; got {bits}, {group}, {part}")
    name = f"int{bits}" + (f"-g{group}" if group else "")
    name += ("" if symmetric else "-asymmetric") + ("" if part == "all" else f"-{part}")
    cache: dict[int, Model] = {}

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        if id(reference) not in cache:
            cache.clear()
            module = quantised_copy(reference.module, bits=bits, group=group, symmetric=symmetric, part=part)
            cache[id(reference)] = reference.with_module(module)
        return run_record(cache[id(reference)], inputs, settings)

    summary = f"weights rounded to {bits} bits" + (f" in groups of {group}" if group else " per channel")
    return Scenario(name=name, honest=False, summary=summary, saves="memory and time", produce=produce)


def quantised_copy(
    module: torch.nn.Module, *, bits: int, group: int | None, symmetric: bool, part: Part = "all"
) -> torch.nn.Module:
    """Return a copy of a network whose linear and convolution weights went through an integer grid and back."""
    import torch

    made = copy.deepcopy(module)
    for name, layer in made.named_modules():
        wanted = part == "all" or part in name.split(".")
        if wanted and isinstance(layer, torch.nn.Linear | torch.nn.Conv1d | torch.nn.Conv2d):
            with torch.no_grad():
                layer.weight.copy_(round_trip(layer.weight, bits=bits, group=group, symmetric=symmetric))
    return made


def round_trip(weight: torch.Tensor, *, bits: int, group: int | None, symmetric: bool) -> torch.Tensor:
    """Return a weight after rounding to an integer grid, one scale per output channel or per group of inputs.

    Args:
        weight: Output channels first, (out, ...).
        bits: Bits per weight.
        group: Weights that share a scale; None for the whole channel.
        symmetric: Whether the grid is symmetric about 0.

    Returns:
        The rounded weight, same shape and type.

    Example:
        >>> import torch
        >>> round_trip(torch.tensor([[1.0, 0.49, -1.0]]), bits=2, group=None, symmetric=True).tolist()
        [[1.0, 0.0, -1.0]]
    """
    import torch

    rows = weight.detach().float().reshape(weight.shape[0], -1)
    width = rows.shape[1]
    step = min(group or width, width)
    rows = torch.nn.functional.pad(rows, (0, -width % step), mode="replicate") if width % step else rows
    blocks = rows.reshape(rows.shape[0], -1, step)
    if symmetric:
        top = 2 ** (bits - 1) - 1
        scale = blocks.abs().amax(dim=-1, keepdim=True).clamp_min(1e-12) / top
        rounded = (blocks / scale).round().clamp(-top - 1, top) * scale
    else:
        low = blocks.amin(dim=-1, keepdim=True)
        scale = (blocks.amax(dim=-1, keepdim=True) - low).clamp_min(1e-12) / (2**bits - 1)
        rounded = ((blocks - low) / scale).round() * scale + low
    result: torch.Tensor = rounded.reshape(rows.shape)[:, :width].reshape(weight.shape).to(weight.dtype)
    return result


def drop_audio(*, seconds: float = 1.0) -> Scenario:
    """Return a provider that leaves out the last seconds of speech (THREATS A7).

    The end of the speech is found first, so that what is dropped is speech and not trailing silence.

    Args:
        seconds: How much speech is dropped.

    Returns:
        The scenario.

    Raises:
        UsageError: The length is not positive.

    Example:
        >>> drop_audio(seconds=0.5).name
        'drop-0.5s'
    """
    if not seconds > 0:
        raise UsageError(f"drop_audio takes a positive length; got {seconds} s")

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        shortened = [
            dataclasses.replace(item, samples=without_end(item.samples, seconds)) if last else item
            for item, last in zip(inputs, _is_last(inputs), strict=True)
        ]
        return run_record(reference, shortened, settings)

    summary = f"the last {seconds:g} s of speech left out"
    return Scenario(
        name=f"drop-{seconds:g}s",
        honest=False,
        summary=summary,
        saves="time, by the share dropped",
        produce=produce,
    )


def _is_last(inputs: Sequence[SegmentInput]) -> list[bool]:
    following = [*(item.index for item in inputs[1:]), 0]
    return [index == 0 for index in following]


def without_end(samples: NDArray[np.int16], seconds: float, *, floor: float = 0.05) -> NDArray[np.int16]:
    """Return samples up to `seconds` before the end of the speech, at least 0.1 s.

    The speech ends with the last 20 ms frame whose peak exceeds `floor` of the clip's peak.

    Args:
        samples: Canonical samples, (n,) at 16 kHz.
        seconds: How much is dropped before the end of the speech.
        floor: Share of the peak that counts as speech.

    Returns:
        The first part of the samples.

    Example:
        >>> loud, quiet = np.full(16000, 9000, np.int16), np.zeros(16000, np.int16)
        >>> len(without_end(np.concatenate([loud, quiet]), 0.5))
        8000
    """
    peak = np.abs(samples.astype(np.int32))
    frames = peak[: len(peak) // 320 * 320].reshape(-1, 320).max(axis=1) if len(peak) >= 320 else peak
    loud = np.flatnonzero(frames > floor * peak.max())
    end = (int(loud[-1]) + 1) * 320 if loud.size else len(samples)
    return samples[: max(1600, end - round(seconds * 16_000))]


def other_checkpoint(*, model: Model) -> Scenario:
    """Return a provider that runs another checkpoint and claims the reference (THREATS A4, A6).

    Args:
        model: What really runs; it must share the reference's tokens.

    Returns:
        The scenario.
    """

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        _same_tokens(model, reference)
        return run_record(model, inputs, settings)

    summary = f"{model.info.name} runs in its place"
    return Scenario(name="other-checkpoint", honest=False, summary=summary, saves="a smaller model", produce=produce)


def rescored(*, writer: Model) -> Scenario:
    """Return a provider whose cheap model writes and whose real model scores in one pass (THREATS A1).

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


def _same_tokens(model: Model, reference: Model) -> None:
    if (model.info.family, model.info.vocab_size) != (reference.info.family, reference.info.vocab_size):
        raise UsageError(
            f"{model.info.name} ({model.info.family}, {model.info.vocab_size} tokens) cannot stand in for "
            f"{reference.info.name} ({reference.info.family}, {reference.info.vocab_size} tokens)"
        )
