"""What audio-LLMs share: a language model whose prompt holds one placeholder that the audio's embeddings replace.

The prompt ids of evidence hold the placeholder once, so that they follow from the request alone; how many embeddings
stand in its place follows from the audio.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.limits import TOKENS_PER_SECOND
from earmark.models import _transformers as shared
from earmark.protocols import ModelInfo
from earmark.records.request import Request

if TYPE_CHECKING:
    import torch

SAMPLE_RATE = 16_000


def window_samples(positions: int, audio_rate: float, longest_s: int) -> int:
    """Return the longest piece whose audio and text surely fit a language model's positions, in samples.

    Args:
        positions: Positions of the language model.
        audio_rate: Embeddings per second of audio.
        longest_s: The longest piece that the model is made for, in seconds.

    Example:
        >>> window_samples(65_536, 13.0, 1200) // 16_000
        1040
    """
    seconds = min(longest_s, int(positions / (audio_rate + TOKENS_PER_SECOND)))
    return max(1, seconds) * SAMPLE_RATE


class AudioLanguageModel(shared.WithoutRules):
    """A network with `model.language_model` and `lm_head`, behind the interface of the autoregressive family.

    A model family adds `prompt_ids`, `encoder_layers`, `encoder_positions` and `_embed_audio`; one whose network has
    other names for its parts, `_writer` and `_decoder`.

    Args:
        info: Facts about it.
        module: The network.
        processor: Its processor.
        placeholder: Id that the audio's embeddings replace.
        stop_ids: Ids that end a transcript, the usual one first.
        positions: Positions of the language model.
    """

    def __init__(
        self, info: ModelInfo, module: Any, processor: Any, *, placeholder: int, stop_ids: Sequence[int], positions: int
    ) -> None:
        """Keep the parts."""
        super().__init__(info, module)
        self.processor, self.tokenizer = processor, processor.tokenizer
        self.languages: dict[str, int] = {}
        self.no_speech_id: int | None = None
        self.end_id, self.stop_ids = int(stop_ids[0]), frozenset(int(i) for i in stop_ids)
        self._placeholder, self._positions = placeholder, positions

    # text

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of emitted ids, special tokens left out."""
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of a transcript as the model writes it, without the end token."""
        return tuple(self.tokenizer(text.strip(), add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id."""
        pieces = self.tokenizer.convert_ids_to_tokens(list(ids))
        return shared.word_index(pieces, [i not in self._added for i in ids])

    @cached_property
    def _added(self) -> frozenset[int]:
        return frozenset(self.tokenizer.added_tokens_decoder)

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes that each id stands for."""
        return shared.byte_level_tokens(self.tokenizer, self.info.vocab_size)

    def _refuse(self, request: Request) -> None:
        """Raise UsageError for what no audio-LLM of ours does, and for control tokens in the prompt."""
        if request.task != "transcribe":
            raise UsageError(f"{self.info.name} only transcribes; asked: {request.task}")
        if self._added.intersection(self.tokenizer(request.prompt, add_special_tokens=False)["input_ids"]):
            raise UsageError("the prompt holds special tokens; give plain text")

    def max_new_tokens(self, prompt: Sequence[int]) -> int:
        """Return how many tokens fit behind the prompt and the longest audio."""
        left = self._positions - len(prompt) - self._audio_tokens(self.info.window_samples)
        if left < 1:
            raise UsageError(f"a prompt of {len(prompt)} tokens leaves no room for a transcript; shorten it")
        return left

    def _audio_tokens(self, samples: int) -> int:
        """Return how many embeddings a piece of that many samples gives."""
        return self.encoder_positions(samples)

    # network

    @property
    def _writer(self) -> Any:
        """The part of the network that writes text by itself, its head included."""
        return self.module

    @property
    def _decoder(self) -> Any:
        """The part of it that gives hidden states."""
        return self.module.model.language_model

    def encoder_positions(self, samples: int) -> int:
        """Return how many encoder positions carry audio in a piece of that many samples."""
        raise NotImplementedError

    def _embed_audio(self, samples: Sequence[NDArray[np.int16]]) -> list[torch.Tensor]:
        """Return the embeddings (tokens, width) of each piece."""
        raise NotImplementedError

    def encode(self, samples: Sequence[NDArray[np.int16]]) -> list[torch.Tensor]:
        """Return the embeddings (tokens, width) of each piece."""
        return self._embed_audio(samples)

    def _splice(self, audio: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Return input embeddings (positions, width) with the audio in place, and where it begins."""
        import torch

        # the first placeholder is the prompt's; a model that writes the token later means the token
        at = int((ids == self._placeholder).nonzero()[0])
        embed = self.module.get_input_embeddings()
        before, after = embed(ids[:at]), embed(ids[at + 1 :])
        return torch.cat([before, audio.to(before.dtype), after]), at

    def forced_states(self, encoded: Sequence[torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states (batch, length, width) with the network forced to `ids`.

        The state at the placeholder is that of the last audio embedding.
        """
        import torch
        from torch.nn.utils.rnn import pad_sequence

        spliced = [self._splice(audio, row) for audio, row in zip(encoded, ids, strict=True)]
        # attention is causal, so padding on the right is inert
        embeddings = pad_sequence([row for row, _ in spliced], batch_first=True)
        states = self._decoder(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        rows = []
        for row, (audio, (_, at)) in enumerate(zip(encoded, spliced, strict=True)):
            behind = torch.arange(at, ids.shape[1]) + len(audio) - 1
            rows.append(states[row, torch.cat([torch.arange(at), behind]).to(states.device)])
        return torch.stack(rows)

    def generate(
        self,
        encoded: Sequence[torch.Tensor],
        rows: Sequence[int],
        prompts: Sequence[tuple[int, ...]],
        *,
        max_new_tokens: int,
        beams: int,
        processor: Any,
    ) -> list[list[int]]:
        """Decode with the library's own search; the rules come in through `processor`."""
        import torch
        from torch.nn.utils.rnn import pad_sequence
        from transformers import GenerationConfig, GenerationMixin

        begin = torch.as_tensor(prompts, device=self.module.device)
        spliced = [self._splice(encoded[row], ids)[0] for row, ids in zip(rows, begin, strict=True)]
        ones = [torch.ones(len(row), dtype=torch.long, device=row.device) for row in spliced]
        config = GenerationConfig(
            max_new_tokens=max_new_tokens,
            num_beams=beams,
            do_sample=False,
            eos_token_id=sorted(self.stop_ids),
            pad_token_id=self.end_id,
        )
        output = GenerationMixin.generate(
            self._writer,
            inputs_embeds=pad_sequence(spliced, batch_first=True, padding_side="left"),
            attention_mask=pad_sequence(ones, batch_first=True, padding_side="left"),
            generation_config=config,
            logits_processor=[_behind(begin.repeat_interleave(beams, dim=0), processor)],
        )
        return [shared.until(ids, self.stop_ids) for ids in output.tolist()]


def _behind(begin: torch.Tensor, processor: Any) -> Any:
    """Give a processor the prompt's ids as well; decoding from embeddings knows only those that it wrote."""
    import torch

    return lambda ids, scores: processor(torch.cat([begin, ids], dim=1), scores)


class PackedEncoder(AudioLanguageModel):
    """A model whose audio tower packs a batch into one row; its layers are looked at through outlets."""

    @cached_property
    def _outlets(self) -> list[torch.nn.Module]:
        import torch

        return [torch.nn.Identity() for _ in self.encoder_blocks()]

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the outlets of the encoder's layers."""
        return self._outlets

    def encoder_blocks(self) -> Sequence[torch.nn.Module]:
        """Return the layers themselves, which scenarios change."""
        layers: Sequence[torch.nn.Module] = self.module.model.audio_tower.layers
        return layers


@contextmanager
def unpacked(layers: Sequence[Any], outlets: Sequence[torch.nn.Module], lengths: Sequence[int]) -> Iterator[None]:
    """Show the states of layers that pack a batch into one long row, as (batch, positions, width) at the outlets.

    Args:
        layers: Layers whose output begins with the positions of all rows, (positions, width) or (chunks, positions,
            width).
        outlets: One module per layer, which hooks can look at.
        lengths: Positions of each row.
    """
    from torch.nn.utils.rnn import pad_sequence

    def show(outlet: torch.nn.Module) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            packed = states.flatten(0, -2)
            outlet(pad_sequence(packed.split(list(lengths)), batch_first=True))

        return hook

    handles = [layer.register_forward_hook(show(outlet)) for layer, outlet in zip(layers, outlets, strict=True)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def stop_ids_of(generation: Any, first: int) -> tuple[int, ...]:
    """Return the ids that end a transcript by the checkpoint's generation settings, the usual one first."""
    given: Collection[int] | int | None = getattr(generation, "eos_token_id", None)
    known = [given] if isinstance(given, int) else list(given or [])
    return (first, *(int(i) for i in known if int(i) != first))
