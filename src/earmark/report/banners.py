"""The answer in one line."""

from __future__ import annotations

from collections.abc import Sequence

from earmark.report.contents import AuditPath, Banner, Part, Tone

MOST_REASONS = 12
TONES: dict[str, Tone] = {"PASS": "good", "FAIL": "bad", "INCONCLUSIVE": "open"}


def banner(parts: Sequence[Part], audits: Sequence[AuditPath]) -> Banner:
    """Return the answer: that of the audits where there are some, else what the study found."""
    if audits:
        return _of_audits(audits, parts)
    return _of_study(parts)


def _of_audits(audits: Sequence[AuditPath], parts: Sequence[Part]) -> Banner:
    worst = min((own.decision for own in audits), key=["FAIL", "INCONCLUSIVE", "PASS"].index)
    reasons = [
        f"{own.name}: {own.decision} behind {_count(len(own.log_e), 'clip')}"
        + (f", decided at clip {own.decided}" if own.decided else "")
        for own in audits
    ]
    study = (_of_study(parts).headline,) if parts else ()
    return Banner(tone=TONES[worst], headline=f"The audit says {worst}.", reasons=(*reasons, *study))


def _of_study(parts: Sequence[Part]) -> Banner:
    cheats = [own for part in parts for own in part.detections if not own.honest and own.clips]
    alarms, judged = sum(part.alarms for part in parts), sum(part.judged for part in parts)
    if not cheats and not judged:
        return Banner(tone="open", headline="Nothing was judged." if parts else "Nothing was measured.")
    always = sum(own.detected == own.clips for own in cheats)
    never = [own for own in cheats if not own.detected]
    found = (
        f"{always} of {_count(len(cheats), 'simulated cheat')} found on every clip" if cheats else "No cheat was tried"
    )
    accused = f"{alarms} of {_count(judged, 'honest clip')} accused" if judged else "no honest clip was judged"
    reasons = [
        f"{own.scenario} of {own.model} ({own.precision}, {own.level}): "
        + (
            f"found on {own.detected} of {own.clips} clips"
            if own.detected
            else f"not found on any of {own.clips} clips"
        )
        for own in cheats
        if own.detected < own.clips
    ]
    if len(reasons) > MOST_REASONS:
        reasons[MOST_REASONS:] = [f"and {len(reasons) - MOST_REASONS} more in the table"]
    complete = bool(cheats and judged) and always == len(cheats)
    tone: Tone = "bad" if alarms or never else "good" if complete else "open"
    return Banner(tone=tone, headline=f"{found}; {accused}.", reasons=tuple(reasons))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
