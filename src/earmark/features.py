"""The parameters of acoustic features, pinned in every claim.

A provider that computes its spectrogram with another window or filter bank feeds the model something else, so
these parameters are facts of a claim like the weights are. No feature is computed here.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import msgspec
import numpy as np

from earmark.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["FeatureParameters", "describe", "differences", "filters_digest", "from_mel_filters"]

_Length = Annotated[int, msgspec.Meta(ge=0, le=1 << 24)]
_Label = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
_Real = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]

Value = str | int | float

_GRID = 1e-6
_SNAP = 2e-6  # above what float32 makes of a bank (1e-7), far below what another mel scale does (1e-3)
_MAX_FILTER = 1e6


class FeatureParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How audio becomes the input of a model.

    Attributes:
        sample_rate: Rate of the audio in Hz.
        n_fft: Length of the Fourier transform in samples; 0 where the model takes the waveform itself.
        window_length: Length of the window in samples.
        hop: Samples from one frame to the next.
        window: Its shape: `hann-periodic`, `hann-symmetric`, `none`.
        preemphasis: Coefficient of the first difference taken before, 0 for none.
        dither: Amplitude of noise added before; 0, or replay cannot agree.
        n_mels: Number of mel bands.
        mel_scale: `slaney`, `htk` or `none`.
        norm: Normalisation of the bands' areas: `slaney` or `none`.
        log_floor: Least power (`whisper`), or what is added to it (`nemo-per-feature`), before the logarithm.
        normalisation: What becomes of the logarithm: `whisper` (base 10, cut 8 below the clip's maximum,
            (x + 4) / 4), `nemo-per-feature` (natural, mean 0 and deviation 1 per band), `zero-mean-unit-variance`
            (of the waveform), or `none`.
        padded_samples: Length that shorter audio is padded to before all this; 0 for none.
        filters: Digest of the filter bank, see `filters_digest`.

    Example:
        >>> whisper = from_mel_filters(np.eye(201, 80), n_fft=400, hop=160, n_mels=80)
        >>> whisper.window, whisper.n_mels, whisper.dither
        ('hann-periodic', 80, 0.0)
    """

    sample_rate: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 16_000
    n_fft: _Length
    window_length: _Length
    hop: _Length
    window: _Label = "hann-periodic"
    preemphasis: _Real = 0.0
    dither: _Real = 0.0
    n_mels: _Length
    mel_scale: _Label = "slaney"
    norm: _Label = "slaney"
    log_floor: _Real
    normalisation: _Label
    padded_samples: _Length = 0
    filters: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Extractor(Protocol):
    """What `describe` asks of every feature extractor; the rest depends on further attributes."""

    sampling_rate: int


