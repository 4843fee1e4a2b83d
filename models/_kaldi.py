"""Kaldi's log-mel filter bank features without dither, as icefall and sherpa compute them by default."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earmark.features import FeatureParameters, from_mel_filters

RATE_HZ = 16_000
WINDOW, HOP, N_FFT = 400, 160, 512
N_MELS = 80
LOW_HZ, HIGH_HZ = 20.0, 7600.0
PREEMPHASIS = 0.97
POVEY = 0.85
"""Exponent of the Povey window."""
FLOOR = 2.0**-23
"""The least energy, float32's epsilon: Kaldi's floor, which decides what digital silence looks like."""

Floats = NDArray[np.float64]


def frame_count(samples: int) -> int:
    """Return how many frames Kaldi gives with `snip_edges=false`.

    Args:
        samples: Length at 16 kHz.

    Example:
        >>> frame_count(16_000), frame_count(79), frame_count(80)
        (100, 0, 1)
    """
    return (samples + HOP // 2) // HOP


def mel_bank(n_mels: int = N_MELS, high_hz: float = HIGH_HZ) -> Floats:
    """Return Kaldi's triangles, equally spaced on the scale 1127 ln(1 + f / 700), each of height 1.

    Args:
        n_mels: Number of triangles.
        high_hz: Where the last one ends.

    Returns:
        Weights, (257, n_mels); the bin at half the sampling rate has none.

    Example:
        >>> bank = mel_bank()
        >>> bank.shape, bool(bank.max() <= 1), bank[-1].any().item()
        ((257, 80), True, False)

    Source: Kaldi, src/feat/mel-computations.cc, MelBanks.
    """
    low, high = _mel(np.array([LOW_HZ, high_hz]))
    edges = np.linspace(low, high, n_mels + 2)
    mels = _mel(np.arange(N_FFT // 2 + 1, dtype=np.float64) * (RATE_HZ / N_FFT))[:, None]
    rising = (mels - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - mels) / np.diff(edges)[1:]
    bank: Floats = np.maximum(0.0, np.minimum(rising, falling))
    bank[-1] = 0.0
    return bank


def _mel(hertz: NDArray[np.floating]) -> Floats:
    result: Floats = 1127.0 * np.log1p(hertz / 700.0)
    return result


def fbank(
    waveform: Floats, *, n_mels: int = N_MELS, high_hz: float = HIGH_HZ, snip_edges: bool = False
) -> NDArray[np.float32]:
    """Return log-mel energies.

    Computed in float64 and rounded once, so that it does not depend on the machine; kaldi-native-fbank, which computes
    in float32, differs by 1e-5 on average and by up to 3e-3 in nearly silent bands.

    Args:
        waveform: Samples in [-1, 1] at 16 kHz, (n,), n > 0.
        n_mels: Number of bands.
        high_hz: Where the last band ends.
        snip_edges: Whether frames lie within the waveform, of at least 400 samples; otherwise its ends are mirrored.

    Returns:
        Features, (frames, n_mels).

    Example:
        >>> features = fbank(np.zeros(16_000))
        >>> features.shape, round(float(features.max()), 2)
        ((100, 80), -15.94)

    Source: Kaldi, src/feat/feature-window.cc (`snip_edges`, mean removed, pre-emphasis, Povey window) and
        feature-fbank.cc (power spectrum, logarithm).
    """
    frames = _inside(waveform) if snip_edges else _frames(waveform)
    frames -= frames.mean(axis=1, keepdims=True)
    frames -= PREEMPHASIS * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / (WINDOW - 1))) ** POVEY
    power = np.abs(np.fft.rfft(frames * window, N_FFT)) ** 2
    result: NDArray[np.float32] = np.log(np.maximum(power @ mel_bank(n_mels, high_hz), FLOOR)).astype(np.float32)
    return result


def _frames(waveform: Floats) -> Floats:
    """Return overlapping frames, each centred in its hop; beyond the ends the signal is mirrored."""
    count = frame_count(len(waveform))
    before = (WINDOW - HOP) // 2
    padded = np.pad(waveform, (before, WINDOW), mode="symmetric")
    return np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[: count * HOP : HOP].copy()


def _inside(waveform: Floats) -> Floats:
    """Return overlapping frames that lie within the signal."""
    return np.lib.stride_tricks.sliding_window_view(waveform, WINDOW)[::HOP].copy()


def parameters() -> FeatureParameters:
    """Return the parameters that a claim states.

    Example:
        >>> parameters().window
        'povey'
    """
    return from_mel_filters(
        mel_bank(),
        n_fft=N_FFT,
        hop=HOP,
        n_mels=N_MELS,
        window_length=WINDOW,
        window="povey",
        preemphasis=PREEMPHASIS,
        mel_scale="htk",
        norm="none",
        log_floor=FLOOR,
        normalisation="none",
    )
