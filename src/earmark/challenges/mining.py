"""Ranking clips by how uncertain a reference is on them, and by how well they show cheats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from earmark.audio import CanonicalAudio
from earmark.errors import UsageError
from earmark.protocols import Advance, Model
from earmark.recording import Clip, record_many, request
from earmark.records.evidence import Evidence
from earmark.rules import Case
from earmark.scenarios import Scenario, scenario
from earmark.verification import verify_many

NEAR_TIE_NATS = 0.5
"""Two best tokens closer than this make a position a near-tie."""

_GROUP = 32
_FLOOR = 1e-7
_VALUE_TYPES = {"true": True, "false": False}


class _Listed(msgspec.Struct):
    """What the traces of all families have in common: listed tokens and entropy per position."""

    k: int
    logprobs: bytes
    entropy: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A clip that may be kept: its name, audio, and the language that is requested."""

    name: str
    audio: CanonicalAudio
    language: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mined:
    """How a reference finds one clip.

    Attributes:
        name: The clip.
        seconds: Its duration.
        text: What the reference writes.
        entropy: Mean entropy per position, in nats.
        near_ties: Share of positions whose two best tokens are within `NEAR_TIE_NATS`.
        smallest_margin: Least distance of the two best tokens, in nats.
        separations: By cheat, log10 of its distance from the reference over that of an honest run; infinite where
            the rules alone catch it.
    """

    name: str
    seconds: float
    text: str
    entropy: float
    near_ties: float
    smallest_margin: float
    separations: dict[str, float] = field(default_factory=dict)

    @property
    def separation(self) -> float:
        """The least separation of all cheats; NaN without cheats."""
        return min(self.separations.values(), default=math.nan)


def mine(
    reference: Model,
    candidates: Iterable[Candidate],
    *,
    cheats: Sequence[Scenario] = (),
    batch_size: int = 8,
    advance: Advance | None = None,
) -> Iterator[Mined]:
    """Transcribe clips and measure how certain the reference was; with cheats, how well each shows.

    Args:
        reference: The model whose uncertainty counts.
        candidates: The clips, in any number.
        cheats: Simulated providers to tell from honest ones.
        batch_size: Segments at once.
        advance: Called with the number of finished clips.

    Yields:
        One result per clip, in order.

    Raises:
        UsageError: The model's family lists no tokens in its traces.
    """
    stream = iter(candidates)
    while group := list(islice(stream, _GROUP)):
        clips = [Clip(audio=c.audio, request=_request(c)) for c in group]
        evidence = list(record_many(reference, clips, batch_size=batch_size))
        shown = _separations(reference, clips, evidence, cheats, batch_size)
        for candidate, own, separations in zip(group, evidence, shown, strict=True):
            yield _mined(candidate, own, separations)
            if advance is not None:
                advance(1)


def rank(found: Iterable[Mined], *, border: bool = False, cheats: bool = False) -> list[Mined]:
    """Return clips in order of use: uncertain, or near ties, or well separated ones first.

    Args:
        found: What `mine` gave.
        border: By near-ties, then by the smallest margin.
        cheats: By the least separation of the cheats.
    """
    if border:
        return sorted(found, key=lambda item: (-item.near_ties, item.smallest_margin, item.name))
    if cheats:
        return sorted(found, key=lambda item: (-item.separation, item.name))
    return sorted(found, key=lambda item: (-item.entropy, item.name))


def parse_cheat(text: str) -> Scenario:
    """Make a scenario from a name with parameters.

    Args:
        text: `NAME` or `NAME:key=value,...`; `model` and `writer` name a model to load.

    Raises:
        UsageError: The name or a parameter is unknown.

    Example:
        >>> parse_cheat("quantise:bits=4,group=64").name
        'int4-g64'
    """
    from earmark.loading import load

    name, _, rest = text.partition(":")
    parameters: dict[str, Any] = {}
    for pair in rest.split(",") if rest else ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"{pair!r} in {text!r}; expected NAME:key=value,key=value")
        parameters[key] = load(value) if key in ("model", "writer") else _value(value)
    try:
        return scenario(name, **parameters)
    except TypeError as error:
        raise UsageError(f"scenario {text!r}: {error}; `earmark scenarios` lists them") from error


def _value(text: str) -> int | float | bool | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return _VALUE_TYPES.get(text.lower(), text)


def _request(candidate: Candidate) -> Any:
    """Make a request whose nonce follows from the audio, so that mining can be repeated."""
    return request(candidate.audio, language=candidate.language, nonce=candidate.audio.digest[:32])


def _mined(candidate: Candidate, evidence: Evidence, separations: dict[str, float]) -> Mined:
    listed = [_listed(segment.trace, evidence) for segment in evidence.segments]
    entropy = np.concatenate([np.frombuffer(item.entropy, "<f4") for item in listed]).astype(np.float64)
    best = np.concatenate([np.frombuffer(item.logprobs, "<f4").reshape(-1, item.k)[:, :2] for item in listed])
    margins = (best[:, 0] - best[:, -1]).astype(np.float64)
    return Mined(
        name=candidate.name,
        seconds=candidate.audio.seconds,
        text=evidence.text,
        entropy=float(entropy.mean()),
        near_ties=float(np.mean(margins < NEAR_TIE_NATS)),
        smallest_margin=float(margins.min()),
        separations=separations,
    )


def _listed(trace: bytes, evidence: Evidence) -> _Listed:
    try:
        return msgspec.msgpack.decode(trace, type=_Listed)
    except msgspec.MsgspecError as error:
        raise UsageError(f"traces of the family {evidence.claim.family} list no tokens; it cannot be mined") from error


def _separations(
    reference: Model, clips: Sequence[Clip], evidence: Sequence[Evidence], cheats: Sequence[Scenario], batch_size: int
) -> list[dict[str, float]]:
    if not cheats:
        return [{} for _ in clips]
    other = max(1, batch_size // 2 - 1)  # another batch, so that the honest distance is that of honest noise
    honest = _distances(reference, clips, evidence, other)
    shown = {cheat.name: _distances(reference, clips, cheat.record(reference, clips), batch_size) for cheat in cheats}
    return [{name: _log_ratio(distances[i], honest[i]) for name, distances in shown.items()} for i in range(len(clips))]


def _log_ratio(cheat: float, honest: float) -> float:
    return math.inf if math.isinf(cheat) else math.log10((cheat + _FLOOR) / (honest + _FLOOR))


def _distances(reference: Model, clips: Sequence[Clip], evidence: Sequence[Evidence], batch_size: int) -> list[float]:
    """Return the family's first statistic of each clip; infinite where rules refuse it before any comparison."""
    cases = [
        Case(evidence=own, request=clip.request, audio=clip.audio) for own, clip in zip(evidence, clips, strict=True)
    ]
    verdicts = verify_many(cases, reference, batch_size=batch_size)
    return [v.fingerprint.values_[0] if v.fingerprint is not None else math.inf for v in verdicts]
