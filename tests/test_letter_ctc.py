"""The example adapter of examples/letter_ctc.py: eight real networks on real speech, and a random one."""

from __future__ import annotations

import json
from math import gcd
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file
from scipy.signal import resample_poly

import earmark
from earmark import Case, Clip
from earmark.errors import ModelError
from earmark.registry import registry
from earmark.scenarios import scenario
from examples import letter_ctc

SET = "letter-ctc-rnn-librispeech"
NETWORKS = (
    "bigru-bn-mfcc", "bigru-mfcc", "bigru-spectrogram", "cnn-bilstm-mfcc", "cnn-gru-spectrogram",
    "cnn-pool-bigru-mfcc", "deep-gru-mfcc", "deep-gru-spectrogram",
)  # fmt: skip
CLIPS = ("librispeech/1995-1837-0001", "librispeech/84-121550-0000", "misc/jfk")


@pytest.fixture(autouse=True)
def _registered():
    """Let `earmark.load` find the example, as an entry point would."""
    with registry("model").standing_in("letter-ctc", letter_ctc.LetterCtcLoader()):
        yield


# A random network of every kind of layer


def _recurrent(place: str, inputs: int, units: int, gates: int) -> dict[str, torch.Tensor]:
    return {
        f"{place}.kernel": torch.randn(inputs, gates * units) / inputs**0.5,
        f"{place}.recurrent_kernel": torch.randn(units, gates * units) / units**0.5,
        f"{place}.bias": torch.randn(gates * units) * 0.1,
    }


