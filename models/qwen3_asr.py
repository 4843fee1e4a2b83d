"""Qwen3-ASR: 0.6B, 1.7B and other checkpoints in the transformers format (`-hf`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
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

MARKER = "<asr_text>"
"""Stands between the language, which the model writes itself where none is asked for, and the transcript."""
LONGEST_S = 1200
"""The longest piece that the model's own library feeds it."""
POSITIONS_PER_CHUNK = 13
"""Encoder positions of one chunk of 2 * n_window mel frames."""


class Qwen3AsrLoader:
    """Opens Qwen3-ASR checkpoints from a folder in the transformers format."""

    name: ClassVar[str] = "qwen3-asr"
    family: ClassVar[str] = "autoregressive"
    summary: ClassVar[str] = "Qwen3-ASR 0.6B, 1.7B (transformers)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json names the Qwen3-ASR architecture."""
        return bool(read_config(folder).get("model_type") == "qwen3_asr")

    def load(
        self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str
    ) -> Qwen3AsrModel:
        """Load network and processor."""
        import transformers

        if "thinker_config" in read_config(folder):
            raise ModelError(f"{folder} is in Qwen's own format; use the checkpoint whose name ends in -hf")
        digest = weights_digest(folder)
        with shared.opening(folder, "Qwen3-ASR"):
            module = shared.read_network(transformers.Qwen3ASRForConditionalGeneration, folder, attention=attention)
            processor = transformers.Qwen3ASRProcessor.from_pretrained(folder, local_files_only=True)
        _check_processor(folder, module, processor)
        positions, audio = int(module.config.text_config.max_position_embeddings), module.config.audio_config
        chunks_per_s = processor.feature_extractor.sampling_rate / (
            processor.feature_extractor.hop_length * 2 * audio.n_window
        )
        info = shared.describe_model(
            name=name,
            weights=digest,
            family=self.family,
            architecture=self.name,
            features=describe(processor.feature_extractor),
            vocab_size=int(module.config.text_config.vocab_size),
            window_samples=llm.window_samples(positions, POSITIONS_PER_CHUNK * chunks_per_s, LONGEST_S),
            device=device,
            dtype=dtype,
            arithmetic=arithmetic,
            attention=attention,
        )
        stops = llm.stop_ids_of(module.generation_config, int(processor.tokenizer.eos_token_id))
        module = shared.rounded(module, device=device, dtype=dtype, arithmetic=arithmetic)
        # the plain search must not add the checkpoint's settings to the request's
        module.generation_config = transformers.GenerationConfig()
        placeholder = int(module.config.audio_token_id)
        return Qwen3AsrModel(info, module, processor, placeholder=placeholder, stop_ids=stops, positions=positions)


def _check_processor(folder: Path, module: Any, processor: Any) -> None:
    """Refuse a processor that belongs to another network, or whose tokenizer came out empty."""
    found, expected = int(processor.audio_token_id), int(module.config.audio_token_id)
    if found != expected or MARKER not in processor.tokenizer.get_vocab():
        raise ModelError(
            f"{folder}: the tokenizer gives {found} for the audio token and has "
            f"{'a' if MARKER in processor.tokenizer.get_vocab() else 'no'} {MARKER}; the network expects {expected}; "
            "tokenizer files are missing or of another model"
        )


class Qwen3AsrModel(llm.PackedEncoder):
    """One Qwen3-ASR checkpoint; the arguments are those of `AudioLanguageModel`."""

    # text

    def prompt_ids(self, request: Request, language: str | None) -> tuple[int, ...]:
        """Return the chat of the model's own processor: prompt, audio, and the language where one is asked for."""
        self._refuse(request)
        chat = self._chat(language, request.prompt)
        return tuple(self.tokenizer(chat, add_special_tokens=False)["input_ids"])

    def answer_prefix(self, language: str) -> str:
        """Return what stands before the transcript in the model's own turn, where a language is asked for."""
        chat = self._chat(language, "")
        return chat[len(self._chat(None, "")) :]

    def _chat(self, language: str | None, prompt: str) -> str:
        try:
            chat = self.processor.apply_transcription_request(
                audio=np.zeros(1, np.float32), language=language, prompt=prompt or None, tokenize=False
            )
        except ValueError as error:
            reason = " ".join(str(error).split())[:300]
            raise UsageError(f"{self.info.name} has no language {language!r}: {reason}") from error
        return str(chat if isinstance(chat, str) else chat[0])

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the transcript: what stands behind the marker, or everything where the prompt ends with it."""
        before, marker, behind = super().detokenise(ids).partition(MARKER)
        return behind if marker else before

    def raw_text(self, ids: Sequence[int]) -> str:
        """Return all that the model wrote, the language and the marker among it, special tokens left out."""
        return super().detokenise([i for i in ids if i < self.info.vocab_size])

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id; the language that the model writes is no word."""
        marker = self.tokenizer.convert_tokens_to_ids(MARKER)
        first = list(ids).index(marker) + 1 if marker in ids else 0
        return [-1] * first + super().word_index(ids[first:])

    # network

    def encoder_positions(self, samples: int) -> int:
        """Return the positions of the encoder, which are those of the language model too: about 13 per second."""
        extractor, chunk = self.processor.feature_extractor, 2 * int(self.module.config.audio_config.n_window)
        whole, rest = divmod(max(samples, int(extractor.min_length)) // int(extractor.hop_length), chunk)
        for _ in range(3):
            rest = (rest + 1) // 2
        return whole * POSITIONS_PER_CHUNK + rest

    def _embed_audio(self, samples: Sequence[NDArray[np.int16]]) -> list[torch.Tensor]:
        """Return the embeddings of each piece; features are made piece by piece, so no batch changes them."""
        import torch

        chunk = int(self.module.config.audio_config.n_window)
        made = [
            self.processor.feature_extractor(
                [piece], sampling_rate=llm.SAMPLE_RATE, padding=True, n_window=chunk, return_attention_mask=True
            )
            for piece in shared.waveforms(samples)
        ]
        longest = max(item.input_features.shape[-1] for item in made)
        features, mask = (
            torch.cat([torch.nn.functional.pad(item[key], (0, longest - item[key].shape[-1])) for item in made])
            for key in ("input_features", "attention_mask")
        )
        lengths = [self.encoder_positions(len(piece)) for piece in samples]
        device, dtype = self.module.device, self.module.dtype
        with llm.unpacked(self.module.model.audio_tower.layers, self._outlets, lengths):
            audio = self.module.model.get_audio_features(features.to(device, dtype), mask.to(device)).pooler_output
        return list(audio.split(lengths))
