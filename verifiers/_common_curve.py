"""Where the words of a transcript stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from earmark.verifiers._common_trace import Floats


class Writer(Protocol):
    """What is asked of a model here."""

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of emitted ids."""

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return for each id the index of its word."""


def words_at(places: Floats, ids: Sequence[int], model: Writer) -> tuple[tuple[float, str], ...]:
    """Return place and text of each word.

    Args:
        places: Where each emitted token stands, (tokens,).
        ids: The emitted tokens.
        model: The model that wrote them.

    Returns:
        One pair per word, at the place of its first token.
    """
    parts: dict[int, list[int]] = {}
    for i, word in enumerate(model.word_index(ids)):
        if word >= 0:
            parts.setdefault(word, []).append(i)
    return tuple((float(places[own[0]]), model.detokenise([ids[i] for i in own]).strip()) for own in parts.values())
