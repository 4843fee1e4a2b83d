"""Word error rates beside detection: what the words alone would have told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from earmark.detection import Detection
from earmark.extras import need
from earmark.report.bootstrap import difference, interval
from earmark.report.contents import ErrorRate, Written
from earmark.runs import Row, Run
from earmark.signature import plain_words

Counts = Mapping[str, tuple[int, int]]
"""Errors and spoken words by clip."""
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
    usual = _added(counted[own.scenario] for own in detections if own.honest)
    bases = {row.clip: row.base for row in rows}
    found = []
    for own in detections:
        counts = counted[own.scenario]
        wrong, spoken = (sum(pair[i] for pair in counts.values()) for i in (0, 1))
        texts = [
            (row.text, honest_texts[row.clip])
            for row in rows
            if row.scenario == own.scenario and row.clip in honest_texts
        ]
        apart, (low, high) = _against(counts, usual, bases)
        found.append(
            ErrorRate(
                scenario=own.scenario,
                honest=own.honest,
                clips=len(counts),
                words=spoken,
                rate=wrong / spoken if spoken else math.nan,
                difference=apart,
                difference_low=low,
                difference_high=high,
                same_text=sum(_plain(a) == _plain(b) for a, b in texts) / len(texts) if texts else math.nan,
                detected=own.detected_one_clip,
            )
        )
    return tuple(found)


def rates_say(rates: Sequence[ErrorRate]) -> str:
    """Return what word error rates tell of the cheats, in a sentence; empty where they have no interval.

    Example:
        >>> made = dict(honest=False, clips=20, words=90, rate=0.1, same_text=0.5, detected=1.0)
        >>> rates_say([ErrorRate(scenario="a", difference=0.1, difference_low=0.05, difference_high=0.2, **made),
        ...            ErrorRate(scenario="b", difference=0.0, difference_low=-0.1, difference_high=0.1, **made)])
        '1 of 2 cheats lie within the interval of no difference: b.'
    """
    known = [own for own in rates if not own.honest and not math.isnan(own.difference_low)]
    if not known:
        return ""
    hidden = [own.scenario for own in known if own.difference_low <= 0 <= own.difference_high]
    named = f": {', '.join(hidden)}" if hidden else ""
    return f"{len(hidden)} of {len(known)} cheats lie within the interval of no difference{named}."


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


def _count(rows: Sequence[Row]) -> Counts:
    """Return errors and spoken words of each clip that has a transcript."""
    jiwer = need("jiwer", what="a report", extra="report")
    said = [(row.clip, _plain(row.expected), _plain(row.text)) for row in rows if row.expected]
    said = [own for own in said if own[1]]
    if not said:
        return {}
    found: Any = jiwer.process_words([spoken for _, spoken, _ in said], [text for _, _, text in said])
    spans = zip(said, found.alignments, found.references, strict=True)
    return {clip: (_errors(chunks), len(words)) for (clip, _, _), chunks, words in spans}


def _errors(chunks: Sequence[Any]) -> int:
    """Return the errors of one clip: words that were replaced, left out or put in."""
    return sum(
        max(own.ref_end_idx - own.ref_start_idx, own.hyp_end_idx - own.hyp_start_idx)
        for own in chunks
        if own.type != "equal"
    )


def _added(counts: Iterable[Counts]) -> Counts:
    """Return the counts of several providers together."""
    found: dict[str, tuple[int, int]] = {}
    for own in counts:
        for clip, (wrong, spoken) in own.items():
            before = found.get(clip, (0, 0))
            found[clip] = (before[0] + wrong, before[1] + spoken)
    return found


def _against(counts: Counts, usual: Counts, bases: Mapping[str, str]) -> tuple[float, tuple[float, float]]:
    """Return by how much one rate exceeds another on the clips that both have, and its 95 % interval."""
    shared: dict[str, list[int]] = {}
    for clip in counts.keys() & usual.keys():
        before = shared.get(bases[clip], [0] * 4)
        shared[bases[clip]] = [a + b for a, b in zip(before, (*counts[clip], *usual[clip]), strict=True)]
    if not shared:
        return math.nan, (math.nan, math.nan)
    table = np.asarray([shared[base] for base in sorted(shared)], np.float64)
    return float(difference(table.sum(axis=0))), interval(table)


@lru_cache(maxsize=100_000)
def _plain(text: str) -> str:
    return " ".join(word for word in plain_words(text) if word)
