"""The tokenizer of a `.nemo` Canary and its prompts: one SentencePiece model, or several behind each other."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from earmark.errors import ModelError, UsageError
from earmark.models import _transformers as shared
from earmark.models._nemo_archive import Archive
from earmark.models._nemo_settings import setting, shown

END = "<|endoftext|>"
SPECIAL_PART = "spl_tokens"
"""NeMo's name for the part of an aggregate that holds the special tokens."""
PROMPTS: Mapping[str, tuple[str, ...]] = {
    "canary": ("startoftranscript", "{source}", "{task}", "{target}", "pnc"),
    "canary2": (
        "startofcontext", "startoftranscript", "emo:undefined", "{source}", "{target}", "pnc", "noitn", "notimestamp",
        "nodiarize",
    ),
}  # fmt: skip
"""Prompts by NeMo's name of the format, with the values that NeMo takes where a manifest names none."""
TOKENIZERS = ("CanaryTokenizer", "CanaryBPETokenizer")
"""NeMo's classes whose ids are known here: aggregates, single models."""


class CanaryText:
    """Ids, words and prompts as NeMo makes them.

    Args:
        models: Serialised SentencePiece models by name, in the order of their ids.
        prompt: NeMo's name of the prompt's format.

    Raises:
        ModelError: A model cannot be read, or has no special tokens.
    """

    def __init__(self, models: Mapping[str, bytes], prompt: str) -> None:
        """Read the models."""
        self.parts = {name: _processor(model) for name, model in models.items()}
        self.prompt, self.single = PROMPTS[prompt], len(models) == 1
        self.pieces: list[str] = []
        self.offsets: dict[str, int] = {}
        for name, part in self.parts.items():
            self.offsets[name] = len(self.pieces)
            self.pieces += [part.id_to_piece(i) for i in range(part.get_piece_size())]
        first = next(iter(self.parts)) if self.single else SPECIAL_PART
        begin, size = self.offsets[first], self.parts[first].get_piece_size()
        own = enumerate(self.pieces[begin : begin + size], begin)
        self.special = {piece: i for i, piece in own if re.fullmatch(r"<\|.+\|>|<pad>", piece)}
        if END not in self.special:
            raise ModelError(f"the tokenizer has no {END}; it is of another model")
        self.end_id = self.special[END]
        self._special_ids = frozenset(self.special.values())

    def _in_text(self, i: int) -> bool:
        return i < len(self.pieces) and i not in self._special_ids

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of emitted ids without special tokens."""
        known = [i for i in ids if self._in_text(i)]
        if self.single:
            return str(next(iter(self.parts.values())).decode(known))
        return "".join(self.pieces[i] for i in known).replace("▁", " ")

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return the word of each id."""
        inside = [self._in_text(i) for i in ids]
        pieces = [self.pieces[i] if known else None for i, known in zip(ids, inside, strict=True)]
        return shared.word_index(pieces, inside)

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text; special tokens in it are taken letter by letter.

        Raises:
            UsageError: There is a tokenizer per language, and text alone does not tell the language.
        """
        names = [name for name in self.parts if self.single or name != SPECIAL_PART]
        if len(names) != 1:
            raise UsageError(
                f"the tokenizer has a part per language ({', '.join(names)[:200]}), so text without tokens "
                "cannot be verified; record evidence with tokens"
            )
        part, offset = self.parts[names[0]], self.offsets[names[0]]
        ids: list[int] = []
        for chunk in re.split(r"(<\|.*?\|>|<pad>)", text.strip()):
            marked = chunk in self.special
            ids += [part.piece_to_id(letter) for letter in chunk] if marked else part.encode(chunk)
        return tuple(i + offset for i in ids)

    def prompt_ids(self, source: str, target: str) -> tuple[int, ...]:
        """Return the prompt for speech in `source` and text in `target`, with punctuation.

        Raises:
            ValueError: There is no such language.
        """
        task = "transcribe" if source == target else "translate"
        tokens = [f"<|{part.format(source=source, target=target, task=task)}|>" for part in self.prompt]
        unknown = [token for token in tokens if token not in self.special]
        if unknown:
            raise ValueError(f"its tokenizer has no {', '.join(unknown)}")
        if self.single:  # a lone SentencePiece model may put a space before the first token, and NeMo lets it
            return tuple(next(iter(self.parts.values())).encode("".join(tokens)))
        return tuple(self.special[token] for token in tokens)


def text_of(archive: Archive) -> CanaryText:
    """Return the tokenizer of an archive.

    Raises:
        ModelError: It has another kind of tokenizer or prompt.
    """
    config = archive.config
    prompt, custom = setting(config, "prompt_format"), setting(config, "tokenizer.custom_tokenizer._target_")
    if not isinstance(prompt, str) or prompt not in PROMPTS:
        raise ModelError(f"{archive.path}: prompt_format is {shown(prompt)}; known: {', '.join(PROMPTS)}")
    models = archive.tokenizers or ({"": archive.tokenizer} if archive.tokenizer else {})
    wanted = TOKENIZERS[0 if archive.tokenizers else 1]
    if not models or str(custom).rpartition(".")[2] != wanted or (archive.tokenizers and SPECIAL_PART not in models):
        raise ModelError(
            f"{archive.path} has a tokenizer of {str(custom)[:120]!r}; known are {TOKENIZERS[0]} over SentencePiece "
            f"models, {SPECIAL_PART} among them, and {TOKENIZERS[1]} over a single one"
        )
    try:
        return CanaryText(models, prompt)
    except ModelError as error:
        raise ModelError(f"{archive.path}: {error}") from error


def _processor(model: bytes) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ModelError(f"a tokenizer cannot be read: {error}") from error
