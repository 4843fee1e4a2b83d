"""Detection of every scenario at every precision and level: one row per model, precision, level and scenario.

    python benchmarks/detection.py --json FILE [--models MODEL...] [--dtypes float32 ...] [--levels sketch ...]
        [--clips 24 --seed 0] [--only int8 forger ...] [--profile FOLDER]

Clips are drawn from the challenge set, which no profile is calibrated on and no cheat learns from. Judge is the model's
calibrated profile where one is found, else the documented bounds (`provisional`), which guarantee no rate. Every clip
is a flushed line of a run file in FILE.runs; a second call goes on where one stopped, and judges what is there by the
profile of that day: the statistics of a clip are measured once. What a machine or model cannot do is left out, and told
with its reason; where a scenario stopped part-way, the clips before count, and `stopped` says why.

Clips whose request already asks for what a cheat does (`Scenario.obeys`) are left out: its evidence is honest there.
Where a cheat that differs in its words alone wrote the honest words at as many positions, nothing was gained: such
clips are counted as `same_text`, those of them that FAILed as `same_text_FAIL`, and in no other column.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import earmark
from earmark.challenges import collection
from earmark.checkpoint import embedded_names
from earmark.cli import show
from earmark.detection import detections, judged, without_coinciding
from earmark.errors import UsageError
from earmark.judging import PROVISIONAL
from earmark.profiles import Profile, find_profile, load_profile
from earmark.protocols import Model
from earmark.records import lines
from earmark.records.codec import write_atomically
from earmark.runs import Run
from earmark.scenarios.catalogue import Entry, catalogue
from earmark.scenarios.core import Scenario
from earmark.study import Sample, study

DTYPES = ("float32", "float16", "bfloat16")
LEVELS = ("scores", "sketch")
COLUMNS = (
    "threat",
    "scenario",
    "clips",
    "same_text",
    "same_text_FAIL",
    "detected_one_clip",
    "ci_low",
    "clips_to_detect",
    "auc",
)


def references() -> list[str]:
    """Return the embedded models that are no sibling, student or earlier step of another."""
    names = embedded_names()
    return [f"embedded:{name}" for name in names if not any(name.startswith(f"{other}-") for other in names)]


def stand_ins(source: str, dtype: str) -> dict[str, Model]:
    """Return the checkpoints that share a model's tokens, the student first."""
    name = source.removeprefix("embedded:")
    found = sorted((other for other in embedded_names() if other.startswith(f"{name}-")), key=_student_last)[::-1]
    return {other.removeprefix(f"{name}-"): earmark.load(f"embedded:{other}", dtype=dtype) for other in found}


def _student_last(name: str) -> tuple[bool, str]:
    return name.endswith("student"), name


def samples(count: int | None, seed: int, seconds: float) -> list[Sample]:
    """Return clips of the challenge set, drawn by a seed, in the language that is spoken."""
    clips = [clip for clip in collection.load() if clip.row.duration <= seconds]
    drawn = random.Random(seed).sample(clips, len(clips) if count is None else min(count, len(clips)))  # noqa: S311
    return [Sample(name=c.id, audio=c.audio(), language=c.language, expected=c.text) for c in drawn]


def usable(model: Model, found: Sequence[Sample]) -> list[Sample]:
    """Return the clips whose language a model has; models without languages take every clip."""
    languages = getattr(model, "languages", None)
    if not languages:
        return [Sample(name=s.name, audio=s.audio, language=None, expected=s.expected) for s in found]
    return [s for s in found if s.language is None or s.language in languages]


def obeying(entries: Sequence[Entry], clips: Sequence[Sample]) -> set[tuple[str, str]]:
    """Return scenario and clip wherever the request already asks for what the cheat does."""
    rewriting = [entry.scenario for entry in entries if entry.scenario.rewritten]
    return {(own.name, sample.name) for own in rewriting for sample in clips if own.obeys(sample.clip())}


def measure(
    model: Model, entries: Sequence[Entry], clips: Sequence[Sample], path: Path, options: dict[str, Any]
) -> tuple[Run, dict[str, str]]:
    """Measure every scenario into one run file; return the rows that count, and why scenarios stopped."""
    stopped = {}
    honest = obeying(entries, clips)

    def failed(scenario: Scenario, error: Exception) -> None:  # the plugin border: one takes no other down
        kind = "" if isinstance(error, UsageError) else f"{type(error).__name__}: "
        stopped[scenario.name] = kind + " ".join(str(error).split())[:300]

    with show.progress(path.stem, len(entries) * len(clips)) as step:
        run = study(
            model,
            [entry.scenario for entry in entries],
            clips,
            path,
            wanted=lambda scenario, sample: (scenario.name, sample.name) not in honest,
            advance=step,
            failed=failed,
            **options,
        )
    return run.where(lambda row: (row.scenario, row.clip) not in honest), stopped


