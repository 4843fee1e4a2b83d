"""Training clips from the folder of real speech: spoken digits of three speakers, and sentences of LJ Speech.

Held out: the digits of speaker yweweler, the last eight LJ sentences, and all of LibriSpeech and misc.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from earmark.challenges.synthesis import trim_silence
from training.corpus import (
    MAX_CLIP_S,
    SAMPLE_RATE_HZ,
    Clip,
    manifest_lines,
    read_audio,
    save_clips,
)

TEST_SPEAKER = "fsdd:yweweler"
LJ_HELD_OUT = 8
DIGIT_CLIPS = 2400
LJ_COPIES = 8


def normalise(text: str) -> str:
    """Lower-case words only."""
    return re.sub(r"\s+", " ", re.sub(r"[^a-z' ]", " ", text.lower())).strip()


def digit_strings(digits: list[Clip], rng: np.random.Generator) -> list[Clip]:
    """Strings of one to four digits of one speaker, with pauses between them."""
    clips = []
    speakers = sorted({digit.speaker for digit in digits})
    for _ in range(DIGIT_CLIPS):
        speaker = speakers[rng.integers(len(speakers))]
        own = [digit for digit in digits if digit.speaker == speaker]
        chosen = [own[rng.integers(len(own))] for _ in range(rng.choice((1, 1, 1, 2, 3, 4)))]
        pause = np.zeros(int(rng.uniform(0.0, 0.4) * SAMPLE_RATE_HZ), dtype=np.int16)
        samples = np.concatenate([part for digit in chosen for part in (pause, digit.samples)][1:])
        clips.append(Clip(samples=samples, text=" ".join(digit.text for digit in chosen), speaker=speaker))
    return clips


def load_speech(speech: Path, prefix: str) -> list[Clip]:
    """Recordings of the speech folder whose id begins with `prefix`."""
    entries = [entry for entry in manifest_lines(speech) if entry["id"].startswith(prefix)]
    return [
        Clip(
            samples=trim_silence(read_audio(speech / entry["path"])),
            text=normalise(entry["transcript"]),
            speaker=entry["speaker"],
        )
        for entry in entries
    ]


def build_real_shard(folder: Path, speech: Path, seed: int = 0) -> None:
    """Write the training shard of real speech."""
    digits = [clip for clip in load_speech(speech, "fsdd/") if clip.speaker != TEST_SPEAKER]
    sentences = load_speech(speech, "ljspeech/LJ001")[:-LJ_HELD_OUT]
    sentences = [clip for clip in sentences if len(clip.samples) < MAX_CLIP_S * SAMPLE_RATE_HZ]
    clips = digit_strings(digits, np.random.default_rng(seed)) + sentences * LJ_COPIES
    save_clips(clips, folder, "real-000")
