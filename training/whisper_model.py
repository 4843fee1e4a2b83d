"""The whisper-nano architecture: real Whisper classes, initialised so that attention begins local."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.models.whisper.modeling_whisper import WhisperEncoder, sinusoids

from training.corpus import SAMPLE_RATE_HZ
from training.whisper_tokens import LANGUAGES, WINDOW_S

HOP_SAMPLES = 400  # 25 ms; the encoder runs at 20 Hz
FFT_SAMPLES = 640
MELS = 80
HEAD_OFFSETS = (-3, -1, 1, 3)  # encoder frames that the four heads look at before training


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What differs between the reference and the student."""

    width: int = 144
    encoder_layers: int = 5
    encoder_feed_forward: int = 576
    decoder_layers: int = 2
    decoder_feed_forward: int = 432


SIZES = {
    "reference": Size(),
    "student": Size(width=96, encoder_layers=4, encoder_feed_forward=288, decoder_layers=1, decoder_feed_forward=288),
}


def feature_extractor() -> WhisperFeatureExtractor:
    """Whisper's features at 40 frames per second in a ten-second window."""
    return WhisperFeatureExtractor(
        feature_size=MELS,
        sampling_rate=SAMPLE_RATE_HZ,
        hop_length=HOP_SAMPLES,
        chunk_length=WINDOW_S,
        n_fft=FFT_SAMPLES,
    )


def model_config(tokenizer: WhisperTokenizer, size: Size) -> WhisperConfig:
    """About 2.1 million parameters (reference) or 0.7 (student)."""
    end = tokenizer.convert_tokens_to_ids("<|endoftext|>")
    return WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=MELS,
        d_model=size.width,
        encoder_layers=size.encoder_layers,
        encoder_attention_heads=4,
        encoder_ffn_dim=size.encoder_feed_forward,
        decoder_layers=size.decoder_layers,
        decoder_attention_heads=4,
        decoder_ffn_dim=size.decoder_feed_forward,
        max_source_positions=WINDOW_S * SAMPLE_RATE_HZ // HOP_SAMPLES // 2,
        max_target_positions=128,
        dropout=0.0,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=tokenizer.convert_tokens_to_ids("<|startoftranscript|>"),
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )


def generation_config(tokenizer: WhisperTokenizer, config: WhisperConfig) -> GenerationConfig:
    """Everything that Whisper's generate() asks for.

    Unlike OpenAI's, <|endoftext|> may come first: the model is trained to end at once on silence. So may the
    lone space, with which words begin that the few merges do not cover ("red", "voice"); a quote may not.
    """
    ids = tokenizer.convert_tokens_to_ids
    return GenerationConfig(
        decoder_start_token_id=config.decoder_start_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        no_timestamps_token_id=ids("<|notimestamps|>"),
        prev_sot_token_id=ids("<|startofprev|>"),
        is_multilingual=True,
        lang_to_id={f"<|{name}|>": ids(f"<|{name}|>") for name in LANGUAGES},
        task_to_id={name: ids(f"<|{name}|>") for name in ("transcribe", "translate")},
        suppress_tokens=[ids(f"<|{name}|>") for name in ("startoflm", "startofprev", "nospeech")],
        begin_suppress_tokens=[ids("'")],
        max_length=config.max_target_positions,
        max_initial_timestamp_index=50,
        return_timestamps=False,
        num_beams=1,
        do_sample=False,
    )


def build_model(
    tokenizer: WhisperTokenizer, seed: int, size: Size = SIZES["reference"]
) -> WhisperForConditionalGeneration:
    """A freshly initialised model with its generation config."""
    torch.manual_seed(seed)
    config = model_config(tokenizer, size)
    model = WhisperForConditionalGeneration(config)
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d)) and module is not model.proj_out:
            module.reset_parameters()
    encoder, decoder = model.model.encoder, model.model.decoder
    for conv in (encoder.conv1, encoder.conv2):
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    width = config.d_model**-0.5
    nn.init.normal_(decoder.embed_tokens.weight, std=width)
    decoder.embed_positions.weight.data.copy_(width * sinusoids(config.max_target_positions, config.d_model))
    localise_attention(encoder)
    model.generation_config = generation_config(tokenizer, config)
    return model


