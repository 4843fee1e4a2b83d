"""Limits that follow from the audio alone, so that evidence is refused before any replay."""

from __future__ import annotations

TOKENS_PER_SECOND = 50
"""Far above any language and tokenizer (about 10 in practice), and the unit in which audio is billed."""
TOKENS_FREE = 16
"""Tokens beyond the rate: the end token, and a few for very short pieces."""

DEFAULT_K = 8
"""Listed tokens per position."""
MOST_K = 64
"""Most listed tokens per position that are compared: what a comparison takes grows with their square."""


def max_tokens(samples: int) -> int:
    """Return the most tokens that a piece of audio may give.

    Args:
        samples: Length at 16 kHz.

    Example:
        >>> max_tokens(16_000), max_tokens(1)
        (66, 17)
    """
    return TOKENS_FREE + -(-samples * TOKENS_PER_SECOND // 16_000)
