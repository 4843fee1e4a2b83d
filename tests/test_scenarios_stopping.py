"""Transcripts that stop too early: caught wherever something was left out, and an honest one is not."""

from __future__ import annotations

import pytest

import earmark
from earmark import Case
from earmark.errors import UsageError
from earmark.scenarios import scenario


def _outcomes(reference, clips, evidence):
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    return [verdict.outcome for verdict in earmark.verify_many(cases, reference, profile="provisional")]


@pytest.mark.parametrize("parameters", [{"share": 0.5}, {"tokens": 1}, {"tokens": 3}, {"tokens": 0, "end": False}])
def test_a_transcript_that_stops_early_fails(nano, clips, parameters):
    chosen = clips[:6]
    evidence = scenario("stop_early", **parameters).record(nano, chosen)
    assert _outcomes(nano, chosen, evidence) == ["FAIL"] * 6
    assert _outcomes(nano, chosen, list(earmark.record_many(nano, chosen))) == ["PASS"] * 6


def test_what_is_left_out_is_the_end(nano, clips):
    whole = next(iter(earmark.record_many(nano, clips[:1]))).segments[0].ids
    shorter = scenario("stop_early", tokens=2).record(nano, clips[:1])[0].segments[0].ids
    assert whole[-1] == shorter[-1] == nano.end_id
    assert shorter[:-1] == whole[:-3]


@pytest.mark.parametrize("parameters", [{"tokens": 0}, {"tokens": -1}, {"share": 1.0}])
def test_nothing_to_leave_out_is_refused(parameters):
    with pytest.raises(UsageError, match="stop_early"):
        scenario("stop_early", **parameters)
