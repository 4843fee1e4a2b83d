"""What a report says: numbers and words, no looks. Its JSON form is the report's twin for machines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from earmark.detection import Detection
from earmark.examples import Attributed, Calibration, Cost, EntropyCurve, WordConfidence

REPORT_VERSION = 2
"""Rises when a field is added, removed or changes its meaning."""

Tone = Literal["good", "bad", "open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """The answer in one line, and what it rests on.

    Attributes:
        tone: `good` where all is as it should be, `bad` where not, `open` where nothing can be said.
        headline: The answer.
        reasons: What it rests on.
    """

    tone: Tone
    headline: str
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One model that was claimed, and what was measured of it.

    Attributes:
        model: Name of the reference.
        weights: Digest of its weights.
        family: Its family.
        precision: Claimed precision.
        level: Level of the evidence.
        clips: Distinct clips.
        bases: Distinct base clips.
        minutes: Minutes of distinct audio.
        honest: Names of the honest providers.
        cheats: Names of the dishonest ones.
        device: Where it ran; empty where nobody wrote it down.
        engine: Software that ran it; empty where nobody wrote it down.
    """

    model: str
    weights: str
    family: str
    precision: str
    level: str
    clips: int
    bases: int
    minutes: float
    honest: tuple[str, ...]
    cheats: tuple[str, ...]
    device: str = ""
    engine: str = ""

    @property
    def name(self) -> str:
        """Model, precision and level in a few words."""
        return f"{self.model}, {self.precision}, {self.level}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Where the values of one statistic lie; NaN without finite values.

    Attributes:
        count: Rows with a finite value.
        least: Smallest of these.
        median: Their median.
        most: Largest of these.
        infinite: Clips with an infinite value, where no honest provider can come.
    """

    count: int
    least: float
    median: float
    most: float
    infinite: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One statistic of one subject: honest against dishonest.

    Attributes:
        statistic: Its name.
        unit: Its unit; empty where unknown.
        meaning: What it measures; empty where unknown.
        honest: Values of honest providers.
        cheats: Values of each dishonest provider, by name.
        threshold: Value beyond which a clip FAILs; None where the statistic decides nothing alone.
    """

    statistic: str
    unit: str
    meaning: str
    honest: Spread
    cheats: dict[str, Spread]
    threshold: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """The errors that every threshold of the score makes, one dishonest provider against honest ones.

    Attributes:
        scenario: The provider.
        auc: Area under its ROC curve.
        honest_clips: Honest scores it was made of.
        clips: Dishonest scores it was made of.
        false_alarms: False-alarm rate at each threshold.
        misses: Miss rate at each threshold.
    """

    scenario: str
    auc: float
    honest_clips: int
    clips: int
    false_alarms: tuple[float, ...]
    misses: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditPath:
    """The e-value of an audit, clip by clip.

    Attributes:
        name: The provider, or the log.
        honest: Whether it is honest; None where nobody knows.
        clips: Clips of the audit.
        final_log_e: Natural logarithm of the e-value behind the last clip; NaN without clips.
        places: Some of the clips, from 1: the first, the last, those where it peaks and decides, and others evenly.
        log_e: Natural logarithm of the e-value behind each of these.
        fails_at: Where the audit says FAIL, as a logarithm; None where the log does not say.
        decided: Clip at which it did, from 1; None where it never did.
        decision: The last outcome.
    """

    name: str
    honest: bool | None
    clips: int
    final_log_e: float
    places: tuple[int, ...]
    log_e: tuple[float, ...]
    fails_at: float | None
    decided: int | None
    decision: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRate:
    """Word error rate of what a provider wrote, beside what was found of it.

    Attributes:
        scenario: The provider.
        honest: Whether it is honest.
        clips: Clips with a transcript.
        words: Words that were spoken in them.
        rate: Word error rate; NaN without words.
        difference: Rate less that of the honest providers on the same clips; NaN where there are none.
        difference_low: Lower end of its 95 % interval, a bootstrap over base clips; NaN where there are too few.
        difference_high: Upper end.
        same_text: Share of clips on which it wrote the same words as an honest provider; NaN where unknown.
        detected: Share of clips that FAILed; NaN without any.
    """

    scenario: str
    honest: bool
    clips: int
    words: int
    rate: float
    difference: float
    difference_low: float
    difference_high: float
    same_text: float
    detected: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a dishonest provider wrote where an honest one wrote something else; texts are untrusted."""

    scenario: str
    clip: str
    spoken: str | None
    honest: str | None
    written: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """All that is said of one subject.

    Attributes:
        subject: What was claimed and measured.
        detections: What was found of each provider.
        alarms: Honest base clips with any false alarm.
        judged: Honest base clips that were judged.
        alarms_upper: Upper end of the exact 95 % interval of their share.
        bands: Statistics, those with a threshold first, then by how far they separate.
        threshold_source: Where the thresholds come from.
        operating: Errors of every threshold.
        audits: Audits over the run's own clips.
        rates: Word error rates.
        rates_say: What they tell of the cheats, in a sentence; empty where there is nothing to say.
        written: Some texts.
        curves: Entropy curves of example clips.
        confidences: Word confidences of example clips.
        calibrations: Reliability diagrams.
        attributions: Which cheat the example clips looked like.
        costs: What the example clips cost.
    """

    subject: Subject
    detections: tuple[Detection, ...]
    alarms: int
    judged: int
    alarms_upper: float
    bands: tuple[Band, ...]
    threshold_source: str
    operating: tuple[Operating, ...]
    audits: tuple[AuditPath, ...]
    rates: tuple[ErrorRate, ...]
    rates_say: str
    written: tuple[Written, ...]
    curves: tuple[EntropyCurve, ...] = ()
    confidences: tuple[WordConfidence, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    attributions: tuple[Attributed, ...] = ()
    costs: tuple[Cost, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One report.

    Attributes:
        title: Its title.
        banner: The answer.
        parts: One per model, precision and level.
        audits: Audits whose logs were given.
        limits: What the numbers rest on, and what they do not say.
        provenance: Files, digests, versions, command: name and value.
        version: Version of this layout.
    """

    title: str
    banner: Banner
    parts: tuple[Part, ...]
    audits: tuple[AuditPath, ...] = ()
    limits: tuple[str, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    version: int = REPORT_VERSION

    def to_json(self) -> bytes:
        """Return the report as indented JSON; what is not finite becomes null."""
        return msgspec.json.format(msgspec.json.encode(_whole(msgspec.to_builtins(self))), indent=1) + b"\n"


def _whole(value: Any) -> Any:
    """Replace halves of characters, which a text from outside may hold and UTF-8 cannot."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {_whole(key): _whole(own) for key, own in value.items()}
    return [_whole(own) for own in value] if isinstance(value, list | tuple) else value
