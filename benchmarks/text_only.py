"""What text alone shows: the tables of docs/explanation/text-only.md.

Run `python benchmarks/text_only.py [AUDIO...] [--model embedded:whisper-nano] [--language en] [--claims float32]
[--limit N] [--json FILE]`; AUDIO is files or folders, by default the shipped clips. Stand-ins are the embedded models
whose names begin with the model's. For each claimed precision: how many texts of each provider FAIL, and the median and
largest value of each statistic.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

import earmark
from earmark import Clip, record_many
from earmark.checkpoint import embedded_names
from earmark.cli.files import find_audio
from earmark.scenarios import scenario

NANO = "embedded:whisper-nano"
SHOWN = ("margin_max", "likelihood_gap", "missing_words", "uncovered_gap")
HONEST = (
    {"dtype": "float32", "batch_size": 1},
    {"dtype": "float32", "batch_size": 8, "attention": "eager"},
    {"dtype": "float16", "batch_size": 8},
    {"dtype": "bfloat16", "batch_size": 8},
    {"dtype": "bfloat16", "batch_size": 1, "attention": "eager"},
)


def load_clips(paths: list[Path], language: str | None) -> list[Clip]:
    """Return every clip that can be decoded, with a request in one language or none and a fixed nonce."""
    found = find_audio(paths or [Path(str(files("earmark.data"))) / "clips"])
    audio = [earmark.load_audio(item.path) for item in found]
    requests = [earmark.request(a, language=language, nonce=f"{i:032x}") for i, a in enumerate(audio)]
    return [Clip(audio=a, request=r) for a, r in zip(audio, requests, strict=True)]


def edited(text: str) -> str:
    """Return a text with its middle word replaced by another word of the same text, or left out."""
    words = text.split()
    middle = len(words) // 2
    other = next((word for word in words if word != words[middle]), "")
    return " ".join([*words[:middle], other, *words[middle + 1 :]]).strip()


def first_half(text: str) -> str:
    """Return the first half of the words."""
    words = text.split()
    return " ".join(words[: len(words) // 2])


def providers(source: str, clips: list[Clip]) -> Iterator[tuple[str, list[str]]]:
    """Yield each provider and its texts."""
    for options in HONEST:
        settings: dict[str, Any] = dict(options)
        size = settings.pop("batch_size")
        model = earmark.load(source, **settings)
        name = "honest: " + ", ".join(f"{key} {value}" for key, value in options.items())
        yield name, [e.text for e in record_many(model, clips, batch_size=size)]
    reference = earmark.load(source)
    honest = [e.text for e in record_many(reference, clips)]
    for other in embedded_names():
        if other.startswith(f"{source.removeprefix('embedded:')}-"):
            yield other, [e.text for e in record_many(earmark.load(f"embedded:{other}"), clips)]
    for cheat in (
        scenario("quantise", bits=8),
        scenario("quantise", bits=4, group=64),
        scenario("drop_audio", seconds=1.0),
    ):
        yield cheat.name, [e.text for e in cheat.record(reference, clips)]
    yield "text of another clip", honest[1:] + honest[:1]
    yield "first half of the text", [first_half(text) for text in honest]
    yield "one word edited", [edited(text) for text in honest]
    yield "case and punctuation changed", [text.capitalize() + "." for text in honest]


def measure(name: str, texts: list[str], clips: list[Clip], reference: Any, own: list[str]) -> dict[str, Any]:
    """Judge every text and return one row; texts that equal the reference's own cannot be told from it."""
    shown = track(list(zip(texts, clips, strict=True)), description=name, console=Console(stderr=True), transient=True)
    verdicts = [earmark.verify_text(t, c.request, c.audio, reference) for t, c in shown]
    differs = [text != mine for text, mine in zip(texts, own, strict=True)]
    failed = [verdict.outcome == "FAIL" for verdict in verdicts]
    values = {s: np.array([v.fingerprint[s] for v in verdicts if v.fingerprint]) for s in SHOWN}
    return {
        "claim": reference.info.precision,
        "provider": name,
        "texts": len(texts),
        "FAIL": sum(failed),
        "other_text": sum(differs),
        "FAIL_of_other": sum(f for f, d in zip(failed, differs, strict=True) if d),
        **{key: [float(np.median(v)), float(v.max())] for key, v in values.items()},
    }


def main() -> None:
    """Judge the texts of every provider under the claimed precisions."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("audio", nargs="*", type=Path)
    parser.add_argument("--model", default=NANO)
    parser.add_argument("--language", help="By default en for autoregressive models, none for the others.")
    parser.add_argument("--claims", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--limit", type=int, help="Take the first clips alone.")
    arguments = parser.parse_args()
    model = earmark.load(arguments.model)
    language = arguments.language or ("en" if model.info.family == "autoregressive" else None)
    clips = load_clips(arguments.audio, language)[: arguments.limit]
    own = [e.text for e in record_many(model, clips)]
    made, rows = list(providers(arguments.model, clips)), []
    columns = ("claimed", "provider", "texts", "other texts", "FAIL", "FAIL of the others")
    print("| " + " | ".join((*columns, *SHOWN)) + " |\n|" + "---|" * (len(columns) + len(SHOWN)))
    for dtype in arguments.claims:
        reference = earmark.load(arguments.model, dtype=dtype, arithmetic="float32")
        for name, texts in made:
            row = measure(name, texts, clips, reference, own)
            rows.append(row)
            numbers = [f"{row[n][0]:.2g}; {row[n][1]:.2g}" for n in SHOWN]
            cells = [dtype, name, row["texts"], row["other_text"], row["FAIL"], row["FAIL_of_other"], *numbers]
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
