"""A13: less search than was asked for is found where it writes otherwise; the twin that searches passes."""

from __future__ import annotations

import pytest

import earmark
from earmark import Case
from earmark.detection import detections, without_coinciding
from earmark.errors import UsageError
from earmark.scenarios import scenario
from earmark.scenarios.mixing import mixed
from earmark.study import Sample, study

DIFFERS = ("07", "19")
"""Of the shipped clips, those that whisper-nano writes otherwise with beams than without."""
SAME = ("00",)


@pytest.fixture(scope="module")
def chosen(clips):
    """Return two clips on which search and greedy decoding differ, and one on which they do not."""
    return [clips[int(name)] for name in (*DIFFERS, *SAME)]


def _verdicts(model, made, clips):
    asked = [made.ask(clip) for clip in clips]
    evidence = made.record(model, asked)
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, asked, strict=True)]
    return evidence, list(earmark.verify_many(cases, model, profile="provisional"))


def test_greedy_under_the_claim_of_a_beam_fails_where_it_writes_otherwise(nano, chosen):
    real, honest = _verdicts(nano, scenario("beam_search"), chosen)
    cheated, verdicts = _verdicts(nano, scenario("beam_search", done=1), chosen)
    assert {evidence.claim.decoding.beams for evidence in (*real, *cheated)} == {5}
    assert {verdict.outcome for verdict in honest} == {"PASS"}
    assert [mine.text != own.text for mine, own in zip(cheated, real, strict=True)] == [True, True, False]
    assert [verdict.outcome for verdict in verdicts] == ["FAIL", "FAIL", "PASS"]
    codes = [finding.code for verdict in verdicts for finding in verdict.findings]
    assert codes == ["rerun.worse", "rerun.worse", "rerun.equal"]


def test_fewer_beams_than_asked_are_found_the_same_way(nano, clips):
    """On this clip two beams do not find what five do."""
    real, honest = _verdicts(nano, scenario("beam_search"), clips[19:20])
    cheated, verdicts = _verdicts(nano, scenario("beam_search", done=2), clips[19:20])
    assert cheated[0].text != real[0].text
    assert [honest[0].outcome, verdicts[0].outcome] == ["PASS", "FAIL"]


def test_a_study_asks_for_the_beam_and_counts_no_clip_where_nothing_was_gained(nano, chosen, tmp_path):
    samples = [Sample(name=name, audio=c.audio) for name, c in zip((*DIFFERS, *SAME), chosen, strict=True)]
    providers = [scenario("beam_search"), scenario("beam_search", done=1)]
    run = study(nano, providers, samples, tmp_path / "run.jsonl", profile="provisional")
    assert [row.outcome for row in run if not row.honest] == ["FAIL", "FAIL", "PASS"]
    kept = without_coinciding(run, {own.name for own in providers if own.only_text})
    found = {own.scenario: own for own in detections(kept)}
    cheat, honest = found["greedy-for-beam-5"], found["beam-5"]
    assert (cheat.detected, cheat.clips, honest.detected, honest.clips) == (2, 2, 0, 3)
    assert without_coinciding(run, ()).scenarios() == run.scenarios()


def test_only_cheats_that_show_in_words_alone_say_so():
    words = [scenario("beam_search", done=1), scenario("stop_early"), scenario("other_request", temperature=0.4)]
    numbers = [scenario("quantise", bits=8), scenario("other_request", language="de"), scenario("beam_search")]
    assert all(own.only_text for own in words)
    assert not any(own.only_text for own in (*numbers, scenario("stop_early", tokens=0, end=False)))
    assert mixed(cheat=words[0]).asked == words[0].asked


def test_requests_that_ask_for_no_beam_are_refused(nano, clips):
    with pytest.raises(UsageError, match=r"a request for greedy with 1 beams; .* asked for 5: see Scenario\.ask"):
        scenario("beam_search", done=1).record(nano, clips[:1])


@pytest.mark.parametrize("options", [{"beams": 1}, {"beams": 65}, {"done": 5}, {"done": 0}, {"beams": 3, "done": -1}])
def test_searches_that_are_none_are_refused(options):
    with pytest.raises(UsageError, match="beam_search with"):
        scenario("beam_search", **options)
