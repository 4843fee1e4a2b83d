"""What recording costs: CPU time of transcribing with scores and sketches against transcribing alone.

Run `python benchmarks/recording.py [--repetitions 15] [--shape nano|large-v3] [--layers 8] [--json FILE]`. All ways run
in turns in one process, in an order that rotates, and CPU time is compared pair by pair, because other programs may
share the machine. Where they make pairs differ by more than is measured, the CPU time inside the functions that only
recording calls, against all the rest of the same run, is the steadier figure.

`nano` is whisper-nano on the shipped clips in batches of 8. `large-v3` has that model's width, vocabulary and 30 s
window with random weights and `--layers` of its 32 layers on each side: the scores' cost does not depend on the number
of layers and the model's does, so the shares are upper bounds of those at 32 layers.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from rich.progress import track

import earmark
from earmark.cli.files import find_audio
from earmark.loading import family_of
from earmark.recording import Clip, segment_inputs
from earmark.taps import Taps
from earmark.verifiers import _autoregressive_steps, autoregressive
from earmark.verifiers._autoregressive_decode import choose_prompts, decode
from earmark.verifiers._common_batches import batched

NANO = Path(str(files("earmark.data"))) / "embedded" / "whisper-nano"
LARGE = {"d_model": 1280, "encoder_ffn_dim": 5120, "decoder_ffn_dim": 5120, "num_mel_bins": 128, "vocab_size": 51866}
ADDED = (
    (_autoregressive_steps.Watch, "step"),
    (_autoregressive_steps.Watch, "_look"),
    (_autoregressive_steps.Watch, "said"),
    (autoregressive, "encoder_places"),
    (autoregressive, "sketches_of"),
    (autoregressive, "_scores"),
    (autoregressive, "write_trace"),
    (autoregressive, "write_compact"),
)
"""Everything that only recording calls; hooks of `Taps` are added when they are made."""
TOKENS = 40
"""Tokens that the random model writes; a 30 s clip of speech has about 100."""


def nano_inputs() -> tuple[Any, list[Any]]:
    """Return whisper-nano and the pieces of the shipped clips."""
    model = earmark.load("embedded:whisper-nano", device="cpu")
    clips = [earmark.load_audio(item.path) for item in find_audio([NANO.parents[1] / "clips"])]
    made = [Clip(audio=audio, request=earmark.request(audio, language="en")) for audio in clips]
    return model, [item for clip in made for item in segment_inputs(clip, model)]


def large_inputs(layers: int) -> tuple[Any, list[Any]]:
    """Return a random model of large-v3's shape and one 30 s piece."""
    torch.manual_seed(0)
    config = transformers.WhisperConfig.from_pretrained(NANO, max_source_positions=1500, **LARGE)
    config.encoder_layers = config.decoder_layers = layers
    config.encoder_attention_heads = config.decoder_attention_heads = 20
    module = transformers.WhisperForConditionalGeneration(config)
    settings = transformers.GenerationConfig.from_pretrained(NANO)
    module.generation_config = settings
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        transformers.WhisperFeatureExtractor(feature_size=128).save_pretrained(folder)
        transformers.WhisperTokenizer.from_pretrained(NANO).save_pretrained(folder)
        model = earmark.load(folder, device="cpu")
    model.max_new_tokens = lambda _prompt: TOKENS  # type: ignore[attr-defined]
    noise = np.random.default_rng(0).normal(0, 3000, 30 * 16_000).astype(np.int16)
    audio = earmark.audio.from_samples(noise, 16_000)
    return model, segment_inputs(Clip(audio=audio, request=earmark.request(audio, language="en")), model)


def ways(model: Any, inputs: list[Any], batch_size: int) -> dict[str, Callable[[], object]]:
    """Return what is compared; `transcribe` is the library's own search behind the same rules, nothing recorded."""
    family = family_of(model)

    def transcribe() -> list[str]:
        def run(encoded: Any, rows: list[int], _: Any) -> list[str]:
            batch = [inputs[i] for i in rows]
            prompts = choose_prompts(model, encoded, batch)
            return [model.detokenise(ids) for ids in decode(model, encoded, prompts, batch)]

        return batched(model, inputs, batch_size, lambda _: None, run)

    def record(level: Any) -> Callable[[], object]:
        options: dict[str, Any] = {"k": 8, "level": level, "batch_size": batch_size, "advance": lambda _: None}
        return lambda: family.record(model, inputs, **options)

    levels = ("scores", "sketch", "compact")
    return {"transcribe": transcribe, "transcribe again": transcribe} | {f"record {x}": record(x) for x in levels}


class Meter:
    """Adds up the CPU time inside the functions that only recording calls."""

    def __init__(self) -> None:
        """Put a clock around each of them."""
        self.seconds, self._depth = 0.0, 0
        for home, name in ADDED:
            setattr(home, name, self._clocked(getattr(home, name)))
        keep = Taps._keep  # noqa: SLF001 - the hook that it returns is what takes time
        Taps._keep = lambda taps, places: self._clocked(keep(taps, places))  # type: ignore[method-assign]  # noqa: SLF001

    def _clocked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            if self._depth:
                return function(*arguments, **options)
            self._depth += 1
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds += time.process_time() - start
                self._depth -= 1

        return run


def measure(compared: dict[str, Callable[[], object]], repetitions: int) -> list[dict[str, Any]]:
    """Return CPU seconds, the added share against `transcribe`, and the share spent inside what recording adds."""
    for run in compared.values():
        run()
    meter, names = Meter(), list(compared)
    times: dict[str, list[float]] = {name: [] for name in names}
    inside: dict[str, list[float]] = {name: [] for name in names}
    for turn in track(range(repetitions), description="turns", console=Console(stderr=True), transient=True):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            meter.seconds = 0.0
            start = time.process_time()
            compared[name]()
            spent = time.process_time() - start
            times[name].append(spent)
            inside[name].append(100 * meter.seconds / (spent - meter.seconds))
    rows = []
    for name in names:
        added = [100 * (a / b - 1) for a, b in zip(times[name], times["transcribe"], strict=True)]
        low, middle, high = statistics.quantiles(added, n=4)
        row = {"way": name, "cpu_s": statistics.median(times[name]), "inside": statistics.median(inside[name])}
        rows.append({**row, "added": middle, "added_low": low, "added_high": high})
    return rows


def main() -> None:
    """Measure and print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=("nano", "large-v3"), default="nano")
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--repetitions", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, inputs = nano_inputs() if arguments.shape == "nano" else large_inputs(arguments.layers)
    rows = measure(ways(model, inputs, 8), arguments.repetitions)
    print("| way | CPU s | inside what recording adds | against transcribe, pair by pair | quartiles |")
    print("|---|---|---|---|---|")
    for row in rows:
        cells = [row["way"], f"{row['cpu_s']:.3f}", f"{row['inside']:.2f} %", f"{row['added']:+.1f} %"]
        print("| " + " | ".join([*cells, f"{row['added_low']:+.1f} to {row['added_high']:+.1f} %"]) + " |")
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
