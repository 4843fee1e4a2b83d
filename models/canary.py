"""Canary: FastConformer encoder and Transformer decoder, through transformers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from earmark.checkpoint import read_config, weights_digest
from earmark.errors import ModelError
from earmark.features import describe
from earmark.models import _transformers as shared
from earmark.models._canary_parts import WINDOW_SAMPLES, Canary, CanaryInTransformers


class CanaryLoader:
    """Opens Canary checkpoints from a folder in the transformers format."""

    name: ClassVar[str] = "canary"
    family: ClassVar[str] = "autoregressive"
    summary: ClassVar[str] = "Canary 1b v2 and kin (transformers)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json names the Canary architecture."""
        return bool(read_config(folder).get("model_type") == "canary")

    def load(self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str) -> Canary:
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
        text = ProcessorText(processor, end_id=int(module.config.eos_token_id))
        positions = int(module.config.decoder_config.max_position_embeddings)
        module = shared.rounded(module, device=device, dtype=dtype, arithmetic=arithmetic)
        module.generation_config = transformers.GenerationConfig()
        return CanaryInTransformers(info, module, processor.feature_extractor, text, positions=positions)


class ProcessorText:
    """Text and prompts of a processor of transformers.

    Args:
        processor: A `CanaryProcessor`.
        end_id: The token that ends a transcript.
    """

    def __init__(self, processor: Any, *, end_id: int) -> None:
        """Keep the parts."""
        self.processor, self.tokenizer, self.end_id = processor, processor.tokenizer, end_id

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

    def prompt_ids(self, source: str, target: str) -> tuple[int, ...]:
        """Return the prompt of the model's own processor."""
        chat = self.processor.apply_transcription_request(
            np.zeros(1, np.float32), source_language=source, target_language=target, tokenize=False
        )
        text = chat if isinstance(chat, str) else chat[0]
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])
