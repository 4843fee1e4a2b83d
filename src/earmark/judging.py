"""From the statistics of one clip to what they decide: by a calibrated profile, by documented bounds, or not at all."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from earmark.attribution import recipes_of
from earmark.errors import UsageError
from earmark.fingerprint.types import Fingerprint
from earmark.loading import family_of
from earmark.profiles import Profile, covers, find_profile, load_profile
from earmark.protocols import Comparison, Model
from earmark.records.policy import Policy
from earmark.records.profile import Header
from earmark.records.verdict import Fault, Finding, broken, note, unclear

PROVISIONAL = "provisional"
"""Documented bounds of the family; no guaranteed rate."""
RULES = "rules"
"""No statistics: nothing can PASS."""

ProfileLike = Profile | str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What the statistics of one clip decide.

    Attributes:
        findings: Facts that decide, or keep the question open.
        profile: Name of what judged, or None.
        p_value: Conformal p-value, where a calibrated profile gave one of the whole clip.
    """

    findings: tuple[Finding, ...]
    profile: str | None = None
    p_value: float | None = None


class Judge:
    """Judges the clips of one reference.

    Args:
        profile: A profile or its folder; `provisional` for documented bounds; `rules` for no statistics; None looks
            for the calibrated profile of the model, its precision, the decoding and the level.
        model: The reference.
        policy: What is accepted.

    Raises:
        RecordError: The profile is damaged.
        UsageError: The profile is missing, or of another model or precision.
    """

    def __init__(self, profile: ProfileLike, model: Model, policy: Policy) -> None:
        """Read the profile, where one was named, and check that it fits."""
        self.model, self.policy = model, policy
        self._found: dict[tuple[str, str], Profile | None] = {}
        self._given = profile
        if isinstance(profile, str | os.PathLike) and profile not in (PROVISIONAL, RULES):
            if not Path(profile).is_dir():
                raise UsageError(f"no profile {os.fspath(profile)!r}; give its folder, {PROVISIONAL!r} or {RULES!r}")
            self._given = load_profile(profile)
        if isinstance(self._given, Profile):
            self._given.check_fits(model.info)  # raises before any clip is replayed
            recipes_of(self._given.header.recipes)

    def judge(
        self,
        comparison: Comparison,
        *,
        strategy: str,
        level: str,
        k: int,
        seconds: float,
        part: bool = False,
        chose: bool = False,
    ) -> Judgement:
        """Judge one clip.

        A calibrated profile promises its rate for whole clips: by a part of one, nobody FAILs.

        Args:
            comparison: Evidence against replay.
            strategy: Decoding of the request.
            level: Level of the evidence.
            k: Fewest listed tokens per position of its segments.
            seconds: Length of the clip.
            part: Whether a budget left segments of the clip out.
            chose: Whether the provider chose the decoding, because no customer's request says it.
        """
        chosen = self._given if self._given is not None else self._find(strategy, level)
        if chosen == PROVISIONAL:
            bounds = family_of(self.model).provisional_bounds(self.model.info.precision)
            findings = [*_beyond(comparison.fingerprint, bounds), *_few(comparison, self.policy.min_positions)]
            return Judgement(findings=tuple(findings), profile=PROVISIONAL)
        if isinstance(chosen, Profile):
            unfit = _unfit(chosen.header, strategy, level, k, chose=chose)
            if unfit and unfit.severity != "note":
                return Judgement(findings=(unfit,), profile=chosen.name)
            own = self._by_profile(chosen, comparison, seconds, part=part)
            notes = (*((unfit,) if unfit else ()), *self.length(strategy=strategy, level=level, seconds=seconds))
            return replace(own, findings=(*own.findings, *notes))
        expected = "a profile of this model (`earmark calibrate`), or profile='provisional' for documented bounds"
        # a decoding that the provider chose is its fault where the usual one would have been judged
        left = chose and chosen != RULES and self._find("greedy", level) is not None
        found = f"no profile of {strategy} decoding" if left else "no profile"
        return Judgement(findings=(unclear("profile.missing", "provider" if left else "verifier", found, expected),))

    def recipes(self, strategy: str, level: str) -> tuple[str, ...]:
        """Return the known cheats whose direction the profile of such clips looks along."""
        chosen = self._given if self._given is not None else self._find(strategy, level)
        return chosen.header.recipes if isinstance(chosen, Profile) else ()

    def _find(self, strategy: str, level: str) -> Profile | None:
        key = (strategy, level)
        if key not in self._found:
            self._found[key] = find_profile(self.model.info, strategy, level)
        return self._found[key]

    def _by_profile(self, profile: Profile, comparison: Comparison, seconds: float, *, part: bool) -> Judgement:
        header = profile.header
        if not header.promises(seconds):
            return self._by_bounds_alone(profile, comparison, seconds)
        own = profile.judge(comparison.fingerprint)
        findings = list(_few(comparison, max(self.policy.min_positions, header.least_positions)))
        if own.p_value <= header.rate:
            found = f"p = {own.p_value:.2g}, led by {own.leading} ({comparison.fingerprint[own.leading]:.3g})"
            expected = f"p above {header.rate:.2g} ({own.leading} below {profile.limits()[own.leading]:.3g})"
            if part:
                expected += ", which is promised for whole clips: verify this one without a budget"
                findings.append(unclear("statistics.part", "verifier", f"{found} on a part of the clip", expected))
            elif comparison.positions < header.positions:
                least = f"{header.positions} positions or more, as the profile's clips"
                findings.append(
                    unclear("statistics.few", "input", f"{found} at {comparison.positions} positions", least)
                )
            else:
                findings.append(broken("statistics.profile", found, expected))
        elif not own.p_value > header.rate:  # NaN
            findings.append(unclear("statistics.none", "input", "no statistic applies", "one at least"))
            return Judgement(findings=tuple(findings), profile=profile.name)
        if not part and (missing := [name for name in header.matched if math.isnan(comparison.fingerprint[name])]):
            expected = "a direction for each recipe of the profile"
            findings.append(unclear("statistics.recipe", "verifier", f"no {', '.join(missing)}", expected))
        return Judgement(findings=tuple(findings), profile=profile.name, p_value=None if part else own.p_value)

    def length(self, *, strategy: str, level: str, seconds: float) -> tuple[Finding, ...]:
        """Say so where the profile promises nothing for a clip of this length, which no audit counts."""
        chosen = self._given if self._given is not None else self._find(strategy, level)
        if not isinstance(chosen, Profile) or chosen.header.promises(seconds):
            return ()
        return (note("profile.length", f"a clip of {seconds:.2f} s", _promised(chosen.header)),)

    def _by_bounds_alone(self, profile: Profile, comparison: Comparison, seconds: float) -> Judgement:
        """Judge a clip of a length for which the profile promises nothing: nobody is accused by its rate."""
        bounds = family_of(self.model).provisional_bounds(self.model.info.precision)
        few = _few(comparison, max(self.policy.min_positions, profile.header.least_positions))
        findings = [*_beyond(comparison.fingerprint, bounds), *few]
        p_value = profile.judge(comparison.fingerprint).p_value
        if not p_value > profile.header.rate:
            found = f"p = {p_value:.2g}, which accuses nobody at {seconds:.2f} s"
            expected = f"{_promised(profile.header)}: calibrate on such clips too"
            findings.append(unclear("statistics.length", "input", found, expected))
        return Judgement(findings=tuple(findings), profile=profile.name)


