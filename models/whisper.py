"""Whisper: every size, turbo and distilled checkpoints, through transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


class WhisperLoader:
    """Opens Whisper checkpoints from a folder in the transformers format."""

    name: ClassVar[str] = "whisper"
    family: ClassVar[str] = "autoregressive"
    summary: ClassVar[str] = "Whisper of every size, turbo, distil (transformers)"

    def recognises(self, folder: Path) -> bool:
        """Tell whether config.json names the Whisper architecture."""
        return bool(read_config(folder).get("model_type") == "whisper")

    def load(
        self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str
    ) -> WhisperModel:
        """Load network, processor and generation settings."""
        import transformers

        digest = weights_digest(folder)
        with shared.opening(folder, "Whisper"):
            module = shared.read_network(transformers.WhisperForConditionalGeneration, folder, attention=attention)
            extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)
            tokenizer = transformers.WhisperTokenizer.from_pretrained(folder, local_files_only=True)
        start = tokenizer.convert_tokens_to_ids("<|startoftranscript|>")
        if start != module.generation_config.decoder_start_token_id:
            expected = module.generation_config.decoder_start_token_id
            raise ModelError(
                f"{folder}: the tokenizer gives {start} for <|startoftranscript|>, the network expects {expected}; "
                "tokenizer files are missing or of another model"
            )
        info = shared.describe_model(
            name=name,
            weights=digest,
            family=self.family,
            architecture=self.name,
            features=describe(extractor),
            vocab_size=int(module.config.vocab_size),
            window_samples=int(extractor.n_samples),
            device=device,
            dtype=dtype,
            arithmetic=arithmetic,
            attention=attention,
        )
        rounded = shared.rounded(module, device=device, dtype=dtype, arithmetic=arithmetic)
        settings = rounded.generation_config
        # the plain search must not add the checkpoint's rules to ours, which stand in `settings`
        rounded.generation_config = transformers.GenerationConfig()
        return WhisperModel(info, rounded, extractor, tokenizer, settings)


class WhisperModel(shared.TransformersModel):
    """One Whisper checkpoint behind the interface of the autoregressive family.

    Args:
        info: Facts about it.
        module: `WhisperForConditionalGeneration`.
        extractor: Its feature extractor.
        tokenizer: Its tokenizer.
        settings: Its generation settings: special tokens and rules.
    """

    def __init__(self, info: ModelInfo, module: Any, extractor: Any, tokenizer: Any, settings: Any) -> None:
        """Read the special tokens from the generation settings and the tokenizer."""
        super().__init__(info, module)
        self.extractor, self.tokenizer, self.settings = extractor, tokenizer, settings
        self.end_id = int(tokenizer.eos_token_id)
        self.stop_ids = frozenset({self.end_id})
        codes = getattr(settings, "lang_to_id", None) or {}
        self.languages: Mapping[str, int] = {code.strip("<|>"): int(i) for code, i in codes.items()}
        self._tasks: dict[str, int] = dict(getattr(settings, "task_to_id", None) or {})
        self._start = int(settings.decoder_start_token_id)
        self._no_timestamps = getattr(settings, "no_timestamps_token_id", None)
        self.no_speech_id = self._find("<|nospeech|>", "<|nocaptions|>")
        self._previous = self._find("<|startofprev|>")

    def _find(self, *tokens: str) -> int | None:
        vocabulary = self.tokenizer.get_vocab()
        return next((int(vocabulary[token]) for token in tokens if token in vocabulary), None)

    # text

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of emitted ids without special and time tokens."""
        known = [i for i in ids if i < self._first_special]
        return str(self.tokenizer.decode(known, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    @cached_property
    def _first_special(self) -> int:
        return min(self.end_id, self._start)

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text behind the space with which transcripts begin."""
        ids = self.tokenizer(" " + text.strip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return tuple(int(i) for i in ids)

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(ids))
        return shared.word_index(pieces, [i < self._first_special for i in ids])

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes that each id stands for."""
        return shared.byte_level_tokens(self.tokenizer, self.info.vocab_size)

    def prompt_ids(self, request: Request, language: str | None) -> tuple[int, ...]:
        """Return [previous text] start, language, task, no-timestamps, as the model's own decoding builds them."""
        ids = [self._start]
        if self.languages:
            if language is None or language not in self.languages:
                known = ", ".join(sorted(self.languages))
                raise UsageError(f"{self.info.name} has no language {language!r}; it has: {known[:200]}")
            ids += [self.languages[language], self._tasks[request.task]]
        elif request.task != "transcribe" or language not in (None, "en"):
            raise UsageError(f"{self.info.name} only transcribes English; asked: {request.task}, {language}")
        if self._no_timestamps is not None and not request.decoding.timestamps:
            ids.append(int(self._no_timestamps))
        return (*self._previous_text(request.prompt), *ids)

    def _previous_text(self, prompt: str) -> list[int]:
        if not prompt:
            return []
        if self._previous is None:
            raise UsageError(f"{self.info.name} takes no prompt: its tokenizer has no <|startofprev|>")
        ids = self.tokenizer(" " + prompt.strip(), add_special_tokens=False)["input_ids"]
        if any(i >= self._first_special for i in ids):
            raise UsageError("the prompt holds special tokens; give plain text")
        return [self._previous, *ids[-(self.module.config.max_target_positions // 2 - 1) :]]

    def start_position(self, prompt: Sequence[int]) -> int:
        """Return the position of the start token, which predicts language and silence."""
        return list(prompt).index(self._start)

    def max_new_tokens(self, prompt: Sequence[int]) -> int:
        """Return how many tokens the decoder's positions leave."""
        return int(self.module.config.max_target_positions) - len(prompt)

    # network

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the layers of the encoder."""
        return list(self.module.model.encoder.layers)

    def encoder_positions(self, samples: int) -> int:
        """Return the positions of the window that the audio reaches."""
        positions = int(self.module.config.max_source_positions)
        return max(1, min(positions, -(-samples * positions // self.info.window_samples)))

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> torch.Tensor:
        """Return encoder states (batch, positions, width); every piece is padded to the window."""
        import torch

        features = self.extractor(shared.waveforms(samples), sampling_rate=16_000, return_tensors="pt").input_features
        features = features.to(self.module.device, self.module.dtype)
        return torch.as_tensor(self.module.model.encoder(features).last_hidden_state)

    def generate(
        self,
        encoded: torch.Tensor,
        rows: Sequence[int],
        prompts: Sequence[tuple[int, ...]],
        *,
        max_new_tokens: int,
        beams: int,
        processor: Any,
    ) -> list[list[int]]:
        """Decode with the library's own search; the rules come in through `processor`."""
        from transformers.modeling_outputs import BaseModelOutput

        # Whisper's own `generate` adds its rules by itself; the plain search takes ours, the same as in the replay
        return shared.search(
            self.module,
            BaseModelOutput(last_hidden_state=encoded[list(rows)]),
            prompts,
            self.stop_ids,
            max_new_tokens=max_new_tokens,
            beams=beams,
            processor=processor,
        )

    def forced_states(self, encoded: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Return decoder states (batch, length, width) with the decoder forced to `ids`."""
        decoder = self.module.model.decoder
        states: torch.Tensor = decoder(input_ids=ids, encoder_hidden_states=encoded, use_cache=False).last_hidden_state
        return states

    def project(self, states: torch.Tensor) -> torch.Tensor:
        """Return logits over the vocabulary."""
        logits: torch.Tensor = self.module.proj_out(states)
        return logits

    # rules

    def step_rules(self, begin: int, *, timestamps: bool) -> Any:
        """Return suppressed tokens, suppressed first tokens and, if asked, the grammar of time tokens."""
        from transformers.generation import logits_process as rules

        settings, device = self.settings, self.module.device
        processors = rules.LogitsProcessorList()
        if timestamps:
            if self._no_timestamps is None:
                raise UsageError(f"{self.info.name} writes no time tokens")
            processors.append(rules.WhisperTimeStampLogitsProcessor(settings, begin_index=begin))
        if settings.begin_suppress_tokens:
            first = settings.begin_suppress_tokens
            processors.append(rules.SuppressTokensAtBeginLogitsProcessor(first, begin_index=begin, device=device))
        if settings.suppress_tokens:
            processors.append(rules.SuppressTokensLogitsProcessor(settings.suppress_tokens, device=device))
        return processors

    def apply_rules(
        self, logits: torch.Tensor, prompt: Sequence[int], ids: Sequence[int], *, timestamps: bool
    ) -> torch.Tensor:
        """Return the scores that decoding saw; row i of the last rows precedes the token of the same place."""
        import torch

        rules = self.step_rules(len(prompt), timestamps=timestamps)
        prefix = torch.as_tensor([[*prompt, *ids]], device=logits.device)
        first = len(prefix[0]) - len(logits)
        if timestamps:  # the grammar looks at the tokens before each position
            steps = [rules(prefix[:, : first + i], logits[i : i + 1]) for i in range(len(logits))]
            return torch.cat(steps)
        parts = [rules(prefix[:, :first], logits[:1])]
        if len(logits) > 1:  # behind the first token the rules no longer depend on the position
            parts.append(rules(prefix[:, : first + 1], logits[1:]))
        return torch.cat(parts)