def from_mel_filters(
    filters: ArrayLike,
    *,
    n_fft: int,
    hop: int,
    n_mels: int,
    window_length: int | None = None,
    log_floor: float = 1e-10,
    normalisation: str = "whisper",
    **others: Any,
) -> FeatureParameters:
    """Build checked parameters from a filter bank; what is not given is as in Whisper.

    Args:
        filters: Mel filter bank, shape ``(n_fft // 2 + 1, n_mels)`` or transposed.
        n_fft: Length of the Fourier transform in samples.
        hop: Samples between frames.
        n_mels: Number of mel bands.
        window_length: Length of the window in samples, ``n_fft`` if None.
        log_floor: See `FeatureParameters`.
        normalisation: See `FeatureParameters`.
        **others: Further fields of `FeatureParameters`.

    Returns:
        The parameters.

    Raises:
        UsageError: A value out of range, or a bank of another shape.
    """
    rate = int(others.get("sample_rate", 16_000))
    fields = others | {
        "n_fft": n_fft,
        "hop": hop,
        "n_mels": n_mels,
        "window_length": n_fft if window_length is None else window_length,
        "log_floor": log_floor,
        "normalisation": normalisation,
        "filters": filters_digest(_oriented(filters, n_fft // 2 + 1, n_mels), rate),
    }
    return _checked(fields)


def describe(extractor: Extractor) -> FeatureParameters:
    """Return the parameters of a feature extractor of transformers, without importing it.

    Told apart by their attributes: Whisper and its users (`mel_filters`, `chunk_length`; Qwen3-ASR also has
    `n_window` and pads no audio), Parakeet and its users (`mel_filters`, `preemphasis`, `win_length`), and
    wav2vec 2.0 (`do_normalize`, no `mel_filters`). Window, scale, floor and normalisation are fixed in the code
    of those classes and stated here.

    Args:
        extractor: An instance of, say, `WhisperFeatureExtractor`.

    Returns:
        The parameters.

    Raises:
        UsageError: An extractor of no known kind, or with values out of range.
    """
    if hasattr(extractor, "mel_filters"):
        for needed, build in (("chunk_length", _describe_whisper), ("win_length", _describe_parakeet)):
            if hasattr(extractor, needed):
                return build(extractor)
    elif hasattr(extractor, "do_normalize"):
        return _describe_waveform(extractor)
    raise UsageError(
        f"{type(extractor).__name__} is no known feature extractor, expected one like those of Whisper, Parakeet "
        "or wav2vec 2.0; build FeatureParameters in the adapter"
    )


def _describe_whisper(extractor: Any) -> FeatureParameters:
    return from_mel_filters(
        extractor.mel_filters,
        n_fft=int(extractor.n_fft),
        hop=int(extractor.hop_length),
        n_mels=int(extractor.feature_size),
        sample_rate=int(extractor.sampling_rate),
        dither=float(getattr(extractor, "dither", 0.0)),
        padded_samples=0 if hasattr(extractor, "n_window") else int(extractor.chunk_length * extractor.sampling_rate),
    )


def _describe_parakeet(extractor: Any) -> FeatureParameters:
    return from_mel_filters(
        extractor.mel_filters,
        n_fft=int(extractor.n_fft),
        window_length=int(extractor.win_length),
        hop=int(extractor.hop_length),
        n_mels=int(extractor.feature_size),
        sample_rate=int(extractor.sampling_rate),
        window="hann-symmetric",
        preemphasis=float(getattr(extractor, "preemphasis", None) or 0.0),
        dither=float(getattr(extractor, "dither", 0.0)),
        log_floor=2.0**-24,
        normalisation="nemo-per-feature",
    )


def _describe_waveform(extractor: Any) -> FeatureParameters:
    nothing = {"n_fft": 0, "window_length": 0, "hop": 0, "n_mels": 0, "log_floor": 0.0}
    return _checked(
        nothing
        | {
            "sample_rate": int(extractor.sampling_rate),
            "window": "none",
            "mel_scale": "none",
            "norm": "none",
            "normalisation": "zero-mean-unit-variance" if extractor.do_normalize else "none",
            "filters": filters_digest(np.zeros((0, 0))),
        }
    )


def differences(found: FeatureParameters, expected: FeatureParameters) -> dict[str, tuple[Value, Value]]:
    """Return the parameters that differ, in the order of the fields.

    Args:
        found: The parameters of a claim.
        expected: The parameters of the reference.

    Returns:
        From the name of each field that differs to its values in the two; empty if all agree.

    Example:
        >>> a = from_mel_filters(np.eye(201, 80), n_fft=400, hop=160, n_mels=80)
        >>> b = from_mel_filters(np.eye(201, 80), n_fft=400, hop=320, n_mels=80)
        >>> differences(a, b)
        {'hop': (160, 320)}
    """
    names = FeatureParameters.__struct_fields__
    pairs = {name: (getattr(found, name), getattr(expected, name)) for name in names}
    return {name: values for name, values in pairs.items() if values[0] != values[1]}


def filters_digest(filters: ArrayLike, sample_rate: int = 16_000) -> str:
    """Return the digest of a mel filter bank, the same for float32 and float64 copies of one bank.

    The SHA-256 of the shape and of the values in units of 1e-6, all int64 little-endian, row by row. Rounding
    alone would not do: of some hundred values one often lies so close to a half that float32 tips it. So a bank
    within 2e-6 of the Slaney bank of its shape (0 Hz to half the rate) is replaced by that bank first.

    Args:
        filters: Shape ``(n_fft // 2 + 1, n_mels)``.
        sample_rate: Rate of the audio in Hz.

    Returns:
        64 hexadecimal digits.

    Raises:
        UsageError: Not a matrix of finite numbers.
    """
    bank = np.asarray(filters, np.float64)
    if bank.ndim != 2 or not np.all(np.abs(bank) <= _MAX_FILTER):  # also false for NaN
        raise UsageError(f"mel filters of shape {bank.shape}, expected a finite matrix (n_fft // 2 + 1, n_mels)")
    if bank.size and len(bank) > 1:
        standard = _slaney_bank(len(bank), bank.shape[1], sample_rate)
        bank = standard if np.max(np.abs(bank - standard)) <= _SNAP else bank
    state = hashlib.sha256(np.asarray(bank.shape, "<i8").tobytes())
    state.update(np.rint(bank / _GRID).astype("<i8").tobytes())
    return state.hexdigest()


def _oriented(filters: ArrayLike, bins: int, n_mels: int) -> NDArray[np.float64]:
    bank = np.asarray(filters, np.float64)
    if bank.shape == (n_mels, bins):
        bank = bank.T
    if bank.shape != (bins, n_mels):
        raise UsageError(f"mel filters of shape {bank.shape}, expected {(bins, n_mels)} or its transpose")
    return bank


def _slaney_bank(bins: int, n_mels: int, sample_rate: int) -> NDArray[np.float64]:
    """Return triangles of unit area on Slaney's scale (Auditory Toolbox, 1998): linear, above 1 kHz logarithmic."""
    step = np.log(6.4) / 27.0
    highest = sample_rate / 2.0
    top = highest * 3.0 / 200.0 if highest < 1000.0 else 15.0 + np.log(highest / 1000.0) / step
    mels = np.linspace(0.0, top, n_mels + 2)
    edges = np.where(mels < 15.0, mels * 200.0 / 3.0, 1000.0 * np.exp(step * (mels - 15.0)))
    frequencies = np.linspace(0.0, highest, bins)[:, None]
    rising = (frequencies - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - frequencies) / np.diff(edges)[1:]
    bank: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling)) * (2.0 / (edges[2:] - edges[:-2]))
    return bank


def _checked(fields: dict[str, Any]) -> FeatureParameters:
    try:
        return msgspec.convert(fields, FeatureParameters)
    except msgspec.ValidationError as error:
        raise UsageError(f"feature parameters out of range: {error}; read the extractor's configuration") from error
