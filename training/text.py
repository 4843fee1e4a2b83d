"""Seeded generator of English sentences for training, apart from those that are kept for tests.

Words, templates and the split by the text itself are those of `earmark.challenges`.
"""

from __future__ import annotations

import itertools
import random
import re

from earmark.challenges.english import ENGLISH, ORDINALS, RANKS, SHORT_TEMPLATES, SLOTS, TEMPLATES
from earmark.challenges.grammars import GRAMMARS
from earmark.challenges.numbers import DIGITS, TEENS, TENS
from earmark.challenges.text import is_test

__all__ = ["foreign_sentences", "is_test", "test_sentences", "training_sentences", "vocabulary"]


def vocabulary() -> list[str]:
    """Every word the generator can say, sorted."""
    literal = re.sub(r"\{\w+\}", " ", " ".join(TEMPLATES + SHORT_TEMPLATES)).split()
    slots = " ".join(word for words in SLOTS.values() for word in words).split()
    numbers = DIGITS + TEENS + TENS + ORDINALS + RANKS + ["hundred", "thousand", "o'clock", "half", "past"]
    return sorted(set(literal + slots + numbers))


def _draw(rng: random.Random, words: list[str]) -> str:
    kind = rng.random()
    if kind < 0.64:
        return ENGLISH.fill(rng.choice(TEMPLATES), rng)
    if kind < 0.86:
        return ENGLISH.fill(rng.choice(SHORT_TEMPLATES), rng)
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


def foreign_sentences(language: str, count: int, seed: int) -> list[str]:
    """German, French or Spanish sentences of the training split (`de`, `fr`, `es`)."""
    rng, grammar = random.Random(f"train-{language}-{seed}"), GRAMMARS[language]  # noqa: S311  (speech, not secrets)
    templates = [*grammar.templates, *grammar.rare]
    drawn = (grammar.fill(rng.choice(templates), rng) for _ in itertools.count())
    return list(itertools.islice((text for text in drawn if not is_test(text)), count))


def test_sentences(count: int, seed: int = 0) -> list[str]:  # noqa: PT028  (not a test)
    """Distinct template sentences that no training corpus contains."""
    rng = random.Random(f"test-{seed}")  # noqa: S311  (speech, not secrets)
    kept: dict[str, None] = {}
    while len(kept) < count:
        text = ENGLISH.fill(rng.choice(TEMPLATES), rng)
        if is_test(text):
            kept[text] = None
    return list(kept)
