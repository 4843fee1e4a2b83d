"""An adapter for checkpoints of your own: small letter-CTC networks with weights in Keras' layout.

Everything that earmark asks of a model of the ctc family is here: a loader that recognises a folder, and a model with
features, network and text. Registered through the entry point group `earmark.models`, `earmark.load` opens such
folders; without that, the loader is called directly:

    model = LetterCtcLoader().load(folder, name="letters", device="cpu", dtype="float32", arithmetic="float32",
                                   attention="sdpa")
    evidence = earmark.record(model, earmark.request("clip.wav"), "clip.wav")
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from scipy.fft import dct
from torch import Tensor, nn

from earmark.checkpoint import read_config, weights_digest
from earmark.errors import ModelError
from earmark.features import FeatureParameters, filters_digest, from_mel_filters
from earmark.protocols import ModelInfo
from earmark.records.evidence import Precision

PRECISIONS: dict[str, Precision] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
WINDOW_SAMPLES = 30 * 16_000
LEAST_SAMPLES = 4_000
"""Shorter pieces are padded with silence to this, so that every network gives a frame."""

Features = Callable[[NDArray[np.int16]], NDArray[np.float64]]


class LetterCtcLoader:
    """Opens folders with config.json (layers, features, alphabet) and model.safetensors."""

    name: ClassVar[str] = "letter-ctc"
    family: ClassVar[str] = "ctc"
    summary: ClassVar[str] = "letter-CTC networks in Keras' layout (an example)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json lists layers, features and an alphabet."""
        return {"layers", "features", "alphabet", "blank_id"} <= set(read_config(folder))

    def load(
        self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str
    ) -> LetterCtcModel:
        """Build the network that config.json describes and fill it."""
        config = read_config(folder)
        kind = str(config.get("features")).split(maxsplit=1)[0].split("(", maxsplit=1)[0]
        if kind not in FEATURES:
            raise ModelError(f"{folder}: features {config.get('features')!r}; this adapter knows {', '.join(FEATURES)}")
        try:
            module = Network(config["layers"], int(config["input_dim"]))
            module.fill(load_file(folder / "model.safetensors"))
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ModelError(f"{folder} cannot be loaded: {' '.join(str(error).split())[:300]}") from error
        extract, parameters = FEATURES[kind]
        info = ModelInfo(
            name=name,
            family=self.family,
            architecture=self.name,
            weights=weights_digest(folder),
            precision=PRECISIONS[dtype],
            arithmetic=PRECISIONS[arithmetic],
            features=parameters(),
            vocab_size=len(config["alphabet"]) + 1,
            window_samples=WINDOW_SAMPLES,
            engine=f"torch {torch.__version__}",
            device=device,
            attention=attention,
        )
        module = module.to(getattr(torch, dtype)).to(device=device, dtype=getattr(torch, arithmetic)).eval()
        return LetterCtcModel(info, module, extract, str(config["alphabet"]))


@dataclass(frozen=True, slots=True)
class Encoded:
    """What goes into the last layer, (batch, frames, width), and the frames of each row."""

    states: Tensor
    lengths: list[int]


class LetterCtcModel:
    """One network behind the interface of the ctc family.

    Args:
        info: Facts about it.
        module: The network.
        extract: From samples to features (frames, width).
        alphabet: Letters in the order of their ids; the blank comes last.
    """

    def __init__(self, info: ModelInfo, module: Network, extract: Features, alphabet: str) -> None:
        self.info, self.module, self.extract, self.alphabet = info, module, extract, alphabet
        self.blank_id = len(alphabet)

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the letters."""
        return "".join(self.alphabet[i] for i in ids if i != self.blank_id)

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each letter; spaces belong to none."""
        spaces = np.cumsum([self.detokenise([i]) == " " for i in ids])
        return [-1 if self.detokenise([i]) == " " else int(word) for i, word in zip(ids, spaces, strict=True)]

    def encoder_layers(self) -> Sequence[nn.Module]:
        """Return where the states that go into the last layer pass by."""
        return [self.module.states]

    def encoder_positions(self, samples: int) -> int:
        """Return the frames that the network gives."""
        silence = np.zeros(max(samples, LEAST_SAMPLES), np.int16)
        return self.module.frames(_frame_count(self.extract, len(silence)))

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> Encoded:
        """Run all layers but the last; each piece alone, because padding would change what Keras computes."""
        rows = [self.module.encode(self._features(piece)) for piece in samples]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return Encoded(self.module.states(padded), [len(row) for row in rows])

    def _features(self, piece: NDArray[np.int16]) -> Tensor:
        features = self.extract(np.pad(piece, (0, max(0, LEAST_SAMPLES - len(piece)))))
        return torch.as_tensor(features, dtype=torch.float32, device=self.info.device)

    def lengths(self, encoded: Encoded) -> list[int]:
        """Return the frames of each row."""
        return encoded.lengths

    def logits(self, encoded: Encoded) -> Tensor:
        """Return logits (batch, frames, letters and blank)."""
        logits: Tensor = self.module.last(encoded.states)
        return logits

    def in_float32(self) -> LetterCtcModel:
        """Return the replaying model."""
        return self if self.info.arithmetic == "fp32" else self._replaying

    @cached_property
    def _replaying(self) -> LetterCtcModel:
        model = self.with_module(copy.deepcopy(self.module).float())
        model.info = dataclasses.replace(self.info, arithmetic="fp32")
        return model

    def with_module(self, module: Any) -> LetterCtcModel:
        """Return the same model around another network of the same shape."""
        return LetterCtcModel(self.info, module, self.extract, self.alphabet)


