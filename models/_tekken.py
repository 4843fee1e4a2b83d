"""Mistral's tekken vocabularies, read from `tekken.json` without Mistral's own library."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from earmark.errors import ModelError


class Tekken:
    """A byte-level vocabulary whose merges follow from the ranks of its tokens; special tokens come first.

    Args:
        pattern: Regular expression that cuts text into pieces, none of which a token crosses.
        tokens: Bytes of each token by rank.
        special: Names of the special tokens by id.
        reserved: Number of ids before the first token.
    """

    def __init__(self, pattern: str, tokens: Sequence[bytes], special: Sequence[str], reserved: int) -> None:
        """Number the tokens."""
        self.pattern, self.tokens, self.reserved = pattern, tuple(tokens), reserved
        self.special = {name: i for i, name in enumerate(special)}
        self._ranks = {data: rank for rank, data in enumerate(self.tokens)}

    @classmethod
    def read(cls, folder: Path) -> Tekken:
        """Read `tekken.json` of a checkpoint.

        Raises:
            ModelError: The file is missing or not well formed.
        """
        path = folder / "tekken.json"
        try:
            file = json.loads(path.read_text(encoding="utf-8"))
            config = file["config"]
            reserved = int(config["default_num_special_tokens"])
            count = int(config["default_vocab_size"]) - reserved
            rows = sorted(file["vocab"], key=lambda row: int(row["rank"]))[:count]
            special = sorted(file["special_tokens"], key=lambda row: int(row["rank"]))
            return cls(
                config["pattern"],
                [base64.b64decode(row["token_bytes"]) for row in rows],
                [str(row["token_str"]) for row in special],
                reserved,
            )
        except FileNotFoundError as error:
            raise ModelError(f"{path} is missing; fetch it with the checkpoint") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{path} is no tekken vocabulary: {type(error).__name__} {error}") from error

    @cached_property
    def _cutter(self) -> Any:
        from tokenizers import Regex, pre_tokenizers

        return pre_tokenizers.Split(Regex(self.pattern), behavior="isolated")

    def encode(self, text: str) -> list[int]:
        """Return the ids of plain text; special tokens in it are plain letters.

        Source: Sennrich et al., Neural machine translation of rare words with subword units (2016), with the ranks of
        the tokens as the order of the merges.
        """
        return [i for piece, _ in self._cutter.pre_tokenize_str(text) for i in self._merge(piece.encode())]

    def _merge(self, data: bytes) -> list[int]:
        parts = [data[at : at + 1] for at in range(len(data))]
        while len(parts) > 1:
            ranks = [self._ranks.get(parts[at] + parts[at + 1]) for at in range(len(parts) - 1)]
            known = [(rank, at) for at, rank in enumerate(ranks) if rank is not None]
            if not known:
                break
            _, at = min(known)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        return [self.reserved + self._ranks[part] for part in parts]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, special tokens left out."""
        return b"".join(self.bytes_of(i) for i in ids).decode("utf-8", "replace")

    def bytes_of(self, i: int) -> bytes:
        """Return the bytes of a token; of a special token, or an id without a token, nothing."""
        rank = i - self.reserved
        return self.tokens[rank] if 0 <= rank < len(self.tokens) else b""
