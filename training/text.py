"""Seeded generator of English sentences, with a split between training and test by the text itself.

A sentence of at least four words belongs to the test split when the hash of its text says so, hence no
test sentence can ever be generated for training, whatever the seeds.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable

from training.lexicon import DIGITS, ORDINALS, RANKS, SHORT_TEMPLATES, SLOTS, TEENS, TEMPLATES, TENS

TEST_SHARE = 20  # one sentence in twenty is kept for tests
MIN_TEST_WORDS = 4


def vocabulary() -> list[str]:
    """Every word the generator can say, sorted."""
    literal = re.sub(r"\{\w+\}", " ", " ".join(TEMPLATES + SHORT_TEMPLATES)).split()
    slots = " ".join(word for words in SLOTS.values() for word in words).split()
    numbers = DIGITS + TEENS + TENS + ORDINALS + RANKS + ["hundred", "thousand", "o'clock", "half", "past"]
    return sorted(set(literal + slots + numbers))


def spell_number(value: int) -> str:
    """Spell a number from 0 to 9999.

    >>> spell_number(1342)
    'one thousand three hundred forty two'
    """
    if value < 10:
        return DIGITS[value]
    if value < 20:
        return TEENS[value - 10]
    if value < 100:
        return TENS[value // 10 - 2] + (f" {DIGITS[value % 10]}" if value % 10 else "")
    size, unit = (1000, "thousand") if value >= 1000 else (100, "hundred")
    rest = f" {spell_number(value % size)}" if value % size else ""
    return f"{spell_number(value // size)} {unit}{rest}"


def _number(rng: random.Random) -> str:
    limit = rng.choice((10, 20, 100, 100, 1000, 10000))
    return spell_number(rng.randrange(limit))


def _year(rng: random.Random) -> str:
    return f"{rng.choice(('eighteen', 'nineteen', 'twenty'))} {spell_number(rng.randrange(10, 100))}"


def _time(rng: random.Random) -> str:
    hour = spell_number(rng.randrange(1, 13))
    late = spell_number(rng.choice((5, 10, 15, 20, 25)))
    forms = (f"{hour} o'clock", f"half past {hour}", f"{late} past {hour}", f"{late} to {hour}")
    return rng.choice((*forms, f"{hour} {spell_number(rng.randrange(10, 60))}"))


_COMPUTED: dict[str, Callable[[random.Random], str]] = {
    "n": _number,
    "d": lambda rng: rng.choice(DIGITS),
    "ord": lambda rng: rng.choice(ORDINALS),
    "rank": lambda rng: rng.choice(RANKS),
    "time": _time,
    "year": _year,
    "yesno": lambda rng: rng.choice(("yes", "no", "go", "stop", "up", "down", "left", "right", "on", "off")),
}


def fill(template: str, rng: random.Random) -> str:
    """Replace every {slot} of a template by a random word."""

    def replace(match: re.Match[str]) -> str:
        slot = match.group(1)
        return _COMPUTED[slot](rng) if slot in _COMPUTED else rng.choice(SLOTS[slot])

    return re.sub(r"\{(\w+)\}", replace, template)


def is_test(text: str) -> bool:
    """Whether a sentence belongs to the test split (a property of its text alone)."""
    if len(text.split()) < MIN_TEST_WORDS:
        return False
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) % TEST_SHARE == 0


def _draw(rng: random.Random, words: list[str]) -> str:
    kind = rng.random()
    if kind < 0.64:
        return fill(rng.choice(TEMPLATES), rng)
    if kind < 0.86:
        return fill(rng.choice(SHORT_TEMPLATES), rng)
    return " ".join(rng.choices(words, k=rng.randint(2, 7)))


def training_sentences(count: int, seed: int) -> list[str]:
    """Sentences, short phrases and random word strings of the training split."""
    rng, words = random.Random(f"train-{seed}"), vocabulary()  # noqa: S311  (speech, not secrets)
    kept: list[str] = []
    while len(kept) < count:
        text = _draw(rng, words)
        if not is_test(text):
            kept.append(text)
    return kept


def test_sentences(count: int, seed: int = 0) -> list[str]:  # noqa: PT028  (not a test)
    """Distinct template sentences that no training corpus contains."""
    rng = random.Random(f"test-{seed}")  # noqa: S311  (speech, not secrets)
    kept: dict[str, None] = {}
    while len(kept) < count:
        text = fill(rng.choice(TEMPLATES), rng)
        if is_test(text):
            kept[text] = None
    return list(kept)
