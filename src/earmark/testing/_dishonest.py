"""What a family owes to forged evidence: it never passes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from earmark.errors import EarmarkError, UsageError
from earmark.recording import Clip, score
from earmark.records.evidence import Evidence, Level, join_texts
from earmark.records.policy import Policy
from earmark.records.verdict import Verdict
from earmark.testing._forgeries import blanked, noisy, other_ids, with_segment
from earmark.testing.bench import Bench, numbers, ours, require, restamp, told


def _never_pass(bench: Bench, forged: Iterator[tuple[str, Evidence, Clip]], advice: str) -> None:
    rows = list(forged)
    verdicts = bench.verify([evidence for _, evidence, _ in rows], [clip for _, _, clip in rows])
    for (name, _, _), verdict in zip(rows, verdicts, strict=True):
        require(not verdict.passed, f"PASS for {name}", "FAIL", advice)
        require(not ours(verdict), f"{told(verdict)} for {name}", "FAIL without a crash", "refuse it before the replay")


def binds_ids(bench: Bench) -> None:
    """A transcript with one other id never passes, whoever scores it."""
    _never_pass(bench, _changed_ids(bench), "compare every emitted id with what the reference would have chosen")


def _changed_ids(bench: Bench) -> Iterator[tuple[str, Evidence, Clip]]:
    for number, (evidence, clip) in enumerate(zip(bench.honest[:2], bench.clips, strict=False)):
        segment = evidence.segments[0]
        for name, ids in other_ids(segment.ids, bench.honest[number - 1].segments[0].ids, bench.seed):
            text = bench.model.detokenise(ids)
            changed = with_segment(evidence, ids=ids, text=text)
            texts = [s.text for s in changed.segments]
            changed = msgspec.structs.replace(changed, text=join_texts(texts))
            yield f"{name} in clip {number}, the trace as it was", changed, clip
            rescored = _rescored(bench, changed, clip)  # the real model scores what another wrote
            if rescored is not None and rescored.text != evidence.text:
                yield f"{name} in clip {number}, the trace written anew", rescored, clip


def _rescored(bench: Bench, changed: Evidence, clip: Clip) -> Evidence | None:
    """Return the trace that the model itself writes for other ids, or None where the family refuses them."""
    try:
        return score(bench.model, changed, clip.audio, level=bench.deepest)
    except EarmarkError:
        return None


def binds_audio(bench: Bench) -> None:
    """Evidence of one clip does not pass for another, though every digest is right."""
    texts = {evidence.text for evidence in bench.honest}
    require(len(texts) > 1, f"one transcript {min(texts)[:60]!r} of {len(bench.clips)} clips", "different ones", _DEAF)
    _never_pass(bench, _swapped(bench), _DEAF)


def _swapped(bench: Bench) -> Iterator[tuple[str, Evidence, Clip]]:
    for number, (evidence, clip) in enumerate(zip(bench.honest, bench.clips, strict=True)):
        other = bench.honest[number - 1]
        if other.text != evidence.text:
            forged = restamp(_cut_alike(other, evidence), clip.request)
            yield f"evidence of clip {number - 1} under clip {number}", forged, clip


_DEAF = "make model and replay depend on the audio, or give clips with different words"


def _cut_alike(evidence: Evidence, own: Evidence) -> Evidence:
    """Return evidence with the segment boundaries of another clip, so that only the contents differ."""
    pairs = zip(evidence.segments, own.segments, strict=False)
    moved = tuple(msgspec.structs.replace(s, start=o.start, end=o.end) for s, o in pairs)
    return msgspec.structs.replace(evidence, segments=moved, text=join_texts([s.text for s in moved]))


def binds_values(bench: Bench) -> None:
    """A field that is blanked never passes."""
    rows = (
        (f"{what} in clip {number}", with_segment(evidence, trace=trace), bench.clips[number])
        for number, evidence in enumerate(bench.honest[:1])
        for what, trace in blanked(evidence.segments[0].trace)
    )
    _never_pass(bench, rows, "refuse what no softmax gives, bound what may be left out, compare every field")


def binds_nonce(bench: Bench) -> None:
    """Evidence at the level `sketch` passes under its own nonce alone."""
    for level in bench.levels:
        if level != "scores":
            _binds_nonce(bench, level)


def _binds_nonce(bench: Bench, level: Level) -> None:
    clips = [
        Clip(audio=c.audio, request=msgspec.structs.replace(c.request, nonce=f"{i + 1:031x}f"))
        for i, c in enumerate(bench.clips)
    ]
    fresh = bench.record(clips=clips, level=level)
    for one, other in zip(bench.record(level=level), fresh, strict=True):
        same = one.segments[0].trace == other.segments[0].trace
        require(not same, "the same trace under another nonce", "another sketch", "choose the probes by the nonce")
    stale = zip(bench.record(level=level), clips, strict=True)
    rows = (
        (f"evidence of level {level} of clip {i} under a new nonce", restamp(e, c.request), c)
        for i, (e, c) in enumerate(stale)
    )
    _never_pass(bench, rows, "let the nonce choose the probes and their projection, and bound their distance")
    bare = zip(bench.record(level="scores"), bench.clips, strict=True)
    rows = ((f"level {level} claimed for scores in clip {i}", _at(e, level), c) for i, (e, c) in enumerate(bare))
    _never_pass(bench, rows, "refuse in `read` a trace that holds less than its level says")


def _at(evidence: Evidence, level: Level) -> Evidence:
    return msgspec.structs.replace(evidence, level=level)


def reports_k(bench: Bench) -> None:
    """Fewer candidates than the policy asks are the fault of the provider."""
    short = bench.record(k=1)
    for impossible in (0, 10**9):
        try:
            bench.record(k=impossible)
        except UsageError:
            continue
        require(holds=False, found=f"k = {impossible} accepted", expected="UsageError", advice="check k in `record`")
    segment, clip = short[0].segments[0], bench.clips[0]
    listed = bench.family.listed(bench.family.read(segment, clip.request, bench.model, short[0].level))
    if segment.trace == bench.honest[0].segments[0].trace:
        return  # a family without lists has no k
    require(listed == 1, f"{listed} candidates `listed` in a trace of k = 1", "1", "count them in the trace")
    policy = Policy(least_k=5, min_positions=1)
    for verdict in bench.verify(short, policy=policy):
        faults = {finding.fault for finding in verdict.findings if finding.severity != "note"}
        found = f"{told(verdict)} for k = 1 under a policy of 5"
        fine = not verdict.passed and faults == {"provider"}
        require(fine, found, "INCONCLUSIVE, fault: provider", "compare k with the policy in `review`")


def grows(bench: Bench) -> None:
    """Numbers of weights with noise fail, and no statistic falls with the noise."""
    spreads = (0.0, 0.05, 0.3)
    rounds = [_with_noise(bench, spread) for spread in spreads]
    for number, verdict in enumerate(rounds[-1]):
        found = f"{told(verdict)} for clip {number} scored by weights with noise of {spreads[-1]:.0%}"
        require(verdict.outcome == "FAIL", found, "FAIL", "compare numbers that depend on all weights, tighten bounds")
    _check_growth(bench, [[numbers(v.fingerprint) for v in verdicts] for verdicts in rounds], spreads)


def _with_noise(bench: Bench, spread: float) -> list[Verdict]:
    module = noisy(bench.model.module, spread, bench.seed)
    model = bench.model.with_module(module) if spread else bench.model
    pairs = zip(bench.honest, bench.clips, strict=True)
    return bench.verify([score(model, evidence, clip.audio, level=bench.deepest) for evidence, clip in pairs])


def _check_growth(bench: Bench, rounds: list[list[dict[str, float]]], spreads: Sequence[float]) -> None:
    for statistic in bench.family.statistics:
        name = statistic.name
        rows = [[values.get(name, math.nan) for values in clips] for clips in rounds]
        lost = not np.isnan(rows[0]).all() and np.isnan(rows[-1]).all() and all(rounds[-1])
        require(not lost, f"{name} NaN under noise", "a number, as for honest evidence", "NaN must not hide a cheat")
        means = [float(np.nanmean(row)) if not np.isnan(row).all() else math.nan for row in rows]
        told_means = ", ".join(f"{mean:.3g} at {spread:.0%}" for mean, spread in zip(means, spreads, strict=True))
        fell = means[-1] < means[0] - 1e-9
        require(not fell, f"{name} falls with noise on the weights: {told_means}", "it to grow", _TURN)
        if name == bench.family.statistics[0].name and all(rounds[-1]):
            rises = means[0] < means[1] < means[2]
            require(rises, f"the headline {name}: {told_means}", "it to rise with every step", _TURN)


_TURN = "turn the statistic round, so that it grows with suspicion"
