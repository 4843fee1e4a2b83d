"""The log of an audit: one line per clip, bound to what was asked and to what was handed in."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from earmark.errors import RecordError
from earmark.profiles import Profile
from earmark.records import lines
from earmark.records.codec import MAX_RECORD_BYTES, Record
from earmark.records.verdict import Finding
from earmark.rules import Case

DIGITS = 16
"""Hexadecimal digits of a digest that a line keeps."""
BLOCK = 1 << 20
"""Bytes of a file that are hashed at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of the log.

    Attributes:
        clip: Name of the clip.
        outcome: Its verdict.
        mode: `replay` or `reexecute`.
        score: What the audit bets on; infinite where a rule was broken or the provider withheld what it owes; None
            where the clip does not count: the verifier's or the input's fault, or the budget's choice.
        p_value: Conformal p-value of the clip alone.
        findings: Codes of the findings that decided.
        log_e: log e-value of the audit behind this clip.
        log_r: log R of the detector of change behind this clip.
        decision: Outcome of the audit behind this clip.
        terms: Digest of what the audit was asked for; see `terms_digest`.
        records: Digest of what was handed in for the clip; see `records_digest`.
        uncounted: Why it does not count: `budget`, `length`, `input` or `verifier`; None where it counts.
        left_out: What was replayed of a clip that the budget did not draw, in words; None where it drew the clip.
    """

    clip: str
    outcome: str
    mode: str
    score: float | None
    p_value: float | None
    findings: tuple[str, ...]
    log_e: float
    decision: str
    log_r: float = -math.inf
    terms: str = ""
    records: str = ""
    uncounted: str | None = None
    left_out: str | None = None

    def to_json(self) -> str:
        """Return the entry as one line; an infinite score is written as a word."""
        score = None if self.score is None else lines.from_float(self.score)
        return lines.to_line({**asdict(self), "score": score, "log_r": lines.from_float(self.log_r)})

    @classmethod
    def from_json(cls, line: str) -> Entry:
        """Return the entry that `to_json` wrote.

        Raises:
            RecordError: The line is no entry.
        """
        try:
            row = lines.from_line(line)
            score = None if row["score"] is None else lines.to_float(row["score"])
            log_e, log_r = lines.to_float(row["log_e"]), lines.to_float(row.get("log_r", f"-{lines.INFINITE}"))
            return cls(**row | {"score": score, "log_e": log_e, "log_r": log_r, "findings": tuple(row["findings"])})
        except (ValueError, TypeError, KeyError) as error:
            raise RecordError(f"no line of an audit: {' '.join(str(error).split())[:200]}") from error


def terms_digest(profile: Profile, **asked: Any) -> str:
    """Return what the lines of one audit have in common, as 16 hex digits.

    Args:
        profile: The profile that judges.
        asked: Policy, level, rate, tolerance, shares and the verifier's secret; plain values and records.

    Example:
        >>> import earmark
        >>> from earmark.profiles import find_profile
        >>> profile = find_profile(earmark.load("embedded:parakeet-ctc-nano").info, "greedy", "scores")
        >>> terms_digest(profile, seed="a") == terms_digest(profile, seed="b")
        False
    """
    facts = msgspec.json.encode([profile.header, asked], order="sorted")
    return hashlib.sha256(b"earmark/audit/2\0" + profile.scores.tobytes() + facts).hexdigest()[:DIGITS]


def records_digest(case: Case) -> str:
    """Return what was handed in for one clip, evidence, request, receipt and delivered text, as 16 hex digits.

    A record that is given as bytes or file counts by its bytes, and a file that cannot be read as none.
    """
    parts = [_digest(record) for record in (case.evidence, case.request, case.receipt)]
    parts += [] if case.delivered is None else [_digest(case.delivered.encode("utf-8", "surrogatepass"))]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:DIGITS]


def _digest(record: Record | Finding | bytes | str | os.PathLike[str] | None) -> str:
    if record is None:
        return ""
    if isinstance(record, Finding):
        return record.code
    if isinstance(record, Record):
        return record.digest()
    try:
        return hashlib.sha256(record).hexdigest() if isinstance(record, bytes) else _digest_of_file(Path(record))
    except OSError:
        return ""  # the verdict says what is wrong with it


def _digest_of_file(path: Path) -> str:
    """Return the digest of what is read of a record, never more than a record may hold."""
    if not path.is_file():
        return ""
    digest, left = hashlib.sha256(), MAX_RECORD_BYTES + 1
    with path.open("rb") as file:
        while left and (block := file.read(min(left, BLOCK))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def read_log(path: str | os.PathLike[str], terms: str) -> Iterator[tuple[int, Entry]]:
    """Yield the number and the entry of each line of a log; a torn last line is dropped from the file.

    Args:
        path: The log, which need not exist.
        terms: Digest of the audit that goes on.

    Raises:
        RecordError: A line is damaged, or of another audit.
    """
    lines.drop_torn_line(Path(path))
    for number, entry in lines.read(Path(path), Entry.from_json) if Path(path).exists() else ():
        if entry.terms != terms:
            found = "another profile, policy, rate, tolerance, level, run length, seed, budget, share or earmark"
            raise RecordError(f"{path}, line {number}: {found}; expected those of this audit, or give another log")
        yield number, entry
