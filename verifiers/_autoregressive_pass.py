"""One parallel pass of the decoder over given tokens, and the scores of its logits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.protocols import AutoregressiveModel

if TYPE_CHECKING:
    import torch

ROWS_AT_ONCE = 128
"""Positions projected to the vocabulary at once: bounds the memory of the logits."""


@dataclass(frozen=True, slots=True)
class Forced:
    """One piece: logits in chunks with a row per emitted token, the row at the start token, the hidden states."""

    chunks: Iterator[torch.Tensor]
    start: torch.Tensor | None
    states: torch.Tensor


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


def score(logits: torch.Tensor, emitted: Sequence[int], k: int) -> tuple[torch.Tensor, ...]:
    """Return ids and log-probabilities of the k best, that of the emitted token, and the entropy of each row."""
    import torch

    logprobs = torch.log_softmax(logits, dim=-1)
    top = logprobs.topk(k, dim=-1)
    ids = torch.as_tensor(emitted, device=logits.device)
    entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
    return top.indices, top.values, logprobs.gather(1, ids[:, None])[:, 0], entropy


def columns(parts: Sequence[tuple[torch.Tensor, ...]]) -> list[NDArray[np.float64]]:
    """Join the chunks of each quantity."""
    import torch

    return [torch.cat(column).cpu().double().numpy() for column in zip(*parts, strict=True)]
