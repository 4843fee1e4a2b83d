"""Fingerprints of honest and cheating providers on whisper-nano: the table of docs/explanation/statistics.md.

Run `python benchmarks/fingerprints.py [AUDIO...] [--json FILE]`; AUDIO is files or folders, by default the shipped
clips. Bounds are not fitted here: the table shows where honest providers lie and where cheats begin.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track

import earmark
from earmark import Case, Clip, record_many
from earmark.cli.files import find_audio
from earmark.scenarios import scenario

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


def load_clips(paths: list[Path], language: str) -> list[Clip]:
    """Return every clip that can be decoded, with a request in one language."""
    found = find_audio(paths or [Path(str(files("earmark.data"))) / "clips"])
    clips = []
    for item in track(found, description="loading", console=Console(stderr=True), transient=True):
        audio = earmark.load_audio(item.path)
        clips.append(Clip(audio=audio, request=earmark.request(audio, language=language)))
    return clips


def providers(clips: list[Clip], dtype: str) -> Iterator[tuple[str, bool, list[earmark.Evidence], list[Clip]]]:
    """Yield name, honesty and evidence of each provider of one precision."""
    for options in HONEST:
        settings = dict(options)
        threads = torch.get_num_threads()
        torch.set_num_threads(int(settings.pop("threads", threads)))
        model = earmark.load("embedded:whisper-nano", dtype=dtype, attention=str(settings.pop("attention", "sdpa")))
        evidence = list(record_many(model, clips, level="sketch", batch_size=int(settings["batch_size"])))
        torch.set_num_threads(threads)
        yield "honest: " + ", ".join(f"{k} {v}" for k, v in options.items()), True, evidence, clips
    reference = earmark.load("embedded:whisper-nano", dtype=dtype)
    early = earmark.load("embedded:whisper-nano-early", dtype=dtype)
    honest = [e.text for e in record_many(reference, clips)]
    cheats = [
        scenario("quantise", bits=8),
        scenario("quantise", bits=8, symmetric=False),
        scenario("quantise", bits=4, group=64),
        scenario("other_checkpoint", model=early),
        scenario("drop_audio", seconds=1.0),
        scenario("drop_audio", seconds=0.5),
        scenario("rescored", writer=early),
    ]
    for cheat in cheats:
        evidence = cheat.record(reference, clips, level="sketch")
        kept = [i for i in range(len(clips)) if not cheat.name.startswith("rescored") or evidence[i].text != honest[i]]
        yield cheat.name, False, [evidence[i] for i in kept], [clips[i] for i in kept]


def measure(name: str, dtype: str, evidence: list[earmark.Evidence], clips: list[Clip]) -> dict[str, Any]:
    """Verify and return one row."""
    reference = earmark.load("embedded:whisper-nano", dtype=dtype, arithmetic="float32")
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    verdicts = list(earmark.verify_many(cases, reference, profile="provisional", batch_size=4))
    outcomes = Counter(verdict.outcome for verdict in verdicts)
    row: dict[str, Any] = {"dtype": dtype, "provider": name, "clips": len(clips), **outcomes}
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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("audio", nargs="*", type=Path)
    parser.add_argument("--language", default="en")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    clips = load_clips(arguments.audio, arguments.language)
    rows = []
    for dtype in arguments.dtypes:
        for name, _, evidence, kept in providers(clips, dtype):
            rows.append(measure(name, dtype, evidence, kept))
            if arguments.json:
                arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    show(rows)


if __name__ == "__main__":
    main()
