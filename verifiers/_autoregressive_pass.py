"""One parallel pass of the decoder over given tokens, and the scores of its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.protocols import AutoregressiveModel
from earmark.verifiers._common_batches import columns, score

if TYPE_CHECKING:
    import torch

ROWS_AT_ONCE = 64
"""Positions projected to the vocabulary at once: bounds the memory of the logits."""


@dataclass(frozen=True, slots=True)
class Forced:
    """One piece: logits in chunks with a row per emitted token, the row at the start token, the hidden states."""

    chunks: Iterator[torch.Tensor]
    start: torch.Tensor | None
    states: torch.Tensor

    @property
    def start_logprobs(self) -> NDArray[np.float64] | None:
        """Log-probabilities at the start token, (vocab,)."""
        return None if self.start is None else log_probabilities(self.start)


@dataclass(frozen=True, slots=True)
class Said:
    """What was said while one piece was written, or forced.

    Attributes:
        columns: Listed ids and their log-probabilities (positions, k), the emitted tokens' own, and the entropies
            (positions,).
        start: Log-probabilities at the start token, (vocab,), or None where the model has none.
        states: Last hidden states, one row per emitted token, or None where they were not kept.
    """

    columns: Sequence[NDArray[np.float64]]
    start: NDArray[np.float64] | None
    states: torch.Tensor | None


def said(forced: Forced, ids: Sequence[int], k: int) -> Said:
    """Return what was said in a forced pass over `ids`."""
    parts = [score(chunk, ids[at : at + len(chunk)], k) for at, chunk in numbered(forced.chunks)]
    return Said(columns(parts), forced.start_logprobs, forced.states)


def log_probabilities(logits: torch.Tensor) -> NDArray[np.float64]:
    """Return the log-softmax over the last axis as a float64 array."""
    import torch

    result: NDArray[np.float64] = torch.log_softmax(logits, dim=-1).cpu().double().numpy()
    return result


def forced_pass(
    model: AutoregressiveModel,
    encoded: Any,
    prompts: Sequence[Sequence[int]],
    emitted: Sequence[Sequence[int]],
) -> Iterator[Forced]:
    """Force a padded batch through the decoder in one pass and yield the logits of each piece in float32."""
    import torch

    # the last token predicts nothing, so it is not fed; attention is causal, so padding on the right is inert
    fed = [[*prompt, *ids[:-1]] for prompt, ids in zip(prompts, emitted, strict=True)]
    ids = torch.full((len(fed), max(map(len, fed))), model.end_id)
    for row, sequence in enumerate(fed):
        ids[row, : len(sequence)] = torch.as_tensor(sequence)
    states = model.forced_states(encoded, ids.to(model.info.device))
    for row, prompt in enumerate(prompts):
        first, at = len(prompt) - 1, model.start_position(prompt)
        start = None if at is None else model.project(states[row, at : at + 1])[0].float()
        own = states[row, first : first + len(emitted[row])]
        yield Forced((model.project(chunk).float() for chunk in torch.split(own, ROWS_AT_ONCE)), start, own)


def numbered(chunks: Iterator[torch.Tensor]) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield each chunk with the position of its first row."""
    at = 0
    for chunk in chunks:
        yield at, chunk
        at += len(chunk)
