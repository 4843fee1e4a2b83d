"""What all models of transformers share: opening a checkpoint, rounding it, copies, the bytes of its tokens."""

from __future__ import annotations

import copy
import dataclasses
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError, UsageError
from earmark.features import FeatureParameters
from earmark.protocols import ModelInfo
from earmark.records.evidence import Precision

if TYPE_CHECKING:
    import torch

PRECISIONS: dict[str, Precision] = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}


@contextmanager
def opening(folder: Path, kind: str) -> Iterator[None]:
    """Turn the many errors of the library into one, and keep its progress bars off stderr.

    Raises:
        ModelError: Something in the block could not be read.
    """
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError, ImportError) as error:
        if isinstance(error, ModelError):
            raise
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"{folder} cannot be loaded as {kind}: {reason}") from error
    finally:
        if shown:
            logging.enable_progress_bar()


def read_network(kind: Any, folder: Path, *, attention: str, unused: Collection[str] = ()) -> Any:
    """Return the network of a checkpoint in float32, every weight of it from the checkpoint.

    Args:
        kind: A model class of transformers.
        folder: The checkpoint.
        attention: Attention kernel.
        unused: Last names of weights that only training uses, which a checkpoint may lack.

    Raises:
        ModelError: The checkpoint lacks weights; the library alone would make them up.
    """
    import torch

    module, report = kind.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention, local_files_only=True, output_loading_info=True
    )
    missing = sorted(key for key in report["missing_keys"] if key.rpartition(".")[2] not in unused)
    wrong = missing + sorted(str(key) for key in report["mismatched_keys"])
    if wrong:
        raise ModelError(
            f"{folder} lacks {len(wrong)} weights of {kind.__name__}, first {wrong[0]}; "
            "it is of another kind, or in another format than transformers'"
        )
    return module


def rounded(module: Any, *, device: str, dtype: str, arithmetic: str) -> Any:
    """Return the network with its weights rounded to `dtype`, ready to compute in `arithmetic`."""
    import torch

    return module.to(getattr(torch, dtype)).to(device=device, dtype=getattr(torch, arithmetic)).eval()


def describe_model(
    *,
    name: str,
    weights: str,
    family: str,
    architecture: str,
    features: FeatureParameters,
    vocab_size: int,
    window_samples: int,
    device: str,
    dtype: str,
    arithmetic: str,
    attention: str,
) -> ModelInfo:
    """Return the facts about a checkpoint that transformers runs."""
    import transformers

    return ModelInfo(
        name=name,
        family=family,
        architecture=architecture,
        weights=weights,
        precision=PRECISIONS[dtype],
        arithmetic=PRECISIONS[arithmetic],
        features=features,
        vocab_size=vocab_size,
        window_samples=window_samples,
        engine=f"transformers {transformers.__version__}",
        device=device,
        attention=attention,
    )


class TransformersModel:
    """A network of transformers and the facts about it.

    Args:
        info: Facts about it.
        module: The network.
    """

    def __init__(self, info: ModelInfo, module: Any) -> None:
        """Keep both."""
        self.info, self.module = info, module

    def head(self) -> torch.nn.Module:
        """Return the module that maps last hidden states to logits."""
        head: torch.nn.Module = self.module.get_output_embeddings()
        return head

    def in_float32(self) -> Self:
        """Return the replaying model; the rounded weights are copied once where arithmetic is of 16 bits."""
        return self if self.info.arithmetic == "fp32" else self._replaying

    @cached_property
    def _replaying(self) -> Self:
        return self.with_module(copy.deepcopy(self.module).float(), arithmetic="fp32")

    def with_module(self, module: torch.nn.Module, *, arithmetic: Precision | None = None) -> Self:
        """Return the same checkpoint around another network of the same shape."""
        made = copy.copy(self)
        made.__dict__.pop("_replaying", None)
        made.info = dataclasses.replace(self.info, arithmetic=arithmetic or self.info.arithmetic)
        made.module = module
        return made