# Network: one piece at a time, (frames, width)


class Network(nn.Module):
    """The layers of a Keras model; the softmax at the end is left out.

    Args:
        layers: The list in config.json.
        width: Number of features.
    """

    def __init__(self, layers: Sequence[Mapping[str, Any]], width: int) -> None:
        super().__init__()
        self.mean, self.std = (nn.Parameter(torch.zeros(width), requires_grad=False) for _ in range(2))
        self.layers, self.states = nn.ModuleList(), nn.Identity()
        for layer in layers:
            if layer["class"] != "Activation":
                made, width = LAYERS[layer["class"]](layer, width)
                self.layers.append(made)
        self.last = self.layers[-1]

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over all weights: Keras has inputs before outputs, torch the other way round."""
        own = {"mean": tensors["features.mean"], "std": tensors["features.std"]}
        for name, tensor in tensors.items():
            place, leaf = name.rsplit(".", maxsplit=1)
            if place != "features":
                recurrent = f"{place}.recurrent_kernel" in tensors
                place = place.replace("forward", "ahead").replace("backward", "back")
                target = f"{place}.{(RECURRENT if recurrent else PLAIN)[leaf]}"
                own[target] = tensor.permute(*reversed(range(tensor.ndim)))
        own |= {f"last.{leaf}": own[f"layers.{len(self.layers) - 1}.{leaf}"] for leaf in ("weight", "bias")}
        counters = {name: value for name, value in self.state_dict().items() if name.endswith("num_batches_tracked")}
        self.load_state_dict(own | counters)

    def encode(self, features: Tensor) -> Tensor:
        """Return what goes into the last layer."""
        states = ((features - self.mean) / (self.std + 1e-14)).to(self.mean.dtype)
        for layer in list(self.layers)[:-1]:
            states = layer(states)
        return states

    def frames(self, features: int) -> int:
        """Return how many frames come out of that many feature frames."""
        for layer in self.layers:
            features = layer.frames(features) if isinstance(layer, Convolution | Pooling) else features
        return features


PLAIN = {
    "kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias",
    "moving_mean": "running_mean", "moving_variance": "running_var",
}  # fmt: skip
RECURRENT = {"kernel": "kernel.weight", "bias": "kernel.bias", "recurrent_kernel": "recurrent.weight"}
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "tanh": torch.tanh}


def hard_sigmoid(x: Tensor) -> Tensor:
    """Keras' straight-line sigmoid, clip(0.2 x + 0.5, 0, 1)."""
    return (0.2 * x + 0.5).clamp(0, 1)


