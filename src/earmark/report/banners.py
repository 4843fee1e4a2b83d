"""The answer in one line."""

from __future__ import annotations

from collections.abc import Sequence

from earmark.detection import Detection
from earmark.report.contents import AuditPath, Banner, Part, Tone

MOST_REASONS = 12
OWN = "honest-"
"""So begin the names of the honest providers that a study plays itself (`earmark.scenarios.honest`)."""
TONES: dict[str, Tone] = {"PASS": "good", "FAIL": "bad", "INCONCLUSIVE": "open"}


def banner(parts: Sequence[Part], audits: Sequence[AuditPath]) -> Banner:
    """Return the answer: that of the audits where there are some, else what the study found."""
    if audits:
        return _of_audits(audits, parts)
    return _of_study(parts)


def _of_audits(audits: Sequence[AuditPath], parts: Sequence[Part]) -> Banner:
    worst = min((own.decision for own in audits), key=["FAIL", "INCONCLUSIVE", "PASS"].index)
    reasons = [
        f"{own.name}: {own.decision} behind {_count(own.clips, 'clip')}"
        + (f", decided at clip {own.decided}" if own.decided else "")
        for own in audits
    ]
    study = (_of_study(parts).headline,) if parts else ()
    return Banner(tone=TONES[worst], headline=f"The audit says {worst}.", reasons=(*reasons, *study))


def _of_study(parts: Sequence[Part]) -> Banner:
    found = [own for part in parts for own in part.detections]
    if not any(own.clips for own in found):
        return Banner(tone="open", headline="Nothing was judged." if found else "Nothing was measured.")
    headline = _of_cheats(parts) if any(not own.honest for own in found) else _of_honest(found)
    if undecided := sum(own.undecided for own in found):
        headline += f"; {_count(undecided, 'verdict')} undecided"
    reasons = [_reason(own) for own in found if not _perfect(own)]
    if len(reasons) > MOST_REASONS:
        reasons[MOST_REASONS:] = [f"and {len(reasons) - MOST_REASONS} more in the table"]
    return Banner(tone=_tone(found), headline=f"{headline}.", reasons=tuple(reasons))


def _tone(found: Sequence[Detection]) -> Tone:
    """Return `bad` where an honest clip was accused or a cheat was judged and never found, `good` without a flaw."""
    if any(own.detected if own.honest else own.clips and not own.detected for own in found):
        return "bad"
    return "good" if all(map(_perfect, found)) and any(own.honest for own in found) else "open"


def _of_cheats(parts: Sequence[Part]) -> str:
    cheats = [own for part in parts for own in part.detections if not own.honest]
    always = sum(map(_perfect, cheats))
    alarms, judged = sum(part.alarms for part in parts), sum(part.judged for part in parts)
    accused = f"{alarms} of {_count(judged, 'honest clip')} accused" if judged else "no honest clip was judged"
    return f"{always} of {_count(len(cheats), 'simulated cheat')} found on every clip; {accused}"


def _of_honest(found: Sequence[Detection]) -> str:
    """Return what became of honest providers: of the one elsewhere where there is one, else of all."""
    elsewhere = [own for own in found if not own.scenario.startswith(OWN)]
    if len(elsewhere) == 1:
        (own,) = elsewhere
        return f"{own.scenario} passed on {own.clips - own.detected} of {_count(_all(own), 'clip')}"
    always = sum(map(_perfect, found))
    return f"{always} of {_count(len(found), 'honest provider')} passed on every clip"


def _perfect(own: Detection) -> bool:
    """Tell whether every clip of a provider was judged, and judged right."""
    return own.undecided == 0 and own.detected == (0 if own.honest else own.clips)


def _all(own: Detection) -> int:
    return own.clips + own.undecided


def _reason(own: Detection) -> str:
    found = "accused" if own.honest else "found"
    many = f"{own.detected} of {_count(_all(own), 'clip')}"
    said = f"{found} on {many}" if own.detected else f"not {found} on any of {_count(_all(own), 'clip')}"
    undecided = f", {own.undecided} undecided" if own.undecided else ""
    return f"{own.scenario} of {own.model} ({own.precision}, {own.level}): {said}{undecided}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
