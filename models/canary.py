"""Canary: FastConformer encoder and Transformer decoder, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from earmark.checkpoint import read_config, weights_digest
from earmark.errors import ModelError, UsageError
from earmark.features import describe
from earmark.models import _transformers as shared
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


class CanaryLoader:
    """Opens Canary checkpoints from a folder in the transformers format."""

    name: ClassVar[str] = "canary"
    family: ClassVar[str] = "autoregressive"
    summary: ClassVar[str] = "Canary 1b v2 and kin (transformers)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json names the Canary architecture."""
        return bool(read_config(folder).get("model_type") == "canary")

    def load(self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str) -> CanaryModel:
        """Load network and processor."""
        import transformers

        digest = weights_digest(folder)
        with shared.opening(folder, "Canary"):
            module = shared.read_network(transformers.CanaryForConditionalGeneration, folder, attention=attention)
            processor = transformers.CanaryProcessor.from_pretrained(folder, local_files_only=True)
        start = processor.tokenizer.convert_tokens_to_ids("<|startofcontext|>")
        if start != module.config.decoder_start_token_id:
            raise ModelError(
                f"{folder}: the tokenizer gives {start} for <|startofcontext|>, the network expects "
                f"{module.config.decoder_start_token_id}; tokenizer files are missing or of another model"
            )
        info = shared.describe_model(
            name=name,
            weights=digest,
            family=self.family,
            architecture=self.name,
            features=describe(processor.feature_extractor),
            vocab_size=int(module.config.vocab_size),
            window_samples=WINDOW_SAMPLES,
            device=device,
            dtype=dtype,
            arithmetic=arithmetic,
            attention=attention,
        )
        end = int(module.config.eos_token_id)
        module = shared.rounded(module, device=device, dtype=dtype, arithmetic=arithmetic)
        module.generation_config = transformers.GenerationConfig()
        return CanaryModel(info, module, processor, end_id=end)


class CanaryModel(shared.WithoutRules):
    """One Canary checkpoint behind the interface of the autoregressive family.

    Args:
        info: Facts about it.
        module: `CanaryForConditionalGeneration`.
        processor: Its processor.
        end_id: The token that ends a transcript.
    """

    def __init__(self, info: ModelInfo, module: Any, processor: Any, *, end_id: int) -> None:
        """Keep the parts."""
        super().__init__(info, module)
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.end_id, self.stop_ids = end_id, frozenset({end_id})
        self.languages: dict[str, int] = {}
        self.no_speech_id: int | None = None

    # text

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of emitted ids without special tokens."""
        known = [i for i in ids if i not in self._special]
        return str(self.tokenizer.decode(known, clean_up_tokenization_spaces=False))

    @cached_property
    def _special(self) -> frozenset[int]:
        return frozenset(self.tokenizer.added_tokens_decoder)

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text."""
        ids = self.tokenizer(text.strip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return tuple(int(i) for i in ids)

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(ids))
        return shared.word_index(pieces, [i not in self._special for i in ids])

    def prompt_ids(self, request: Request, language: str | None) -> tuple[int, ...]:
        """Return the prompt of the model's own processor; a translation is into English."""
        if language is None:
            raise UsageError(f"{self.info.name} detects no language; name it in the request")
        if request.prompt:
            raise UsageError(f"{self.info.name} takes no prompt")
        target = "en" if request.task == "translate" else None
        try:
            chat = self.processor.apply_transcription_request(
                np.zeros(1, np.float32), source_language=language, target_language=target, tokenize=False
            )
        except ValueError as error:
            reason = " ".join(str(error).split())[:300]
            raise UsageError(f"{self.info.name} has no language {language!r}: {reason}") from error
        text = chat if isinstance(chat, str) else chat[0]
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def max_new_tokens(self, prompt: Sequence[int]) -> int:
        """Return how many tokens the decoder's positions leave."""
        return int(self.module.config.decoder_config.max_position_embeddings) - len(prompt)

    # network

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the layers of the FastConformer."""
        return list(self.module.model.encoder.layers)

    def encoder_positions(self, samples: int) -> int:
        """Return the positions after subsampling, counted as the network itself counts them."""
        import torch

        mels = samples // int(self.processor.feature_extractor.hop_length)
        count = self.module.model.encoder._get_subsampling_output_length(torch.tensor([mels]))  # noqa: SLF001
        return int(count[0])

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> Encoded:
        """Return the encoder's states, padding masked."""
        made = self.processor.feature_extractor(shared.waveforms(samples), sampling_rate=16_000)
        device = self.module.device
        output = self.module.model.encoder(
            made.input_features.to(device, self.module.dtype), attention_mask=made.attention_mask.to(device)
        )
        return Encoded(output.last_hidden_state, output.attention_mask)

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
