"""BEATs, an encoder of any sound: Kaldi's filter bank in square patches, and a transformer over them.

Names of weights are those of the published checkpoints. Only what these use is here: normalisation behind each sum,
GELU, relative positions with gates.

Source: Chen et al., BEATs: Audio Pre-Training with Acoustic Tokenizers (2022), arXiv 2212.09058, and its code
(microsoft/unilm, beats); Chi et al., XLM-E (2022), arXiv 2106.16138, appendix A, for the gates; Wang et al., DeepNet
(2022), arXiv 2203.00555, for the weight of the residual.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from earmark.errors import ModelError
from earmark.models import _kaldi
from earmark.models._torch_file import named_tensors

N_MELS = 128
MEAN, DEVIATION = 15.41663, 6.55582
"""Of the filter bank over AudioSet, from the published code; features are divided by twice the deviation."""
UNUSED = re.compile(r"predictor\..*|encoder\.layers\.[1-9]\d*\.self_attn\.relative_attention_bias\.weight")
"""The classifier of fine-tuned checkpoints, and copies of the first layer's table, which all layers use."""

Size = Annotated[int, msgspec.Meta(ge=1, le=1 << 16)]


class BeatsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The `cfg` of a checkpoint, as far as it decides what is computed; defaults are those of the published code."""

    input_patch_size: Size
    embed_dim: Size = 512
    conv_bias: bool = False
    encoder_layers: Size = 12
    encoder_embed_dim: Size = 768
    encoder_ffn_embed_dim: Size = 3072
    encoder_attention_heads: Size = 12
    activation_fn: str = "gelu"
    layer_norm_first: bool = False
    deep_norm: bool = False
    conv_pos: Size = 128
    conv_pos_groups: Size = 16
    relative_position_embedding: bool = False
    num_buckets: Size = 320
    max_distance: Size = 1280
    gru_rel_pos: bool = False


def features(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """Return normalised log-mel energies.

    Args:
        samples: Canonical samples, (n,), n >= 400.

    Returns:
        Features, (frames, 128), 100 frames per second.

    Example:
        >>> features(np.zeros(16_000, np.int16)).shape
        (98, 128)
    """
    bank = _kaldi.fbank(samples.astype(np.float64), n_mels=N_MELS, high_hz=_kaldi.RATE_HZ / 2, snip_edges=True)
    result: NDArray[np.float32] = (bank - np.float32(MEAN)) / np.float32(2 * DEVIATION)
    return result


class Beats(nn.Module):
    """The encoder.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        self.config, size, width = config, config.input_patch_size, config.encoder_embed_dim
        self.patch_embedding = nn.Conv2d(1, config.embed_dim, size, size, bias=config.conv_bias)
        self.layer_norm = nn.LayerNorm(config.embed_dim)
        same = config.embed_dim == width
        self.post_extract_proj = nn.Identity() if same else nn.Linear(config.embed_dim, width)
        self.encoder = _Encoder(config)

    def forward(self, banks: Tensor) -> Tensor:
        """Return states (batch, positions, width) of features (batch, frames, 128); patches of one time stand together.

        Frames behind the last whole patch are not heard.
        """
        patches = self.patch_embedding(banks[:, None]).flatten(2).transpose(1, 2)
        states: Tensor = self.encoder(self.post_extract_proj(self.layer_norm(patches)))
        return states


class _Encoder(nn.Module):
    def __init__(self, config: BeatsConfig) -> None:
        super().__init__()
        width, kernel = config.encoder_embed_dim, config.conv_pos
        self.pos_conv = nn.Sequential(
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=config.conv_pos_groups)
        )
        self.layer_norm = nn.LayerNorm(width)
        self.layers = nn.ModuleList(_Layer(config, first=number == 0) for number in range(config.encoder_layers))

    def forward(self, states: Tensor) -> Tensor:
        length = states.shape[1]
        # an even kernel gives one position too many
        around = functional.gelu(self.pos_conv(states.transpose(1, 2))[..., :length])
        states = self.layer_norm(states + around.transpose(1, 2))
        first: Any = self.layers[0]
        bias = first.self_attn.bias(length)
        for layer in self.layers:
            states = layer(states, bias)
        return states