class Recurrent(nn.Module):
    """GRU (reset before the recurrent product) or LSTM of Keras 2, forwards."""

    def __init__(self, layer: Mapping[str, Any], width: int) -> None:
        super().__init__()
        self.lstm = layer.get("inner", layer["class"]) == "LSTM"
        self.units, self.activation = int(layer["units"]), ACTIVATIONS[layer["activation"]]
        gates = 4 if self.lstm else 3
        self.kernel = nn.Linear(width, gates * self.units)
        self.recurrent = nn.Linear(self.units, gates * self.units, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the state behind each frame."""
        step = self._lstm if self.lstm else self._gru
        state, memory = x.new_zeros(2, self.units)
        states = []
        for inputs in self.kernel(x):
            state, memory = step(inputs, state, memory)
            states.append(state)
        return torch.stack(states)

    def _gru(self, inputs: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        both = 2 * self.units
        weight = self.recurrent.weight
        update, reset = hard_sigmoid(inputs[:both] + weight[:both] @ state).chunk(2)
        candidate = self.activation(inputs[both:] + weight[both:] @ (reset * state))
        return update * state + (1 - update) * candidate, memory

    def _lstm(self, inputs: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        i, f, c, o = (inputs + self.recurrent(state)).chunk(4)
        memory = hard_sigmoid(f) * memory + hard_sigmoid(i) * self.activation(c)
        return hard_sigmoid(o) * self.activation(memory), memory


class Bidirectional(nn.Module):
    """Two recurrent layers, one of them from the end; their states side by side."""

    def __init__(self, layer: Mapping[str, Any], width: int) -> None:
        super().__init__()
        self.ahead, self.back = Recurrent(layer, width), Recurrent(layer, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return both states of each frame."""
        return torch.cat([self.ahead(x), self.back(x.flip(0)).flip(0)], dim=1)


class Convolution(nn.Conv1d):
    """Convolution over time with TensorFlow's padding."""

    def __init__(self, layer: Mapping[str, Any], width: int) -> None:
        (kernel,), (stride,) = layer["kernel_size"], layer["strides"]
        super().__init__(width, int(layer["filters"]), kernel, stride)
        self.same, self.activation = layer["padding"] == "same", ACTIVATIONS[layer["activation"]]

    def frames(self, features: int) -> int:
        """Return the frames that come out."""
        return -(-features // self.stride[0]) if self.same else (features - self.kernel_size[0]) // self.stride[0] + 1

    def forward(self, x: Tensor) -> Tensor:
        """Convolve (frames, width)."""
        if self.same:
            missing = max(0, (self.frames(len(x)) - 1) * self.stride[0] + self.kernel_size[0] - len(x))
            x = nn.functional.pad(x, (0, 0, missing // 2, missing - missing // 2))
        return self.activation(super().forward(x.T).T)


class Pooling(nn.Module):
    """The largest of every two frames; the last may stand alone."""

    def frames(self, features: int) -> int:
        """Return the frames that come out."""
        return -(-features // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Pool (frames, width)."""
        return nn.functional.max_pool1d(x.T[None], 2, ceil_mode=True)[0].T


LAYERS: Mapping[str, Callable[[Mapping[str, Any], int], tuple[nn.Module, int]]] = {
    "GRU": lambda layer, width: (Recurrent(layer, width), layer["units"]),
    "Bidirectional": lambda layer, width: (Bidirectional(layer, width), 2 * layer["units"]),
    "BatchNormalization": lambda layer, width: (nn.BatchNorm1d(width, eps=layer["epsilon"]), width),
    "Conv1D": lambda layer, width: (Convolution(layer, width), layer["filters"]),
    "MaxPooling1D": lambda _, width: (Pooling(), width),
    "TimeDistributed": lambda layer, width: (nn.Linear(width, layer["units"]), layer["units"]),
}


# Features


def mfcc(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return 13 cepstral coefficients per 10 ms, the first replaced by the energy, as python_speech_features does."""
    signal = samples.astype(np.float64)
    signal[1:] -= 0.97 * signal[:-1].copy()
    padded = np.pad(signal, (0, (400 - len(signal)) % 160))
    frames = np.lib.stride_tricks.sliding_window_view(padded, 400)[::160]
    power = np.abs(np.fft.rfft(frames, 512)) ** 2 / 512
    energy, bands = (np.where(x == 0, np.finfo(float).eps, x) for x in (power.sum(axis=1), power @ mel_bank()))
    lifter = 1 + 11 * np.sin(np.pi * np.arange(13) / 22)
    cepstra: NDArray[np.float64] = dct(np.log(bands), norm="ortho")[:, :13] * lifter
    cepstra[:, 0] = np.log(energy)
    return cepstra


def mel_bank() -> NDArray[np.float64]:
    """Return 26 triangles over 257 bins whose edges are rounded down to bins, (257, 26)."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 8000 / 700), 28) / 2595) - 1)
    left, middle, right = (np.floor(513 * edges / 16_000)[i : i + 26] for i in range(3))
    bins = np.arange(257)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        rising, falling = (bins - left) / (middle - left), (right - bins) / (right - middle)
    bank = np.where((left <= bins) & (bins < middle), rising, np.where((middle <= bins) & (bins < right), falling, 0))
    result: NDArray[np.float64] = bank
    return result


def spectrogram(samples: NDArray[np.int16]) -> NDArray[np.float64]:
    """Return the logarithm of the power at 161 frequencies every 10 ms, scaled as matplotlib's specgram does."""
    frames = np.lib.stride_tricks.sliding_window_view(samples / 32768.0, 320)[::160]
    window = np.hanning(320)
    power = np.abs(np.fft.rfft(frames * window)) ** 2 / (np.sum(window**2) * 16_000)
    power[:, 1:-1] *= 2
    result: NDArray[np.float64] = np.log(power + 1e-14)
    return result


def _frame_count(extract: Features, samples: int) -> int:
    return 1 - (400 - samples) // 160 if extract is mfcc else (samples - 320) // 160 + 1


def _mfcc_parameters() -> FeatureParameters:
    return from_mel_filters(
        mel_bank(),
        n_fft=512,
        window_length=400,
        hop=160,
        n_mels=26,
        window="rectangular",
        preemphasis=0.97,
        mel_scale="htk",
        norm="none",
        log_floor=float(np.finfo(float).eps),
        normalisation="mfcc-13-stored-mean-and-deviation",
    )


def _spectrogram_parameters() -> FeatureParameters:
    return FeatureParameters(
        n_fft=320,
        window_length=320,
        hop=160,
        window="hann-symmetric",
        n_mels=0,
        mel_scale="none",
        norm="none",
        log_floor=1e-14,
        normalisation="stored-mean-and-deviation",
        filters=filters_digest(np.zeros((0, 0))),
    )


FEATURES: Mapping[str, tuple[Features, Callable[[], FeatureParameters]]] = {
    "python_speech_features.mfcc": (mfcc, _mfcc_parameters),
    "log": (spectrogram, _spectrogram_parameters),
}