def rows(run: Run, entries: Sequence[Entry], stopped: dict[str, str], judge: Any) -> Iterator[dict[str, Any]]:
    """Yield one row per scenario that was measured or left out, and why it stopped, if it did."""
    threats = {entry.scenario.name: entry.threat for entry in entries}
    name = judge.name if isinstance(judge, Profile) else judge
    measured = run.where(lambda row: row.scenario in threats)
    kept = without_coinciding(measured, {entry.scenario.name for entry in entries if entry.scenario.only_text})
    before, after = (Counter(row.scenario for row in part) for part in (measured, kept))
    same = before - after
    same_failed = Counter(row.scenario for row in failed(measured)) - Counter(row.scenario for row in failed(kept))
    for found in detections(kept, [judge] if isinstance(judge, Profile) else []):
        numbers = {
            key: lines.from_float(value) if isinstance(value, float) else value for key, value in asdict(found).items()
        }
        coinciding = {"same_text": same[found.scenario], "same_text_FAIL": same_failed[found.scenario]}
        ending = {"stopped": stopped.get(found.scenario)}
        yield {"threat": threats[found.scenario], "judge": name, **coinciding, **numbers, **ending}
    for scenario in sorted(before.keys() - after.keys()):
        reason = f"wrote the honest words on each of {same[scenario]} clips; {same_failed[scenario]} of them FAILed"
        yield {"threat": threats[scenario], "scenario": scenario, "left_out": reason}
    for scenario, reason in stopped.items():
        if scenario not in before:
            yield {"threat": threats[scenario], "scenario": scenario, "left_out": reason}


def failed(run: Run) -> Run:
    """Return the rows that FAILed."""
    return run.where(lambda row: row.outcome == "FAIL")


def judge_of(model: Model, strategy: str, level: str, given: Path | None) -> Profile | str:
    """Return the profile that judges; one of another decoding judges nothing."""
    profile = find_profile(model.info, strategy, level) if given is None else load_profile(given)
    return profile if profile is not None and profile.header.strategy == strategy else PROVISIONAL


def by_strategy(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Return the scenarios of each decoding that is asked for: honest evidence of another one is no yardstick."""
    parts: dict[str, list[Entry]] = {}
    for entry in entries:
        parts.setdefault(entry.scenario.asked.strategy if entry.scenario.asked else "greedy", []).append(entry)
    return parts


def print_table(title: str, found: Sequence[dict[str, Any]]) -> None:
    """Print the rows of one model, precision and level, and what was left out."""
    print(f"\n## {title}\n\n| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|")
    for row in found:
        if "left_out" not in row:
            print("| " + " | ".join(_cell(row[column]) for column in COLUMNS) + " |")
    for row in found:
        for kind in ("left_out", "stopped"):
            if row.get(kind):
                print(f"\n{kind.replace('_', ' ')}: {row['scenario']}: {row[kind]}")


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="JSON lines, written anew after every table")
    parser.add_argument("--models", nargs="+", default=None)
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--levels", nargs="+", default=LEVELS, choices=(*LEVELS, "compact"))
    parser.add_argument("--clips", type=int, default=None, help="clips of the challenge set; all by default")
    parser.add_argument("--seconds", type=float, default=30.0, help="longest clip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[""], help="words that a scenario's name must hold one of")
    parser.add_argument("--profile", type=Path, default=None)
    parser.add_argument("--batch-size", type=int, default=8)
    given = parser.parse_args()
    folder = given.json.with_name(given.json.name + ".runs")
    folder.mkdir(parents=True, exist_ok=True)
    drawn = samples(given.clips, given.seed, given.seconds)
    table: list[dict[str, Any]] = []
    for source in given.models or references():
        for dtype in given.dtypes:
            model = earmark.load(source, dtype=dtype)
            every = catalogue(model, stand_ins(source, dtype), source=source)
            entries = [e for e in every if e.threat == "honest" or any(word in e.scenario.name for word in given.only)]
            for level in given.levels:
                found: list[dict[str, Any]] = []
                for strategy, part in by_strategy(entries).items():
                    judge = judge_of(model, strategy, level, given.profile)
                    ending = "" if strategy == "greedy" else f"-{strategy}"
                    path = folder / f"{source.replace(':', '-').replace('/', '-')}-{dtype}-{level}{ending}.jsonl"
                    if path.exists() and isinstance(judge, Profile):
                        judged(Run.read(path), judge)  # rows that it cannot judge are told before more are measured
                    options = {"level": level, "profile": judge, "batch_size": given.batch_size}
                    run, stopped = measure(model, part, usable(model, drawn), path, options)
                    found += rows(judged(run, judge) if isinstance(judge, Profile) else run, part, stopped, judge)
                table += [{"model": source, "precision": model.info.precision, "level": level, **row} for row in found]
                write_atomically(given.json, "".join(lines.to_line(row) + "\n" for row in table).encode())
                print_table(f"{source}, {dtype}, {level}", found)


if __name__ == "__main__":
    main()