class _Layer(nn.Module):
    def __init__(self, config: BeatsConfig, *, first: bool) -> None:
        super().__init__()
        width = config.encoder_embed_dim
        self.self_attn = _Attention(config, first=first)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, config.encoder_ffn_embed_dim)
        self.fc2 = nn.Linear(config.encoder_ffn_embed_dim, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self.weight = (2 * config.encoder_layers) ** 0.25 if config.deep_norm else 1.0

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        states = self.self_attn_layer_norm(states * self.weight + self.self_attn(states, bias))
        inner = self.fc2(functional.gelu(self.fc1(states)))
        result: Tensor = self.final_layer_norm(states * self.weight + inner)
        return result


class _Attention(nn.Module):
    """Attention whose bias depends on the distance, times a gate that each query opens."""

    def __init__(self, config: BeatsConfig, *, first: bool) -> None:
        super().__init__()
        width, self.heads = config.encoder_embed_dim, config.encoder_attention_heads
        self.buckets, self.distance = config.num_buckets, config.max_distance
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(width, width) for _ in range(4))
        self.grep_linear = nn.Linear(width // self.heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, self.heads, 1, 1))
        if first:
            self.relative_attention_bias = nn.Embedding(self.buckets, self.heads)

    def bias(self, length: int) -> Tensor:
        """Return the bias (heads, queries, keys) before the gates."""
        weight = self.relative_attention_bias.weight
        at = torch.arange(length, device=weight.device)
        return weight[buckets_of(at - at[:, None], self.buckets, self.distance)].permute(2, 0, 1)

    def forward(self, states: Tensor, bias: Tensor) -> Tensor:
        query, key, value = (
            part(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        opened = torch.sigmoid(self.grep_linear(query).unflatten(-1, (2, 4)).sum(-1))
        update, reset = opened.chunk(2, dim=-1)
        gate = update * (reset * self.grep_a - 1.0) + 2.0
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=gate * bias)
        result: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return result


def buckets_of(distances: Tensor, count: int, longest: int) -> Tensor:
    """Return the bucket of each signed distance: one each for short ones, logarithmic beyond.

    Args:
        distances: Position of the key less that of the query.
        count: Buckets of both directions together.
        longest: Distance from which on all share the last bucket.

    Example:
        >>> buckets_of(torch.tensor([-900, -1, 0, 1, 79, 80, 81, 900]), 320, 800).tolist()
        [159, 1, 0, 161, 239, 240, 240, 319]

    Source: Raffel et al., T5 (2020), arXiv 1910.10683, section 2.1, and its code.
    """
    half = count // 2
    exact = half // 2
    far = distances.abs()
    scaled = torch.log(far.clamp(min=exact).float() / exact) / math.log(longest / exact) * (half - exact)
    large = (exact + scaled.to(torch.long)).clamp(max=half - 1)
    return torch.where(far < exact, far, large) + (distances > 0) * half


def read_beats(found: Any, what: str) -> tuple[Beats, dict[str, Tensor]]:
    """Return the encoder of a checkpoint, and the weights of it that are used.

    Args:
        found: What the file holds: `cfg` and `model`.
        what: How messages call it.

    Raises:
        ModelError: It is no checkpoint of BEATs, or of another kind than those published.
    """
    if not isinstance(found, Mapping) or not {"cfg", "model"} <= set(found):
        raise ModelError(f"{what} is no checkpoint of BEATs: expected `cfg` and `model` in it")
    try:
        config = msgspec.convert(found["cfg"], BeatsConfig)
    except msgspec.ValidationError as error:
        raise ModelError(f"{what}: its cfg is none of BEATs: {error}") from error
    kind = (config.activation_fn, config.layer_norm_first, config.relative_position_embedding, config.gru_rel_pos)
    if kind != ("gelu", False, True, True):
        raise ModelError(f"{what} is of another kind than the published BEATs; its cfg is {config}")
    used = {name: t for name, t in named_tensors(found["model"], what).items() if not UNUSED.fullmatch(name)}
    network = Beats(config)
    try:
        network.load_state_dict(_without_weight_norm(used))
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{what} holds other weights than its cfg says: {reason}") from error
    return network, used


def _without_weight_norm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights with that of the convolution multiplied out: its direction times its size per tap."""
    name = "encoder.pos_conv.0.weight"
    parts = dict(state)
    direction, size = parts.pop(f"{name}_v").float(), parts.pop(f"{name}_g").float()
    return {**parts, name: direction * (size / direction.norm(dim=(0, 1), keepdim=True))}
