"""The path of a transducer's greedy decoding: what each step may do, and how a path is cut to its limits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.errors import TraceError
from earmark.fingerprint.alignment import transducer_tokens
from earmark.greedy import most_steps
from earmark.limits import max_tokens
from earmark.protocols import Step, TransducerModel

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Rules(Protocol):
    """What a path depends on; every transducer model has it."""

    blank_id: int
    durations: tuple[int, ...]
    max_symbols: int


def blanks_of(model: TransducerModel) -> dict[int, int]:
    """Return the frames that each blank moves on by: 1, big blanks their duration."""
    return {model.blank_id: 1, **model.big_blanks}


def tokens_of(path: Ints, model: TransducerModel) -> Ints:
    """Return which transcript token each step writes, -1 for blanks."""
    return transducer_tokens(path[:, 1], blanks_of(model).keys())


def emitted_of(path: Ints, tokens: Ints) -> tuple[int, ...]:
    """Return the transcript of a path."""
    return tuple(path[tokens >= 0, 1].tolist())


def as_path(steps: Sequence[Step], samples: int, model: TransducerModel) -> Ints:
    """Return steps as an array (steps, 3), cut where the audio allows no more tokens.

    Args:
        steps: The steps of one row.
        samples: Length of its audio at 16 kHz.
        model: The model that took them.
    """
    path = np.asarray(steps, np.int64).reshape(-1, 3)
    written = np.cumsum(tokens_of(path, model) >= 0)
    return path[: int(np.searchsorted(written, max_tokens(samples))) + 1]


def symbols_so_far(path: Ints, spoken: Bools) -> Ints:
    """Return how many tokens each step's frame has by then, its own included.

    Example:
        >>> path = np.array([[0, 5, 0], [0, 9, 1], [1, 5, 0], [1, 6, 0]])
        >>> symbols_so_far(path, np.array([True, False, True, True])).tolist()
        [1, 1, 1, 2]
    """
    count = np.concatenate([[0], np.cumsum(spoken)])
    result: Ints = count[1:] - count[np.searchsorted(path[:, 0], path[:, 0])]
    return result


def allowed_durations(path: Ints, spoken: Bools, model: Rules) -> Bools:
    """Return which of the model's durations lead to the duration of each step, (steps, durations).

    A duration leads to itself; 0 also to 1, where the decoder forces itself on: at a blank, and at the last of
    `max_symbols` tokens of a frame.
    """
    classes, moved = np.asarray(model.durations), path[:, 2:]
    forced = ~spoken | (symbols_so_far(path, spoken) == model.max_symbols)
    led_to = np.where((classes == 0) & forced[:, None], 1, classes)
    result: Bools = led_to == moved
    return result


def check_path(path: Ints, frames: int, samples: int, model: TransducerModel) -> None:
    """Refuse a path that no greedy decoding takes.

    Raises:
        TraceError: Its code says which rule it breaks.
    """
    at, moved = path[:, 0], path[:, 2]
    if at.min() < 0 or at.max() >= frames or (np.diff(at) < 0).any():
        message = f"frames {at.min()} to {at.max()} on the path; expected rising ones from 0 to {frames - 1}"
        raise TraceError(message, code="path.order")
    spoken = tokens_of(path, model) >= 0
    _check_durations(path, spoken, model)
    if at[0] != 0 or (np.diff(at) != moved[:-1]).any():
        step = 0 if at[0] else int(np.argmax(np.diff(at) != moved[:-1])) + 1
        raise TraceError(f"step {step} of the path does not begin where the one before leads", code="path.gap")
    limits = (most_steps(frames, model.max_symbols), max_tokens(samples))
    if at[-1] + moved[-1] < frames and len(path) < limits[0] and spoken.sum() < limits[1]:
        raise TraceError(f"the path ends at frame {at[-1] + moved[-1]} of {frames}", code="path.end")


def _check_durations(path: Ints, spoken: Bools, model: TransducerModel) -> None:
    if model.durations:
        good = allowed_durations(path, spoken, model).any(axis=1)
        expected = f"one of {list(model.durations)}"
    else:
        own = np.array([blanks_of(model).get(symbol, 0) for symbol in path[:, 1].tolist()])
        last = spoken & (symbols_so_far(path, spoken) == model.max_symbols)
        good = path[:, 2] == np.where(last, 1, own)
        expected = "1 for a blank, 0 for a token, 1 for the last token that a frame may have"
    if not good.all():
        step = int(np.argmin(good))
        message = (
            f"step {step} of the path has symbol {path[step, 1]} and duration {path[step, 2]}; expected {expected}"
        )
        raise TraceError(message, code="path.duration")
    most = int(symbols_so_far(path, spoken).max())
    if model.max_symbols and most > model.max_symbols:
        raise TraceError(f"{most} tokens at one frame; the decoder allows {model.max_symbols}", code="path.symbols")
