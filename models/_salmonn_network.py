"""The network of SALMONN: two encoders side by side, a Q-Former over short windows of both, a language model with LoRA.

Source: Tang et al., SALMONN: Towards Generic Hearing Abilities for Large Language Models (2023), arXiv 2310.13289,
section 3.1, and its code (bytedance/SALMONN), whose names of weights are kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from earmark.errors import ModelError

QUERIES = "speech_query_tokens"
WHISPER_SECONDS = 30.0
QFORMER = "speech_Qformer.bert."
LORA = re.compile(r"llama_model\.base_model\.model\.(?P<place>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
NO_WEIGHTS = (".rotary_emb.inv_freq", ".embeddings.position_ids")
"""Constants that older libraries stored beside the weights."""


class Lora(nn.Module):
    """A linear layer and an addition of low rank: y = W x + scale B A x.

    Args:
        base: The layer.
        down: A, (rank, inputs).
        up: B, (outputs, rank).
        alpha: Scale times rank.

    Source: Hu et al., LoRA (2021), arXiv 2106.09685, section 4.1.
    """

    def __init__(self, base: nn.Linear, down: Tensor, up: Tensor, alpha: float) -> None:
        super().__init__()
        rank = len(down)
        if down.shape != (rank, base.in_features) or up.shape != (base.out_features, rank):
            found = f"LoRA of shapes {tuple(down.shape)} and {tuple(up.shape)}"
            raise ModelError(f"{found}; the layer maps {base.in_features} to {base.out_features}")
        self.base_layer, self.scale = base, alpha / rank
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)
        self.lora_A.weight, self.lora_B.weight = (nn.Parameter(part.float()) for part in (down, up))

    def forward(self, states: Tensor) -> Tensor:
        """Return the sum of both ways."""
        result: Tensor = self.base_layer(states) + self.lora_B(self.lora_A(states)) * self.scale
        return result


class SalmonnNetwork(nn.Module):
    """All parts of one checkpoint.

    Args:
        whisper: Encoder of Whisper.
        beats: BEATs.
        qformer: `Blip2QFormerModel`.
        llama: `LlamaForCausalLM`.
        queries: Embeddings that each window gives.
        window_s: Length of a window.
        stride_s: From one window to the next.
    """

    def __init__(
        self, whisper: Any, beats: Any, qformer: Any, llama: Any, *, queries: int, window_s: float, stride_s: float
    ) -> None:
        super().__init__()
        self.speech_encoder, self.beats, self.speech_Qformer, self.llama_model = whisper, beats, qformer, llama
        self.ln_speech = nn.LayerNorm(whisper.config.d_model)
        self.ln_audio = nn.LayerNorm(beats.config.encoder_embed_dim)
        self.speech_query_tokens = nn.Parameter(torch.zeros(1, queries, qformer.config.hidden_size))
        self.speech_llama_proj = nn.Linear(qformer.config.hidden_size, llama.config.hidden_size)
        self.positions = int(whisper.config.max_source_positions)
        self.window, self.stride = (round(self.positions * s / WHISPER_SECONDS) for s in (window_s, stride_s))
        if not 0 < self.stride <= self.window <= self.positions:
            raise ModelError(f"windows of {window_s:g} s every {stride_s:g} s do not fit {self.positions} positions")

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.speech_query_tokens.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in."""
        return self.speech_query_tokens.dtype

    @property
    def audio_tokens(self) -> int:
        """Embeddings that every piece gives: Whisper pads it to 30 s, and positions behind the last window are left."""
        windows = (self.positions - self.window) // self.stride + 1
        return windows * self.speech_query_tokens.shape[1]

    def get_input_embeddings(self) -> Any:
        """Return the embeddings of tokens."""
        return self.llama_model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """Return the head."""
        return self.llama_model.get_output_embeddings()

    def embed(self, spectrograms: Tensor, banks: Sequence[Tensor]) -> Tensor:
        """Return the embeddings of audio.

        Args:
            spectrograms: Of Whisper, (batch, bands, frames).
            banks: BEATs' features of each piece, (frames, 128); run one by one, since the biases of attention of a
                piece of 30 s take 100 MB in each layer.

        Returns:
            Embeddings, (batch, audio_tokens, width).
        """
        speech = self.ln_speech(self.speech_encoder(spectrograms).last_hidden_state)
        heard = [self.ln_audio(self.beats(bank[None])[0]) for bank in banks]
        # behind the audio there is nothing; Whisper's positions are as long as BEATs' and always more
        sound = pad_sequence([*heard, speech.new_zeros(speech.shape[1], heard[0].shape[1])], batch_first=True)[:-1]
        both = torch.cat([speech, sound], dim=-1)
        windows = both.unfold(1, self.window, self.stride).transpose(-1, -2).flatten(0, 1)
        queries = self.speech_query_tokens.expand(len(windows), -1, -1)
        found = self.speech_Qformer(query_embeds=queries, encoder_hidden_states=windows).last_hidden_state
        result: Tensor = self.speech_llama_proj(found).reshape(len(both), self.audio_tokens, -1)
        return result


