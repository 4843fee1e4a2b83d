"""A transducer's path in few bytes: what each step writes and how far it moves, as digits of one number.

The symbols of the tokens are the ids, so a digit only tells a token from a blank, and one duration from another: of
RNN-T two bits a step at most, of TDT about three.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from earmark.errors import TraceError
from earmark.protocols import TransducerModel
from earmark.verifiers._common_trace import Ints
from earmark.verifiers._transducer_path import blanks_of

TOKEN = -1


def steps_of(model: TransducerModel) -> list[tuple[int, int]]:
    """Return what a step can be: (blank, or -1 for the next token; frames moved on), the digits in their order."""
    if model.durations:
        moves = sorted({*model.durations, 1})
        return [(model.blank_id, moved) for moved in moves if moved] + [(TOKEN, moved) for moved in moves]
    forced = [(TOKEN, 1)] if model.max_symbols else []
    return [*sorted(blanks_of(model).items()), (TOKEN, 0), *forced]


def pack_path(path: Ints, tokens: Ints, model: TransducerModel) -> bytes:
    """Return a path as the digits of one number, the last step first behind a leading 1.

    Args:
        path: Frame, symbol and duration of each step, (steps, 3).
        tokens: Which transcript token each step writes, -1 for blanks, (steps,).
        model: The model that took it.
    """
    digits = {step: digit for digit, step in enumerate(steps_of(model))}
    symbols = np.where(tokens >= 0, TOKEN, path[:, 1])
    number = 1
    for symbol, moved in zip(symbols[::-1].tolist(), path[::-1, 2].tolist(), strict=True):
        number = number * len(digits) + digits[symbol, moved]
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def unpack_path(data: bytes, ids: Sequence[int], model: TransducerModel, limit: int) -> Ints:
    """Return the path behind the digits; a path has one form.

    Args:
        data: What `pack_path` returned.
        ids: The transcript.
        model: The reference.
        limit: Most steps.

    Returns:
        Frame, symbol and duration of each step, (steps, 3); whether the model may take them is not checked.

    Raises:
        TraceError: The bytes are not well formed, the path is longer, or it writes another number of tokens.
    """
    kinds, number = steps_of(model), int.from_bytes(data, "big")
    if not data or not data[0]:
        raise TraceError("a packed path that is empty or not in its shortest form")
    taken: list[tuple[int, int]] = []
    while number > 1 and len(taken) < limit:
        number, digit = divmod(number, len(kinds))
        taken.append(kinds[digit])
    if number != 1 or not taken:
        raise TraceError(f"a packed path without its leading 1, or of more than {limit} steps", code="token.count")
    symbols, moves = np.array(taken, np.int64).T
    spoken = symbols == TOKEN
    if spoken.sum() != len(ids):
        message = f"the path writes {spoken.sum()} tokens, not the {len(ids)} of the transcript"
        raise TraceError(message, code="path.mismatch")
    symbols[spoken] = np.asarray(ids, np.int64)
    return np.stack([np.cumsum(moves) - moves, symbols, moves], axis=1)
