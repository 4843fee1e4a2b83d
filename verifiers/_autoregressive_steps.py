"""Scores taken from the decoding itself: raw logits and hidden states of every step, with no second pass.

Decoding with a cache and the parallel pass of a replay compute the same numbers in another order; how far they differ
is measured in docs/explanation/statistics.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from earmark.protocols import AutoregressiveModel
from earmark.verifiers._autoregressive_pass import Said, log_probabilities
from earmark.verifiers._common_batches import score

if TYPE_CHECKING:
    import torch

STEPS_AT_ONCE = 16
"""Steps whose logits are scored together: few enough to bound their memory, enough to spread the calls' cost."""


class Watch:
    """Looks at a batch while it is decoded.

    Args:
        model: The model that decodes.
        prompts: Prompts of the batch, of one length.
        k: Listed tokens per position.
        states: Whether hidden states are kept.
    """

    def __init__(self, model: AutoregressiveModel, prompts: Sequence[tuple[int, ...]], *, k: int, states: bool) -> None:
        """Find the positions that predict language and silence."""
        self._model, self._k, self._keep_states = model, k, states
        self._begin = len(prompts[0])
        self._starts = [model.start_position(prompt) for prompt in prompts]
        self._waiting: list[torch.Tensor] = []
        self._parts: list[tuple[torch.Tensor, ...]] = []
        self._done = 0
        self._states: list[torch.Tensor] = []
        self._first: torch.Tensor | None = None
        self._handle: Any = None

    def __enter__(self) -> Self:
        """Attach to the module that gives the logits."""
        self._handle = self._model.head().register_forward_hook(self._look)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Detach."""
        self._handle.remove()

    def _look(self, _module: Any, inputs: Any, output: torch.Tensor) -> None:
        if self._first is None:
            self._first = self._at_start(output)
        elif not self._keep_states:
            self._handle.remove()
        if self._keep_states:
            self._states.append(inputs[0] if self._states else inputs[0][:, -1:])

    def _at_start(self, output: torch.Tensor) -> torch.Tensor:
        import torch

        known = [at for at in self._starts if at is not None]
        if not known:
            return output[:, -1]
        return output[torch.arange(len(known), device=output.device), known].float()

    def step(self, written: torch.Tensor, logits: torch.Tensor) -> None:
        """Take the raw float32 logits (batch, vocab) of one step, before which `written` (batch, length) stood."""
        if len(self._waiting) == STEPS_AT_ONCE:
            self._score(written[:, self._begin + self._done :])
        self._waiting.append(logits)

    def _score(self, chosen: torch.Tensor) -> None:
        """Score the waiting steps, whose tokens are `chosen` (batch, steps)."""
        import torch

        logits = torch.stack(self._waiting, dim=1)
        shape = logits.shape[:2]
        parts = score(logits.flatten(0, 1), chosen.flatten(), self._k)
        self._parts.append(tuple(part.reshape(*shape, *part.shape[1:]) for part in parts))
        self._done += len(self._waiting)
        self._waiting.clear()

    def said(self, emitted: Sequence[Sequence[int]]) -> list[Said]:
        """Return what was said while each row was written; `emitted` are its ids."""
        import torch

        if self._waiting:
            rest = [[*ids[self._done : self._done + len(self._waiting)]] for ids in emitted]
            filled = [ids + [self._model.end_id] * (len(self._waiting) - len(ids)) for ids in rest]
            self._score(torch.as_tensor(filled, device=self._waiting[0].device))
        columns = [torch.cat(column, dim=1).cpu().double().numpy() for column in zip(*self._parts, strict=True)]
        states = torch.cat(self._states, dim=1) if self._states else None
        starts = None if self._first is None else log_probabilities(self._first)
        return [
            Said(
                columns=[column[row, : len(ids)] for column in columns],
                start=None if at is None or starts is None else starts[row],
                states=None if states is None else states[row, : len(ids)],
            )
            for row, (ids, at) in enumerate(zip(emitted, self._starts, strict=True))
        ]