def split_weights(state: Mapping[str, Tensor], what: str) -> tuple[dict[str, Tensor], dict[str, dict[str, Tensor]]]:
    """Return a checkpoint's own weights by the names of `SalmonnNetwork`, and the sides of each LoRA by its place.

    Args:
        state: Its `model`.
        what: How messages call it.

    Raises:
        ModelError: It holds something else, or lacks LoRA or a side of it.
    """
    own: dict[str, Tensor] = {}
    lora: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        if found := LORA.fullmatch(name):
            lora.setdefault(found["place"], {})[found["side"]] = tensor
        elif not name.endswith(NO_WEIGHTS):
            own[_renamed(name)] = tensor
    if not lora or any(len(sides) != 2 for sides in lora.values()):
        raise ModelError(f"{what} lacks LoRA weights, or one side of them; expected lora_A and lora_B of each layer")
    return own, lora


def _renamed(name: str) -> str:
    """Return the name that transformers has for a weight of the Q-Former.

    Example:
        >>> _renamed("speech_Qformer.bert.encoder.layer.0.crossattention.self.key.bias")
        'speech_Qformer.encoder.layer.0.crossattention.attention.key.bias'
    """
    if not name.startswith(QFORMER):
        return name
    inner = name.removeprefix(QFORMER).replace("attention.self.", "attention.attention.")
    return "speech_Qformer." + inner.replace("embeddings.LayerNorm.", "layernorm.")


def qformer_config(own: Mapping[str, Tensor], heads: int, what: str) -> Any:
    """Return the configuration of a Q-Former that follows from its weights.

    Args:
        own: Weights by the names of `SalmonnNetwork`.
        heads: Heads of its attention, which the weights do not show.
        what: How messages call it.

    Raises:
        ModelError: There is no Q-Former among the weights.
    """
    from transformers import Blip2QFormerConfig

    first = "speech_Qformer.encoder.layer.0."
    cross = re.compile(
        r"speech_Qformer\.encoder\.layer\.(\d+)\.(crossattention\.)?attention\.(attention\.)?key\.weight"
    )
    found = [match for name in own if (match := cross.fullmatch(name))]
    key, inner = (
        own.get(first + end) for end in ("crossattention.attention.key.weight", "intermediate_query.dense.weight")
    )
    if key is None or inner is None or key.ndim != 2 or key.shape[0] % heads:
        raise ModelError(f"{what} holds no Q-Former of {heads} heads with cross attention in its first layer")
    crossing = sorted(int(match[1]) for match in found if match[2])
    return Blip2QFormerConfig(
        hidden_size=key.shape[0],
        encoder_hidden_size=key.shape[1],
        intermediate_size=inner.shape[0],
        num_hidden_layers=1 + max(int(match[1]) for match in found),
        num_attention_heads=heads,
        cross_attention_frequency=crossing[1] if len(crossing) > 1 else 1 << 16,
    )


def fill(
    network: SalmonnNetwork,
    own: Mapping[str, Tensor],
    lora: Mapping[str, Mapping[str, Tensor]],
    *,
    alpha: float,
    what: str,
) -> None:
    """Put a checkpoint's weights in their places.

    Args:
        network: With weights of Whisper, BEATs and the language model.
        own: Weights by the names of `SalmonnNetwork`.
        lora: Sides by place, from `split_weights`.
        alpha: Scale of the LoRA times its rank.
        what: How messages call the checkpoint.

    Raises:
        ModelError: A weight is missing, left over, or of another shape.
    """
    elsewhere = ("speech_encoder.", "beats.", "llama_model.")
    try:
        missing, extra = network.load_state_dict(dict(own), strict=False)
    except RuntimeError as error:
        raise ModelError(f"{what} does not fit the other parts: {' '.join(str(error).split())[:300]}") from error
    wrong = [name for name in missing if not name.startswith(elsewhere)]
    wrong += [*extra, *(name for name in own if name.startswith(elsewhere))]
    if wrong:
        raise ModelError(f"{what} lacks {len(wrong)} weights of SALMONN or has others, first {wrong[0]}")
    for place, sides in lora.items():
        parent, _, name = place.rpartition(".")
        try:
            holder = network.llama_model.get_submodule(parent)
            base = holder.get_submodule(name)
        except AttributeError as error:
            raise ModelError(f"{what} has LoRA at {place}, which the language model lacks") from error
        if not isinstance(base, nn.Linear):
            raise ModelError(f"{what} has LoRA at {place}, which is no linear layer")
        setattr(holder, name, Lora(base, sides["A"], sides["B"], alpha))