def write_random(folder: Path, seed: int = 0) -> Path:
    """Save a network with a convolution, pooling, normalisation, a GRU and a bidirectional LSTM."""
    torch.manual_seed(seed)
    recurrent = {"activation": "tanh", "recurrent_activation": "hard_sigmoid"}
    layers = [
        {"class": "Conv1D", "kernel_size": [5], "strides": [2], "padding": "same", "activation": "relu", "filters": 8},
        {"class": "MaxPooling1D", "strides": [2], "pool_size": [2], "padding": "same"},
        {"class": "BatchNormalization", "epsilon": 0.001},
        {"class": "GRU", "units": 6, **recurrent},
        {"class": "Bidirectional", "merge_mode": "concat", "inner": "LSTM", "units": 5, **recurrent},
        {"class": "TimeDistributed", "inner": "Dense", "units": 29, "activation": "linear"},
        {"class": "Activation", "activation": "softmax"},
    ]
    tensors = {
        "features.mean": torch.zeros(13), "features.std": torch.full((13,), 10.0),
        "layers.0.kernel": torch.randn(5, 13, 8) * 0.2, "layers.0.bias": torch.zeros(8),
        "layers.2.gamma": torch.ones(8), "layers.2.beta": torch.zeros(8),
        "layers.2.moving_mean": torch.zeros(8), "layers.2.moving_variance": torch.ones(8),
        **_recurrent("layers.3", 8, 6, 3), **_recurrent("layers.4.forward", 6, 5, 4),
        **_recurrent("layers.4.backward", 6, 5, 4),
        "layers.5.kernel": torch.randn(10, 29) * 4, "layers.5.bias": torch.zeros(29),
    }  # fmt: skip
    config = {
        "input_dim": 13, "features": "python_speech_features.mfcc(int16 samples)", "blank_id": 28,
        "alphabet": "' abcdefghijklmnopqrstuvwxyz", "layers": layers,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _plain(clips) -> list[Clip]:
    return [Clip(audio=clip.audio, request=earmark.request(clip.audio, nonce=clip.request.nonce)) for clip in clips]


def _outcomes(reference, clips, evidence) -> list[str]:
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    return [verdict.outcome for verdict in earmark.verify_many(cases, reference, profile="provisional")]


@pytest.mark.parametrize("samples", [1_600, 4_000, 16_001, 33_333])
def test_frames_are_counted_as_the_network_gives_them(tmp_path, samples):
    model = earmark.load(write_random(tmp_path))
    noise = (np.random.default_rng(0).normal(size=samples) * 1000).astype(np.int16)
    assert model.lengths(model.encode([noise])) == [model.encoder_positions(samples)]


def test_a_random_network_records_and_verifies_in_every_batch(tmp_path, clips):
    model, asked = earmark.load(write_random(tmp_path / "one")), _plain(clips[:4])
    other = earmark.load(write_random(tmp_path / "other", seed=1))
    for batch_size in (1, 4):
        evidence = list(earmark.record_many(model, asked, level="sketch", batch_size=batch_size))
        assert _outcomes(model, asked, evidence) == ["PASS"] * 4
    cheat = scenario("other_checkpoint", model=other).record(model, asked, level="sketch")
    assert _outcomes(model, asked, cheat) == ["FAIL"] * 4


def test_16_bit_claims_replay_in_float32(tmp_path, clips):
    provider = earmark.load(write_random(tmp_path), dtype="bfloat16")
    asked = _plain(clips[:1])
    assert provider.in_float32().info.arithmetic == "fp32"
    assert _outcomes(provider, asked, list(earmark.record_many(provider, asked))) != ["INCONCLUSIVE"]


@pytest.mark.parametrize("name", ["layers.3.recurrent_kernel", "features.mean", "layers.5.bias"])
def test_a_missing_tensor_is_an_error(tmp_path, name):
    from safetensors.torch import load_file

    tensors = load_file(write_random(tmp_path) / "model.safetensors")
    tensors.pop(name)
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        earmark.load(tmp_path)


def test_unknown_features_are_an_error(tmp_path):
    config = json.loads((write_random(tmp_path) / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(config | {"features": "plp"}), encoding="utf-8")
    with pytest.raises(ModelError, match="features 'plp'"):
        earmark.load(tmp_path)


# The real networks


@pytest.fixture(scope="module")
def networks(weights_dir) -> Path:
    if not (weights_dir / SET).is_dir():
        pytest.skip(f"no {SET} in {weights_dir}")
    return weights_dir / SET


@pytest.fixture(scope="module")
def paths(speech_dir) -> dict[str, Path]:
    rows = map(json.loads, (speech_dir / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["id"]: speech_dir / row["path"] for row in rows}


@pytest.fixture(scope="module")
def speech(paths) -> list[Clip]:
    audio = [earmark.load_audio(paths[name]) for name in CLIPS]
    return [Clip(audio=a, request=earmark.request(a, nonce=f"{i:032x}")) for i, a in enumerate(audio)]


def _reference_audio(path: Path) -> np.ndarray:
    """Return float samples in units of int16, resampled by scipy, as the reference run had them."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono, common = samples.mean(axis=1), gcd(rate, 16_000)
    return (mono if rate == 16_000 else resample_poly(mono, 16_000 // common, rate // common)) * 32768


@pytest.mark.speech
@pytest.mark.parametrize("name", NETWORKS)
def test_every_reference_text_is_reproduced(networks, paths, name):
    """The reference run cut samples to integers for the cepstra and kept them whole for the spectrogram."""
    model = earmark.load(networks / name)
    outputs = json.loads((networks / name / "config.json").read_text(encoding="utf-8"))["reference_outputs"]
    assert len(outputs) == 8
    for clip, text in outputs.items():
        samples = _reference_audio(paths[clip])
        features = model.extract(samples.astype(np.int16) if "mfcc" in name else samples)
        with torch.inference_mode():
            states = model.module.encode(torch.as_tensor(features, dtype=torch.float32))
            best = model.module.last(states).argmax(dim=1)
        assert model.detokenise(torch.unique_consecutive(best).tolist()) == text, clip


@pytest.mark.speech
@pytest.mark.parametrize("name", NETWORKS)
def test_the_claimed_network_passes_and_every_other_fails(networks, speech, name):
    model = earmark.load(networks / name)
    honest = list(earmark.record_many(model, speech, level="sketch", batch_size=2))
    assert _outcomes(model, speech, honest) == ["PASS"] * len(speech)
    for other in NETWORKS:
        if other != name:
            cheat = scenario("other_checkpoint", model=earmark.load(networks / other))
            evidence = cheat.record(model, speech[:1], level="sketch")
            assert _outcomes(model, speech[:1], evidence) == ["FAIL"], other


@pytest.mark.speech
def test_small_changes_fail_on_every_clip(networks, speech):
    """8-bit weights, a dropped second, another clip's evidence, an edited letter."""
    model = earmark.load(networks / "cnn-bilstm-mfcc")
    honest = list(earmark.record_many(model, speech, level="sketch"))
    first = honest[0].segments[0]
    edited = msgspec.structs.replace(first, text=first.text.replace("a", "o", 1))
    text = msgspec.structs.replace(honest[0], text=edited.text, segments=(edited,))
    cheats = [
        scenario("quantise", bits=8).record(model, speech, level="sketch"),
        scenario("drop_audio", seconds=1.0).record(model, speech, level="sketch"),
        [*honest[1:], honest[0]],
    ]
    for evidence in cheats:
        assert _outcomes(model, speech, evidence) == ["FAIL"] * len(speech)
    assert _outcomes(model, speech[:1], [text]) == ["FAIL"]
