"""Providers that stop too early: transcripts cut short, scored by the real model (THREATS A7)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.core import Scenario, Settings, run_record, run_score


def stop_early(*, share: float = 0.5, tokens: int | None = None, end: bool = True) -> Scenario:
    """Return a provider that ends each transcript too early, and lets the reference score what there is.

    Args:
        share: Share of the tokens that is written, between 0 and 1.
        tokens: How many of the last tokens are left out, in place of a share; 0 leaves out the end token alone.
        end: Whether the end token stands behind what is left, as if the model had ended there.

    Returns:
        The scenario. Families that write no end token are refused when it runs.

    Raises:
        UsageError: Nothing is left out, or the share is not between 0 and 1.

    Example:
        >>> stop_early().name, stop_early(tokens=2).name, stop_early(tokens=0, end=False).name
        ('stop-0.5', 'stop-2-tokens', 'stop-0-tokens-no-end')
    """
    if tokens is None and not 0 < share < 1:
        raise UsageError(f"stop_early takes a share between 0 and 1; got {share:g}")
    if tokens is not None and (tokens < 0 or (tokens == 0 and end)):
        raise UsageError(f"stop_early leaves out tokens or the end token; got tokens={tokens}, end={end}")

    def kept(length: int) -> int:
        return max(1, int(share * length)) if tokens is None else max(0, length - tokens)

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        stop = getattr(reference, "end_id", None)
        if stop is None:
            raise UsageError(f"{reference.info.name} writes no end token; see drop_audio for what it can leave out")
        cut = []
        for output in run_record(reference, inputs, settings):
            words = [token for token in output.ids if token != stop]
            ids = (*words[: kept(len(words))], *[stop] * end)
            cut.append(dataclasses.replace(output, ids=ids, text=reference.detokenise(ids)))
        return run_score(reference, inputs, cut, settings)

    amount = f"{share:g}" if tokens is None else f"{tokens}-tokens"
    summary = f"transcripts end after {share:.0%} of their tokens" if tokens is None else f"{tokens} tokens left out"
    return Scenario(
        name=f"stop-{amount}" + ("" if end else "-no-end"),
        honest=False,
        summary=summary + ("" if end else ", and the end token"),
        saves="the rest of the decoder",
        produce=produce,
        only_text=end,
    )
