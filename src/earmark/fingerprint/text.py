"""What plain text shows: a transcript against the reference's own, and what the reference says of its tokens."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from earmark.fingerprint.types import Statistic

TEXT_STATISTICS = (
    Statistic("margin_max", "nats", "largest margin of a token below what the reference would have written there"),
    Statistic("unlikely_tokens", "count", "tokens with a margin beyond a near-tie"),
    Statistic("likelihood_gap", "nats", "how much likelier the reference's own transcript is, per token"),
    Statistic("stop_margin", "nats", "how much rather the reference would go on where the text ends"),
    Statistic("missing_words", "1", "share of the reference's words that the text does not have"),
    Statistic("added_words", "1", "share of the text's words that the reference does not have"),
    Statistic(
        "uncovered_gap", "s", "longest loud stretch without a token, less that with the reference's own transcript"
    ),
    Statistic("rate_distance", "1", "difference of the logarithm of words per second"),
    Statistic("mean_logprob_distance", "nats", "difference of a reported average log-probability, largest segment"),
)


def words_of(text: str) -> list[str]:
    """Return the words of a text, or its letters where the language writes no spaces.

    Example:
        >>> words_of("turn it on"), words_of("打开")
        (['turn', 'it', 'on'], ['打', '开'])
    """
    words = text.split()
    spaced = len(words) > len(text) / 30 and max(map(len, words), default=0) <= 30
    wide = sum(ord(letter) > 0x2E7F for letter in text) > len(text) / 2
    return words if spaced and not wide else [letter for letter in text if not letter.isspace()]


def plain(text: str) -> str:
    """Return a text without case, punctuation and space: what post-processing most often changes.

    Example:
        >>> plain(" Turn it on, please. ") == plain("turn it on please")
        True
    """
    return re.sub(r"[\W_]+", "", text.casefold())


def common_words(one: Sequence[str], other: Sequence[str]) -> list[tuple[int, int]]:
    """Return pairs of positions of words that two transcripts share, in order.

    Args:
        one: Words.
        other: Words.

    Returns:
        Rising pairs (position in one, position in other).

    Example:
        >>> common_words("set the radio on".split(), "the radio is on".split())
        [(1, 0), (2, 1), (3, 3)]
    """
    blocks = difflib.SequenceMatcher(None, one, other, autojunk=False).get_matching_blocks()
    return [(block.a + i, block.b + i) for block in blocks for i in range(block.size)]


def split_text(text: str, pieces: Sequence[str]) -> list[str]:
    """Cut a transcript where the reference's own transcripts of the segments meet.

    Args:
        text: Transcript of the whole clip.
        pieces: The reference's transcript of each segment.

    Returns:
        The part of each segment; words between two matches go to the earlier segment.

    Example:
        >>> split_text("set the radio on call lucy", ["set a radio on", "call lucie"])
        ['set the radio on', 'call lucy']
    """
    given = words_of(text)
    own = [(word, number) for number, piece in enumerate(pieces) for word in words_of(piece)]
    starts = {0: 0}
    for i, j in common_words([word for word, _ in own], given):
        starts.setdefault(own[i][1], j)
    cuts = [len(given)]
    for number in range(len(pieces) - 1, -1, -1):
        cuts.append(min(starts.get(number, cuts[-1]), cuts[-1]))
    cuts[-1] = 0
    glue = " " if " " in text.strip() else ""
    edges = cuts[::-1]
    return [glue.join(given[start:end]) for start, end in pairwise(edges)]


def word_statistics(text: str, own: str) -> dict[str, float]:
    """Return the statistics that need no model: missing and added words, and the rate of words.

    Args:
        text: The given transcript.
        own: The reference's.

    Returns:
        Name to value; NaN where there are no words to compare.

    Example:
        >>> word_statistics("set the radio", "set the radio on")["missing_words"]
        0.25
    """
    given, expected = ([w for w in map(plain, words_of(side)) if w] for side in (text, own))
    common = len(common_words(given, expected))
    both = given and expected
    return {
        "missing_words": 1 - common / len(expected) if expected else float("nan"),
        "added_words": 1 - common / len(given) if given else float("nan"),
        "rate_distance": float(abs(np.log(len(given) / len(expected)))) if both else float("nan"),
    }
