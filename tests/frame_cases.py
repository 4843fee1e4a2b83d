"""What the tests of the frame-synchronous families share: evidence with one field of its trace changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

import earmark
from earmark import Case, Clip, Evidence, record_many
from earmark.checkpoint import embedded_names
from earmark.verifiers import _ctc_trace, _transducer_trace


def verify(model, clips, evidence, **options):
    """Return the verdicts of evidence for clips."""
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    return list(earmark.verify_many(cases, model, **{"profile": "provisional", "batch_size": 4, **options}))


def codes(verdict) -> list[str]:
    """Return the codes of all findings that are no notes."""
    return [finding.code for finding in verdict.findings if finding.severity != "note"]


def outcomes(model, clips, evidence, **options) -> list[str]:
    """Return the outcomes of evidence for clips."""
    return [verdict.outcome for verdict in verify(model, clips, evidence, **options)]


def without_language(clips) -> list[Clip]:
    """Return the same clips with the requests that CTC and transducer models take."""
    return [Clip(audio=clip.audio, request=earmark.request(clip.audio, nonce=clip.request.nonce)) for clip in clips]


def open_trace(evidence, kind):
    """Return the decoded trace of the first segment."""
    return msgspec.msgpack.decode(evidence.segments[0].trace, type=kind)


def with_trace(evidence, trace, **segment):
    """Return the evidence with another first trace, and other fields of its segment."""
    first = msgspec.structs.replace(evidence.segments[0], trace=msgspec.msgpack.encode(trace), **segment)
    text = {"text": segment["text"]} if "text" in segment else {}
    return msgspec.structs.replace(evidence, segments=(first, *evidence.segments[1:]), **text)


def changed(evidence, kind, model=None, *, emitted=None, **fields):
    """Return the evidence with fields of its first trace replaced; arrays become bytes of their kind."""
    trace = open_trace(evidence, kind)
    new = {name: _bytes(name, value) for name, value in fields.items()}
    segment = {} if emitted is None else {"ids": tuple(emitted), "text": model.detokenise(emitted)}
    return with_trace(evidence, msgspec.structs.replace(trace, **new), **segment)


def _bytes(name, value):
    if not isinstance(value, np.ndarray):
        return value
    kind = "<i4" if name in ("ids", "path") else "<f2" if name == "sketch" else "<f4"
    return value.astype(kind).tobytes()


def arrays(trace):
    """Return the arrays of a trace by name."""
    positions = len(trace.chosen) // 4
    shapes = {"ids": (positions, trace.k), "logprobs": (positions, trace.k)}
    found = {}
    for name in ("path", "ids", "logprobs", "chosen", "blank", "entropy", "power", "durations"):
        data = getattr(trace, name, b"")
        values = np.frombuffer(data, "<i4" if name in ("path", "ids") else "<f4")
        found[name] = values.reshape(shapes.get(name, (positions, -1))).copy() if values.size else values
    return found


#: Trained models that ship, one of each family, and the type of their traces.
EMBEDDED = {"parakeet-ctc-nano": _ctc_trace.Trace, "parakeet-tdt-nano": _transducer_trace.Trace}


@dataclass(frozen=True)
class Bench:
    """A model, a few clips, and honest evidence of them.

    Attributes:
        model: The reference.
        kind: Type of its traces.
        asked: The clips.
        level: Level of the evidence.
    """

    model: Any
    kind: type
    asked: list[Clip]
    level: str = "sketch"

    @classmethod
    def embedded(cls, name: str, clips: list[Clip], **options: Any) -> Bench:
        """Return the bench of a model that ships."""
        model = earmark.load(f"embedded:{name}", device="cpu")
        return cls(model, EMBEDDED[name], without_language(clips), **options)

    def loaded(self, **options: Any) -> Any:
        """Return the model that ships, loaded otherwise."""
        return earmark.load(self.model.info.name, **{"device": "cpu", **options})

    def stand_ins(self) -> list[str]:
        """Return sources of the other checkpoints of the model that ships."""
        names = [f"embedded:{name}" for name in embedded_names()]
        return [name for name in names if name.startswith(f"{self.model.info.name}-")]

    @cached_property
    def evidence(self) -> list[Evidence]:
        """Honest evidence, recorded in batches of 4."""
        return list(record_many(self.model, self.asked, level=self.level, batch_size=4))

    def parts(self) -> dict[str, np.ndarray]:
        """Return the arrays of the first clip's trace."""
        return arrays(open_trace(self.evidence[0], self.kind))

    def edited(self, **fields):
        """Return the verdict on evidence of the first clip with fields of its trace replaced."""
        made = changed(self.evidence[0], self.kind, self.model, **fields)
        return verify(self.model, self.asked[:1], [made])[0]

    def broken(self, **fields) -> list[str]:
        """Return the codes that it gets."""
        return codes(self.edited(**fields))
