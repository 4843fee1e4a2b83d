"""Providers of whom a beam search is asked, and who search as they should, or with less (THREATS A13)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import msgspec

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.records.request import Decoding
from earmark.scenarios.core import Scenario, Settings, run_record

MOST_BEAMS = 64
"""As many as a request may ask for."""


def beam_search(*, beams: int = 5, done: int | None = None) -> Scenario:
    """Return a provider of whom a beam search is asked.

    What is claimed follows from the request, so that greedy evidence comes in under the claim of a beam. Where both
    write the same, the search was not needed: the evidence is the honest one and PASSes.

    Args:
        beams: Beams that the customer asks for, 2 to 64.
        done: Beams that the provider really searches with, fewer than asked; 1 is greedy decoding. None searches as
            asked: honest.

    Returns:
        The scenario. Requests for anything else are refused when it runs; see `Scenario.ask`.

    Raises:
        UsageError: A number is outside its range.

    Example:
        >>> beam_search(done=1).name, beam_search(beams=4, done=2).name, beam_search().honest
        ('greedy-for-beam-5', 'beam-2-for-beam-4', True)
    """
    if not 2 <= beams <= MOST_BEAMS or not (done is None or 1 <= done < beams):
        expected = f"2 to {MOST_BEAMS} that are asked, and 1 or more, but fewer, that are done"
        raise UsageError(f"beam_search with {beams} beams asked and {done} done; expected {expected}")

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        for item in inputs:
            if item.request.decoding.beams != beams:
                found = f"a request for {item.request.decoding.strategy} with {item.request.decoding.beams} beams"
                raise UsageError(f"{found}; this provider is asked for {beams}: see Scenario.ask")
        return run_record(reference, inputs if done is None else [_with(item, done) for item in inputs], settings)

    claimed = f"beam-{beams}"
    really = None if done is None else "greedy" if done == 1 else f"beam-{done}"
    return Scenario(
        name=claimed if really is None else f"{really}-for-{claimed}",
        honest=really is None,
        summary=f"a search with {beams} beams" + ("" if really is None else f" is asked, {really} done"),
        saves="nothing" if done is None else f"{1 - done / beams:.0%} of the decoder",
        produce=produce,
        asked=Decoding(strategy="beam", beams=beams),
        only_text=done is not None,
    )


def _with(item: SegmentInput, beams: int) -> SegmentInput:
    """Return the piece with a request for that many beams."""
    strategy = "greedy" if beams == 1 else "beam"
    decoding = msgspec.structs.replace(item.request.decoding, strategy=strategy, beams=beams)
    return dataclasses.replace(item, request=msgspec.structs.replace(item.request, decoding=decoding))
