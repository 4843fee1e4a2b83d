"""Canary's networks behind the interface of the autoregressive family, whatever format they came in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.models import _transformers as shared
from earmark.models._bands import deviation_by
from earmark.protocols import ModelInfo
from earmark.records.request import Request

if TYPE_CHECKING:
    import torch

WINDOW_SAMPLES = 40 * 16_000
"""The longest piece that the published checkpoints were trained on."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A batch after the encoder: states (batch, positions, width) and their mask (batch, positions)."""

    states: torch.Tensor
    mask: torch.Tensor


class Text(Protocol):
    """What turns ids into words and requests into prompts."""

    end_id: int

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of emitted ids without special tokens."""

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text."""

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id, -1 for special tokens."""

    def prompt_ids(self, source: str, target: str) -> tuple[int, ...]:
        """Return the prompt for speech in one language and text in another or the same.

        Raises:
            ValueError: There is no such language.
        """


class Canary(shared.WithoutRules):
    """What Canary's engines share.

    Args:
        info: Facts about it.
        module: The network.
        extractor: What makes its features.
        text: Its tokenizer and prompts.
        positions: Tokens that the decoder has positions for, the prompt's among them.
    """

    def __init__(self, info: ModelInfo, module: Any, extractor: Any, text: Text, *, positions: int) -> None:
        """Keep the parts."""
        super().__init__(info, module)
        self.extractor, self.text, self.positions = extractor, text, positions
        self.end_id, self.stop_ids = text.end_id, frozenset({text.end_id})
        self.languages: dict[str, int] = {}
        self.no_speech_id: int | None = None

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of emitted ids without special tokens."""
        return self.text.detokenise(ids)

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text."""
        return self.text.tokenise(text)

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id."""
        return self.text.word_index(ids)

    def prompt_ids(self, request: Request, language: str | None) -> tuple[int, ...]:
        """Return the model's own prompt; a translation is into English."""
        if language is None:
            raise UsageError(f"{self.info.name} detects no language; name it in the request")
        if request.prompt:
            raise UsageError(f"{self.info.name} takes no prompt")
        try:
            return self.text.prompt_ids(language, "en" if request.task == "translate" else language)
        except ValueError as error:
            reason = " ".join(str(error).split())[:300]
            raise UsageError(f"{self.info.name} has no language {language!r}: {reason}") from error

    def max_new_tokens(self, prompt: Sequence[int]) -> int:
        """Return how many tokens the decoder's positions leave."""
        return self.positions - len(prompt)


class CanaryInTransformers(Canary):
    """`CanaryForConditionalGeneration`; a part named `bridge`, if it has one, stands between encoder and decoder."""

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the layers of the FastConformer."""
        return list(self.module.model.encoder.layers)

    def encoder_positions(self, samples: int) -> int:
        """Return the positions after subsampling, counted as the network itself counts them."""
        import torch

        mels = samples // int(self.extractor.hop_length)
        count = self.module.model.encoder._get_subsampling_output_length(torch.tensor([mels]))  # noqa: SLF001
        return int(count[0])

    def least_deviation(self, samples: NDArray[np.int16]) -> float:
        """Return by how much the band that varies least does, before it is normalised."""
        return deviation_by(self.extractor, samples)

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> Encoded:
        """Return the encoder's states, padding masked."""
        made = self.extractor(shared.waveforms(samples), sampling_rate=16_000)
        device = self.module.device
        output = self.module.model.encoder(
            made.input_features.to(device, self.module.dtype), attention_mask=made.attention_mask.to(device)
        )
        bridge = getattr(self.module, "bridge", None)
        states = output.last_hidden_state
        return Encoded(states if bridge is None else bridge(states), output.attention_mask)

    def generate(
        self,
        encoded: Encoded,
        rows: Sequence[int],
        prompts: Sequence[tuple[int, ...]],
        *,
        max_new_tokens: int,
        beams: int,
        processor: Any,
    ) -> list[list[int]]:
        """Decode with the library's own search."""
        from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderModelOutput

        chosen = list(rows)
        output = ParakeetEncoderModelOutput(
            last_hidden_state=encoded.states[chosen], attention_mask=encoded.mask[chosen]
        )
        limits = {"max_new_tokens": max_new_tokens, "beams": beams}
        return shared.search(self.module, output, prompts, self.stop_ids, processor=processor, **limits)

    def forced_states(self, encoded: Encoded, ids: torch.Tensor) -> torch.Tensor:
        """Return decoder states (batch, length, width) with the decoder forced to `ids`."""
        states: torch.Tensor = self.module.model.decoder(
            input_ids=ids,
            encoder_hidden_states=encoded.states,
            encoder_attention_mask=encoded.mask,
            use_cache=False,
        ).last_hidden_state
        return states
