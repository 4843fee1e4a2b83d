"""Voxtral Mini and Small, asked to transcribe, through transformers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from earmark.checkpoint import read_config, weights_digest
from earmark.errors import ModelError, UsageError
from earmark.features import describe
from earmark.models import _audio_llm as llm
from earmark.models import _transformers as shared
from earmark.models._tekken import Tekken
from earmark.records.request import Request

if TYPE_CHECKING:
    import torch

CHUNK = 30 * 16_000
"""Audio is padded to a multiple of this many samples; each such chunk goes through the encoder alone."""
EMBEDDINGS_PER_S = 12.5
LONGEST_S = 1200
CONTROL = ("<s>", "</s>", "[INST]", "[/INST]", "[AUDIO]", "[BEGIN_AUDIO]", "[TRANSCRIBE]")


class VoxtralLoader:
    """Opens Voxtral checkpoints from a folder in the transformers format, with `tekken.json`."""

    name: ClassVar[str] = "voxtral"
    family: ClassVar[str] = "autoregressive"
    summary: ClassVar[str] = "Voxtral Mini, Small (transformers)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json names the Voxtral architecture."""
        return bool(read_config(folder).get("model_type") == "voxtral")

    def load(
        self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str
    ) -> VoxtralModel:
        """Load network, vocabulary and feature extractor."""
        import transformers

        digest = weights_digest(folder)
        with shared.opening(folder, "Voxtral"):
            module = shared.read_network(transformers.VoxtralForConditionalGeneration, folder, attention=attention)
            extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
        tekken = Tekken.read(folder)
        missing = [token for token in CONTROL if token not in tekken.special]
        if missing or tekken.special["[AUDIO]"] != module.config.audio_token_id:
            raise ModelError(
                f"{folder}: tekken.json lacks {', '.join(missing) or 'nothing'} and has [AUDIO] at "
                f"{tekken.special.get('[AUDIO]')}; the network expects it at {module.config.audio_token_id}"
            )
        positions = int(module.config.text_config.max_position_embeddings)
        info = shared.describe_model(
            name=name,
            weights=digest,
            family=self.family,
            architecture=self.name,
            features=describe(extractor),
            vocab_size=int(module.config.text_config.vocab_size),
            window_samples=llm.window_samples(positions, EMBEDDINGS_PER_S, LONGEST_S),
            device=device,
            dtype=dtype,
            arithmetic=arithmetic,
            attention=attention,
        )
        module = shared.rounded(module, device=device, dtype=dtype, arithmetic=arithmetic)
        module.generation_config = transformers.GenerationConfig()
        return VoxtralModel(
            info,
            module,
            SimpleNamespace(tokenizer=tekken, feature_extractor=extractor),
            placeholder=tekken.special["[AUDIO]"],
            stop_ids=(tekken.special["</s>"],),
            positions=positions,
        )


class VoxtralModel(llm.PackedEncoder):
    """One Voxtral checkpoint; the arguments are those of `AudioLanguageModel`."""

    # text

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of emitted ids, special tokens left out."""
        return str(self.tokenizer.decode(ids))

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text."""
        return tuple(self.tokenizer.encode(text.strip()))

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id."""
        pieces = [self.tokenizer.bytes_of(i) for i in ids]
        return shared.word_index([piece.decode("latin-1") for piece in pieces], [bool(piece) for piece in pieces])

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes that each id stands for."""
        names = {i: name.encode() for name, i in self.tokenizer.special.items()}
        return tuple(names.get(i) or self.tokenizer.bytes_of(i) for i in range(self.info.vocab_size))

    def prompt_ids(self, request: Request, language: str | None) -> tuple[int, ...]:
        """Return Mistral's form of a transcription request: the audio as instruction, the language, [TRANSCRIBE]."""
        if request.task != "transcribe":
            raise UsageError(f"{self.info.name} only transcribes; asked: {request.task}")
        if request.prompt:
            raise UsageError(f"{self.info.name} takes no prompt when it transcribes")
        if language is not None and not re.fullmatch("[a-z]{2}", language):
            raise UsageError(f"{self.info.name} has no language {language!r}; give two letters, such as en")
        special = self.tokenizer.special
        chat = [special[name] for name in ("<s>", "[INST]", "[BEGIN_AUDIO]", "[AUDIO]", "[/INST]")]
        named = self.tokenizer.encode(f"lang:{language}") if language else []
        return (*chat, *named, special["[TRANSCRIBE]"])

    # network

    def encoder_positions(self, samples: int) -> int:
        """Return the positions that the audio reaches, 50 per second."""
        return -(-samples // (2 * int(self.processor.feature_extractor.hop_length)))

    def _audio_tokens(self, samples: int) -> int:
        return -(-samples // CHUNK) * int(EMBEDDINGS_PER_S * CHUNK / llm.SAMPLE_RATE)

    def _embed_audio(self, samples: Sequence[NDArray[np.int16]]) -> list[torch.Tensor]:
        import torch

        chunks = [-(-len(piece) // CHUNK) for piece in samples]
        extractor, tower = self.processor.feature_extractor, self.module.model.audio_tower
        made = [
            extractor(piece, sampling_rate=llm.SAMPLE_RATE, truncation=False, pad_to_multiple_of=CHUNK, padding=True,
                      return_tensors="pt").input_features[0].unflatten(1, (count, -1)).transpose(0, 1)
            for piece, count in zip(shared.waveforms(samples), chunks, strict=True)
        ]  # fmt: skip
        features = torch.cat(made).to(self.module.device, self.module.dtype)
        states = [count * int(tower.config.max_source_positions) for count in chunks]
        with llm.unpacked(tower.layers, self._outlets, states):
            audio = self.module.model.get_audio_features(features).pooler_output
        return list(audio.split([self._audio_tokens(len(piece)) for piece in samples]))
