"""What verifying costs beside the encoder alone, in CTC and transducer models of full size and in the embedded ones.

    OMP_NUM_THREADS=1 python benchmarks/throughput.py [--seconds 30] [--repeats 2] [--only full nano] [--tokens 1024]
    OMP_NUM_THREADS=1 python benchmarks/throughput.py --only full --seconds 30 600 --repeats 1 --layers 2
    OMP_NUM_THREADS=1 python benchmarks/throughput.py --dtype bfloat16

Several `--seconds` run one after the other in one process, so that the growth of its highest memory shows whether long
audio needs more. `--layers` takes fewer layers of the encoder; the row says so. Full size means the shapes of Parakeet
0.6B (24 layers, width 1024, 1024 tokens and the blank, durations 0 to 4) with random weights, a path of one token every
3 frames (about 4 a second) and noise as audio; cost does not depend on the values. The encoder's forward pass and the
whole verification of evidence (its rules, the replay with the exact lattice, the statistics) run in turn on the same
batch, in the same arithmetic (float32), in one process; with a 16-bit claim the encoder runs in 16 bits, as a
provider's does, and the replay in float32. The least of all repeats counts, in CPU time, which other work on the
machine disturbs less than wall time; with several threads on a busy machine it would count their waiting, up to ten
times the work.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import earmark
from earmark import Case, Clip
from earmark.audio import from_samples
from earmark.features import describe
from earmark.fingerprint.frames import FrameScores
from earmark.loading import family_of
from earmark.models._parakeet_parts import WINDOW_SAMPLES, ParakeetCtc, ParakeetTransducer
from earmark.protocols import ModelInfo
from earmark.recording import assemble, segment_inputs
from earmark.verifiers import ctc, transducer

PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
EVERY = 3
LAYERS = 24
DURATIONS = [0, 1, 2, 3, 4]


class Numbers:
    """Words for a model without a tokenizer: its ids."""

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the ids as text."""
        return " ".join(map(str, ids))

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return one word per id."""
        return list(range(len(ids)))


def full_size(family: str, tokens: int, layers: int = LAYERS, dtype: str = "float32") -> Any:
    """Return a Parakeet 0.6B with random weights, of fewer layers or in 16 bits where asked."""
    encoder = transformers.ParakeetEncoderConfig(hidden_size=1024, num_hidden_layers=layers, intermediate_size=4096)
    size = {"vocab_size": tokens + 1, "pad_token_id": tokens, "encoder_config": encoder}
    torch.manual_seed(0)
    if family == "ctc":
        kind, module = ParakeetCtc, transformers.ParakeetForCTC(transformers.ParakeetCTCConfig(**size))
    else:
        config = transformers.ParakeetTDTConfig(**size, blank_token_id=tokens, durations=DURATIONS)
        kind, module = ParakeetTransducer, transformers.ParakeetForTDT(config)
    extractor = transformers.ParakeetFeatureExtractor()
    info = ModelInfo(
        name=f"Parakeet 0.6B {family}, {tokens} tokens, {layers} of {LAYERS} layers, random",
        family=family,
        architecture="random",
        weights="0" * 64,
        precision=PRECISIONS[dtype],
        arithmetic=PRECISIONS[dtype],
        features=describe(extractor),
        vocab_size=tokens + 1,
        window_samples=WINDOW_SAMPLES,
        engine="transformers",
        device="cpu",
        attention="sdpa",
    )
    return kind(info, module.eval().to(getattr(torch, dtype)), extractor, Numbers())


def noise(seconds: float, count: int) -> list[Clip]:
    """Return clips of noise with requests."""
    rng = np.random.default_rng(0)
    audio = [from_samples(rng.normal(0, 2000, int(16_000 * seconds)).astype(np.int16), 16_000) for _ in range(count)]
    return [Clip(audio=own, request=earmark.request(own)) for own in audio]


def scored(model: Any, clips: Sequence[Clip]) -> list[earmark.Evidence]:
    """Return evidence of level `sketch` along paths of one token every few frames."""
    family, evidence = family_of(model), []
    for clip in clips:
        items = segment_inputs(clip, model)
        outputs = [_given(model, len(item.samples)) for item in items]
        written = family.score(model, items, outputs, k=8, level="sketch", batch_size=1, advance=lambda _: None)
        evidence.append(assemble(model, clip, items, written, level="sketch"))
    return evidence


def _given(model: Any, samples: int) -> Any:
    """Return an output that holds nothing but a path."""
    frames = model.encoder_positions(samples)
    at = np.arange(0, frames, EVERY)
    known = model.info.vocab_size - 2  # neither blank nor padding
    symbols = np.random.default_rng(frames).permutation(known)[np.arange(len(at)) % known]
    nothing = np.zeros((0, 0))
    if model.info.family == "ctc":
        path = np.full(frames, model.blank_id)
        path[at] = symbols
        write, path = ctc.write_trace, ctc.path_of(path)
    else:
        path = np.stack([at, symbols, np.full(len(at), EVERY)], axis=1)
        write = lambda scores: transducer.write_trace(scores, "ar")  # noqa: E731
    scores = FrameScores(
        ids=np.zeros((0, 1)), logprobs=nothing, chosen=nothing, entropy=nothing, sketch=nothing, emitted=(),
        frames=frames, path=path, tokens=at, blank=nothing, power=nothing, durations=nothing, log_likelihood=0.0,
    )  # fmt: skip
    return earmark.protocols.SegmentOutput(ids=(), text="", trace=write(scores))


def timed(run: Callable[[], Any]) -> tuple[float, float]:
    """Return CPU and wall seconds."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def peak() -> float:
    """Return the highest memory of the process so far in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(model: Any, clips: Sequence[Clip], repeats: int) -> dict[str, Any]:
    """Run encoder and verification in turn and return one row; memory counts from the encoder's first run."""
    pieces = [item.samples for clip in clips for item in segment_inputs(clip, model)]
    size = len(clips)

    def encode() -> None:
        with torch.inference_mode():
            for start in range(0, len(pieces), size):
                model.encode(pieces[start : start + size])

    def verify() -> None:
        verdicts = list(earmark.verify_many(cases, model, profile="provisional", batch_size=size))
        assert all(verdict.fingerprint is not None for verdict in verdicts), verdicts[0].findings  # noqa: S101

    encoder = [timed(encode)]
    before = peak()
    pairs = zip(scored(model, clips), clips, strict=True)
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in pairs]
    verification = [timed(verify)]
    for _ in range(repeats - 1):
        encoder.append(timed(encode))
        verification.append(timed(verify))
    (encoder_cpu, encoder_wall), (cpu, wall) = (np.min(times, axis=0) for times in (encoder, verification))
    return {
        "model": model.info.name,
        "claim": model.info.precision,
        "clips": size,
        "seconds": round(len(clips[0].audio.samples) / 16_000, 1),
        "pieces": len(pieces),
        "encoder_cpu_s": round(encoder_cpu, 2),
        "verify_cpu_s": round(cpu, 2),
        "cpu_ratio": round(cpu / encoder_cpu, 2),
        "wall_ratio": round(wall / encoder_wall, 2),
        "extra_mib": round(peak() - before),
        "peak_mib": round(peak()),
    }


