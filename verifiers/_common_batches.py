"""Running a model over pieces of audio in batches, and scoring rows of logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from earmark.protocols import Advance, SegmentInput
from earmark.taps import Place, Taps

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


class Encoder(Protocol):
    """What a model needs to be run in batches; one that padding disturbs also has a true `alone`."""

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the layers that can be probed."""

    def encode(self, samples: Any) -> Any:
        """Return the encoded batch."""


def batched(
    model: Encoder,
    inputs: Sequence[SegmentInput],
    batch_size: int,
    advance: Advance,
    run: Callable[[Any, list[int], Taps], list[T]],
    *,
    places: Callable[[Sequence[SegmentInput]], list[Place]] | None = None,
    depth: int | None = None,
) -> list[T]:
    """Encode the pieces batch by batch, those of like length together, and return the results in order.

    Args:
        model: The model.
        inputs: The pieces.
        batch_size: Most pieces at once.
        advance: Called with the number of finished pieces.
        run: From the encoded batch, the numbers of its pieces and the states kept to one result per piece.
        places: Which hidden states of a batch are kept; None for none.
        depth: Layers of the encoder that are run, so that nothing is encoded; None for all.
    """
    import torch

    size = 1 if getattr(model, "alone", False) else batch_size
    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i].samples))
    results: dict[int, T] = {}
    with torch.inference_mode():
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            batch = [inputs[i] for i in rows]
            encoded: Any = None
            with Taps(model.encoder_layers(), places(batch) if places else [], depth=depth) as taps:
                encoded = model.encode([item.samples for item in batch])
            results.update(zip(rows, run(encoded, rows, taps), strict=True))
            advance(len(rows))
    return [results[i] for i in range(len(inputs))]


def score(logits: torch.Tensor, emitted: Sequence[int] | torch.Tensor, k: int) -> tuple[torch.Tensor, ...]:
    """Return ids and log-probabilities of the k best, that of the emitted token, and the entropy of each row."""
    import torch

    return score_logprobs(torch.log_softmax(logits, dim=-1), emitted, k)


def score_logprobs(logprobs: torch.Tensor, emitted: Sequence[int] | torch.Tensor, k: int) -> tuple[torch.Tensor, ...]:
    """Return the same as `score` of rows that are normalised already."""
    import torch

    top = logprobs.topk(k, dim=-1)
    ids = torch.as_tensor(emitted, device=logprobs.device)
    entropy = -logprobs.exp().mul_(logprobs).sum(dim=-1)
    return top.indices, top.values, logprobs.gather(1, ids[:, None])[:, 0], entropy


def columns(parts: Sequence[tuple[torch.Tensor, ...]]) -> list[NDArray[np.float64]]:
    """Join the chunks of each quantity."""
    import torch

    return [torch.cat(column).cpu().double().numpy() for column in zip(*parts, strict=True)]
