"""What the tests of attacks share: a reference, a cheaper model, and a clip on which they differ."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import earmark
from earmark import Case, Clip
from earmark.checkpoint import embedded_names
from earmark.testing.bench import default_clips

#: Reference and a cheaper model with the same tokens; random ones of the real classes beside those that ship.
PAIRS = {
    "autoregressive": ("whisper-nano", "whisper-nano-early"),
    "ctc": ("parakeet-ctc-nano", "parakeet-ctc-nano-student"),
    "random-ctc": ("random-ctc-0", "random-ctc-1"),
    "transducer": ("parakeet-tdt-nano", "parakeet-tdt-nano-student"),
    "random-tdt": ("random-tdt-0", "random-tdt-1"),
    "random-rnnt": ("random-rnnt-0", "random-rnnt-1"),
}


@dataclass(frozen=True, kw_only=True)
class World:
    """A reference, a cheaper model that shares its tokens, and a clip that they transcribe differently."""

    reference: object
    cheap: object
    clip: Clip
    cheap_evidence: object
    real_evidence: object

    def verify(self, evidence, *, request="the customer's", receipt=None, policy=None):
        asked = self.clip.request if request == "the customer's" else request
        case = Case(evidence=evidence, audio=self.clip.audio, request=asked, receipt=receipt)
        return next(earmark.verify_many([case], self.reference, policy=policy, profile="provisional"))

    def record(self, model=None, request=None, **options):
        return earmark.record(model or self.reference, request or self.clip.request, self.clip.audio, **options)


def ships(pair: str) -> bool:
    """Tell whether both models of a pair are there."""
    return pair.startswith("random") or set(PAIRS[pair]) <= set(embedded_names())


@cache
def _load(name: str):
    if not name.startswith("random-"):
        return earmark.load(f"embedded:{name}", device="cpu")
    from tiny_models import parakeet  # takes long

    _, kind, seed = name.split("-")
    folder = parakeet(Path(tempfile.mkdtemp(prefix="earmark-")) / name, kind, int(seed))
    return earmark.load(folder, device="cpu")


@cache
def load_world(pair: str) -> World:
    """Return the world of a pair; it is made once."""
    if not ships(pair):
        pytest.skip(f"{PAIRS[pair]} do not ship yet")
    reference, cheap = map(_load, PAIRS[pair])
    for clip in default_clips(24):
        real, other = (earmark.record(m, clip.request, clip.audio, level="sketch") for m in (reference, cheap))
        if real.text != other.text:
            return World(reference=reference, cheap=cheap, clip=clip, cheap_evidence=other, real_evidence=real)
    raise AssertionError("the cheap model writes what the real one writes; no clip to test on")


def codes(verdict) -> set[str]:
    """Return the codes of all findings that are no notes."""
    return {finding.code for finding in verdict.findings if finding.severity != "note"}


def reasons(verdict) -> str:
    """Return all findings in one line."""
    return "; ".join(map(str, verdict.findings))
