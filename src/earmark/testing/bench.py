"""What a contract works on, and how a broken one is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from earmark.errors import UsageError
from earmark.fingerprint.types import Fingerprint
from earmark.judging import PROVISIONAL
from earmark.limits import DEFAULT_K
from earmark.protocols import Family, Model
from earmark.recording import Clip, load_audio, record_many, request
from earmark.records import lines
from earmark.records.evidence import Evidence, Level
from earmark.records.policy import LEVELS, Policy
from earmark.records.request import Request
from earmark.records.verdict import Verdict
from earmark.registry import registry
from earmark.rules import Case
from earmark.verification import verify_many

T = TypeVar("T")

LENIENT = Policy(min_positions=1, accept_compact=True)
"""The contracts use short clips; a policy for audits asks for more."""


def default_clips(count: int = 4, *, language: str | None = None) -> list[Clip]:
    """Return the first clips that ship with earmark: short English sentences, requested with fixed nonces.

    Args:
        count: How many, at most 24.
        language: Language that is requested; by default the model detects it.

    Example:
        >>> len(default_clips(2))
        2
    """
    folder = Path(str(files("earmark.data"))) / "clips"
    rows = [row for _, row in lines.read(folder / "manifest.jsonl", lines.from_line)]
    audio = [load_audio(folder / row["audio_filepath"]) for row in rows[:count]]
    return [Clip(audio=one, request=request(one, language=language, nonce=f"{i:032x}")) for i, one in enumerate(audio)]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A family and a model of it on a few clips; honest evidence is made once.

    Attributes:
        family: The family under test; it need not be registered.
        model: A loaded model of it, which really transcribes the clips.
        clips: Clips with different words.
        seed: Seed of damage and noise.
    """

    family: Family
    model: Model
    clips: Sequence[Clip]
    seed: int = 0

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels that the family records; `listed` is what others make of an API's answers."""
        return tuple(level for level in self.family.levels if level not in ("text", "listed"))

    @property
    def deepest(self) -> Level:
        """The level of the family that holds most; compact evidence leaves most out."""
        return max(set(self.levels) & set(LEVELS), key=LEVELS.index)

    @cached_property
    def honest(self) -> list[Evidence]:
        """Evidence of every clip at the deepest level."""
        return self.record()

    def record(
        self,
        *,
        clips: Sequence[Clip] | None = None,
        model: Model | None = None,
        level: Level | None = None,
        k: int = DEFAULT_K,
        batch_size: int = 8,
    ) -> list[Evidence]:
        """Record clips; by default all, with the model under test, at the deepest level."""
        chosen = self.clips if clips is None else clips
        options: dict[str, Any] = {"k": k, "level": level or self.deepest, "batch_size": batch_size}
        return list(record_many(model or self.model, chosen, **options))

    def verify(
        self, evidence: Sequence[Evidence | bytes], clips: Sequence[Clip] | None = None, **options: Any
    ) -> list[Verdict]:
        """Verify evidence against the customer's requests with the provisional profile."""
        pairs = zip(evidence, self.clips if clips is None else clips, strict=True)
        cases = [Case(evidence=e, audio=clip.audio, request=clip.request) for e, clip in pairs]
        return list(verify_many(cases, self.model, **{"profile": PROVISIONAL, "policy": LENIENT, **options}))


def restamp(evidence: Evidence, asked: Request) -> Evidence:
    """Return the same evidence as the answer to another request."""
    return msgspec.structs.replace(evidence, request=asked, request_digest=asked.digest())


def require(holds: object, found: object, expected: object, advice: str) -> None:
    """Raise an `AssertionError` that says what was found, expected and to do, unless the condition holds.

    Example:
        >>> require(1 > 2, "1", "more than 2", "count again")
        Traceback (most recent call last):
        ...
        AssertionError: found 1; expected more than 2; count again
    """
    if not holds:
        raise AssertionError(f"found {found}; expected {expected}; {advice}")


def told(verdict: Verdict) -> str:
    """Return an outcome with the findings behind it, in one line."""
    reasons = "; ".join(str(f) for f in verdict.findings if f.severity != "note")
    return f"{verdict.outcome}" + (f" ({reasons[:400]})" if reasons else "")


def ours(verdict: Verdict) -> bool:
    """Tell whether family or model raised an error during the replay."""
    return any(finding.code == "replay.failed" for finding in verdict.findings)


def numbers(fingerprint: Fingerprint | None) -> dict[str, float]:
    """Return the statistics of a verdict; none where it did not come to a replay."""
    return dict(fingerprint or {})


def run(contracts: Mapping[str, Callable[[T], None]], only: Iterable[str] | None, subject: T, label: str) -> None:
    """Run contracts in their order; the first that is broken is told by its name.

    Raises:
        AssertionError: A contract is broken.
        UsageError: There is no such contract.
    """
    wanted = list(contracts if only is None else only)
    unknown = [name for name in wanted if name not in contracts]
    if unknown:
        raise UsageError(f"unknown contract {unknown[0]!r}; known: {', '.join(contracts)}")
    for name in wanted:
        try:
            contracts[name](subject)
        except AssertionError as error:
            raise AssertionError(f"contract {name!r} of {label}: {error}") from error
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            text = f"contract {name!r} of {label}: raised {type(error).__name__}: {reason}; see the error above"
            raise AssertionError(text) from error


def run_family(contracts: Mapping[str, Callable[[Bench], None]], only: Iterable[str] | None, bench: Bench) -> None:
    """Run contracts with the family of the bench behind its own name, registered or not."""
    with registry("family").standing_in(bench.model.info.family, bench.family):
        run(contracts, only, bench, f"family {bench.model.info.family!r} with {bench.model.info.name}")
