"""Parakeet's networks behind the interfaces of the ctc and transducer families, whatever format they came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.greedy import Memory, greedy_steps
from earmark.lattice import AdditiveJoint, ChunkedJoint
from earmark.models._bands import deviation_by
from earmark.models._transformers import TransformersModel, waveforms
from earmark.protocols import ModelInfo, Step, Strategy

if TYPE_CHECKING:
    import torch

WINDOW_SAMPLES = 40 * 16_000
"""Longest piece at once: attention costs memory in proportion to its square, and the checkpoints take any length."""


class Text(Protocol):
    """What turns ids into words."""

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of ids without special tokens."""

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text."""

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id, -1 for special tokens."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch after the encoder: states (batch, frames, width), and the frames of each row without padding."""

    states: torch.Tensor
    lengths: list[int]


class Parakeet(TransformersModel):
    """What Parakeet's kinds share.

    Args:
        info: Facts about it.
        module: `ParakeetForCTC`, `ParakeetForRNNT` or `ParakeetForTDT`.
        extractor: Its `ParakeetFeatureExtractor`.
        text: Turns ids into words.
    """

    def __init__(self, info: ModelInfo, module: Any, extractor: Any, text: Text) -> None:
        """Keep the parts."""
        super().__init__(info, module)
        self.extractor, self.text = extractor, text

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of a transcript."""
        return self.text.detokenise(ids)

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of a text."""
        return self.text.tokenise(text)

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id."""
        return self.text.word_index(ids)

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the layers of the FastConformer."""
        return list(self.module.encoder.layers)

    def encoder_positions(self, samples: int) -> int:
        """Return the frames after subsampling, counted as the network itself counts them."""
        import torch

        extractor = self.extractor
        mels = (samples + extractor.n_fft // 2 * 2 - extractor.n_fft) // extractor.hop_length
        return int(self.module.encoder._get_subsampling_output_length(torch.tensor([mels]))[0])  # noqa: SLF001

    def least_deviation(self, samples: NDArray[np.int16]) -> float:
        """Return by how much the band that varies least does, before it is normalised."""
        return deviation_by(self.extractor, samples)

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> Encoded:
        """Return the encoder's states, padding masked."""
        features = self.extractor(waveforms(samples), sampling_rate=16_000)
        device = self.module.device
        output = self.module.encoder(
            features.input_features.to(device, self.module.dtype), attention_mask=features.attention_mask.to(device)
        )
        return Encoded(output.last_hidden_state, output.attention_mask.sum(-1).tolist())

    def lengths(self, encoded: Encoded) -> list[int]:
        """Return the frames of each row."""
        return encoded.lengths


class ParakeetCtc(Parakeet):
    """A Parakeet CTC checkpoint behind the interface of the ctc family."""

    @cached_property
    def blank_id(self) -> int:
        """The blank, which transformers calls padding."""
        return int(self.module.config.pad_token_id)

    def logits(self, encoded: Encoded) -> torch.Tensor:
        """Return logits (batch, frames, vocab)."""
        logits: torch.Tensor = self.module.ctc_head(encoded.states)
        return logits


class ParakeetTransducer(Parakeet):
    """A Parakeet RNN-T or TDT checkpoint behind the interface of the transducer family."""

    strategy: ClassVar[Strategy] = "ar"
    big_blanks: ClassVar[Mapping[int, int]] = {}

    @cached_property
    def blank_id(self) -> int:
        """The blank."""
        return int(self.module.config.blank_token_id)

    @cached_property
    def durations(self) -> tuple[int, ...]:
        """The durations of a TDT checkpoint, none of RNN-T."""
        return tuple(getattr(self.module.config, "durations", ()))

    @cached_property
    def max_symbols(self) -> int:
        """The limit of tokens per frame; transformers has none when it decodes TDT."""
        return 0 if self.durations else int(self.module.max_symbols_per_step)

    def frames(self, encoded: Encoded, row: int) -> torch.Tensor:
        """Return projected encoder states (frames, width)."""
        states: torch.Tensor = self.module.encoder_projector(encoded.states[row, : encoded.lengths[row]])
        return states

    def predict(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return projected states of the prediction network (batch, tokens + 1, width); the blank begins."""
        import torch

        fed = torch.full((len(ids), 1 + max(map(len, ids))), self.blank_id)
        for row, sequence in enumerate(ids):
            fed[row, 1 : 1 + len(sequence)] = torch.as_tensor(sequence)
        states: torch.Tensor = self.module.decoder(fed.to(self.module.device))
        return states

    def joint(self, frames: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Return logits of tokens, then of durations."""
        logits: torch.Tensor = self.module.joint(decoder_hidden_states=states, encoder_hidden_states=frames)
        return logits

    def lattice_joint(self, frames: torch.Tensor, states: torch.Tensor) -> AdditiveJoint | ChunkedJoint:
        """Return the joint over all pairs of frames and states."""
        head, activation = self.module.joint.head, self.module.config.hidden_act
        if activation in ("relu", "tanh"):
            return AdditiveJoint(
                encoder=frames, predictor=states, weight=head.weight, bias=head.bias, activation=activation
            )
        shape = (len(frames), frames.shape[1], states.shape[1], head.out_features)
        return ChunkedJoint(
            function=lambda start, stop: self.joint(frames[:, start:stop, None], states[:, None]), shape=shape
        )

    def greedy(self, encoded: Encoded) -> list[list[Step]]:
        """Decode as the library's `generate` does, without running the encoder again."""
        return greedy_steps(
            [self.frames(encoded, row) for row in range(len(encoded.lengths))],
            predictor=self._predictor,
            joint=self.joint,
            blank=self.blank_id,
            durations=self.durations,
            max_symbols=self.max_symbols,
        )

    def _predictor(self, tokens: torch.Tensor, memory: Memory | None) -> tuple[torch.Tensor, Memory]:
        """Take one step of the LSTM; its memory has layers first, ours rows."""
        decoder = self.module.decoder
        before = None if memory is None else tuple(part.transpose(0, 1).contiguous() for part in memory)
        output, after = decoder.lstm(decoder.embedding(tokens[:, None]), before)
        return decoder.decoder_projector(output)[:, 0], tuple(part.transpose(0, 1) for part in after)
