"""The demo of `make demo`: honest and cheating providers, what earmark says of each, and a report on all models.

    python examples/demo.py [--out FOLDER] [--clips N]

Everything runs on the models and clips that ship with earmark; the clips were never trained on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

import earmark
from earmark import Case, Clip, record_many
from earmark.challenges import load as load_challenges
from earmark.checkpoint import EMBEDDED, embedded_names
from earmark.comparisons import originals, usual
from earmark.examples import collect, path_beside
from earmark.profiles import find_profile
from earmark.protocols import Model
from earmark.report import build, read_source, write
from earmark.scenarios import scenario
from earmark.study import Sample, study

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S = 5.0
"""Longest clip of the report."""
EXAMPLES = 4
"""Clips of a model that are looked at closely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """One provider: its name, what it does, and the evidence it handed in for each clip."""

    name: str
    does: str
    expected: str
    evidence: list[earmark.Evidence]


def load_clips() -> list[Clip]:
    """Return the clips that ship with earmark, each with the request of a customer."""
    folder = Path(str(files("earmark.data"))) / "clips"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    audio = [earmark.load_audio(folder / row["audio_filepath"]) for row in rows]
    return [Clip(audio=clip, request=earmark.request(clip, language="en")) for clip in audio]


def honest(clips: list[Clip]) -> list[Provider]:
    """Record with the real model, in settings that the verifier does not use."""
    alone = earmark.load("embedded:whisper-nano")
    eager = earmark.load("embedded:whisper-nano", attention="eager")
    one, eight = list(record_many(alone, clips, batch_size=1)), list(record_many(eager, clips, batch_size=8))
    return [
        Provider(name="honest", does="one clip at a time", expected="PASS", evidence=one),
        Provider(name="honest", does="padded batches of 8, other attention kernel", expected="PASS", evidence=eight),
    ]


def cheating(clips: list[Clip], reference: Model, early: Model) -> list[Provider]:
    """Record as cheats do, claiming the reference."""
    made = [
        scenario("quantise", bits=4, group=64),
        scenario("other_checkpoint", model=early),
        scenario("drop_audio", seconds=1.0),
        scenario("rescored", writer=early),
    ]
    providers = []
    for cheat in made:
        evidence = cheat.record(reference, clips)
        providers.append(Provider(name=cheat.name, does=cheat.summary, expected="FAIL", evidence=evidence))
    return providers


def judge() -> bool:
    """Record, verify, print the table; tell whether every verdict is as it should be."""
    console = Console(width=None if sys.stdout.isatty() else 150)
    clips = load_clips()
    reference, early = earmark.load("embedded:whisper-nano"), earmark.load("embedded:whisper-nano-early")
    providers = [*honest(clips), *cheating(clips, reference, early)]
    transcripts = [evidence.text for evidence in providers[0].evidence]
    table = Table(title="whisper-nano, fp32, calibrated profile; every evidence is judged with request and receipt")
    for column in ("provider", "what it does", "clips", "PASS", "FAIL", "INCONCL.", "expected", "first reason"):
        table.add_column(column, overflow="fold")
    right = True
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("verifying", total=len(clips) * len(providers))
        for provider in providers:
            kept = [i for i in range(len(clips)) if _counts(provider, i, transcripts)]
            cases = [
                Case(
                    evidence=provider.evidence[i], audio=clips[i].audio, request=clips[i].request,
                    receipt=provider.evidence[i].receipt,
                )
                for i in kept
            ]  # fmt: skip
            verdicts = list(earmark.verify_many(cases, reference))
            bar.advance(task, len(clips))
            counts = Counter(verdict.outcome for verdict in verdicts)
            right &= len(kept) > 0 and counts[provider.expected] == len(kept)
            reason = next(
                (str(f) for v in verdicts for f in v.findings if f.severity == "fail"), "agrees with the replay"
            )
            cells = (len(kept), counts["PASS"], counts["FAIL"], counts["INCONCLUSIVE"])
            table.add_row(provider.name, provider.does, *map(str, cells), provider.expected, reason)
    console.print(table)
    same = sum(not _counts(providers[-1], i, transcripts) for i in range(len(clips)))
    console.print(
        f"rescored: on {same} of {len(clips)} clips the cheap model wrote the same text, so nothing was gained."
    )
    console.print("All verdicts are as they should be." if right else "A verdict is WRONG.")
    return right


def _counts(provider: Provider, number: int, transcripts: list[str]) -> bool:
    """Tell whether a clip counts: for the cheap writer only where its text differs from the real model's."""
    return provider.name != "rescored" or provider.evidence[number].text != transcripts[number]


def short_clips(most: int) -> list[Sample]:
    """Return short English clips of the challenge set, of all its categories."""
    stored = [c for c in load_challenges(language="en") if c.row.audio_filepath and c.row.duration <= LONGEST_S]
    chosen = [stored[i * len(stored) // most] for i in range(most)] if most < len(stored) else stored
    return [Sample(name=c.id, audio=c.folder / c.row.audio_filepath, language="en", expected=c.text) for c in chosen]


def report(out: Path, names: list[str], clips: int) -> Path:
    """Study every model with its usual cheats, variants of it among them, and write the report on all."""
    out.mkdir(parents=True, exist_ok=True)
    samples, runs, judges = short_clips(clips), [], []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        for name in originals(names):
            reference = earmark.load(f"{EMBEDDED}{name}")
            scenarios = usual(reference, lambda source, _: earmark.load(source)).scenarios
            judges.append(find_profile(reference.info, "greedy", "scores"))
            runs.append(out / f"{name}.jsonl")
            runs[-1].unlink(missing_ok=True)
            task = bar.add_task(name, total=len(samples) * len(scenarios))
            study(
                reference,
                scenarios,
                samples,
                runs[-1],
                profile=judges[-1],
                advance=lambda count, task=task: bar.advance(task, count),
            )
            collect(reference, scenarios, samples[:EXAMPLES], command="make demo").save(path_beside(runs[-1]))
    sources, title = [read_source(run) for run in runs], "The models that ship with earmark"
    made = build(sources, profiles=[own for own in judges if own], title=title, command="make demo")
    return write(made, out / "report.html", twins=True)[0]


def main(arguments: list[str] | None = None) -> int:
    """Judge the providers of one model, write the report on all; return 0 if every verdict is as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "demo", help="folder of the report")
    parser.add_argument("--clips", type=int, default=42, help="clips per model and provider")
    given = parser.parse_args(arguments)
    right = judge()
    print(f"Report: {report(given.out, embedded_names(), given.clips)}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
