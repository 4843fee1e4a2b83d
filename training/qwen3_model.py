"""The qwen3-asr-nano architecture: the real Qwen3-ASR classes, and a forward pass for training without their padding.

The encoder sees one second at a time: its three convolutions and its attention (`n_window_infer` of one chunk) end at
the second, so a batch is a batch of seconds. What crosses a second is left to the language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2Tokenizer, Qwen3ASRConfig, Qwen3ASRForConditionalGeneration
from transformers.models.qwen3_asr.modeling_qwen3_asr import Qwen3ASREncoder

from training.qwen3_tokens import generation_config, make_config, make_processor
from training.whisper_model import localise_attention

MELS = 80
CHUNK_FRAMES = 100  # mel frames of a second
CHUNK_POSITIONS = 13
POSITIONS = 640  # of the language model: ten seconds of sound, a prompt and the transcript

Rows = list[list[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What differs between the reference and the student; `listening` layers of the language model learn CTC."""

    encoder_width: int = 128
    encoder_layers: int = 4
    encoder_feed_forward: int = 512
    channels: int = 32
    width: int = 160
    layers: int = 4
    feed_forward: int = 448
    listening: int = 2


SIZES = {
    "reference": Size(),
    "student": Size(
        encoder_width=96,
        encoder_layers=3,
        encoder_feed_forward=288,
        channels=24,
        width=96,
        layers=3,
        feed_forward=256,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Chats:
    """A batch of conversations that are trained on.

    Attributes:
        features: of each clip (clips, mels, frames).
        frames: how many of them are the clip's (clips).
        before: ids before the audio, of each clip.
        after: ids after it; they end with the answer.
        answers: length of each answer.
    """

    features: Tensor
    frames: Tensor
    before: Rows
    after: Rows
    answers: list[int]

    def wanted(self) -> Tensor:
        """Every id of every answer."""
        ids = [token for row, size in zip(self.after, self.answers, strict=True) for token in row[-size:]]
        return torch.tensor(ids, device=self.features.device)

    def places(self, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Row and position of the state that foretells each of these ids, given the positions of the audio."""
        rows, places = [], []
        for row, (first, length, last, size) in enumerate(
            zip(self.before, lengths.tolist(), self.after, self.answers, strict=True)
        ):
            end = len(first) + length + len(last)
            places += range(end - size - 1, end - 1)
            rows += [row] * size
        return torch.tensor(rows), torch.tensor(places)


class Network(nn.Module):
    """The model and, for training only, two CTC heads that share its word embeddings.

    The first reads the audio's embeddings, so that the sound of a word comes to lie where the word itself lies and the
    language model needs only copy; the second reads the audio's positions after the first layers of the language model,
    which have seen what came before the second at hand.
    """

    def __init__(self, tokenizer: Qwen2Tokenizer, size: Size, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.size = size
        self.qwen = Qwen3ASRForConditionalGeneration(model_config(tokenizer, size))
        initialise(self.qwen, size)
        self.blanks = nn.Parameter(torch.randn(2, size.width) * size.width**-0.5)
        self.scales = nn.Parameter(torch.ones(2))

    def hear(self, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Embeddings (clips, positions, width) of features (clips, mels, frames), and positions of each clip."""
        audio, lengths = encode_seconds(self.qwen.model.audio_tower, features, frames)
        rows = self.qwen.model.multi_modal_projector(audio).split(lengths.tolist())
        return pad_sequence(list(rows), batch_first=True), lengths

    def listen(self, chats: Chats) -> tuple[Tensor, Tensor, Tensor]:
        """Embeddings of the audio, its positions, and the states (clips, positions, width) of the listening layers."""
        audio, lengths = self.hear(chats.features, chats.frames)
        embeddings = splice(self.qwen.get_input_embeddings(), audio, lengths, chats.before, chats.after)
        return audio, lengths, self.read(embeddings, last=self.size.listening)

    def answer(self, chats: Chats, lengths: Tensor, listened: Tensor) -> Tensor:
        """Logits (ids, words) for `chats.wanted()`."""
        states = self.read(listened, first=self.size.listening)
        logits: Tensor = self.qwen.lm_head(states[chats.places(lengths)])
        return logits

    def ctc_scores(self, states: Tensor, head: int) -> Tensor:
        """Log-probabilities (positions, clips, 1 + words) of states (clips, positions, width); blank is 0."""
        words = self.qwen.get_input_embeddings().weight
        classes = torch.cat([self.blanks[head : head + 1], words])
        direction = functional.rms_norm(states, states.shape[-1:]) * self.scales[head]
        return (direction @ classes.T).log_softmax(-1).transpose(0, 1)

    def read(self, states: Tensor, first: int = 0, last: int | None = None) -> Tensor:
        """States (clips, positions, width) behind layers first to last - 1; behind all of them, normalised."""
        model = self.qwen.model.language_model
        rotary = model.rotary_emb(states, torch.arange(states.shape[1], device=states.device)[None])
        for layer in model.layers[first:last]:
            states = layer(states, position_embeddings=rotary, attention_mask=None)
        return states if last else model.norm(states)


def encode_seconds(encoder: Qwen3ASREncoder, features: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
    """Encoder states (all positions, width), clip after clip, and the positions of each clip.

    The same numbers as the class's own forward pass, which loops over the seconds; here they are one batch.
    """
    clips, mels, size = features.shape
    seconds = features.view(clips, mels, size // CHUNK_FRAMES, CHUNK_FRAMES).transpose(1, 2).flatten(0, 1)
    inside = (frames[:, None] - torch.arange(0, size, CHUNK_FRAMES, device=frames.device)).clamp(0, CHUNK_FRAMES)
    positions = (inside + 7) // 8
    kept = inside.flatten() > 0
    hidden = seconds[kept, None]
    for conv in (encoder.conv2d1, encoder.conv2d2, encoder.conv2d3):
        hidden = functional.gelu(conv(hidden))
    hidden = encoder.conv_out(hidden.permute(0, 3, 1, 2).flatten(2))
    hidden = hidden + encoder.positional_embedding.positional_embedding
    real = torch.arange(CHUNK_POSITIONS, device=frames.device) < positions.flatten()[kept, None]
    for layer in encoder.layers:
        hidden = hidden + attend(layer.self_attn, layer.self_attn_layer_norm(hidden), real)
        hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(hidden))))
    return encoder.ln_post(hidden[real]), positions.sum(1)


def attend(attention: nn.Module, hidden: Tensor, real: Tensor) -> Tensor:
    """Attention within each row of hidden (rows, positions, width), over the real positions alone."""
    rows, positions, _ = hidden.shape
    query, key, value = (
        project(hidden).view(rows, positions, attention.num_heads, -1).transpose(1, 2)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=real[:, None, None])
    out: Tensor = attention.out_proj(mixed.transpose(1, 2).flatten(2))
    return out


def model_config(tokenizer: Qwen2Tokenizer, size: Size) -> Qwen3ASRConfig:
    """About 2.2 million parameters (reference) or 0.8 (student)."""
    audio = {
        "num_mel_bins": MELS,
        "encoder_layers": size.encoder_layers,
        "encoder_attention_heads": 4,
        "encoder_ffn_dim": size.encoder_feed_forward,
        "d_model": size.encoder_width,
        "downsample_hidden_size": size.channels,
        "n_window_infer": CHUNK_FRAMES,
    }
    text = {
        "hidden_size": size.width,
        "intermediate_size": size.feed_forward,
        "num_hidden_layers": size.layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": size.width // 4,
        "max_position_embeddings": POSITIONS,
    }
    return make_config(tokenizer, audio=audio, text=text)


def initialise(model: Qwen3ASRForConditionalGeneration, size: Size) -> None:
    """Initialise as torch does, He's initialisation in the convolutions and local attention in the encoder."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)) and module is not model.lm_head:
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    nn.init.normal_(model.get_input_embeddings().weight, std=size.width**-0.5)
    localise_attention(model.model.audio_tower)


def splice(words: nn.Module, audio: Tensor, lengths: Tensor, before: Rows, after: Rows) -> Tensor:
    """Embeddings (clips, positions, width), padded on the right: the ids before the audio, the audio, the ids after."""
    device = audio.device
    rows = [
        torch.cat([words(torch.tensor(first, device=device)), row[:length], words(torch.tensor(last, device=device))])
        for row, length, first, last in zip(audio, lengths.tolist(), before, after, strict=True)
    ]
    return pad_sequence(rows, batch_first=True)


def export(network: Network, tokenizer: Qwen2Tokenizer, folder: Path) -> None:
    """Save model (fp16), generation config and processor; no path of this machine is written."""
    half = Qwen3ASRForConditionalGeneration(network.qwen.config)
    half.load_state_dict(network.qwen.state_dict())
    half.generation_config = generation_config(tokenizer)
    half.half().save_pretrained(folder)
    make_processor(tokenizer, MELS).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
