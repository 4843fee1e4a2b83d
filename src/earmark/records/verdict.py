"""The verdict: PASS, FAIL or INCONCLUSIVE, and why."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from earmark.extras import need
from earmark.fingerprint.types import Fingerprint
from earmark.records import lines

if TYPE_CHECKING:
    import pandas as pd

Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]
Severity = Literal["fail", "inconclusive", "note"]
Fault = Literal["provider", "verifier", "input"]
Proves = Literal["committed", "reconstructable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fact about the evidence.

    Attributes:
        code: Stable name of the fact, for instance `weights.mismatch`.
        severity: `fail` decides FAIL, `inconclusive` decides INCONCLUSIVE, `note` decides nothing.
        fault: Whose fault it is.
        found: What was found; characters that no terminal prints are replaced, since texts of others stand here.
        expected: What was expected, likewise.
    """

    code: str
    severity: Severity
    fault: Fault
    found: str
    expected: str

    def __post_init__(self) -> None:
        """Replace what could forge a line of a terminal."""
        object.__setattr__(self, "found", lines.plain(self.found))
        object.__setattr__(self, "expected", lines.plain(self.expected))

    def __str__(self) -> str:
        """Return the finding in one line."""
        return f"{self.code}: found {self.found}; expected {self.expected}"

    def to_dict(self) -> dict[str, str]:
        """Return the finding as a plain dictionary."""
        return {
            "code": self.code,
            "severity": self.severity,
            "fault": self.fault,
            "found": self.found,
            "expected": self.expected,
        }


def broken(code: str, found: object, expected: object) -> Finding:
    """Return a finding that a rule was broken by the provider (decides FAIL).

    Example:
        >>> print(broken("text.mismatch", "a", "b"))
        text.mismatch: found a; expected b
    """
    return Finding(code=code, severity="fail", fault="provider", found=str(found), expected=str(expected))


def unclear(code: str, fault: Fault, found: object, expected: object) -> Finding:
    """Return a finding that keeps the question open (decides INCONCLUSIVE unless something decides FAIL)."""
    return Finding(code=code, severity="inconclusive", fault=fault, found=str(found), expected=str(expected))


def note(code: str, found: object, expected: object, fault: Fault = "provider") -> Finding:
    """Return a finding that decides nothing."""
    return Finding(code=code, severity="note", fault=fault, found=str(found), expected=str(expected))


def decide(findings: Sequence[Finding]) -> Outcome:
    """Return what the findings decide: FAIL over INCONCLUSIVE over PASS.

    Example:
        >>> decide([unclear("receipt.missing", "provider", "none", "a receipt"), broken("x", 1, 2)])
        'FAIL'
        >>> decide([])
        'PASS'
    """
    severities = {finding.severity for finding in findings}
    if "fail" in severities:
        return "FAIL"
    return "INCONCLUSIVE" if "inconclusive" in severities else "PASS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What earmark says about one clip.

    Attributes:
        outcome: PASS, FAIL or INCONCLUSIVE.
        proves: What a PASS is worth: `committed` with request and receipt, else `reconstructable`.
        profile: Name of the profile that judged the statistics, or None.
        p_value: Conformal p-value, where a calibrated profile gave one.
        e_value: E-value, where a profile gave one.
        findings: Facts behind the outcome.
        fingerprint: Statistics of evidence against replay, or None where it did not come to a replay.
        attribution: Which deployment the evidence looks like, where it was asked for.
        transcript: Text of the evidence, where it could be read.
        provenance: Model digest, library versions, device.
    """

    outcome: Outcome
    proves: Proves
    profile: str | None = None
    p_value: float | None = None
    e_value: float | None = None
    findings: tuple[Finding, ...] = ()
    fingerprint: Fingerprint | None = None
    attribution: str | None = None
    transcript: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether the outcome is PASS."""
        return self.outcome == "PASS"

    @property
    def fault(self) -> Fault | None:
        """Whose fault it is that the outcome is no PASS; None for a PASS.

        One reason of the provider's is enough to count against the provider, so that settings which keep a question
        open shelter nobody.
        """
        if self.passed:
            return None
        faults = {finding.fault for finding in self.findings if finding.severity != "note"}
        return "provider" if "provider" in faults else "input" if faults == {"input"} else "verifier"

    @property
    def agreement(self) -> str:
        """What a PASS rests on, in one line: the whole replay, or the part that a budget allowed."""
        parts = [finding.found for finding in self.findings if finding.code == "budget.partial"]
        return f"evidence and replay agree{''.join(f', {part}' for part in parts)}"

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict as plain dictionaries, lists, strings and numbers; an infinite statistic is a word."""
        fingerprint = self.fingerprint
        return {
            "outcome": self.outcome,
            "proves": self.proves,
            "fault": self.fault,
            "profile": self.profile,
            "p_value": self.p_value,
            "e_value": self.e_value,
            "findings": [finding.to_dict() for finding in self.findings],
            "fingerprint_version": fingerprint.version if fingerprint else None,
            "fingerprint": {n: lines.from_float(v) for n, v in fingerprint.items()} if fingerprint else None,
            "shape": {n: lines.from_float(v) for n, v in fingerprint.shape.items()} if fingerprint else None,
            "attribution": self.attribution,
            "transcript": self.transcript,
            "provenance": dict(self.provenance),
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the verdict as strict JSON; a statistic that does not apply is null, an infinite one a word."""
        return json.dumps(self.to_dict(), indent=indent, ensure_ascii=False, allow_nan=False)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row: outcome, p-value, codes of the findings and every statistic.

        Raises:
            UsageError: pandas is not installed.
        """
        row = {
            "outcome": self.outcome,
            "proves": self.proves,
            "profile": self.profile,
            "p_value": self.p_value,
            "findings": ", ".join(finding.code for finding in self.findings),
            **(dict(self.fingerprint) if self.fingerprint else {}),
        }
        table: pd.DataFrame = need("pandas", what="to_pandas", extra="table").DataFrame([row])
        return table

    def __str__(self) -> str:
        """Return the verdict in five lines."""
        numbers = self.fingerprint.headline() if self.fingerprint else "no replay"
        reasons = [str(f) for f in self.findings if f.severity != "note"]
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        return "\n".join(
            (
                f"{self.outcome} (proves: {self.proves})",
                f"reason: {reasons[0] + more if reasons else self.agreement}",
                f"statistics: {numbers}",
                f"judged by: {_judge(self)}",
                f"reference: {self.provenance.get('model', '?')} on {self.provenance.get('device', '?')}",
            )
        )

    def _repr_html_(self) -> str:
        """Return the verdict as a small HTML table for notebooks; every text is escaped."""
        colour = {"PASS": "#1b7837", "FAIL": "#b2182b", "INCONCLUSIVE": "#7f6000"}[self.outcome]
        rows = "".join(
            f"<tr><td>{html.escape(f.code)}</td><td>{html.escape(f.severity)}</td>"
            f"<td>{html.escape(f.found)}</td><td>{html.escape(f.expected)}</td></tr>"
            for f in self.findings
        )
        table = "<table><tr><th>finding</th><th>severity</th><th>found</th><th>expected</th></tr>" + rows
        numbers = html.escape(self.fingerprint.headline()) if self.fingerprint else "no replay"
        return (
            f"<div><b style='color:{colour}'>{self.outcome}</b> (proves: {self.proves}) {numbers}{table}</table></div>"
        )


def _judge(verdict: Verdict) -> str:
    if verdict.profile is None:
        return "rules alone (no profile)"
    p = "" if verdict.p_value is None else f", p = {verdict.p_value:.2g}"
    return f"profile {verdict.profile}{p}"
