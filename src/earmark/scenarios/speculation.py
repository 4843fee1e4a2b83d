"""Speculative decoding: a cheap draft proposes tokens; lossless it is honest, lossy it is a cheat (THREATS A14)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.core import Scenario, Settings, run_record, run_score
from earmark.scenarios.stand_in import same_tokens
from earmark.scenarios.weights import quantise

if TYPE_CHECKING:
    import torch


def speculative(*, accept: float | None = None, draft: Model | None = None) -> Scenario:
    """Return a provider whose cheap draft proposes every token, under greedy decoding.

    The tokens are those of speculative decoding; the time that it saves is not simulated.

    Args:
        accept: A draft token is taken where the reference gives it at least this probability, between 0 and 1. None
            takes it only where it is the reference's own choice: lossless, and honest.
        draft: The draft; by default the reference in 4 bits.

    Raises:
        UsageError: The share is outside 0 to 1. Families other than autoregressive are refused when it runs.

    Source: Leviathan et al., Fast inference from transformers via speculative decoding, arXiv 2211.17192, section 2.

    Example:
        >>> speculative(accept=0.3).name, speculative().honest
        ('speculative-0.3', True)
    """
    if accept is not None and not 0 < accept < 1:
        raise UsageError(f"speculative accepts draft tokens from a probability between 0 and 1; got {accept}")

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        if reference.info.family != "autoregressive":
            raise UsageError(f"{reference.info.name} does not write token by token, so nothing can be drafted")
        if any(item.request.decoding.strategy != "greedy" for item in inputs):
            raise UsageError("speculative decoding is simulated for greedy requests alone")
        cheap = quantise(bits=4, group=64).alternative(reference) if draft is None else draft
        same_tokens(cheap, reference)
        outputs = run_record(with_draft(reference, cheap, accept), inputs, settings)
        # whoever checks a lossless draft computes its numbers for several tokens at once, as a forced pass does
        return outputs if accept is not None else run_score(reference, inputs, outputs, settings)

    name = "speculative-lossless" if accept is None else f"speculative-{accept:g}"
    summary = "draft tokens where the reference agrees" if accept is None else f"draft tokens from p >= {accept:g} on"
    return Scenario(
        name=name,
        honest=accept is None,
        summary=summary,
        saves="a share of the decoder",
        produce=produce,
        only_text=accept is not None,
    )


def with_draft(reference: Model, draft: Model, accept: float | None) -> Model:
    """Return the reference, decoding with the proposals of a draft."""
    made: Any = copy.copy(reference)
    own: Any = reference
    latest: list[tuple[Any, int]] = []  # the draft's side of the encoded batch at hand, and its size

    def encode(samples: Sequence[Any]) -> Any:
        latest[:] = [(cast("Any", draft).encode(samples), len(samples))]
        return own.encode(samples)

    def generate(encoded: Any, rows: Sequence[int], prompts: Any, *, processor: Any, **options: Any) -> Any:
        proposals = Proposals(draft, latest[0], rows, len(prompts[0]), processor=processor, accept=accept)
        return own.generate(encoded, rows, prompts, processor=proposals, **options)

    made.encode, made.generate = encode, generate
    speculating: Model = made
    return speculating


class Proposals:
    """Raises the score of the draft's token to the top where it is accepted.

    Args:
        draft: The draft.
        encoded: The batch as the draft encoded it, and its size.
        rows: Rows of the batch that are decoded.
        begin: Length of their prompts.
        processor: The rules of the request.
        accept: See `speculative`.
    """

    def __init__(
        self,
        draft: Any,
        encoded: tuple[Any, int],
        rows: Sequence[int],
        begin: int,
        *,
        processor: Any,
        accept: float | None,
    ) -> None:
        """Keep what is needed at every step."""
        self.draft, self.rows, self.processor, self.accept = draft, list(rows), processor, accept
        self.encoded, self.size = encoded
        self.rules = draft.step_rules(begin, timestamps=False)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of one step, (rows, vocab)."""
        ruled: torch.Tensor = self.processor(input_ids, scores)
        if self.accept is None:
            return ruled  # what is accepted is what the reference chooses
        every = input_ids[:1].repeat(self.size, 1)
        every[self.rows] = input_ids
        logits = self.draft.project(self.draft.forced_states(self.encoded, every)[self.rows, -1]).float()
        proposed = self.rules(input_ids, logits).argmax(dim=-1, keepdim=True)
        taken = ruled.softmax(dim=-1).gather(1, proposed) >= self.accept
        best = ruled.max(dim=-1, keepdim=True).values
        return ruled.scatter(1, proposed, ruled.gather(1, proposed).where(~taken, best + 1.0))