def _promised(header: Header) -> str:
    least, largest = header.seconds or (0.0, math.inf)
    return f"{least:.2f} to {largest:.2f} s, as the profile's clips"


def _unfit(header: Header, strategy: str, level: str, k: int, *, chose: bool) -> Finding | None:
    """Say why a profile cannot judge a clip, or not all of it: its honest clips were recorded otherwise.

    Level and k are the provider's choice, and the profile's are what it owes, as nobody may choose not to be judged.
    With fewer listed tokens every distance is smaller, with more of them larger. A profile of sketches judges scores
    too (`covers`). A profile of scores judges a sketch by its scores and says so: what else was shown is looked at by
    nobody, as if it had not been shown.
    """
    if strategy != header.strategy:
        fault: Fault = "provider" if chose else "verifier"
        return unclear("profile.decoding", fault, strategy, f"{header.strategy} decoding, as the profile's clips")
    if k != header.k:
        return unclear(
            "profile.k", "provider", f"{k} listed tokens per position", f"{header.k}, as the profile's clips"
        )
    if (header.level, level) == ("scores", "sketch"):
        return note("profile.level", "a sketch, which the profile does not judge", "a profile of the level sketch")
    if not covers(header.level, level):
        return unclear("profile.level", "provider", f"level {level}", f"{header.level}, as the profile's clips")
    return None


def _beyond(fingerprint: Fingerprint, bounds: Mapping[str, float]) -> list[Finding]:
    findings = []
    for name, bound in bounds.items():
        value = fingerprint[name]
        if value > bound:
            findings.append(broken(f"statistics.{name}", f"{value:.3g}", f"at most {bound:g}"))
    return findings


def _few(comparison: Comparison, least: int) -> tuple[Finding, ...]:
    if comparison.positions >= least:
        return ()
    return (unclear("positions.few", "input", f"{comparison.positions} positions", f"at least {least}"),)