class WithoutRules(TransformersModel):
    """A model that writes without language tokens, time tokens, and rules of its own on the logits."""

    def start_position(self, prompt: Sequence[int]) -> None:
        """Return None: no position predicts language or silence."""

    def project(self, states: torch.Tensor) -> torch.Tensor:
        """Return logits over the vocabulary."""
        logits: torch.Tensor = self.head()(states)
        return logits

    def step_rules(self, begin: int, *, timestamps: bool) -> Any:
        """Return the rules of decoding: none."""
        del begin
        if timestamps:
            raise UsageError(f"{self.info.name} writes no time tokens")
        return lambda _ids, scores: scores

    def apply_rules(
        self, logits: torch.Tensor, prompt: Sequence[int], ids: Sequence[int], *, timestamps: bool
    ) -> torch.Tensor:
        """Return the scores that decoding saw: the logits."""
        del prompt, ids, timestamps
        return logits


def search(
    module: Any,
    encoder_outputs: Any,
    prompts: Sequence[tuple[int, ...]],
    stops: Collection[int],
    *,
    max_new_tokens: int,
    beams: int,
    processor: Any,
) -> list[list[int]]:
    """Decode with the library's plain search of an encoder-decoder; rules come in through `processor`.

    Args:
        module: The network; its own `generate`, which may add rules by itself, is not used.
        encoder_outputs: What its encoder returned.
        prompts: Ids that precede each transcript, of one length.
        stops: Ids that end a transcript.
        max_new_tokens: Most ids to write.
        beams: Number of beams.
        processor: Called with the ids so far and the scores of each step.

    Returns:
        Ids of each transcript, with the end token if it was reached.
    """
    import torch
    from transformers import GenerationConfig, GenerationMixin

    begin = torch.as_tensor(prompts, device=module.device)
    shape = encoder_outputs.last_hidden_state.shape[:2]
    config = GenerationConfig(
        max_length=begin.shape[1] + max_new_tokens,
        num_beams=beams,
        do_sample=False,
        eos_token_id=sorted(stops),
        pad_token_id=min(stops),
        bos_token_id=prompts[0][0],
        decoder_start_token_id=prompts[0][0],
    )
    output = GenerationMixin.generate(
        module,
        encoder_outputs=encoder_outputs,
        attention_mask=torch.ones(shape, dtype=torch.long, device=module.device),
        decoder_input_ids=begin,
        decoder_attention_mask=torch.ones_like(begin),
        generation_config=config,
        logits_processor=[processor],
    )
    return [until(ids, stops) for ids in output[:, begin.shape[1] :].tolist()]


def waveforms(samples: Sequence[NDArray[np.int16]]) -> list[NDArray[np.float32]]:
    """Return canonical samples as float32 between -1 and 1, as feature extractors take them."""
    return [piece.astype(np.float32) / np.float32(32768) for piece in samples]


def until(ids: Sequence[int], stops: Collection[int]) -> list[int]:
    """Return the ids up to and with the first that stops.

    Example:
        >>> until([5, 6, 2, 2], {2})
        [5, 6, 2]
    """
    at = next((number for number, i in enumerate(ids) if i in stops), len(ids))
    return list(ids[: at + 1])


def word_index(pieces: Sequence[str | None], inside: Sequence[bool]) -> list[int]:
    """Return the word of each piece: one that starts with a space opens a word; -1 for pieces outside the text.

    Example:
        >>> word_index(["Ġturn", "Ġo", "n", "<end>"], [True, True, True, False])
        [0, 1, 1, -1]
    """
    index, word = [], -1
    for piece, counts in zip(pieces, inside, strict=True):
        if counts and (word < 0 or re.match("[Ġ▁ ]", piece or "")):
            word += 1
        index.append(word if counts else -1)
    return index


def byte_level_tokens(tokenizer: Any, size: int) -> tuple[bytes, ...]:
    """Return the bytes that each id of a byte-level tokenizer stands for, special tokens as their names.

    Args:
        tokenizer: A tokenizer of transformers with GPT-2's alphabet of bytes.
        size: Number of ids that the network knows; ids beyond the tokenizer's stand for nothing.

    Source: Radford et al., Language Models are Unsupervised Multitask Learners (2019), section 2.2, and its code.
    """
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte = {letter: value for value, letter in bytes_to_unicode().items()}
    table = [b""] * size
    for token, i in tokenizer.get_vocab().items():
        if i < size:
            known = all(letter in byte for letter in token)
            table[i] = bytes(byte[letter] for letter in token) if known else token.encode()
    for i, token in tokenizer.added_tokens_decoder.items():
        if i < size:
            table[i] = str(token.content).encode()
    return tuple(table)