def rows(arguments: argparse.Namespace) -> Any:
    """Yield one row per model and length."""
    for load in _loaders(arguments):
        model = load()
        for seconds in arguments.seconds:
            yield measure(model, noise(seconds, arguments.batch), arguments.repeats)
        del model


def _loaders(arguments: argparse.Namespace) -> Iterator[Callable[[], Any]]:
    for family in arguments.families if "full" in arguments.only else ():
        yield partial(full_size, family, arguments.tokens, arguments.layers, arguments.dtype)
    for source in arguments.models if "nano" in arguments.only else ():
        yield partial(earmark.load, source, device="cpu", dtype=arguments.dtype)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, nargs="+", default=[30.0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", default=["full", "nano"])
    parser.add_argument("--models", nargs="+", default=["embedded:parakeet-ctc-nano", "embedded:parakeet-tdt-nano"])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--dtype", choices=PRECISIONS, default="float32", help="claimed; 16 bits replay in float32")
    parser.add_argument("--families", nargs="+", default=["ctc", "transducer"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found = []
    for row in rows(arguments):
        found.append(row)
        print(json.dumps(row), flush=True)
        if arguments.json:
            arguments.json.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    print("| " + " | ".join(found[0]) + " |\n" + "|---" * len(found[0]) + "|")
    for row in found:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")


if __name__ == "__main__":
    main()
