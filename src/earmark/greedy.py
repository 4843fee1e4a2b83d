"""Greedy decoding of transducers, for adapters whose library has none that can be used on encoded audio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from earmark.protocols import Step

if TYPE_CHECKING:
    import torch

Memory = tuple["torch.Tensor", ...]
Predictor = Callable[["torch.Tensor", "Memory | None"], tuple["torch.Tensor", "Memory"]]
"""(last tokens (rows,), memory or None at the start) to (states (rows, width), memory with rows first)."""

STEPS_PER_FRAME = 10
"""A decoder without a limit of tokens per frame stops a row after this many steps per frame of audio."""


def most_steps(frames: int, max_symbols: int) -> int:
    """Return how many steps the greedy decoding of that many frames can take.

    Example:
        >>> most_steps(100, 0), most_steps(100, 5)
        (1000, 500)
    """
    return frames * (max_symbols or STEPS_PER_FRAME)


@dataclass(slots=True)
class _Row:
    """How far one row has come."""

    length: int
    frame: int = 0
    symbols: int = 0
    steps: list[Step] = field(default_factory=list)


def greedy_steps(
    frames: Sequence[torch.Tensor],
    *,
    predictor: Predictor,
    joint: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    blank: int,
    durations: Sequence[int] = (),
    big_blanks: Mapping[int, int] | None = None,
    max_symbols: int,
) -> list[list[Step]]:
    """Decode a batch greedily; rows go in step, each at its own frame.

    RNN-T: the blank moves on by one frame. Multi-blank: a big blank by its duration. TDT: every symbol by the best
    duration, a blank by at least one frame. The last of `max_symbols` tokens at one frame moves on by one.

    Args:
        frames: Encoder states of each row, ready for the joint, (frames, width_e).
        predictor: The prediction network; begins with blanks and no memory.
        joint: From pairs (rows, width_e), (rows, width_p) to logits (rows, vocab [+ durations]).
        blank: Id of the blank.
        durations: Durations of the duration logits; () without them.
        big_blanks: Duration of each big blank by id.
        max_symbols: Most tokens at one frame, 0 for no limit.

    Returns:
        All steps of each row, blanks included.

    Example:
        >>> import torch
        >>> states = torch.tensor([[0.0, 2.0], [1.0, 0.0]])
        >>> def predictor(tokens, memory):
        ...     return -3.0 * tokens[:, None] * torch.tensor([[0.0, 1.0]]), (tokens[:, None],)
        >>> greedy_steps([states], predictor=predictor, joint=torch.add, blank=0, max_symbols=5)
        [[Step(frame=0, token=1, duration=0), Step(frame=0, token=0, duration=1), Step(frame=1, token=0, duration=1)]]

    Source: Graves 2012, arXiv 1211.3711; Xu et al. 2023, arXiv 2304.06795, algorithm 1.
    """
    import torch

    blanks = {blank: 1, **(big_blanks or {})}
    rows = [_Row(len(states)) for states in frames]
    padded = torch.nn.utils.rnn.pad_sequence(list(frames), batch_first=True)
    begin = torch.full((len(rows),), blank, device=padded.device)
    states, memory = predictor(begin, None)
    while active := [i for i, row in enumerate(rows) if _goes_on(row, max_symbols)]:
        at = torch.as_tensor([[i, rows[i].frame] for i in active], device=padded.device)
        logits = joint(padded[at[:, 0], at[:, 1]], states[at[:, 0]])
        width = logits.shape[1] - len(durations)
        tokens = logits[:, :width].argmax(dim=1).tolist()
        named = [durations[d] for d in logits[:, width:].argmax(dim=1).tolist()] if durations else [0] * len(active)
        written = []
        for i, token, duration in zip(active, tokens, named, strict=True):
            moved = max(duration, blanks[token]) if token in blanks else duration
            if _take(rows[i], token, moved, token in blanks, max_symbols):
                written.append(i)
        if written:
            index = torch.as_tensor(written, device=padded.device)
            last = torch.as_tensor([rows[i].steps[-1].token for i in written], device=padded.device)
            new, kept = predictor(last, tuple(part[index] for part in memory))
            states = states.index_copy(0, index, new)
            memory = tuple(part.index_copy(0, index, own) for part, own in zip(memory, kept, strict=True))
    return [row.steps for row in rows]


def _goes_on(row: _Row, max_symbols: int) -> bool:
    return row.frame < row.length and len(row.steps) < most_steps(row.length, max_symbols)


def _take(row: _Row, token: int, moved: int, is_blank: bool, max_symbols: int) -> bool:
    """Write one step; return whether it is a token."""
    row.symbols += not is_blank
    if not is_blank and not moved and row.symbols == max_symbols:
        moved = 1
    row.steps.append(Step(row.frame, token, moved))
    row.frame += moved
    row.symbols = 0 if moved else row.symbols
    return not is_blank