def localise_attention(encoder: PreTrainedModel, strength: float = 1.6) -> None:
    """Let every encoder head begin by looking at one relative position.

    With sinusoidal positions p(t), the product of p(t) with p(s) turned by d frames is largest at s = t + d.
    A head's query and key matrices therefore begin as a selection of fast sinusoids and its rotation.
    """
    width, heads = encoder.config.d_model, encoder.config.encoder_attention_heads
    pairs = width // heads // 2
    rates = torch.exp(-math.log(10_000) / (width // 2 - 1) * torch.arange(width // 2))
    chosen = torch.arange(pairs) * (width // 5) // pairs  # rates from 1 to about 0.03 per frame
    for layer in encoder.layers:
        query, key = layer.self_attn.q_proj.weight.data, layer.self_attn.k_proj.weight.data
        query.mul_(0.3)
        key.mul_(0.3)
        for head in range(heads):
            turn = rates[chosen] * HEAD_OFFSETS[head % len(HEAD_OFFSETS)]
            sine_row = head * 2 * pairs + torch.arange(pairs)
            cosine_row, sine, cosine = sine_row + pairs, chosen, chosen + width // 2
            query[sine_row, sine] += strength
            query[cosine_row, cosine] += strength
            # p(s - d): sin(a - b) = sin a cos b - cos a sin b, and so on
            key[sine_row, sine] += strength * turn.cos()
            key[sine_row, cosine] -= strength * turn.sin()
            key[cosine_row, cosine] += strength * turn.cos()
            key[cosine_row, sine] += strength * turn.sin()


class LogMel(nn.Module):
    """Whisper's log-mel features of a batch of waveforms (clips, samples), in torch."""

    filters: Tensor
    window: Tensor

    def __init__(self) -> None:
        super().__init__()
        extractor = feature_extractor()
        filters = torch.from_numpy(extractor.mel_filters).float().T.contiguous()
        self.register_buffer("filters", filters, persistent=False)
        self.register_buffer("window", torch.hann_window(FFT_SAMPLES), persistent=False)

    def forward(self, waves: Tensor) -> Tensor:
        """Features (clips, mels, samples / hop)."""
        stft = torch.stft(waves, FFT_SAMPLES, HOP_SAMPLES, window=self.window, return_complex=True)
        power = stft[..., :-1].abs().square()
        log = (self.filters @ power).clamp(min=1e-10).log10()
        log = torch.maximum(log, log.amax(dim=(1, 2), keepdim=True) - 8.0)
        return (log + 4.0) / 4.0


def encode_window(encoder: WhisperEncoder, features: Tensor) -> Tensor:
    """Encoder states for a window of any even number of frames, up to the class's own length."""
    hidden = functional.gelu(encoder.conv1(features))
    hidden = functional.gelu(encoder.conv2(hidden)).transpose(1, 2)
    hidden = hidden + encoder.embed_positions.weight[: hidden.shape[1]]
    for layer in encoder.layers:
        hidden = layer(hidden, None)
    states: Tensor = encoder.layer_norm(hidden)
    return states


def export(model: WhisperForConditionalGeneration, tokenizer: WhisperTokenizer, folder: Path) -> None:
    """Save model (fp16), generation config and processor; no path of this machine is written."""
    half = WhisperForConditionalGeneration(model.config)
    half.load_state_dict(model.state_dict())
    half.generation_config = generation_config(tokenizer, model.config)
    half.half().save_pretrained(folder)
    processor = WhisperProcessor(feature_extractor=feature_extractor(), tokenizer=tokenizer)
    processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
