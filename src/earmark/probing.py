"""A look at the segments that a budget leaves out: the encoder is run up to a depth, and the probes there compared.

It is cheap, since neither the other layers nor a decoder run, and it says nothing of tokens. So it adds to what a
replay of other segments shows, and stands in for none: a clip of which no segment was replayed stays INCONCLUSIVE.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.faint import is_faint
from earmark.fingerprint.matched import matched_names
from earmark.fingerprint.types import Fingerprint
from earmark.judging import Judge
from earmark.loading import family_of
from earmark.protocols import Comparison, Family, Model, ProbedFamily
from earmark.records.verdict import Finding, note, unclear
from earmark.rules import Work

LEVELS = ("sketch", "compact")
"""Levels that hold hidden states."""
DECIDING = ("fail", "statistics.part")
"""Severity and code of the findings that count here; few positions, or no profile, the replay reports itself."""


def check_depth(model: Model, depth: int | None) -> None:
    """Refuse a depth for a family that has no probes.

    Raises:
        UsageError: The family of the model cannot look at a depth.
    """
    if depth is not None and not isinstance(family_of(model), ProbedFamily):
        raise UsageError(f"the family {family_of(model).name!r} has no probes to look at: leave the depth out")


def look(works: Sequence[Work], model: Model, judge: Judge, depth: int | None, batch_size: int) -> None:
    """Compare what was left out up to a depth, and say so in the findings of each case.

    Args:
        works: Cases behind `earmark.budget.spend`.
        model: The reference.
        judge: What judges the distances.
        depth: Layers of the encoder that are run; None looks at nothing.
        batch_size: Segments at once.
    """
    if depth is None:
        return
    family = family_of(model)
    for work in works:
        work.left = [pair for pair in work.left if not is_faint(model, pair[0])]
    some = [work for work in works if work.left and work.evidence is not None and work.evidence.level in LEVELS]
    if some and isinstance(family, ProbedFamily):
        _look(some, model, judge, depth, batch_size)


def _look(works: Sequence[Work], model: Model, judge: Judge, depth: int, batch_size: int) -> None:
    """Look at all cases together; where that breaks, one by one, so that no case shelters its neighbours."""
    try:
        found = iter(_probe(works, model, depth, batch_size))
        added = [
            _findings(work, np.concatenate([next(found) for _ in work.left]), judge, family_of(model), depth)
            for work in works
        ]
    except Exception as error:  # noqa: BLE001 - the plugin border: a fault of ours is INCONCLUSIVE, never a verdict
        if len(works) > 1:
            for work in works:
                _look([work], model, judge, depth, batch_size)
            return
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        added = [[unclear("replay.failed", "verifier", words, "a replay of the encoder")]]
    for work, findings in zip(works, added, strict=True):
        work.findings += findings


def _probe(works: Sequence[Work], model: Model, depth: int, batch_size: int) -> list[NDArray[np.float64]]:
    family, left = family_of(model), [pair for work in works for pair in work.left]
    if not isinstance(family, ProbedFamily):
        return []
    inputs, traces = [item for item, _ in left], [trace for _, trace in left]
    reference = model.in_float32()
    return family.probe(reference, inputs, traces, depth=depth, batch_size=batch_size, advance=lambda _: None)


def _findings(work: Work, distances: NDArray[np.float64], judge: Judge, family: Family, depth: int) -> list[Finding]:
    found = f"{len(distances)} probes in the first {depth} encoder layers of {len(work.left)} other segments"
    seen = note("budget.probed", found, "a replay; no token of these was looked at", "verifier")
    if not len(distances) or work.request is None or work.evidence is None:
        return [seen]
    strategy, level = work.request.decoding.strategy, work.evidence.level
    known = {"sketch_distance": float(distances.mean()), "sketch_distance_max": float(distances.max())}
    matched = matched_names(judge.recipes(strategy, level))
    names = (*(statistic.name for statistic in family.statistics), *matched)
    fingerprint = Fingerprint(family.name, names, tuple(known.get(name, math.nan) for name in names))
    judgement = judge.judge(
        Comparison(fingerprint=fingerprint, findings=(), positions=len(distances)),
        strategy=strategy,
        level=level,
        k=min(family.listed(trace) for _, trace in work.left),
        seconds=work.seconds,
        part=True,
        chose=work.request_inside,
    )
    return [seen, *(each for each in judgement.findings if {each.severity, each.code} & {*DECIDING})]
