"""Draws batches of augmented clips, about the same amount of sound in each."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.augment import Augmentation, Waveform, augment_clip, filter_batch, load_noises, silent_clip
from training.corpus import SAMPLE_RATE_HZ, Clip, load_clips

POOL_CLIPS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Waveforms (clips, samples), zero-padded; their lengths in samples; their texts."""

    waves: Tensor
    lengths: Tensor
    texts: list[str]


@dataclass(slots=True, kw_only=True)
class Sampler:
    """An endless seeded stream of batches.

    Attributes:
        folder: corpus folder.
        speech: folder of real speech, for the noises.
        seed: seed of everything random here.
        real_share: share of clips drawn from the real recordings.
        real_speed: share by which real recordings are played faster or slower, so that few speakers sound like more.
        batch_s: seconds of sound in a batch, padding included.
        max_batch: most clips in a batch.
        silent_share: share of clips without any words.
        window_multiple: waveforms are padded to a multiple of this many samples.
    """

    folder: Path
    speech: Path
    seed: int
    real_share: float = 0.2
    real_speed: float = 0.1
    batch_s: float = 56.0
    max_batch: int = 28
    silent_share: float = 0.015
    window_multiple: int = 800
    settings: Augmentation = field(default_factory=Augmentation)
    synthetic: list[Clip] = field(init=False)
    real: list[Clip] = field(init=False)
    speakers: set[str] = field(init=False)
    noises: list[Waveform] = field(init=False)
    _rng: np.random.Generator = field(init=False)
    _ready: list[list[Clip | None]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.synthetic = list(load_clips(self.folder, "train-*"))
        self.real = list(load_clips(self.folder, "real-*"))
        self.speakers = {clip.speaker for clip in self.real}
        self.noises = load_noises(self.speech)
        self.restart(0)

    def restart(self, step: int) -> None:
        """Begin a stream that depends on the seed and the step alone (for resumed runs)."""
        self._rng = np.random.default_rng((self.seed, step))
        self._ready = []

    def other_stream(self, seed: int) -> Sampler:
        """Sampler of the same clips, in memory once, with a seed of its own."""
        other = copy.copy(self)
        other.seed = seed
        other.restart(0)
        return other

    def draw(self, max_clip_s: float, window_s: float | None = None) -> Batch:
        """Draw one batch of clips up to `max_clip_s`, padded to `window_s` or to the longest clip."""
        if not self._ready:
            self._ready = self._group(max_clip_s)
        clips = self._ready.pop()
        waves = [self._wave(clip) for clip in clips]
        lengths = [len(wave) for wave in waves]
        wanted = max(lengths) if window_s is None else int(window_s * SAMPLE_RATE_HZ)
        size = min(
            -(-wanted // self.window_multiple) * self.window_multiple,
            int(self.settings.longest_s * SAMPLE_RATE_HZ),
        )
        batch = torch.zeros(len(waves), size)
        for row, wave in zip(batch, waves, strict=True):
            row[: min(len(wave), size)] = torch.from_numpy(wave[:size])
        if self._rng.random() < self.settings.filter_share:
            batch = filter_batch(batch, self._rng, self.settings)
        texts = [clip.text if clip else "" for clip in clips]
        return Batch(waves=batch, lengths=torch.tensor(lengths).clamp(max=size), texts=texts)

    def _wave(self, clip: Clip | None) -> Waveform:
        if clip is None:
            return silent_clip(self.noises, self._rng)
        settings = replace(self.settings, speed=self.real_speed) if clip.speaker in self.speakers else self.settings
        return augment_clip(clip.samples, self.noises, self._rng, settings)

    def _group(self, max_clip_s: float) -> list[list[Clip | None]]:
        """Sort a random pool by length and cut it into batches, in random order."""
        pool = [self._pick() for _ in range(POOL_CLIPS)]
        kept = [clip for clip in pool if len(clip.samples) < max_clip_s * SAMPLE_RATE_HZ]
        kept.sort(key=lambda clip: len(clip.samples))
        batches: list[list[Clip | None]] = [[]]
        for clip in kept:
            longest_s = len(clip.samples) / SAMPLE_RATE_HZ + 0.8
            if (len(batches[-1]) + 1) * longest_s > self.batch_s or len(batches[-1]) >= self.max_batch:
                batches.append([])
            batches[-1].append(None if self._rng.random() < self.silent_share else clip)
        self._rng.shuffle(batches)
        return batches

    def _pick(self) -> Clip:
        source = self.real if self.real and self._rng.random() < self.real_share else self.synthetic
        return source[self._rng.integers(len(source))]
