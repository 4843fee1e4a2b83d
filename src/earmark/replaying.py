"""The replay of prepared cases: force the output through the reference, compare, look along the profile's recipes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any, Literal

from earmark.attribution import attribute, recipes_of
from earmark.exact import find_exact
from earmark.faint import FAINT, FAINT_MARGIN, is_faint, least_deviation
from earmark.fingerprint.matched import matched_names
from earmark.judging import Judge
from earmark.loading import family_of
from earmark.protocols import Comparison, Model
from earmark.records.request import Request, Segmentation
from earmark.records.verdict import Fault, Finding, broken, decide, note, unclear
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
            for work in works:
                work.comparison = None  # of one that stays open on its own, without what would have followed
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

    On these, honest machines differ: no size of a difference tells anything. Whoever chose the cuts answers for it, the
    provider where its own request departs from the usual rule.
    """

    def compared(chosen: Sequence[bool]) -> Comparison:
        traces, replays = list(compress(work.traces, chosen)), list(compress(work.replays, chosen))
        redone = None if reruns is None else list(compress(reruns, chosen))
        return family_of(model).compare(traces, replays, model=model, request=request, reruns=redone)

    faint = [is_faint(model, item) for item in work.inputs]
    kept = [not each for each in faint]
    comparison = compared(kept) if any(kept) else None
    if any(faint):
        work.findings.append(_of_faint(work, compared(faint), faint, request, model))
        work.inputs, work.traces = list(compress(work.inputs, kept)), list(compress(work.traces, kept))
        work.replays = list(compress(work.replays, kept))
    return comparison


def _of_faint(work: Work, own: Comparison, faint: Sequence[bool], request: Request, model: Model) -> Finding:
    """Say of the comparison of faint segments whether it keeps the clip open, is a note, or breaks a rule."""
    fault: Fault = "provider" if work.request_inside and request.segmentation != Segmentation() else "input"
    least = least_deviation(model, work.inputs)
    found = (
        f"{sum(faint)} of {len(faint)} segments with a mel band whose log energy hardly varies, by {least:.2g} in one"
    )
    expected = f"{FAINT:g} or more, as the normalisation of this model's features magnifies the rounding there"
    mismatches, margin = (own.fingerprint.get(name, math.nan) for name in ("margin_mismatches", "margin_max"))
    greedy = request.decoding.strategy == "greedy"  # a search is run again; the margins of its tokens are no yardstick
    if greedy and margin > FAINT_MARGIN:
        return broken("margin.exceeded", f"{found}, and a token {margin:.3g} nats below the best", f"{FAINT_MARGIN:g}")
    if all(faint) or decide(own.findings) != "PASS" or (greedy and mismatches != 0):
        return unclear("audio.faint", fault, found, expected)
    return note("audio.faint", f"{found}, where the tokens are the reference's", expected, fault)


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
