"""The embedded Qwen3-ASR, which really transcribes: honest providers PASS, each cheat FAILs on every clip."""

from __future__ import annotations

import pytest

import earmark
from earmark import Case, Clip
from earmark.scenarios import scenario


@pytest.fixture(scope="module")
def model():
    return earmark.load("embedded:qwen3-asr-nano")


@pytest.fixture(scope="module")
def asked(clips):
    return [Clip(audio=c.audio, request=earmark.request(c.audio, language="en")) for c in clips[:6]]


def _outcomes(model, asked, evidence):
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, asked, strict=True)]
    return {verdict.outcome for verdict in earmark.verify_many(cases, model, profile="provisional")}


def test_it_transcribes_and_ends_by_itself(model, asked):
    evidence = list(earmark.record_many(model, asked, batch_size=3))
    assert evidence[0].text == "call lucy at two three nine five seven three"
    assert all(own.segments[0].ids[-1] == model.end_id for own in evidence)
    assert _outcomes(model, asked, evidence) == {"PASS"}


def test_it_names_the_language_where_none_is_asked_for(model, clips):
    request = earmark.request(clips[0].audio, language=None)
    evidence = earmark.record(model, request, clips[0].audio)
    written = model.raw_text(evidence.segments[0].ids)
    assert written.startswith("language English<asr_text>")
    assert evidence.text == "call lucy at two three nine five seven three"
    verdict = earmark.verify(evidence, request, clips[0].audio, model, profile="provisional")
    assert verdict.outcome == "PASS"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("quantise", {"bits": 8}),
        ("quantise", {"bits": 4, "group": 64}),
        ("skip_layers", {}),
        ("skip_frames", {}),
        ("drop_audio", {"seconds": 0.5}),
        ("other_request", {"language": "de"}),
    ],
)
def test_cheats_fail(model, asked, name, parameters):
    """Layers are skipped in the network itself, not in the outlets through which it is looked at."""
    assert _outcomes(model, asked, scenario(name, **parameters).record(model, asked)) == {"FAIL"}


def test_the_student_fails(model, asked):
    student = earmark.load("embedded:qwen3-asr-nano-student")
    assert _outcomes(model, asked, scenario("other_checkpoint", model=student).record(model, asked)) == {"FAIL"}
