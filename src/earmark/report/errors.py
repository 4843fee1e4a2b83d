"""Word error rates beside detection: what the words alone would have told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from earmark.detection import Detection
from earmark.extras import need
from earmark.report.contents import ErrorRate, Written
from earmark.runs import Row, Run
from earmark.signature import plain_words

LONGEST_TEXT = 300
"""Characters of a text that are shown."""
TEXTS_EACH = 2
"""Texts that are shown of one provider."""
MOST_TEXTS = 12


def error_rates(rows: Run, detections: Sequence[Detection]) -> tuple[ErrorRate, ...]:
    """Return one row per provider; clips without a transcript are left out.

    Args:
        rows: Rows of one model, precision and level.
        detections: What was found of its providers.

    Returns:
        Rates; none where no clip has a transcript.

    Raises:
        UsageError: jiwer is not installed.
    """
    if not any(row.expected for row in rows):
        return ()
    honest_texts = honest_of(rows)
    counted = {own.scenario: _count([r for r in rows if r.scenario == own.scenario]) for own in detections}
    errors, words = (sum(counted[own.scenario][i] for own in detections if own.honest) for i in (0, 1))
    usual = errors / words if words else math.nan
    found = []
    for own in detections:
        wrong, spoken, clips = counted[own.scenario]
        rate = wrong / spoken if spoken else math.nan
        texts = [
            (row.text, honest_texts[row.clip])
            for row in rows
            if row.scenario == own.scenario and row.clip in honest_texts
        ]
        found.append(
            ErrorRate(
                scenario=own.scenario,
                honest=own.honest,
                clips=clips,
                words=spoken,
                rate=rate,
                difference=rate - usual,
                same_text=sum(_plain(a) == _plain(b) for a, b in texts) / len(texts) if texts else math.nan,
                detected=own.detected_one_clip,
            )
        )
    return tuple(found)


def honest_of(rows: Run) -> dict[str, str]:
    """Return what the first honest provider wrote of each clip."""
    found: dict[str, str] = {}
    for row in rows:
        if row.honest:
            found.setdefault(row.clip, row.text)
    return found


def written(rows: Run) -> tuple[Written, ...]:
    """Return a few texts of dishonest providers that differ from an honest one's."""
    honest, shown, found = honest_of(rows), dict[str, int](), list[Written]()
    for row in rows:
        differs = not row.honest and row.text != honest.get(row.clip)
        if not differs or shown.get(row.scenario, 0) >= TEXTS_EACH or len(found) >= MOST_TEXTS:
            continue
        shown[row.scenario] = shown.get(row.scenario, 0) + 1
        texts = [None if text is None else short(text) for text in (row.expected, honest.get(row.clip), row.text)]
        found.append(
            Written(
                scenario=row.scenario, clip=short(row.clip), spoken=texts[0], honest=texts[1], written=texts[2] or ""
            )
        )
    return tuple(found)


def short(text: str) -> str:
    """Return a text without its end where it is too long to be shown.

    Example:
        >>> len(short("a" * 1000))
        300
    """
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"


def _count(rows: Sequence[Row]) -> tuple[int, int, int]:
    """Return errors, spoken words and clips."""
    jiwer = need("jiwer", what="a report", extra="report")
    pairs = [(_plain(row.expected), _plain(row.text)) for row in rows if row.expected]
    pairs = [pair for pair in pairs if pair[0]]
    if not pairs:
        return 0, 0, 0
    found: Any = jiwer.process_words([spoken for spoken, _ in pairs], [text for _, text in pairs])
    wrong = found.substitutions + found.deletions + found.insertions
    return wrong, found.hits + found.substitutions + found.deletions, len(pairs)


@lru_cache(maxsize=100_000)
def _plain(text: str) -> str:
    return " ".join(word for word in plain_words(text) if word)
