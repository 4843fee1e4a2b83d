"""What the numbers rest on, and what they do not say."""

from __future__ import annotations

from collections.abc import Sequence

from earmark.calibrate import LEAST_DEVELOPMENT
from earmark.detection import Scored
from earmark.profiles import Profile
from earmark.report.audits import RATE
from earmark.report.bootstrap import FEWEST, RESAMPLES, SEED
from earmark.report.contents import Part

Judged = Sequence[tuple[Scored, Profile | None]]
"""Rows of one kind with the profile that gave their scores, if one did."""


def limits(parts: Sequence[Part], judged: Judged, repeated: int) -> tuple[str, ...]:
    """Return the sentences that belong below the figures of these parts."""
    said = [
        "The providers are simulated; the figures are of the models, clips and precisions named, and of no others.",
        "PASS and FAIL are as the run holds them. Intervals are exact (Clopper-Pearson) and take clips as independent.",
        "Clips to detect are each judged alone, at the counted rate; an audit adds up and may need fewer.",
    ]
    if parts:
        said += _about_scores(judged)
        said += dict.fromkeys(f"Thresholds: {part.threshold_source}." for part in parts)
    if any(part.audits and judge is None for part, (_, judge) in zip(parts, judged, strict=True)):
        said.append(
            f"Without a profile, the audits of runs are played on the run's own clips: bets at a rate of {RATE:g} are "
            "placed on some honest base clips, and honest providers play on the others."
        )
    said += [_about_rows(own) for own, _ in judged if _silent(own)]
    if any(part.costs for part in parts):
        said.append("Costs are wall-clock times of one pass on the machine named; other programs may have run on it.")
    if any(part.rates for part in parts):
        said.append("Word error rates compare words as spoken, without case and punctuation.")
        said.append(
            "Intervals of their differences are percentiles of a paired bootstrap over base clips "
            f"({RESAMPLES} resamples, seed {SEED}); below {FEWEST} base clips there are none."
        )
    if repeated:
        said.append(f"{repeated} rows repeat a clip of a provider that another row holds; each counts once.")
    return tuple(said)


def _about_scores(judged: Judged) -> list[str]:
    said = [f"Scores are those of the profile {judge.name}." for _, judge in judged if judge is not None]
    if clips := [len(own.split.development) for own, judge in judged if judge is None]:
        few = "With so few, areas come out smaller than a calibrated profile's."
        said.append(
            "Without a profile, the score behind areas and thresholds is the largest standardised statistic of the "
            f"family; its scale comes from {', '.join(map(str, clips))} honest base clips, which take part in nothing "
            f"else.{' ' + few if min(clips) < LEAST_DEVELOPMENT else ''}"
        )
    return said


def _silent(scored: Scored) -> int:
    return sum(not row.statistics for row in scored.rows)


def _about_rows(scored: Scored) -> str:
    model, _, precision, _ = scored.kind
    return f"{model}, {precision}: {_silent(scored)} rows hold no statistics, because it came to no replay."
