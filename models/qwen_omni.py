"""Qwen2-Audio, and the thinkers of Qwen2.5-Omni and Qwen3-Omni: chat models that are asked to transcribe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from earmark.checkpoint import read_config, weights_digest
from earmark.errors import ModelError, UsageError
from earmark.features import describe
from earmark.models import _audio_llm as llm
from earmark.models import _transformers as shared
from earmark.records.request import Request

if TYPE_CHECKING:
    import torch

CHUNK, CHUNK_POSITIONS = 100, 13
"""Qwen3-Omni's encoder gives 13 positions for each chunk of 100 mel frames."""


def instruction(language: str | None) -> str:
    """Return what the model is asked where the request has no prompt of its own.

    Args:
        language: Language code, or None.

    Raises:
        UsageError: There is no such language.

    Example:
        >>> instruction("de")
        'Transcribe the German audio into text.'
    """
    from transformers.models.qwen3_asr.processing_qwen3_asr import LANGUAGE_CODE_TO_NAME as NAMES

    if language is None:
        return "Transcribe the audio into text."
    if language not in NAMES:
        raise UsageError(f"no language {language!r}; there are: {', '.join(sorted(NAMES))}")
    return f"Transcribe the {NAMES[language]} audio into text."


@dataclass(frozen=True, slots=True)
class Kind:
    """One of the model families: its names in config.json, its class, its title, embeddings per second of audio."""

    types: tuple[str, ...]
    network: str
    title: str
    rate: float


KINDS = {
    "qwen2-audio": Kind(("qwen2_audio",), "Qwen2AudioForConditionalGeneration", "Qwen2-Audio", 25.0),
    "qwen2.5-omni": Kind(
        ("qwen2_5_omni", "qwen2_5_omni_thinker"), "Qwen2_5OmniThinkerForConditionalGeneration", "Qwen2.5-Omni", 25.0
    ),
    "qwen3-omni": Kind(
        ("qwen3_omni_moe", "qwen3_omni_moe_thinker"), "Qwen3OmniMoeThinkerForConditionalGeneration", "Qwen3-Omni", 13.0
    ),
}


class QwenOmniLoader:
    """Opens Qwen2-Audio, Qwen2.5-Omni and Qwen3-Omni checkpoints; of the latter the part that writes text."""

    name: ClassVar[str] = "qwen-omni"
    family: ClassVar[str] = "autoregressive"
    summary: ClassVar[str] = "Qwen2-Audio, Qwen2.5-Omni, Qwen3-Omni (transformers)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json names one of the architectures."""
        return _kind(folder) is not None

    def load(
        self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str
    ) -> QwenOmniModel:
        """Load network, tokenizer and feature extractor."""
        import transformers

        kind, digest = _kind(folder), weights_digest(folder)
        if kind is None:
            raise ModelError(f"{folder} is no checkpoint of {', '.join(k.title for k in KINDS.values())}")
        with shared.opening(folder, kind.title):
            module = shared.read_network(getattr(transformers, kind.network), folder, attention=attention)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
            extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
        placeholder = int(module.config.audio_token_id)
        _check_tokenizer(folder, tokenizer, placeholder)
        positions = int(module.config.text_config.max_position_embeddings)
        info = shared.describe_model(
            name=name,
            weights=digest,
            family=self.family,
            architecture=next(key for key, value in KINDS.items() if value is kind),
            features=describe(extractor),
            vocab_size=int(module.config.text_config.vocab_size),
            window_samples=llm.window_samples(positions, kind.rate, int(extractor.chunk_length)),
            device=device,
            dtype=dtype,
            arithmetic=arithmetic,
            attention=attention,
        )
        stops = llm.stop_ids_of(module.generation_config, int(tokenizer.eos_token_id))
        module = shared.rounded(module, device=device, dtype=dtype, arithmetic=arithmetic)
        module.generation_config = transformers.GenerationConfig()
        parts = SimpleNamespace(tokenizer=tokenizer, feature_extractor=extractor)
        model = MODELS[info.architecture]
        return model(info, module, parts, placeholder=placeholder, stop_ids=stops, positions=positions)


def _kind(folder: Path) -> Kind | None:
    found = read_config(folder).get("model_type")
    return next((kind for kind in KINDS.values() if found in kind.types), None)


