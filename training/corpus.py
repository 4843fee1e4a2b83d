"""Corpus of int16 clips in numbered shards, synthesised in parallel or read from real recordings.

A shard is two files: `NAME.i16` (all samples, one after the other) and `NAME.jsonl` (one line per clip).
"""

from __future__ import annotations

import json
import multiprocessing
import random
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from rich.progress import track

from earmark.challenges.synthesis import trim_silence
from training.text import foreign_sentences, test_sentences, training_sentences
from training.voices import Utterance, cast_foreign, cast_voice, synthesise

SAMPLE_RATE_HZ = 16_000
SHARD_CLIPS = 2_000
CHUNK_CLIPS = 100
MAX_CLIP_S = 9.0

Samples = NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One recording: its samples (int16, 16 kHz mono), what is said and who says it."""

    samples: Samples
    text: str
    speaker: str


def read_audio(path: Path) -> Samples:
    """Read a sound file as int16 mono at 16 kHz."""
    audio, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    audio = soxr.resample(audio.mean(axis=1), rate_hz, SAMPLE_RATE_HZ)
    samples: Samples = np.clip(audio * 32767, -32768, 32767).astype(np.int16)
    return samples


def _say_chunk(utterances: list[Utterance]) -> list[Clip]:
    with tempfile.TemporaryDirectory() as folder:
        paths = synthesise(utterances, Path(folder))
        clips = [
            Clip(samples=trim_silence(read_audio(path)), text=said.text, speaker=said.speaker)
            for said, path in zip(utterances, paths, strict=True)
            if path.exists()
        ]
    return [clip for clip in clips if 0.15 < len(clip.samples) / SAMPLE_RATE_HZ < MAX_CLIP_S]


def say_all(utterances: list[Utterance], label: str, processes: int = 2) -> list[Clip]:
    """Synthesise utterances in parallel, with a progress bar; too long or empty clips are dropped."""
    chunks = [utterances[start : start + CHUNK_CLIPS] for start in range(0, len(utterances), CHUNK_CLIPS)]
    with multiprocessing.Pool(processes) as pool:
        said = track(pool.imap(_say_chunk, chunks), description=label, total=len(chunks))
        return [clip for chunk in said for clip in chunk]


def save_clips(clips: Iterable[Clip], folder: Path, name: str) -> None:
    """Write one shard; the listing is written last, so that a shard without it is unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    with (folder / f"{name}.i16").open("wb") as file:
        for clip in clips:
            entry = {"text": clip.text, "speaker": clip.speaker, "samples": len(clip.samples)}
            lines.append(json.dumps(entry))
            file.write(clip.samples.tobytes())
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def load_clips(folder: Path, pattern: str) -> Iterator[Clip]:
    """Read the clips of every finished shard whose name matches a glob pattern."""
    for listing in sorted(folder.glob(f"{pattern}.jsonl")):
        audio = np.fromfile(listing.with_suffix(".i16"), dtype=np.int16)
        start = 0
        for line in listing.read_text().splitlines():
            entry = json.loads(line)
            end = start + entry["samples"]
            yield Clip(samples=audio[start:end], text=entry["text"], speaker=entry["speaker"])
            start = end


def build_training_shard(folder: Path, index: int) -> None:
    """Synthesise one English training shard, unless it is there already."""
    rng = random.Random(f"cast-{index}")  # noqa: S311  (speech, not secrets)
    texts = training_sentences(SHARD_CLIPS, index)
    _build_shard(folder, f"train-{index:03d}", [cast_voice(text, rng, held_out=False) for text in texts])


def build_foreign_shard(folder: Path, language: str, index: int, clips: int = SHARD_CLIPS) -> None:
    """Synthesise one German, French or Spanish training shard, unless it is there already."""
    rng = random.Random(f"cast-{language}-{index}")  # noqa: S311  (speech, not secrets)
    texts = foreign_sentences(language, clips, index)
    _build_shard(folder, f"{language}-{index:03d}", [cast_foreign(text, language, rng) for text in texts])


def _build_shard(folder: Path, name: str, utterances: list[Utterance]) -> None:
    if not (folder / f"{name}.jsonl").exists():
        save_clips(say_all(utterances, name), folder, name)


def build_test_sets(folder: Path, clips: int = 250, dev_clips: int = 60) -> None:
    """Synthesise unseen sentences, once with voices of the training and once with held-out voices.

    The sentences of the dev sets, for a look during training, are distinct from those of the test sets.
    """
    texts = test_sentences(2 * (clips + dev_clips))
    for kind, count in (("test", clips), ("dev", dev_clips)):
        for voices, held_out in (("text", False), ("voice", True)):
            name = f"{kind}-{voices}"
            rng = random.Random(name)  # noqa: S311  (speech, not secrets)
            said, texts = texts[:count], texts[count:]
            utterances = [cast_voice(text, rng, held_out=held_out) for text in said]
            save_clips(say_all(utterances, name), folder, name)


def manifest_lines(speech: Path) -> list[dict[str, str]]:
    """Entries of the folder of real speech that have a transcript."""
    lines = (speech / "manifest.jsonl").read_text().splitlines()
    return [entry for entry in map(json.loads, lines) if entry.get("transcript")]


def describe(clips: list[Clip]) -> dict[str, float]:
    """Number of clips and hours."""
    seconds = sum(len(clip.samples) for clip in clips) / SAMPLE_RATE_HZ
    return {"clips": len(clips), "hours": round(seconds / 3600, 2)}
