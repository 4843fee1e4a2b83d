"""Sentences from templates: what a grammar is, choices that every machine repeats, and the split by the text itself.

A sentence of at least four words belongs to the test split when the hash of its text says so, hence no test sentence
can ever be generated for training, whatever the seeds. Challenges are test sentences.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from earmark.errors import UsageError

T = TypeVar("T")

TEST_SHARE = 20
"""One sentence in twenty is kept for tests."""
MIN_TEST_WORDS = 4
_TRIES = 20_000


def words(text: str) -> list[str]:
    """Return the words of a text.

    Example:
        >>> words("red green")
        ['red', 'green']
    """
    return text.split()


class Chooser(Protocol):
    """What draws words: `Dice`, or `random.Random`."""

    def choice(self, seq: Sequence[T], /) -> T:
        """Return one of the options."""

    def randrange(self, start: int, stop: int | None = None, /) -> int:
        """Return an integer from `range(start, stop)`."""


class Dice:
    """Endless fair choices from a seed, the same on every machine and in every version of Python.

    Words of 64 bits are the heads of SHA-256(seed digest, counter); a range takes them by rejection.

    Args:
        *seed: Bytes, texts and integers; different sequences give unrelated choices.

    Example:
        >>> Dice("example", 1).choice("abc") == Dice("example", 1).choice("abc")
        True
        >>> dice = Dice("example", 2)
        >>> [dice.randrange(10) for _ in range(5)]
        [4, 4, 9, 1, 4]
    """

    def __init__(self, *seed: bytes | str | int) -> None:
        state = hashlib.sha256(b"earmark/dice/1\0")
        for part in seed:
            data = part if isinstance(part, bytes) else str(part).encode()
            state.update(len(data).to_bytes(8, "little") + data)
        self._key, self._count = state.digest(), 0

    def _word(self) -> int:
        block = hashlib.sha256(self._key + self._count.to_bytes(8, "little")).digest()
        self._count += 1
        return int.from_bytes(block[:8], "little")

    def randrange(self, start: int, stop: int | None = None, /) -> int:
        """Return an integer from `range(start, stop)`, or from `range(start)`.

        Raises:
            UsageError: The range is empty.
        """
        low, high = (0, start) if stop is None else (start, stop)
        size = high - low
        if size < 1:
            raise UsageError(f"nothing to choose from in range({low}, {high})")
        limit = (1 << 64) // size * size
        while (word := self._word()) >= limit:
            pass
        return low + word % size

    def choice(self, seq: Sequence[T], /) -> T:
        """Return one of the options."""
        return seq[self.randrange(len(seq))]

    def shuffled(self, seq: Sequence[T]) -> list[T]:
        """Return the options in random order (Fisher and Yates)."""
        made = list(seq)
        for last in range(len(made) - 1, 0, -1):
            other = self.randrange(last + 1)
            made[last], made[other] = made[other], made[last]
        return made


Slot = Callable[[Chooser], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grammar:
    """What can be said in one language; lower case, numbers spelled out.

    Attributes:
        language: Language code.
        templates: Sentences with {slots}.
        slots: Slot to words.
        computed: Slot to a function that makes the word, for instance a number.
        rare: Templates with rare terms.
        confusable: Templates whose words sound like others.
    """

    language: str
    templates: Sequence[str]
    slots: Mapping[str, Sequence[str]]
    computed: Mapping[str, Slot] = field(default_factory=dict)
    rare: Sequence[str] = ()
    confusable: Sequence[str] = ()

    def fill(self, template: str, rng: Chooser) -> str:
        """Replace every {slot} of a template by a random word."""

        def replace(match: re.Match[str]) -> str:
            slot = match.group(1)
            return self.computed[slot](rng) if slot in self.computed else rng.choice(self.slots[slot])

        return re.sub(r"\{(\w+)\}", replace, template)


def is_test(text: str) -> bool:
    """Tell whether a sentence belongs to the test split (a property of its text alone).

    Example:
        >>> is_test("yes"), is_test("the farmer in the beach carried a white box")
        (False, True)
    """
    if len(text.split()) < MIN_TEST_WORDS:
        return False
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % TEST_SHARE == 0


def held_out_sentence(grammar: Grammar, rng: Chooser, templates: Sequence[str] | None = None) -> str:
    """Return a random sentence of the test split, which no training corpus contains.

    Args:
        grammar: The language.
        rng: Where the choices come from.
        templates: Templates to fill; those of the grammar by default.

    Raises:
        UsageError: The templates are too poor to give one.
    """
    for _ in range(_TRIES):
        text = grammar.fill(rng.choice(templates or grammar.templates), rng)
        if is_test(text):
            return text
    raise UsageError(f"no sentence of the test split in {_TRIES} tries; give richer templates")
