"""What tests of simulated providers share: run one, and judge what it hands in."""

from __future__ import annotations

import earmark
from earmark import Case
from earmark.scenarios.weights import quantise

FOUR_BITS = quantise(bits=4, group=64)


def outcomes(model, clips, evidence, receipts=None):
    stored = receipts or [own.receipt for own in evidence]
    cases = [
        Case(evidence=e, audio=c.audio, request=c.request, receipt=r)
        for e, c, r in zip(evidence, clips, stored, strict=True)
    ]
    return [verdict.outcome for verdict in earmark.verify_many(cases, model, profile="provisional")]


def run_provider(model, clips, made, level="sketch"):
    return outcomes(model, clips, made.record(model, clips, level=level))
