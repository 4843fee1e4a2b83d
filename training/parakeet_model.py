"""The parakeet-nano architecture: the real Parakeet classes, one encoder under a CTC head and a TDT head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import (
    GenerationConfig,
    ParakeetCTCConfig,
    ParakeetEncoderConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetForTDT,
    ParakeetProcessor,
    ParakeetTDTConfig,
    PreTrainedModel,
)

from training.parakeet_tokens import BLANK, PAD, PIECES, ctc_tokenizer, tdt_tokenizer

MELS = 80
DURATIONS = (0, 1, 2, 3, 4)
CTC_BLANK = PIECES  # the padding
TDT_PAD, TDT_BLANK = PIECES, PIECES + 1
DURATION_OFFSET = -16.0
"""Added to every duration logit, which changes no probability: generate() takes the largest logit of tokens and
durations together as the next token, and a duration that led would be fed back as a token that does not exist."""
NORM_MOMENTUM = 0.02  # of the batch normalisation: smoother running statistics than torch's 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What differs between the sizes."""

    width: int = 144
    layers: int = 5
    feed_forward: int = 384
    channels: int = 48
    predictor_width: int = 80


SIZES = {
    "reference": Size(),
    "large": Size(layers=8, feed_forward=768),
    "student": Size(width=96, layers=4, feed_forward=240, channels=32, predictor_width=48),
}


class Hybrid(nn.Module):
    """A ParakeetForCTC and a ParakeetForTDT that share their encoder."""

    def __init__(self, size: Size, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.ctc = ParakeetForCTC(ctc_config(size))
        self.tdt = ParakeetForTDT(tdt_config(size))
        self.tdt.encoder = self.ctc.encoder
        self.tdt.generation_config = generation_config()
        initialise(self)
        with torch.no_grad():
            self.tdt.joint.head.bias[-len(DURATIONS) :] += DURATION_OFFSET

    def encode(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder states (clips, frames, width) and the number of frames of each clip."""
        encoded = self.ctc.encoder(features, attention_mask=mask)
        return encoded.last_hidden_state, encoded.attention_mask.sum(-1)

    def joint(self, states: Tensor, targets: Tensor) -> Tensor:
        """TDT logits (clips, frames, tokens + 1, tokens then durations)."""
        inputs = nn.functional.pad(targets, (1, 0), value=TDT_BLANK)
        predicted = self.tdt.decoder(inputs)[:, None]
        logits: Tensor = self.tdt.joint(predicted, self.tdt.encoder_projector(states)[:, :, None])
        return logits


def encoder_config(size: Size) -> ParakeetEncoderConfig:
    """FastConformer with eightfold subsampling."""
    return ParakeetEncoderConfig(
        hidden_size=size.width,
        num_hidden_layers=size.layers,
        num_attention_heads=4,
        intermediate_size=size.feed_forward,
        subsampling_conv_channels=size.channels,
        num_mel_bins=MELS,
        scale_input=False,
        dropout=0.0,
        layerdrop=0.0,
        activation_dropout=0.0,
        attention_dropout=0.0,
    )


def ctc_config(size: Size) -> ParakeetCTCConfig:
    """The last id is both blank and padding."""
    return ParakeetCTCConfig(vocab_size=PIECES + 1, pad_token_id=CTC_BLANK, encoder_config=encoder_config(size))


def tdt_config(size: Size) -> ParakeetTDTConfig:
    """One LSTM layer predicts; the last id is the blank."""
    return ParakeetTDTConfig(
        vocab_size=PIECES + 2,
        pad_token_id=TDT_PAD,
        blank_token_id=TDT_BLANK,
        durations=list(DURATIONS),
        decoder_hidden_size=size.predictor_width,
        num_decoder_layers=1,
        encoder_config=encoder_config(size),
    )


def generation_config() -> GenerationConfig:
    """What ParakeetForTDT.generate() asks for.

    It takes the largest of all logits as the next token: the durations behind the tokens must never be it. And only
    with an end token does it pad a clip that has ended before others of its batch: the padding, never emitted, is it.
    """
    durations = list(range(TDT_BLANK + 1, TDT_BLANK + 1 + len(DURATIONS)))
    return GenerationConfig(
        decoder_start_token_id=TDT_BLANK, pad_token_id=TDT_PAD, eos_token_id=TDT_PAD, suppress_tokens=durations
    )


def initialise(model: nn.Module) -> None:
    """Begin with torch's own initialisation and He's in the subsampling: the library's 0.02 hardly learns."""
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LSTM, nn.Embedding)):
            module.reset_parameters()
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = NORM_MOMENTUM


def export_ctc(hybrid: Hybrid, pieces: Tokenizer, folder: Path) -> None:
    """Save the CTC half and its processor."""
    processor = ParakeetProcessor(
        ParakeetFeatureExtractor(), ctc_tokenizer(pieces), blank_token=PAD, decoder_type="ctc"
    )
    _save(ParakeetForCTC(hybrid.ctc.config), hybrid.ctc, processor, folder)


def export_tdt(hybrid: Hybrid, pieces: Tokenizer, folder: Path) -> None:
    """Save the TDT half and its processor."""
    processor = ParakeetProcessor(
        ParakeetFeatureExtractor(), tdt_tokenizer(pieces), blank_token=BLANK, decoder_type="tdt"
    )
    half = ParakeetForTDT(hybrid.tdt.config)
    half.generation_config = generation_config()
    _save(half, hybrid.tdt, processor, folder)


def _save(half: PreTrainedModel, trained: PreTrainedModel, processor: ParakeetProcessor, folder: Path) -> None:
    half.load_state_dict(trained.state_dict())
    half.half().save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
