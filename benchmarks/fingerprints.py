"""Fingerprints of honest and cheating providers of an embedded autoregressive model: a table for docs/.

    python benchmarks/fingerprints.py [AUDIO...] [--model whisper-nano] [--challenges] [--dtypes float32] [--json FILE]

AUDIO is files or folders, by default the shipped clips; `--challenges` takes the challenge set in place of them. Bounds
are not fitted here: the table shows where honest providers lie and where cheats begin. Providers whose transcripts can
equal the reference's (the reference scores what a cheap model wrote) are counted on the clips whose texts differ.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from rich.console import Console
from rich.progress import track

import earmark.challenges
from earmark import Case, Clip, record_many
from earmark.cli.files import find_audio
from earmark.protocols import Model
from earmark.records.evidence import Segment
from earmark.scenarios import Scenario, scenario

NAMES = (
    "logprob_l1",
    "logprob_l1_max",
    "margin_max",
    "loglik_distance",
    "entropy_rmse",
    "language_distance",
    "sketch_distance",
)
HONEST = (
    {"batch_size": 1},
    {"batch_size": 8},
    {"batch_size": 8, "attention": "eager"},
    {"batch_size": 3, "threads": 1},
)
DTYPES = ("float32", "float16", "bfloat16")


COMPANIONS = ("student", "sibling", "early")
CONTEXT = "kitchen timer, living room"

Row = dict[str, Any]
Provider = tuple[str, bool, list[earmark.Evidence], list[Clip]]


def load_clips(paths: list[Path], language: str, *, challenges: bool) -> list[Clip]:
    """Return every clip that can be decoded, with a request in one language."""
    if challenges:
        audio = [clip.audio() for clip in progress(list(earmark.challenges.load()), "mixing")]
    else:
        found = find_audio(paths or [Path(str(files("earmark.data"))) / "clips"])
        audio = [earmark.load_audio(item.path) for item in progress(found, "loading")]
    return [Clip(audio=each, request=earmark.request(each, language=language)) for each in audio]


def progress(items: list[Any], label: str) -> Iterable[Any]:
    """Show how far a loop is."""
    return track(items, description=label, console=Console(stderr=True), transient=True)


def companions(name: str, dtype: str) -> dict[str, Model]:
    """Return the other embedded checkpoints of a model, by what they are."""
    folder = Path(str(files("earmark.data"))) / "embedded"
    found = [each for each in COMPANIONS if (folder / f"{name}-{each}").exists()]
    return {each: earmark.load(f"embedded:{name}-{each}", dtype=dtype) for each in found}


def honest_providers(name: str, clips: list[Clip], dtype: str) -> Iterator[Provider]:
    """Yield evidence of the reference under each honest setting."""
    for options in HONEST:
        settings = dict(options)
        threads = torch.get_num_threads()
        torch.set_num_threads(int(settings.pop("threads", threads)))
        model = earmark.load(f"embedded:{name}", dtype=dtype, attention=str(settings.pop("attention", "sdpa")))
        evidence = list(record_many(model, clips, level="sketch", batch_size=int(settings["batch_size"])))
        torch.set_num_threads(threads)
        yield "honest: " + ", ".join(f"{k} {v}" for k, v in options.items()), True, evidence, clips


def cheats(others: dict[str, Model]) -> list[Scenario]:
    """Return the cheating providers."""
    return [
        scenario("quantise", bits=8),
        scenario("quantise", bits=8, symmetric=False),
        scenario("float8"),
        scenario("quantise", bits=4, group=64),
        *(scenario("other_checkpoint", model=model, name=name) for name, model in others.items()),
        scenario("drop_audio", seconds=1.0),
        scenario("drop_audio", seconds=0.5),
        scenario("other_request", language="de"),
        scenario("stop_early", tokens=3),
        scenario("stop_early", tokens=0, end=False),
        *(scenario("rescored", writer=others[name]) for name in ("student", "early") if name in others),
    ]


def providers(name: str, clips: list[Clip], dtype: str) -> Iterator[Provider]:
    """Yield name, honesty, evidence and clips of each provider of one precision."""
    yield from honest_providers(name, clips, dtype)
    reference = earmark.load(f"embedded:{name}", dtype=dtype)
    others = companions(name, dtype)
    honest = [e.segments for e in record_many(reference, clips)]
    for cheat in cheats(others):
        evidence = cheat.record(reference, clips, level="sketch")
        kept = [i for i in range(len(clips)) if not _wrote_the_same(cheat, evidence[i].segments, honest[i])]
        yield cheat.name, False, [evidence[i] for i in kept], [clips[i] for i in kept]
    asked = [Clip(audio=c.audio, request=msgspec.structs.replace(c.request, prompt=CONTEXT)) for c in clips]
    yield "honest: with a context", True, list(record_many(reference, asked, level="sketch")), asked
    yield "context dropped", False, scenario("other_request", prompt="").record(reference, asked, level="sketch"), asked


def _wrote_the_same(cheat: Scenario, mine: tuple[Segment, ...], real: tuple[Segment, ...]) -> bool:
    """Tell whether a provider that only writes otherwise wrote what the reference writes: then nothing was gained."""
    return cheat.only_text and [s.ids for s in mine] == [s.ids for s in real]


def measure(reference: Model, name: str, evidence: list[earmark.Evidence], clips: list[Clip]) -> Row:
    """Verify and return one row."""
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    verdicts = list(earmark.verify_many(cases, reference, profile="provisional", batch_size=4))
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    row: Row = {
        "model": reference.info.name,
        "dtype": reference.info.precision,
        "provider": name,
        "clips": len(clips),
        **outcomes,
    }
    for statistic in NAMES:
        values = np.asarray([v.fingerprint[statistic] for v in verdicts if v.fingerprint is not None])
        values = values[~np.isnan(values)]
        row[statistic] = [float(f(values)) for f in (np.min, np.median, np.max)] if values.size else None
    return row


def show(rows: list[dict[str, Any]]) -> None:
    """Print a Markdown table: the largest value of honest providers, the smallest of cheats."""
    columns = ("dtype", "provider", "clips", "PASS", "FAIL", "INCONCL.", *NAMES)
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in rows:
        worst = 2 if row["provider"].startswith("honest") else 0
        cells = ["-" if row[n] is None else f"{row[n][worst]:.2g}" for n in NAMES]
        counts = [str(row.get(o, 0)) for o in ("PASS", "FAIL", "INCONCLUSIVE")]
        print("| " + " | ".join([row["dtype"], row["provider"], str(row["clips"]), *counts, *cells]) + " |")


def main() -> None:
    """Measure every provider at every precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("audio", nargs="*", type=Path)
    parser.add_argument("--model", default="whisper-nano", help="name of an embedded model")
    parser.add_argument("--challenges", action="store_true")
    parser.add_argument("--language", default="en")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    clips = load_clips(arguments.audio, arguments.language, challenges=arguments.challenges)
    rows = []
    for dtype in arguments.dtypes:
        reference = earmark.load(f"embedded:{arguments.model}", dtype=dtype, arithmetic="float32")
        for name, _, evidence, kept in providers(arguments.model, clips, dtype):
            rows.append(measure(reference, name, evidence, kept))
            if arguments.json:
                arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    show(rows)


if __name__ == "__main__":
    main()
