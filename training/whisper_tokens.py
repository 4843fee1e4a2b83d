"""Whisper's tokenizer with a small vocabulary: 256 bytes, a few merges, and Whisper's special tokens."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import WhisperTokenizer

MERGES = 176
WINDOW_S = 10
#: the first languages of transformers' list, in its order: the tokenizer computes their ids by position
LANGUAGES = ("en", "zh", "de", "es", "ru", "ko", "fr")
TIMESTAMP_STEP_S = 0.02


def special_tokens() -> list[str]:
    """Special tokens in Whisper's order, <|endoftext|> first."""
    names = ["endoftext", "startoftranscript", *LANGUAGES, "translate", "transcribe", "startoflm"]
    names += ["startofprev", "nospeech", "notimestamps"]
    return [f"<|{name}|>" for name in names]


def timestamp_tokens() -> list[str]:
    """<|0.00|> to <|10.00|>, as many as Whisper's generation code expects for the window."""
    count = round(WINDOW_S / TIMESTAMP_STEP_S) + 1
    return [f"<|{index * TIMESTAMP_STEP_S:.2f}|>" for index in range(count)]


def train_tokenizer(texts: list[str]) -> WhisperTokenizer:
    """Learn the merges on training texts and assemble the tokenizer."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=256 + MERGES, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator((f" {text}" for text in texts), trainer)
    merges = _merges(bpe)
    vocab = {token: index for index, token in enumerate(sorted(alphabet))}
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    specials = special_tokens() + timestamp_tokens()
    vocab.update({token: len(vocab) + offset for offset, token in enumerate(specials)})
    tokenizer = WhisperTokenizer(vocab=vocab, merges=merges, language="english", task="transcribe")
    tokenizer.add_special_tokens({"additional_special_tokens": special_tokens()[1:]})
    tokenizer.add_tokens(timestamp_tokens())
    tokenizer.pad_token = "<|endoftext|>"  # noqa: S105  (a token of the vocabulary)
    return tokenizer


def _merges(bpe: Tokenizer) -> list[tuple[str, str]]:
    merges = json.loads(bpe.to_str())["model"]["merges"]
    return [(left, right) for left, right in merges]


def text_ids(tokenizer: WhisperTokenizer, text: str) -> list[int]:
    """Ids of a transcript without special tokens; like Whisper's own data it begins with a space."""
    return tokenizer.encode(f" {text}", add_special_tokens=False) if text else []
