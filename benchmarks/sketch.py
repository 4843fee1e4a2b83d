"""One probe each: how far honest and cheating hidden states lie apart (the table of docs/explanation/sketch.md).

Run `python benchmarks/sketch.py [--json FILE] [--depths]`. Every probe of every shipped clip counts by itself: its
relative distance to the reference (`fingerprint.sketch.sketch_distances`), and for cheats the AUC against all honest
probes of the same claimed precision: the chance that a cheat's probe lies farther than an honest one.

`--depths` measures instead what a budget with a depth saves and finds (`earmark.probing`): every clip under four
nonces, the encoder run up to each depth, and the mean distance of the probes there against the provisional bound.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Collection, Iterator
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
    {"batch_size": 8, "threads": 2},
)
LOOKED_AT = ("honest: batch_size 3", "int8", "int4-g64", "whisper-nano-early", "whisper-nano-sibling")
"""Providers that `--depths` measures, the honest one first."""


def load_clips(first: int = 0) -> list[Clip]:
    """Return the shipped clips with fixed nonces; another number gives others."""
    found = find_audio([Path(str(files("earmark.data"))) / "clips"])
    audio = [earmark.load_audio(item.path) for item in found]
    nonces = [f"{number + 1000 * first:032x}" for number in range(len(audio))]
    return [
        Clip(audio=a, request=earmark.request(a, language="en", nonce=nonce))
        for a, nonce in zip(audio, nonces, strict=True)
    ]


def providers(
    clips: list[Clip], dtype: str, wanted: Collection[str] | None = None
) -> Iterator[tuple[str, bool, list[Evidence]]]:
    """Yield name, honesty and evidence of each provider, or of those that are wanted."""
    for options in HONEST:
        name = "honest: " + ", ".join(f"{k} {v}" for k, v in options.items())
        if wanted is None or name in wanted:
            model = earmark.load(NANO, dtype=dtype, attention=options.get("attention", "sdpa"))
            torch.set_num_threads(options.get("threads", 1))
            evidence = list(record_many(model, clips, level="sketch", batch_size=options["batch_size"]))
            torch.set_num_threads(1)
            yield name, True, evidence
    reference = earmark.load(NANO, dtype=dtype)
    cheats = [
        scenario("quantise", bits=8),
        scenario("quantise", bits=8, symmetric=False),
        scenario("quantise", bits=4, group=64),
        scenario("skip_layers", count=1),
    ]
    for name in ("whisper-nano-sibling", "whisper-nano-early"):
        if (Path(str(files("earmark.data"))) / "embedded" / name).is_dir():
            other = earmark.load(f"embedded:{name}", dtype=dtype)
            cheats.insert(0, scenario("other_checkpoint", model=other, name=name))
    for cheat in cheats:
        if wanted is None or cheat.name in wanted:
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


def looks(dtypes: list[str]) -> None:
    """Print what the first layers of the encoder alone show of each cheat, and what they cost."""
    clips = [clip for number in range(4) for clip in load_clips(number)]
    print("| claimed | layers run | clips with a probe there | provider | FAIL | AUC of these clips |\n|" + "---|" * 6)
    for dtype in dtypes:
        reference = earmark.load(NANO, dtype=dtype, arithmetic="float32")
        inputs = [segment_inputs(clip, reference)[0] for clip in clips]
        made = providers(clips, dtype, LOOKED_AT)
        traces = {name: _read(reference, clips, evidence) for name, _, evidence in made}
        for depth in range(1, len(reference.encoder_layers()) + 1):
            for cells in _look(reference, inputs, traces, depth):
                print("| " + " | ".join([dtype, str(depth), *cells]) + " |", flush=True)
    shares = [f"{depth}: {share:.0%}" for depth, share in _costs(reference, inputs, traces[LOOKED_AT[0]])]
    print("\nCPU time of a look, against a replay, by layers run: " + ", ".join(shares))


def _look(reference: Any, inputs: list[Any], traces: dict[str, list[Any]], depth: int) -> Iterator[list[str]]:
    """Yield the cells of each provider at one depth."""
    family, options = family_of(reference), {"batch_size": 8, "advance": lambda _: None}
    bound = family.provisional_bounds(reference.info.precision)["sketch_distance"]
    found = {name: family.probe(reference, inputs, own, depth=depth, **options) for name, own in traces.items()}
    means = {name: np.array([own.mean() for own in each if len(own)]) for name, each in found.items()}
    for name, own in means.items():
        area = "-" if name == LOOKED_AT[0] else f"{auc(means[LOOKED_AT[0]], own):.3f}"
        yield [f"{len(own) / len(inputs):.0%}", name, f"{(own > bound).sum() / len(inputs):.0%}", area]


def _costs(reference: Any, inputs: list[Any], traces: list[Any]) -> Iterator[tuple[int, float]]:
    """Yield each depth and the CPU time of a look to it, against that of a replay."""
    family, options = family_of(reference), {"batch_size": 8, "advance": lambda _: None}
    whole = _cpu_s(lambda: family.replay(reference, inputs, traces, **options))
    for depth in range(1, len(reference.encoder_layers()) + 1):
        yield depth, _cpu_s(lambda: family.probe(reference, inputs, traces, depth=depth, **options)) / whole  # noqa: B023


def _read(reference: earmark.protocols.Model, clips: list[Clip], evidence: list[Evidence]) -> list[Any]:
    family = family_of(reference)
    return [
        family.read(e.segments[0], clip.request, reference, "sketch") for e, clip in zip(evidence, clips, strict=True)
    ]


def _cpu_s(run: Any) -> float:
    """Return the median CPU time of five runs."""
    taken = []
    for _ in range(5):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return float(np.median(taken))


def main() -> None:
    """Measure every provider at every precision and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float16", "bfloat16"])
    parser.add_argument("--depths", action="store_true", help="what a budget with a depth saves and finds")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.depths:
        looks(arguments.dtypes)
        return
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
