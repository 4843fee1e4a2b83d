"""Providers that hand in less than the model wrote: transcripts cut short, scored by the real model (THREATS A7)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.core import Scenario, Settings, run_record, run_score


def truncate(*, tokens: int = 3, end: bool = True) -> Scenario:
    """Return a provider that stops too early, and lets the reference score what there is.

    Of a transcript of no more than `tokens` tokens nothing is left.

    Args:
        tokens: How many of the last tokens of the transcript are left out; 0 leaves out the end token alone.
        end: Whether the end token stands behind what is left, as if the model had ended there.

    Returns:
        The scenario, for autoregressive models.

    Raises:
        UsageError: Nothing is left out.

    Example:
        >>> truncate(tokens=2).name, truncate(tokens=0, end=False).name
        ('truncate-2', 'truncate-0-no-end')
    """
    if tokens < 0 or (tokens == 0 and end):
        raise UsageError(f"truncate leaves out tokens or the end token; got tokens={tokens}, end={end}")

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        if reference.info.family != "autoregressive":
            raise UsageError(f"truncate is for autoregressive models; {reference.info.name} is {reference.info.family}")
        outputs = run_record(reference, inputs, settings)
        return run_score(reference, inputs, [_cut(reference, output, tokens, end=end) for output in outputs], settings)

    name = f"truncate-{tokens}" + ("" if end else "-no-end")
    left_out = " and ".join([f"the last {tokens} tokens"] * bool(tokens) + ["the end token"] * (not end))
    return Scenario(name=name, honest=False, summary=f"{left_out} left out", saves="time", produce=produce)


def _cut(model: Model, output: SegmentOutput, tokens: int, *, end: bool) -> SegmentOutput:
    stop: int = model.end_id  # type: ignore[attr-defined]  # of the autoregressive family's models
    words = [token for token in output.ids if token != stop]
    ids = (*words[: max(0, len(words) - tokens)], *[stop] * (end and stop in output.ids))
    return dataclasses.replace(output, ids=ids, text=model.detokenise(ids))
