"""Alignments of a transcript to audio: which position writes which token, when, and what speech is left without one."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

REACH_SECONDS = 0.5
"""Speech this far from a token still belongs to it: half of the longest honest gap between tokens of fluent speech."""
SPEECH_FLOOR = 0.1
"""A frame counts as speech where its peak exceeds this share of the clip's."""


def ctc_tokens(symbols: Ints, blank: int) -> NDArray[np.int64]:
    """Return which transcript token each frame of a CTC path is spent on, -1 for blanks.

    Args:
        symbols: Symbol of each frame, (frames,).
        blank: Id of the blank.

    Returns:
        Index of the token, (frames,).

    Example:
        >>> ctc_tokens(np.array([5, 5, 0, 5, 7]), 0).tolist()
        [0, 0, -1, 1, 2]
    """
    spoken = symbols != blank
    first = spoken & (symbols != np.concatenate([[blank], symbols[:-1]]))
    result: NDArray[np.int64] = np.where(spoken, np.cumsum(first) - 1, -1)
    return result


def transducer_tokens(symbols: Ints, blanks: Collection[int]) -> NDArray[np.int64]:
    """Return which transcript token each step of a transducer's path writes, -1 for blanks.

    Args:
        symbols: Symbol of each step, (steps,).
        blanks: Ids of the blank and of big blanks.

    Returns:
        Index of the token, (steps,).

    Example:
        >>> transducer_tokens(np.array([5, 0, 5, 7]), {0}).tolist()
        [0, -1, 1, 2]
    """
    spoken = ~np.isin(symbols, list(blanks))
    result: NDArray[np.int64] = np.where(spoken, np.cumsum(spoken) - 1, -1)
    return result


def first_positions(tokens: Ints) -> NDArray[np.int64]:
    """Return the first position of every transcript token.

    Args:
        tokens: Token of each position, rising from 0, -1 for blanks, (positions,).

    Returns:
        Positions, (tokens,).

    Example:
        >>> first_positions(np.array([0, 0, -1, 1, 2])).tolist()
        [0, 3, 4]
    """
    spoken = np.flatnonzero(tokens >= 0)
    result: NDArray[np.int64] = spoken[np.unique(tokens[spoken], return_index=True)[1]]
    return result


def token_shifts(frames: Floats | Ints, times: Floats) -> NDArray[np.float64]:
    """Return how far each token lies from where the reference expects it, in frames.

    Args:
        frames: Frame of each token on the provider's path, (tokens,).
        times: Mean frame of each token's posterior under the reference, (tokens,).

    Returns:
        |difference|, (tokens,).

    Example:
        >>> token_shifts(np.array([2, 9]), np.array([2.5, 9.0])).tolist()
        [0.5, 0.0]
    """
    return np.abs(np.asarray(frames, np.float64) - times)


def path_occupancy(occupancy: Floats, frames: Ints, tokens: Ints) -> NDArray[np.float64]:
    """Return the reference's posterior that the path's tokens stand where the path puts them.

    Args:
        occupancy: Posterior of each token at each frame, (frames, tokens).
        frames: Frame of each position, (positions,).
        tokens: Token of each position, -1 for blanks, (positions,).

    Returns:
        One posterior per position that is spent on a token.

    Example:
        >>> path_occupancy(np.array([[0.75, 0.0], [0.25, 1.0]]), np.array([0, 1]), np.array([0, -1])).tolist()
        [0.75]
    """
    spoken = tokens >= 0
    result: NDArray[np.float64] = np.asarray(occupancy, np.float64)[frames[spoken], tokens[spoken]]
    return result


def speech_frames(samples: NDArray[np.int16], frames: int, floor: float = SPEECH_FLOOR) -> NDArray[np.bool_]:
    """Return which encoder frames hold sound that is loud for the clip.

    Args:
        samples: Canonical samples, (n,).
        frames: Number of encoder frames; frame t stands for samples t n / frames to (t + 1) n / frames.
        floor: Share of the clip's peak that counts as loud.

    Returns:
        Loud or not, (frames,).

    Example:
        >>> speech_frames(np.array([0, 9, 900, 0, 0, 0], np.int16), 3).tolist()
        [False, True, False]
    """
    loud = np.abs(samples.astype(np.int32))
    edges = np.minimum(np.arange(frames) * len(samples) // max(1, frames), max(0, len(samples) - 1))
    peaks = np.maximum.reduceat(loud, edges)
    result: NDArray[np.bool_] = (peaks > floor * peaks.max()) if peaks.size else np.zeros(0, bool)
    return result


def uncovered(speech: NDArray[np.bool_], frames: Ints, durations: Ints, reach: float) -> tuple[float, float]:
    """Return how much speech no token is near to.

    Args:
        speech: Which frames hold speech, (frames,).
        frames: Frame of each position that is spent on a token, (positions,).
        durations: Frames it lasts, (positions,).
        reach: How far from a token speech still belongs to it, frames.

    Returns:
        The share of uncovered speech, and the longest run of uncovered speech frames; NaN without speech.

    Example:
        >>> uncovered(np.array([True] * 10), np.array([1]), np.array([1]), 2.0)
        (0.6, 6.0)
    """
    if not speech.any():
        return float("nan"), float("nan")
    grid = np.arange(len(speech))
    first = frames[:, None] - reach
    last = frames[:, None] + np.maximum(durations[:, None], 1) - 1 + reach
    covered = ((grid >= first) & (grid <= last)).any(axis=0)
    bare = speech & ~covered
    edges = np.diff(np.concatenate([[0], bare.astype(np.int8), [0]]))
    runs = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
    return float(bare.sum() / speech.sum()), float(runs.max(initial=0))
