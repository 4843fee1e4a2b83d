"""Providers that hear less than they were given: dropped ends and windows, speed, band (THREATS A7, A8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.core import Scenario, Settings, run_record

Samples = NDArray[np.int16]

SHORTEST = 1600
"""At least this much audio is left, in samples."""


def drop_audio(*, seconds: float = 1.0) -> Scenario:
    """Return a provider that leaves out the last seconds of speech.

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


def without_end(samples: Samples, seconds: float, *, floor: float = 0.05) -> Samples:
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
    return samples[: max(SHORTEST, end - round(seconds * 16_000))]


def drop_windows(*, every: int = 8, seconds: float = 0.5) -> Scenario:
    """Return a provider that cuts out every n-th window of the audio.

    Args:
        every: Each n-th window is dropped, 2 or more.
        seconds: Length of a window.

    Example:
        >>> drop_windows().name
        'drop-1-of-8'
    """
    if every < 2 or not seconds > 0:
        raise UsageError(f"drop_windows takes every 2 or more and a positive length; got {every}, {seconds:g}")
    step = round(seconds * 16_000)

    def change(samples: Samples) -> Samples:
        kept = np.arange(len(samples)) // step % every != every - 1
        return samples[kept] if kept.sum() >= SHORTEST else samples

    return heard(f"drop-1-of-{every}", f"one {seconds:g} s window of {every} left out", f"{1 / every:.0%}", change)


def drop_silence(*, floor: float = 0.05) -> Scenario:
    """Return a provider that cuts out what it takes for silence.

    Args:
        floor: 20 ms frames whose peak is below this share of the clip's are cut, between 0 and 1.

    Example:
        >>> drop_silence().name
        'drop-silence-0.05'
    """
    if not 0 < floor < 1:
        raise UsageError(f"drop_silence takes a floor between 0 and 1; got {floor:g}")

    def change(samples: Samples) -> Samples:
        return without_silence(samples, floor)

    return heard(f"drop-silence-{floor:g}", f"frames below {floor:.0%} of the peak cut out", "the silence", change)


def without_silence(samples: Samples, floor: float) -> Samples:
    """Return samples without the 20 ms frames that stay below a share of the peak; all where too little is left.

    Args:
        samples: Canonical samples, (n,) at 16 kHz.
        floor: Share of the peak that counts as speech.

    Example:
        >>> loud, quiet = np.full(3200, 9000, np.int16), np.zeros(3200, np.int16)
        >>> len(without_silence(np.concatenate([loud, quiet, loud]), 0.05))
        6400
    """
    peak = np.abs(samples.astype(np.int32))
    loud = np.logical_or.reduceat(peak > floor * peak.max(), np.arange(0, len(peak), 320))
    kept = np.repeat(loud, 320)[: len(samples)]
    return samples[kept] if kept.sum() >= SHORTEST else samples


def speed_up(*, factor: float = 1.25) -> Scenario:
    """Return a provider that plays the audio faster, so that there are fewer frames.

    Args:
        factor: More than 1.

    Example:
        >>> speed_up(factor=1.5).name
        'speed-1.5'
    """
    if not factor > 1:
        raise UsageError(f"speed_up takes a factor above 1; got {factor:g}")

    def change(samples: Samples) -> Samples:
        places = np.arange(0, len(samples) - 1, factor)
        faster: Samples = np.round(np.interp(places, np.arange(len(samples)), samples)).astype(np.int16)
        return faster

    return heard(f"speed-{factor:g}", f"audio played {factor:g} times faster", f"{1 - 1 / factor:.0%}", change)


def telephone_band() -> Scenario:
    """Return a provider that keeps 8 kHz of the sampling rate: what lies above 4 kHz is lost.

    Example:
        >>> telephone_band().name
        'band-4khz'
    """

    def change(samples: Samples) -> Samples:
        from scipy.signal import resample_poly

        halved = resample_poly(samples.astype(np.float64), 1, 2)
        back = resample_poly(halved, 2, 1)[: len(samples)]
        narrow: Samples = np.clip(np.round(back), -32768, 32767).astype(np.int16)
        return narrow

    return heard("band-4khz", "audio stored at 8 kHz", "storage", change)


def heard(name: str, summary: str, saves: str, change: Callable[[Samples], Samples]) -> Scenario:
    """Return a provider that runs the reference on changed audio.

    Args:
        name: Name of the scenario.
        summary: What it does, in one line.
        saves: What the cheat saves.
        change: Makes the samples that are really heard, (n,) int16 at 16 kHz.

    Returns:
        The scenario.
    """

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        heard_inputs = [dataclasses.replace(item, samples=change(item.samples)) for item in inputs]
        return run_record(reference, heard_inputs, settings)

    return Scenario(name=name, honest=False, summary=summary, saves=saves, produce=produce)
