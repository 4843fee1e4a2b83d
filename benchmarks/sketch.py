"""One probe each: how far honest and cheating hidden states lie apart (the table of docs/explanation/sketch.md).

Run `python benchmarks/sketch.py [--json FILE]`. Every probe of every shipped clip counts by itself: its relative
distance to the reference (`fingerprint.sketch.sketch_distances`), and for cheats the AUC against all honest probes of
the same claimed precision: the chance that a cheat's probe lies farther than an honest one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch

import earmark
from earmark import Clip, Evidence, record_many
from earmark.cli.files import find_audio
from earmark.fingerprint.sketch import LEAST_VALUES, sketch_distances
from earmark.loading import family_of
from earmark.recording import segment_inputs
from earmark.scenarios import scenario

NANO = "embedded:whisper-nano"
HONEST: tuple[dict[str, Any], ...] = (
    {"batch_size": 1},
    {"batch_size": 8},
    {"batch_size": 8, "attention": "eager"},
    {"batch_size": 3},
)


def load_clips() -> list[Clip]:
    """Return the shipped clips with fixed nonces."""
    found = find_audio([Path(str(files("earmark.data"))) / "clips"])
    audio = [earmark.load_audio(item.path) for item in found]
    return [Clip(audio=a, request=earmark.request(a, language="en", nonce=f"{i:032x}")) for i, a in enumerate(audio)]


def providers(clips: list[Clip], dtype: str) -> Iterator[tuple[str, bool, list[Evidence]]]:
    """Yield name, honesty and evidence of each provider."""
    for options in HONEST:
        model = earmark.load(NANO, dtype=dtype, attention=options.get("attention", "sdpa"))
        evidence = list(record_many(model, clips, level="sketch", batch_size=options["batch_size"]))
        yield "honest: " + ", ".join(f"{k} {v}" for k, v in options.items()), True, evidence
    reference = earmark.load(NANO, dtype=dtype)
    cheats = [
        scenario("quantise", bits=8),
        scenario("quantise", bits=8, symmetric=False),
        scenario("quantise", bits=4, group=64),
        scenario("skip_layers", count=1),
    ]
    for name in ("whisper-nano-early", "whisper-nano-sibling"):
        if (Path(str(files("earmark.data"))) / "embedded" / name).is_dir():
            other = earmark.load(f"embedded:{name}", dtype=dtype)
            yield name, False, scenario("other_checkpoint", model=other).record(reference, clips, level="sketch")
    for cheat in cheats:
        yield cheat.name, False, cheat.record(reference, clips, level="sketch")


def distances(evidence: list[Evidence], clips: list[Clip], dtype: str, values: int) -> np.ndarray:
    """Return the distance of every probe, from the first `values` of its sketch."""
    reference = earmark.load(NANO, dtype=dtype, arithmetic="float32")
    family, found = family_of(reference), []
    for e, clip in zip(evidence, clips, strict=True):
        traces = [family.read(segment, clip.request, reference, "sketch") for segment in e.segments]
        items = segment_inputs(clip, reference)
        replays = family.replay(reference, items, traces, batch_size=4, advance=lambda _: None)
        for trace, replay in zip(traces, replays, strict=True):
            found.append(sketch_distances(trace.scores.sketch[:, :values], replay.scores.sketch[:, :values]))
    return np.concatenate(found)


def auc(honest: np.ndarray, cheat: np.ndarray) -> float:
    """Return the share of pairs in which the cheat's value is larger; ties count half."""
    larger = (cheat[:, None] > honest[None]).mean()
    return float(larger + 0.5 * (cheat[:, None] == honest[None]).mean())


def main() -> None:
    """Measure every provider at every precision and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16", "bfloat16"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    clips, rows = load_clips(), []
    print("| claimed | provider | probes | median | least | largest | AUC | AUC of 8 values |\n|" + "---|" * 8)
    for dtype in arguments.dtypes:
        honest: list[list[np.ndarray]] = [[], []]
        for name, is_honest, evidence in providers(clips, dtype):
            found = [distances(evidence, clips, dtype, values) for values in (32, LEAST_VALUES)]
            if is_honest:
                for kept, own in zip(honest, found, strict=True):
                    kept.append(own)
            areas = ["-", "-"] if is_honest else [
                f"{auc(np.concatenate(kept), own):.3f}" for kept, own in zip(honest, found, strict=True)
            ]  # fmt: skip
            full = found[0]
            numbers = [f"{x:.2g}" for x in (np.median(full), full.min(), full.max())]
            print("| " + " | ".join([dtype, name, str(len(full)), *numbers, *areas]) + " |", flush=True)
            rows.append({"claim": dtype, "provider": name, "distances": full.tolist(), "auc": areas})
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
