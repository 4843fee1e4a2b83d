"""What verifying costs beside greedy generation, and how much memory it takes beyond the model.

    OMP_NUM_THREADS=1 python benchmarks/generation.py [--repeats 5] [--batch 1 8] [--only speed memory] [--json FILE]

`speed`: the shipped clips in the same batches, in one process, in turn: the library's own greedy search behind the
model's rules (encoder, prompt and decoding, nothing recorded), recording, and the whole verification of the evidence
(`verify_many`: its rules, the forced replay, the statistics, the verdict). The encoder runs in all of them and is
measured alone too: where it is most of the work, verifying cannot be much faster than generating, so `times_faster` is
of the whole, `behind_encoder` of the rest. CPU time is counted, which other programs on the machine disturb less than
wall time; the least of all repeats counts.

`memory`: one window of audio with `--positions` tokens, verified by whisper-nano whose vocabulary is stretched to
`--words` random words. Counted is the highest resident memory during the verification beyond that before it, in which
the model lies already.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import gc
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import earmark
from earmark import Case, Clip, record_many
from earmark.audio import from_samples
from earmark.checkpoint import embedded_names
from earmark.loading import family_of
from earmark.protocols import SegmentOutput
from earmark.recording import assemble, segment_inputs
from earmark.testing import default_clips
from earmark.verifiers._autoregressive_decode import choose_prompts, decode
from earmark.verifiers._common_batches import batched

MODELS = ("whisper-nano", "qwen3-asr-nano")
STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def cases_of(model: Any, clips: list[Clip], batch: int) -> list[Case]:
    """Return honest evidence of the clips, to be verified."""
    evidence = record_many(model, clips, batch_size=batch)
    return [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]


def verify(cases: list[Case], model: Any, batch: int) -> None:
    """Verify the cases, whose evidence is honest."""
    verdicts = list(earmark.verify_many(cases, model, profile="provisional", batch_size=batch))
    assert all(verdict.passed for verdict in verdicts), [verdict.findings for verdict in verdicts]  # noqa: S101


def ways(model: Any, clips: list[Clip], batch: int) -> dict[str, Callable[[], object]]:
    """Return what is compared."""
    inputs = [item for clip in clips for item in segment_inputs(clip, model)]
    cases = cases_of(model, clips, batch)

    def generate() -> list[list[int]]:
        def run(encoded: Any, rows: list[int], _: Any) -> list[list[int]]:
            own = [inputs[i] for i in rows]
            return decode(model, encoded, choose_prompts(model, encoded, own), own)

        return batched(model, inputs, batch, lambda _: None, run)

    def encode() -> None:
        batched(model, inputs, batch, lambda _: None, lambda _encoded, rows, _taps: rows)

    return {
        "encode": encode,
        "generate": generate,
        "record": lambda: list(record_many(model, clips, batch_size=batch)),
        "verify": lambda: verify(cases, model, batch),
    }


def speed(name: str, batch: int, repeats: int) -> dict[str, Any]:
    """Return one row: CPU seconds of each way, and how many times faster verifying is than generating."""
    model, clips = earmark.load(f"embedded:{name}", device="cpu"), default_clips(24, language="en")
    compared = ways(model, clips, batch)
    least = dict.fromkeys(compared, np.inf)
    for run in compared.values():
        run()
    for _ in range(repeats):
        for way, run in compared.items():
            gc.collect()
            start = time.process_time()
            run()
            least[way] = min(least[way], time.process_time() - start)
    tokens = sum(len(s.ids) for e in record_many(model, clips, batch_size=batch) for s in e.segments)
    seconds = {f"{way}_cpu_s": round(found, 3) for way, found in least.items()}
    inner = {way: found - least["encode"] for way, found in least.items()}
    ratios = {
        "times_faster": round(least["generate"] / least["verify"], 2),
        "behind_encoder": round(inner["generate"] / inner["verify"], 2),
    }
    return {"model": name, "clips": len(clips), "batch": batch, "tokens": tokens, **seconds, **ratios}


def stretched(words: int, positions: int) -> Any:
    """Return whisper-nano with a vocabulary of random words and room for as many positions behind its prompt."""
    model: Any = earmark.load("embedded:whisper-nano", device="cpu")
    module = copy.deepcopy(model.module)
    torch.manual_seed(0)
    module.resize_token_embeddings(words, mean_resizing=False)
    places, length = module.model.decoder.embed_positions, positions + 16
    rest = torch.randn(length - len(places.weight), places.weight.shape[1]) * places.weight.std()
    places.weight = torch.nn.Parameter(torch.cat([places.weight.detach(), rest]))
    places.num_embeddings = module.config.max_target_positions = length
    made = model.with_module(module)
    made.info = dataclasses.replace(made.info, vocab_size=words)
    return made


def scored(model: Any, positions: int) -> Case:
    """Return evidence of a window of noise with that many tokens."""
    rng = np.random.default_rng(0)
    audio = from_samples(rng.normal(0, 2000, model.info.window_samples).astype(np.int16), 16_000)
    clip = Clip(audio=audio, request=earmark.request(audio, language="en"))
    ids = (*(int(i) for i in rng.integers(0, 200, positions - 1)), model.end_id)
    output = SegmentOutput(ids=ids, text=model.detokenise(ids), trace=b"")
    family, inputs = family_of(model), segment_inputs(clip, model)
    options: dict[str, Any] = {"k": 8, "level": "scores", "batch_size": 1, "advance": lambda _: None}
    written = family.score(model, inputs, [output], **options)
    return Case(evidence=assemble(model, clip, inputs, written, level="scores"), audio=audio, request=clip.request)


def resident(field: str) -> float:
    """Return VmRSS or VmHWM of this process in MiB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) / 1024


def memory(words: int, positions: int) -> dict[str, Any]:
    """Return one row: resident memory before and during the verification."""
    model = stretched(words, positions)
    case = scored(model, positions)
    gc.collect()
    RESET.write_text("5")  # the highest value starts anew (Linux, proc(5))
    before = resident("VmRSS")
    (verdict,) = earmark.verify_many([case], model, profile="provisional", batch_size=1)
    assert verdict.fingerprint is not None, verdict.findings  # noqa: S101
    extra = resident("VmHWM") - before
    full = words * positions * 4 / 2**20
    row = {"model": "whisper-nano, stretched", "words": words, "positions": positions, "before_mib": round(before)}
    return {**row, "extra_mib": round(extra), "all_logits_mib": round(full)}


def rows(arguments: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """Yield one table after the other."""
    if "memory" in arguments.only:  # first, before the allocator holds memory of the other
        yield [memory(arguments.words, arguments.positions)]
    if "speed" in arguments.only:
        names = [name for name in arguments.models if name in embedded_names()]
        yield [speed(name, batch, arguments.repeats) for name in names for batch in arguments.batch]


def main() -> None:
    """Print one Markdown table for each part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--only", nargs="+", choices=("speed", "memory"), default=["speed", "memory"])
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--words", type=int, default=150_000)
    parser.add_argument("--positions", type=int, default=500)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for table in rows(arguments):
        found += table
        print("\n| " + " | ".join(table[0]) + " |\n" + "|---" * len(table[0]) + "|")
        for row in table:
            print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


if __name__ == "__main__":
    main()
