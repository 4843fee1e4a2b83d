"""From sources to a `Report`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from earmark.audit_log import Entry
from earmark.decision.operating import exact_interval
from earmark.detection import Kind, Scored, accused, detection, fitting, score
from earmark.examples import Attributed, Examples
from earmark.profiles import Profile
from earmark.report.audits import log_path, simulated
from earmark.report.bands import bands, thresholds
from earmark.report.banners import banner
from earmark.report.contents import Part, Report, Subject
from earmark.report.errors import error_rates, rates_say, written
from earmark.report.limits import limits
from earmark.report.operating import operating
from earmark.report.sources import Source
from earmark.runs import Row, Run

LIBRARIES = ("earmark", "numpy", "scipy", "jinja2", "matplotlib", "jiwer")
SHOWN = 20
"""Most names that a provider's clips are shown to look like."""


def build(
    sources: Sequence[Source],
    *,
    audits: Sequence[tuple[str, Sequence[Entry]]] = (),
    profiles: Sequence[Profile] = (),
    title: str = "earmark report",
    command: str = "",
) -> Report:
    """Make a report of runs and audits.

    Args:
        sources: The runs, with what lies beside them.
        audits: Name and entries of every log.
        profiles: Calibrated profiles for scores, thresholds and bets of the runs that they fit; where none does, the
            score's scale comes from some of the honest clips, and thresholds from the family's provisional bounds.
        title: Title of the report.
        command: The command that makes it, for people.

    Returns:
        The report; the same input gives the same report.

    Example:
        >>> build([]).banner.headline
        'Nothing was measured.'
    """
    rows, repeated = _distinct(row for source in sources for row in source.run)
    scored = score(rows, profiles)
    examples = [source.examples for source in sources if source.examples is not None]
    judges = [fitting(profiles, own.kind) for own in scored]
    pairs = list(zip(scored, judges, strict=True))
    parts = tuple(_part(own, _matching(own.kind, examples), judge) for own, judge in pairs)
    logs = tuple(log_path(name, entries) for name, entries in audits)
    return Report(
        title=title,
        banner=banner(parts, logs),
        parts=parts,
        audits=logs,
        limits=limits(parts, pairs, repeated),
        provenance=_provenance(sources, audits, profiles, command),
    )


def _distinct(rows: Iterable[Row]) -> tuple[Run, int]:
    """Return every row once, the latest, and how often one was repeated: a clip counts once per provider."""
    found: dict[tuple[str, ...], Row] = {}
    count = 0
    for row in rows:
        found[row.model, row.weights, row.precision, row.level, row.scenario, row.clip] = row
        count += 1
    return Run(found.values()), count - len(found)


def _matching(kind: Kind, examples: Sequence[Examples]) -> list[Examples]:
    return [own for own in examples if (own.model, own.weights, own.precision, own.level) == kind]


def _part(scored: Scored, examples: Sequence[Examples], profile: Profile | None) -> Part:
    alarms, judged = accused(scored)
    limit, source = thresholds(scored, profile)
    found = tuple(detection(scored, name) for name in scored.rows.scenarios())
    rates = error_rates(scored.rows, found)
    return Part(
        subject=_subject(scored, examples),
        detections=found,
        alarms=alarms,
        judged=judged,
        alarms_upper=exact_interval(alarms, judged)[1],
        bands=bands(scored.rows, limit),
        threshold_source=source,
        operating=operating(scored),
        audits=simulated(scored, profile),
        rates=rates,
        rates_say=rates_say(rates),
        written=written(scored.rows),
        curves=tuple(item for own in examples for item in own.curves),
        confidences=tuple(item for own in examples for item in own.confidences),
        calibrations=tuple(item for own in examples for item in own.calibrations),
        attributions=_likenesses(scored.rows) or tuple(item for own in examples for item in own.attributions),
        costs=tuple(item for own in examples for item in own.costs),
    )


def _likenesses(rows: Run) -> tuple[Attributed, ...]:
    """Return which cheats the clips look like, where all of them were matched (`earmark study --match`)."""
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        if row.looks_like is not None:
            counts.setdefault(row.scenario, Counter())[row.looks_like] += 1
    return tuple(Attributed(scenario=name, names=dict(own.most_common(SHOWN))) for name, own in counts.items())


def _subject(scored: Scored, examples: Sequence[Examples]) -> Subject:
    model, weights, precision, level = scored.kind
    seconds = {row.clip: row.seconds for row in scored.rows}
    honest = {row.scenario: row.honest for row in scored.rows}
    return Subject(
        model=model,
        weights=weights,
        family=next(row.family for row in scored.rows),
        precision=precision,
        level=level,
        clips=len(seconds),
        bases=len({row.base for row in scored.rows}),
        minutes=round(sum(seconds.values()) / 60, 3),
        honest=tuple(name for name, own in honest.items() if own),
        cheats=tuple(name for name, own in honest.items() if not own),
        device=", ".join(dict.fromkeys(own.device for own in examples)),
        engine=", ".join(dict.fromkeys(own.engine for own in examples)),
    )


def _provenance(
    sources: Sequence[Source], audits: Sequence[tuple[str, Sequence[Entry]]], profiles: Sequence[Profile], command: str
) -> tuple[tuple[str, str], ...]:
    """Return what a reader needs to make the report again."""
    facts = [("command of the report", command)] if command else []
    for source in sources:
        facts += [(f"SHA-256 of {name}", digest) for name, digest in source.digests]
        stated = source.examples.provenance if source.examples is not None else {}
        facts += [(f"{source.name}: {name}", value) for name, value in sorted(stated.items())]
    for name, entries in audits:
        lines = "".join(entry.to_json() + "\n" for entry in entries)
        facts.append((f"SHA-256 of {name}", hashlib.sha256(lines.encode()).hexdigest()))
    for own in profiles:
        facts.append((f"SHA-256 of the header of {own.name}", own.header.digest()))
    facts += [("seeds", "clips are divided by SHA-256 of their names; nonces follow from the names")]
    return (*facts, *((f"version of {name}", version(name)) for name in LIBRARIES))
