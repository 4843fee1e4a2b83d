"""The replay of prepared cases: force the output through the reference, compare, look along the profile's recipes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, Literal

from earmark.attribution import attribute, recipes_of
from earmark.exact import find_exact
from earmark.faint import FAINT, is_faint, least_deviation
from earmark.fingerprint.matched import matched_names
from earmark.judging import Judge
from earmark.loading import family_of
from earmark.protocols import Comparison, Model
from earmark.records.request import Request
from earmark.records.verdict import Fault, note, unclear
from earmark.rules import Work

Mode = Literal["replay", "reexecute"]


def replay(works: Sequence[Work], model: Model, judge: Judge, batch_size: int, mode: Mode) -> None:
    """Replay all open cases together; where that breaks, one by one, so that no case shelters its neighbours.

    Args:
        works: Cases behind their rules; they get their comparison, or a finding why there is none.
        model: The reference.
        judge: Whose profile says which recipes are looked along.
        batch_size: Segments at once.
        mode: See `earmark.verification.verify_many`.
    """
    if not works:
        return
    try:
        if mode == "reexecute":
            find_exact(works, model, batch_size)
        compared = [work for work in works if work.open and not work.exact]
        _compare(compared, model, batch_size, mode)
        _match(compared, model, judge, batch_size)
    except Exception as error:  # noqa: BLE001 - the plugin border: a fault of ours is INCONCLUSIVE, never a verdict
        if len(works) > 1:
            for work in (work for work in works if work.open):
                replay([work], model, judge, batch_size, mode)
            return
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        works[0].comparison = None
        works[0].findings.append(unclear("replay.failed", "verifier", found, "a replay"))


def _compare(works: Sequence[Work], model: Model, batch_size: int, mode: Mode) -> None:
    """Force all outputs through the reference, decode those again that ask for it, and compare."""
    if not works:
        return
    family, reference = family_of(model), model.in_float32()
    again = [w for w in works if w.request and (mode == "reexecute" or family.needs_rerun(w.request))]
    replays = _in_turn(family.replay, reference, works, batch_size)
    reruns = _in_turn(family.rerun, model if mode == "reexecute" else reference, again, batch_size)
    for work in works:
        if work.request is not None:
            work.replays = replays[id(work)]
            work.comparison = _comparison(work, reruns.get(id(work)), work.request, reference)


def _comparison(work: Work, reruns: list[Any] | None, request: Request, model: Model) -> Comparison | None:
    """Compare a case, without its faint segments; these must hold the tokens that the reference would have chosen.

    On these, honest machines differ: no size of a difference tells anything, and whoever chose the cuts answers for it.
    """

    def compared(chosen: Sequence[bool]) -> Comparison:
        traces, replays = list(compress(work.traces, chosen)), list(compress(work.replays, chosen))
        redone = None if reruns is None else list(compress(reruns, chosen))
        return family_of(model).compare(traces, replays, model=model, request=request, reruns=redone)

    faint = [is_faint(model, item) for item in work.inputs]
    kept = [not each for each in faint]
    if any(faint):
        fault: Fault = "provider" if work.request_inside else "input"
        found = f"a mel band whose log energy varies by {least_deviation(model, work.inputs):.2g}"
        found += f" in {sum(faint)} of {len(faint)} segments"
        expected = f"{FAINT:g} or more, as the normalisation of this model's features magnifies the rounding there"
        if any(kept) and _as_chosen(compared(faint)):
            work.findings.append(note("audio.faint", f"{found}, where the tokens are the reference's", expected, fault))
        else:
            work.findings.append(unclear("audio.faint", fault, found, expected))
    comparison = compared(kept) if any(kept) else None
    work.inputs, work.traces = list(compress(work.inputs, kept)), list(compress(work.traces, kept))
    work.replays = list(compress(work.replays, kept))
    return comparison


def _as_chosen(comparison: Comparison) -> bool:
    return not comparison.findings and comparison.fingerprint.get("margin_mismatches") == 0


def _match(works: Sequence[Work], model: Model, judge: Judge, batch_size: int) -> None:
    """Add to the statistics how far each case deviates along the recipes that its profile looks along."""
    groups: dict[tuple[str, ...], list[Work]] = {}
    for work in works:
        if work.comparison is not None and (names := _recipes(work, judge)):
            groups.setdefault(names, []).append(work)
    for names, group in groups.items():
        found = attribute(group, model.in_float32(), recipes_of(names), batch_size=batch_size)
        for work, own in zip(group, found, strict=True):
            if work.comparison is not None:
                matched = dict.fromkeys(matched_names(names), math.nan) | (own.statistics() if own else {})
                fingerprint = work.comparison.fingerprint.extended(matched)
                work.comparison = replace(work.comparison, fingerprint=fingerprint)


def _recipes(work: Work, judge: Judge) -> tuple[str, ...]:
    if work.request is None or work.evidence is None:
        return ()
    return judge.recipes(work.request.decoding.strategy, work.evidence.level)


def _in_turn(
    run: Callable[..., list[Any]], model: Model, works: Sequence[Work], batch_size: int
) -> dict[int, list[Any]]:
    """Run one pass over the segments of all cases and return the results of each case."""
    inputs = [item for work in works for item in work.inputs]
    traces = [trace for work in works for trace in work.traces]
    if not inputs:
        return {}
    results = iter(run(model, inputs, traces, batch_size=batch_size, advance=lambda _: None))
    return {id(work): [next(results) for _ in work.inputs] for work in works}
