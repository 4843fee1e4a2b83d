"""Feature parameters: digests that hold across libraries, and descriptions of real extractors."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from earmark.errors import UsageError
from earmark.features import (
    FeatureParameters,
    _slaney_bank,
    describe,
    differences,
    filters_digest,
    from_mel_filters,
)

WHISPER_80 = "bb3fb43586400da5333694ade886f16a0d97ccd92829ff6426c50b409b4ddea4"
WHISPER_128 = "d4bbb09c78581f5a67aeea2647de113b1195abb92b2b6ff07c11697f3812b2c9"
PARAKEET_80 = "7a0695132d1903a783f2b77cbba61071b96f60cfaa41b05e34c530d35344073f"


def parameters(**changes: Any) -> FeatureParameters:
    """Return Whisper's parameters with some changed."""
    fields = {"n_fft": 400, "hop": 160, "n_mels": 80} | changes
    return from_mel_filters(_slaney_bank(201, 80, 16_000), **fields)


@pytest.mark.parametrize(
    ("bins", "mels", "expected"), [(201, 80, WHISPER_80), (201, 128, WHISPER_128), (257, 80, PARAKEET_80)]
)
def test_filters_digest_is_pinned(bins: int, mels: int, expected: str) -> None:
    """The usual banks keep their digest, in float32, transposed and with the errors of another libm."""
    bank = _slaney_bank(bins, mels, 16_000)
    noise = np.random.default_rng(0).uniform(-1e-7, 1e-7, bank.shape)
    assert filters_digest(bank) == expected
    assert filters_digest(bank.astype(np.float32)) == expected
    assert filters_digest(bank + noise) == expected
    fields: dict[str, Any] = {"n_fft": 2 * (bins - 1), "hop": 160, "n_mels": mels}
    assert from_mel_filters(bank.T, **fields).filters == from_mel_filters(bank, **fields).filters == expected


def test_filters_digest_tells_banks_apart() -> None:
    """A changed value, another mel scale and another rate give another digest."""
    bank = _slaney_bank(201, 80, 16_000)
    changed = bank.copy()
    changed[20, 10] += 1e-4
    assert len({filters_digest(b) for b in (bank, changed, bank * 2, bank[:, ::-1], _slaney_bank(201, 80, 8_000))}) == 5


def test_describe_real_extractors() -> None:
    """The classes of transformers are described as their code is written."""
    transformers = pytest.importorskip("transformers")
    whisper = describe(transformers.WhisperFeatureExtractor(feature_size=80))
    assert whisper == parameters(padded_samples=480_000)
    assert whisper.filters == WHISPER_80
    assert describe(transformers.WhisperFeatureExtractor(feature_size=128)).filters == WHISPER_128
    qwen = describe(transformers.Qwen3ASRFeatureExtractor())
    assert (qwen.filters, qwen.padded_samples) == (WHISPER_128, 0)
    parakeet = describe(transformers.ParakeetFeatureExtractor(feature_size=80))
    assert parakeet.filters == PARAKEET_80
    assert (parakeet.window_length, parakeet.window, parakeet.preemphasis) == (400, "hann-symmetric", 0.97)
    assert (parakeet.log_floor, parakeet.normalisation) == (2.0**-24, "nemo-per-feature")
    waveform = describe(transformers.Wav2Vec2FeatureExtractor(do_normalize=True))
    assert (waveform.n_fft, waveform.normalisation) == (0, "zero-mean-unit-variance")
    assert describe(transformers.Wav2Vec2FeatureExtractor(do_normalize=False)).normalisation == "none"


def test_dither_is_described() -> None:
    """Noise before the features shows, because replay could not agree."""
    extractor = SimpleNamespace(
        mel_filters=_slaney_bank(201, 80, 16_000),
        n_fft=400,
        hop_length=160,
        feature_size=80,
        sampling_rate=16_000,
        chunk_length=30,
        dither=1e-4,
    )
    assert differences(describe(extractor), parameters(padded_samples=480_000)) == {"dither": (1e-4, 0.0)}


@pytest.mark.parametrize(
    "extractor",
    [SimpleNamespace(sampling_rate=16_000), SimpleNamespace(sampling_rate=16_000, mel_filters=np.eye(3))],
)
def test_unknown_extractors_are_refused(extractor: Any) -> None:
    """Nothing is guessed."""
    with pytest.raises(UsageError, match="no known feature extractor"):
        describe(extractor)


def test_differences_in_order() -> None:
    """Each field that differs is named with the value found and the one expected."""
    found = differences(parameters(hop=320, log_floor=1e-5), parameters())
    assert found == {"hop": (320, 160), "log_floor": (1e-5, 1e-10)}
    assert list(found) == ["hop", "log_floor"]
    assert differences(parameters(), parameters()) == {}


@pytest.mark.parametrize("packing", [msgspec.json, msgspec.msgpack])
def test_round_trip(packing: Any) -> None:
    """Parameters come back from both written forms."""
    assert packing.decode(packing.encode(parameters()), type=FeatureParameters) == parameters()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n_fft", -1),
        ("hop", 1 << 30),
        ("dither", float("nan")),
        ("log_floor", float("inf")),
        ("window", "x" * 65),
        ("filters", "abc"),
        ("filters", "A" * 64),
        ("sample_rate", 0),
        ("unknown", 1),
    ],
)
def test_reading_is_strict(field: str, value: Any) -> None:
    """Values out of range and unknown fields are refused on reading."""
    fields = msgspec.to_builtins(parameters()) | {field: value}
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(fields), type=FeatureParameters)


@pytest.mark.parametrize(
    ("filters", "changes", "message"),
    [
        (np.eye(200, 80), {}, r"shape \(200, 80\), expected \(201, 80\)"),
        (np.full((201, 80), np.nan), {}, "finite matrix"),
        (np.full((201, 80), 1e9), {}, "finite matrix"),
        (np.eye(201, 80), {"hop": -1}, "out of range"),
        (np.eye(201, 80), {"colour": 1}, "out of range"),
    ],
)
def test_building_is_strict(filters: Any, changes: dict[str, Any], message: str) -> None:
    """So are they when parameters are built."""
    with pytest.raises(UsageError, match=message):
        from_mel_filters(filters, **({"n_fft": 400, "hop": 160, "n_mels": 80} | changes))


def test_import_is_light() -> None:
    """Importing the module pulls in neither torch nor transformers."""
    heavy = ("scipy", "torch", "transformers")
    code = f"import sys, earmark.features; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
