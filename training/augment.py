"""Waveform augmentation: speed, silence around the words, noise, gain, and filters (room, tilt, telephone)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from training.corpus import SAMPLE_RATE_HZ, Samples, read_audio

Waveform = NDArray[np.float32]
TRAINING_NOISES = ("exercise_bike", "pink_noise")
TEST_NOISE = "doing_the_dishes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation:
    """How much of each effect; the shares are probabilities per clip, nothing grows beyond `longest_s`."""

    speed: float = 0.10
    lead_s: float = 0.5
    tail_s: float = 0.8
    abrupt_share: float = 0.4
    abrupt_end_share: float = 0.0
    longest_s: float = 10.0
    noise_share: float = 0.35
    filter_share: float = 0.5
    telephone_share: float = 0.25
    room_share: float = 0.35


def load_noises(speech: Path, names: tuple[str, ...] = TRAINING_NOISES) -> list[Waveform]:
    """Noise recordings of the speech folder, at unit root mean square; empty without the folder."""
    paths = [path for path in sorted((speech / "noise").glob("*")) if path.stem in names]
    noises = [read_audio(path).astype(np.float32) for path in paths]
    return [noise / (noise.std() + 1e-9) for noise in noises]


def as_waveform(values: NDArray[Any]) -> Waveform:
    """The same values in single precision."""
    wave: Waveform = values.astype(np.float32)
    return wave


def change_speed(wave: Waveform, factor: float) -> Waveform:
    """Play faster or slower, the pitch follows (linear interpolation)."""
    positions = np.arange(0, len(wave) - 1, factor, dtype=np.float64)
    return as_waveform(np.interp(positions, np.arange(len(wave)), wave))


def add_noise(wave: Waveform, noises: list[Waveform], rng: np.random.Generator, snr_db: float) -> Waveform:
    """Add a random cut of a noise recording, or white noise, at a signal-to-noise ratio."""
    noise: Waveform
    if noises and rng.random() < 0.6:
        noise = noises[rng.integers(len(noises))]
        start = rng.integers(max(1, len(noise) - len(wave)))
        noise = np.resize(noise[start : start + len(wave)], len(wave))
    else:
        noise = rng.standard_normal(len(wave), dtype=np.float32)
    level = wave.std() / (noise.std() + 1e-9) * 10 ** (-snr_db / 20)
    return as_waveform(wave + level * noise)


def augment_clip(
    samples: Samples, noises: list[Waveform], rng: np.random.Generator, settings: Augmentation
) -> Waveform:
    """One clip with changed speed, silence at both ends, perhaps noise, and a random gain."""
    wave: Waveform = as_waveform(samples) / np.float32(32768)
    wave = change_speed(wave, 1 + settings.speed * rng.uniform(-1, 1))
    room = max(0, int(settings.longest_s * SAMPLE_RATE_HZ) - len(wave))
    lead_s = 0.0 if rng.random() < settings.abrupt_share else settings.lead_s
    lead = min(room, int(rng.uniform(0, lead_s) * SAMPLE_RATE_HZ))
    tail_s = 0.0 if settings.abrupt_end_share > rng.random() else settings.tail_s
    tail = min(room - lead, int(rng.uniform(0, tail_s) * SAMPLE_RATE_HZ))
    wave = as_waveform(np.pad(wave, (lead, tail)))
    if rng.random() < settings.noise_share:
        wave = add_noise(wave, noises, rng, snr_db=rng.uniform(8, 35))
    peak = np.abs(wave).max() + 1e-9
    return as_waveform(wave * (10 ** rng.uniform(-1.2, -0.02) / peak))


def silent_clip(noises: list[Waveform], rng: np.random.Generator) -> Waveform:
    """Half a second to eight seconds of nothing: digital silence or faint noise."""
    wave = np.zeros(int(rng.uniform(0.5, 8) * SAMPLE_RATE_HZ), dtype=np.float32)
    if rng.random() < 0.3:
        return wave
    noise = add_noise(wave + rng.standard_normal(len(wave), dtype=np.float32) * 1e-6, noises, rng, snr_db=-20)
    return as_waveform(noise / (np.abs(noise).max() + 1e-9) * 10 ** rng.uniform(-4, -1))


def filter_batch(waves: torch.Tensor, rng: np.random.Generator, settings: Augmentation) -> torch.Tensor:
    """Filter a batch (clips, samples) in the frequency domain: spectral tilt, telephone band, small room."""
    clips, samples = waves.shape
    size = samples + SAMPLE_RATE_HZ // 4
    spectrum = torch.fft.rfft(waves, size)
    hertz = torch.linspace(0, SAMPLE_RATE_HZ / 2, spectrum.shape[-1])
    octaves = torch.log2(hertz.clamp(min=60) / 1000)
    for index in range(clips):
        gain_db = rng.uniform(-3, 3) * octaves
        if rng.random() < settings.telephone_share:
            gain_db = gain_db - (hertz > rng.uniform(3300, 4200)) * 80
        spectrum[index] *= 10 ** (gain_db / 20)
        if rng.random() < settings.room_share:
            spectrum[index] *= torch.fft.rfft(_room(rng), size)
    filtered: torch.Tensor = torch.fft.irfft(spectrum, size)
    return filtered[:, :samples].contiguous()


def _room(rng: np.random.Generator) -> torch.Tensor:
    """Impulse response of a small room: a direct path and exponentially decaying noise."""
    length = SAMPLE_RATE_HZ // 4
    decay_s = rng.uniform(0.02, 0.08)
    seconds = np.arange(length) / SAMPLE_RATE_HZ
    tail = rng.standard_normal(length) * np.exp(-seconds / decay_s) * rng.uniform(0.01, 0.06)
    tail[0] = 1.0
    return torch.from_numpy(tail.astype(np.float32))


def warp_mels(features: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Stretch the mel axis of each clip (clips, mels, frames) a little: longer and shorter vocal tracts."""
    clips, mels, frames = features.shape
    factors = torch.from_numpy(rng.uniform(0.88, 1.12, (clips, 1))).to(features)
    places = (torch.arange(mels, device=features.device) * factors).clamp(max=mels - 1.001)
    low = places.floor()
    share = (places - low).unsqueeze(-1)
    index = low.long().unsqueeze(-1).expand(clips, mels, frames)
    return features.gather(1, index) * (1 - share) + features.gather(1, index + 1) * share


def mask_features(features: torch.Tensor, rng: np.random.Generator, most_mels: int, most_frames: int) -> torch.Tensor:
    """Light SpecAugment in place: one band of mels and one stretch of time per clip take the clip's mean."""
    clips, mels, frames = features.shape
    level = features.mean(dim=(1, 2))
    for index in range(clips):
        width, start = rng.integers(0, most_mels), rng.integers(0, mels - most_mels)
        features[index, start : start + width] = level[index]
        width, start = rng.integers(0, most_frames), rng.integers(0, max(1, frames - most_frames))
        features[index, :, start : start + width] = level[index]
    return features
