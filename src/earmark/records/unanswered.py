"""What a verifier notes where a server gave it no evidence: which request, what went wrong, whose fault it is."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from earmark.records.codec import Record
from earmark.records.request import Request
from earmark.records.verdict import Fault, Finding, unclear

LONGEST = 2000

_Text = Annotated[str, msgspec.Meta(max_length=LONGEST)]


class Unanswered(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request that a server did not answer with evidence; only the verifier's own notes count as such.

    Attributes:
        request: What was asked.
        code: Code of the finding, for instance `endpoint.timeout`.
        fault: Whose fault it is.
        found: What was found.
        expected: What was expected.

    Example:
        >>> request = Request(audio_digest="0" * 64, audio_samples=16000, nonce="0" * 32)
        >>> note = Unanswered.of(unclear("endpoint.timeout", "provider", "no answer in 9 s", "an answer"), request)
        >>> note.finding.fault, note.finding.severity
        ('provider', 'inconclusive')
    """

    FORMAT: ClassVar[str] = "earmark.unanswered/1"

    format: Literal["earmark.unanswered/1"] = "earmark.unanswered/1"
    request: Request
    code: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]+(\.[a-z_]+)+$", max_length=80)]
    fault: Fault
    found: _Text
    expected: _Text

    @classmethod
    def of(cls, finding: Finding, request: Request) -> Unanswered:
        """Return the note of a finding."""
        found, expected = finding.found[:LONGEST], finding.expected[:LONGEST]
        return cls(request=request, code=finding.code, fault=finding.fault, found=found, expected=expected)

    @property
    def finding(self) -> Finding:
        """The finding: INCONCLUSIVE by the fault that was noted."""
        return unclear(self.code, self.fault, self.found, self.expected)