def _check_tokenizer(folder: Path, tokenizer: Any, placeholder: int) -> None:
    found = tokenizer.convert_ids_to_tokens(placeholder)
    if found is None or "audio" not in found.lower() or not tokenizer.chat_template:
        raise ModelError(
            f"{folder}: the tokenizer has {found!r} where the network expects the audio's placeholder ({placeholder}), "
            f"and {'a' if tokenizer.chat_template else 'no'} chat template; files are missing or of another model"
        )


class QwenOmniModel(llm.PackedEncoder):
    """One checkpoint whose encoder packs a batch into one row, as the Omni models do."""

    def prompt_ids(self, request: Request, language: str | None) -> tuple[int, ...]:
        """Return the chat of the model's own template: the audio, then the request's prompt or our instruction."""
        self._refuse(request)
        audio = {"type": "audio", "audio": "", "audio_url": ""}
        asked = {"type": "text", "text": request.prompt or instruction(language)}
        turn = {"role": "user", "content": [audio, asked]}
        chat = self.tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
        return tuple(self.tokenizer(chat, add_special_tokens=False)["input_ids"])

    def _frames(self, samples: int) -> int:
        extractor = self.processor.feature_extractor
        return -(-min(samples, int(extractor.n_samples)) // int(extractor.hop_length))

    def encoder_positions(self, samples: int) -> int:
        """Return half as many positions as mel frames."""
        return (self._frames(samples) + 1) // 2

    def _audio_tokens(self, samples: int) -> int:
        return self.encoder_positions(samples) // 2

    def _features(self, samples: Sequence[NDArray[np.int16]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return features (batch, mels, frames) and their mask, padded to the extractor's window."""
        made = self.processor.feature_extractor(
            shared.waveforms(samples),
            sampling_rate=llm.SAMPLE_RATE,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        return made.input_features.to(self.module.device, self.module.dtype), made.attention_mask.to(self.module.device)

    def _embed_audio(self, samples: Sequence[NDArray[np.int16]]) -> list[torch.Tensor]:
        features, mask = self._features(samples)
        tower = self.module.model.audio_tower
        with llm.unpacked(tower.layers, self._outlets, [self.encoder_positions(len(piece)) for piece in samples]):
            output = self.module.model.get_audio_features(features, feature_attention_mask=mask)
        return list(output.last_hidden_state.split([self._audio_tokens(len(piece)) for piece in samples]))


class Qwen3OmniModel(QwenOmniModel):
    """One Qwen3-Omni checkpoint: its encoder's positions are the language model's."""

    def encoder_positions(self, samples: int) -> int:
        """Return about 13 positions per second."""
        whole, rest = divmod(self._frames(samples), CHUNK)
        for _ in range(3):
            rest = (rest + 1) // 2
        return whole * CHUNK_POSITIONS + rest

    def _audio_tokens(self, samples: int) -> int:
        return self.encoder_positions(samples)


class Qwen2AudioModel(QwenOmniModel):
    """One Qwen2-Audio checkpoint: its encoder pads every piece to 30 s."""

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the layers of the encoder."""
        return list(self.module.model.audio_tower.layers)

    def _embed_audio(self, samples: Sequence[NDArray[np.int16]]) -> list[torch.Tensor]:
        import torch
        from transformers.masking_utils import create_bidirectional_mask

        features, _ = self._features(samples)
        tower = self.module.model.audio_tower
        seen = torch.arange(features.shape[-1] // 2, device=features.device)
        own = [self.encoder_positions(len(piece)) for piece in samples]
        mask = create_bidirectional_mask(
            config=tower.config,
            inputs_embeds=torch.zeros(len(samples), len(seen), 1, dtype=features.dtype, device=features.device),
            attention_mask=(seen[None] < torch.tensor(own, device=features.device)[:, None]).long(),
        )
        states = tower(features, attention_mask=mask).last_hidden_state
        audio = self.module.model.multi_modal_projector(states)
        return [row[: self._audio_tokens(len(piece))] for row, piece in zip(audio, samples, strict=True)]


MODELS: dict[str, type[QwenOmniModel]] = {
    "qwen2-audio": Qwen2AudioModel,
    "qwen2.5-omni": QwenOmniModel,
    "qwen3-omni": Qwen3OmniModel,
}
