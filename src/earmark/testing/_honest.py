"""What a family owes to honest evidence: it passes, in every setting."""

from __future__ import annotations

import math
import re
from typing import get_args

import numpy as np

from earmark import audio as audio_module
from earmark.fingerprint.types import Statistic
from earmark.protocols import Family
from earmark.recording import Clip, request, segment_inputs
from earmark.records.evidence import Level, Precision
from earmark.records.request import Segmentation
from earmark.testing.bench import Bench, numbers, ours, require, told


def describes_itself(bench: Bench) -> None:
    """Name, statistics and bounds fit together."""
    family = bench.family
    require(isinstance(family, Family), type(family).__name__, "every member of earmark.protocols.Family", "add it")
    require(family.name == bench.model.info.family, family.name, f"{bench.model.info.family!r}", "use one name")
    levels = set(family.levels)
    known = set(get_args(Level))
    require("scores" in levels <= known, family.levels, f"scores, and others of {sorted(known)}", "declare `levels`")
    names = [statistic.name for statistic in family.statistics]
    require(names, "no statistics", "at least one", "declare them in `statistics`, the headline first")
    for statistic in family.statistics:
        named = isinstance(statistic, Statistic) and re.fullmatch("[a-z][a-z0-9_]*", statistic.name)
        require(named, statistic, "a Statistic with a name in lower_case", "rename it")
        require(statistic.meaning, f"{statistic.name} without a meaning", "one sentence", "say what it measures")
    require(len(set(names)) == len(names), names, "distinct names", "rename one")
    for precision in get_args(Precision):
        bounds = family.provisional_bounds(precision)
        require(bounds, f"no bounds at {precision}", "a bound per judged statistic", "measure honest noise and cheats")
        require(set(bounds) <= set(names), sorted(set(bounds) - set(names)), "names of `statistics`", "match them")
        wrong = {name: bound for name, bound in bounds.items() if not (math.isfinite(bound) and bound >= 0)}
        require(not wrong, wrong, "finite bounds of 0 or more", f"correct them at {precision}")


def round_trip(bench: Bench) -> None:
    """Honest evidence passes at every level, in both forms of a record and in both modes."""
    names = tuple(statistic.name for statistic in bench.family.statistics)
    for level in bench.levels:
        evidence = bench.record(level=level)
        packed, text = [e.to_msgpack() for e in evidence], [e.to_json().encode() for e in evidence]
        for number, verdict in enumerate(bench.verify(packed)):
            where = f"{told(verdict)} for honest evidence of clip {number} at level {level}"
            require(verdict.passed, where, "PASS", "record, read, replay and compare must agree with each other")
            found = (verdict.fingerprint.family, verdict.fingerprint.names) if verdict.fingerprint else None
            require(found == (bench.family.name, names), found, f"the declared names {names}", "keep their order")
            _check_numbers(bench, numbers(verdict.fingerprint))
        for number, verdict in enumerate(bench.verify(text, mode="reexecute")):
            where = f"{told(verdict)} for honest evidence of clip {number} at level {level}, decoded again"
            require(verdict.passed, where, "PASS", "let `rerun` decode as `record` does")


def _check_numbers(bench: Bench, values: dict[str, float]) -> None:
    infinite = {name: value for name, value in values.items() if math.isinf(value)}
    require(not infinite, infinite, "finite values, or NaN where a statistic does not apply", "bound them")
    judged = [name for name in bench.family.provisional_bounds(bench.model.info.precision) if name in values]
    known = [name for name in judged if not math.isnan(values[name])]
    require(known, f"NaN for all of {judged}", "a number behind every PASS", "compare something at every level")


def repeatable(bench: Bench) -> None:
    """Recording twice gives the same bytes."""
    for number, (one, other) in enumerate(zip(bench.honest, bench.record(), strict=True)):
        require(one == other, f"other evidence of clip {number} the second time", "the same bytes", "remove the chance")
    before = segment_inputs(bench.clips[0], bench.model)
    rows = bench.family.record(bench.model, [], k=8, level=bench.levels[0], batch_size=4, advance=lambda _: None)
    require(rows == [], f"{len(rows)} outputs of no input", "none", "take an empty list of inputs")
    steps: list[int] = []
    bench.family.record(bench.model, before, k=8, level=bench.levels[0], batch_size=1, advance=steps.append)
    require(sum(steps) == len(before), f"advance called for {sum(steps)}", f"{len(before)} segments", "count segments")


def batch_invariant(bench: Bench) -> None:
    """Honest evidence passes whatever the batches."""
    for recorded, verified in ((1, len(bench.clips)), (len(bench.clips), 1), (2, 3)):
        evidence = bench.record(batch_size=recorded)
        for number, verdict in enumerate(bench.verify(evidence, batch_size=verified)):
            where = f"{told(verdict)} for clip {number} recorded in batches of {recorded}, verified in {verified}"
            require(verdict.passed, where, "PASS", "mask padding, and return results in the order of the inputs")


def cuts_audio(bench: Bench) -> None:
    """A clip in two segments passes."""
    audio = bench.clips[0].audio
    cut = Segmentation(boundaries=(len(audio.samples) // 2,))
    asked = request(audio, language=bench.clips[0].request.language, segmentation=cut, nonce="c" * 32)
    clip = Clip(audio=audio, request=asked)
    evidence = bench.record(clips=[clip])
    require(len(evidence[0].segments) == 2, f"{len(evidence[0].segments)} segments", "2", "one output per input")
    verdict = bench.verify(evidence, [clip])[0]
    require(verdict.passed, f"{told(verdict)} for a clip in two segments", "PASS", "compare every segment with its own")


def silence(bench: Bench) -> None:
    """Audio without words gives a verdict that is no FAIL."""
    rng = np.random.default_rng(bench.seed)
    pieces = {
        "a second of silence": np.zeros(16_000, np.int16),
        "the shortest audio": np.zeros(audio_module.MIN_SAMPLES, np.int16),
        "noise at full scale": rng.integers(-32768, 32768, 16_000).astype(np.int16),
    }
    for name, samples in pieces.items():
        audio = audio_module.from_samples(samples, 16_000)
        clip = Clip(audio=audio, request=request(audio, language=bench.clips[0].request.language, nonce="5" * 32))
        verdict = bench.verify(bench.record(clips=[clip]), [clip])[0]
        fine = verdict.outcome != "FAIL" and not ours(verdict)
        require(fine, f"{told(verdict)} for {name}", "PASS, or INCONCLUSIVE with a reason", "handle empty transcripts")
