"""A budget: part of the segments is replayed, nobody can foresee which, and the verdict says so."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from scipy.stats import hypergeom

import earmark
from earmark import Case
from earmark.budget import Budget, choose, draws, from_seed, power, powers
from earmark.errors import UsageError
from earmark.loading import family_of
from earmark.records.evidence import join_texts
from earmark.records.request import Segmentation
from earmark.scenarios.weights import quantise

SECRET = b"sixteen bytes and more"
OTHER = b"another one of the kind"


@pytest.fixture(scope="module")
def cut(ctc, clips):
    """Return a clip that is asked for in pieces of a second, honest evidence, and evidence of a cheap model."""
    longest = max(clips, key=lambda clip: len(clip.audio.samples))
    asked = earmark.request(longest.audio, nonce="0" * 32, segmentation=Segmentation(max_samples=16_000))
    clip = dataclasses.replace(longest, request=asked)
    cheap = quantise(bits=4, group=64).record(ctc, [clip])[0]
    return clip, earmark.record(ctc, asked, clip.audio), cheap


def _verify(model, cut, evidence, **options):
    clip = cut[0]
    return earmark.verify(
        evidence, clip.request, clip.audio, model, profile="provisional", attribution="never", **options
    )


def _with_cheap_segment(cut, number):
    """Return honest evidence but for one segment."""
    _, honest, cheap = cut
    segments = [*honest.segments]
    segments[number] = cheap.segments[number]
    return msgspec.structs.replace(honest, segments=tuple(segments), text=join_texts([s.text for s in segments]))


def test_a_budget_of_all_changes_no_byte(ctc, cut):
    for evidence in cut[1:]:
        assert _verify(ctc, cut, evidence, budget=1.0).to_json() == _verify(ctc, cut, evidence).to_json()


def test_part_of_the_segments_is_replayed_and_the_verdict_says_which(ctc, cut, monkeypatch):
    segments, replayed = len(cut[1].segments), []
    family = family_of(ctc)
    whole = type(family).replay

    def counting(self, model, inputs, traces, **options):
        replayed.extend(item.index for item in inputs)
        return whole(self, model, inputs, traces, **options)

    monkeypatch.setattr(type(family), "replay", counting)
    budget = Budget(share=0.5, secret=SECRET)
    verdict = _verify(ctc, cut, cut[1], budget=budget)
    chosen = list(choose(budget, cut[1].digest(), segments))
    assert 0 < len(chosen) < segments
    assert sorted(replayed) == chosen
    assert verdict.outcome == "PASS"
    said = {finding.code: finding for finding in verdict.findings}["budget.partial"]
    assert said.severity == "note"
    assert f"{len(chosen)} of {segments} segments replayed, numbers {', '.join(map(str, chosen))}" in said.found
    assert f"{power(segments, len(chosen), 1):.0%}" in said.expected
    assert said.found in str(verdict), "no PASS of the whole in silence"


def test_a_cheat_is_found_where_it_is_replayed_and_nowhere_else(ctc, cut):
    outcomes = {True: set(), False: set()}
    for number in range(len(cut[1].segments)):
        evidence = _with_cheap_segment(cut, number)
        budget = Budget(share=0.5, secret=SECRET)
        among = number in choose(budget, evidence.digest(), len(evidence.segments))
        outcomes[among].add(_verify(ctc, cut, evidence, budget=budget).outcome)
        assert _verify(ctc, cut, evidence).outcome == "FAIL"
    assert outcomes == {True: {"FAIL"}, False: {"PASS"}}


def test_a_clip_that_is_left_out_is_inconclusive_by_the_verifiers_own_fault(ctc, clips):
    some = [dataclasses.replace(c, request=earmark.request(c.audio, nonce=c.request.nonce)) for c in clips[:4]]
    evidence = list(earmark.record_many(ctc, some))
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, some, strict=True)]
    budget = Budget(share=0.5, secret=OTHER)
    verdicts = list(earmark.verify_many(cases, ctc, profile="provisional", budget=budget))
    drawn = [bool(choose(budget, e.digest(), 1)) for e in evidence]
    assert set(drawn) == {True, False}
    assert [verdict.outcome for verdict in verdicts] == ["PASS" if own else "INCONCLUSIVE" for own in drawn]
    for verdict, own in zip(verdicts, drawn, strict=True):
        if not own:
            assert ([f.code for f in verdict.findings], verdict.fault) == (["budget.skipped"], "verifier")
    alone = earmark.verify(evidence[0], some[0].request, some[0].audio, ctc, profile="provisional", budget=1e-6)
    assert alone.outcome == "PASS", "one clip that is verified alone is never left out"


def test_rules_without_a_replay_hold_for_every_segment(ctc, cut):
    honest = cut[1]
    last = msgspec.structs.replace(honest.segments[-1], text=" something else")
    edited = msgspec.structs.replace(honest, segments=(*honest.segments[:-1], last))
    for secret in (SECRET, OTHER):
        assert _verify(ctc, cut, edited, budget=Budget(share=0.1, secret=secret)).outcome == "FAIL"


def test_decoding_again_matches_no_part_for_the_whole(ctc, cut):
    whole = _verify(ctc, cut, cut[1], mode="reexecute")
    part = _verify(ctc, cut, cut[1], mode="reexecute", budget=Budget(share=0.5, secret=SECRET))
    codes = [[finding.code for finding in verdict.findings] for verdict in (whole, part)]
    assert "exact.match" in codes[0]
    assert "exact.match" not in codes[1]
    assert "budget.partial" in codes[1]
    assert (whole.outcome, part.outcome) == ("PASS", "PASS")


def test_choices_follow_from_the_secret_and_the_evidence_alone():
    budget = Budget(share=0.3, secret=SECRET)
    assert choose(budget, "ab", 40) == choose(Budget(share=0.3, secret=SECRET), "ab", 40)
    others = {choose(budget, "ab", 40), choose(budget, "ac", 40), choose(Budget(share=0.3, secret=OTHER), "ab", 40)}
    assert len(others) == 3
    assert Budget(share=0.3).secret != Budget(share=0.3).secret


@pytest.mark.parametrize("segments", [1, 3, 10])
def test_the_expected_share_is_the_budget(segments):
    budget = Budget(share=0.3, secret=SECRET)
    chosen = [choose(budget, str(i), segments) for i in range(4000)]
    counts = np.bincount(np.concatenate([np.asarray(own, int) for own in chosen]), minlength=segments) / 4000
    assert np.allclose(counts, 0.3, atol=0.03), "every place is as likely"
    assert all(len(set(own)) == len(own) for own in chosen)


@pytest.mark.parametrize(("segments", "checked", "cheated"), [(12, 3, 1), (40, 10, 4), (9, 9, 1), (9, 0, 3), (5, 3, 4)])
def test_power_is_the_hypergeometric_one(segments, checked, cheated):
    assert power(segments, checked, cheated) == pytest.approx(1 - hypergeom(segments, cheated, checked).pmf(0))


@pytest.mark.parametrize(
    ("total", "checked", "cheated", "found"), [(60, 15, 6, 0.8), (100, 50, 100, 0.01), (7, 2, 6, 0)]
)
def test_power_of_a_cheat_that_does_not_always_stand_out(total, checked, cheated, found):
    hits = hypergeom(total, cheated, checked)
    missed = sum(hits.pmf(h) * (1 - found) ** h for h in range(checked + 1))
    assert power(total, checked, cheated, found) == pytest.approx(1 - missed)
    assert power(5000, 2000, 500) == pytest.approx(1.0), "no overflow"


def test_a_profile_states_what_budgets_find():
    rows = {(row.provider, row.unit, row.share, row.cheated): row for row in powers({"any": 1.0, "mild": 0.02})}
    assert len(rows) == 2 * 2 * 3 * 2
    assert rows["any", "segments", 0.25, 0.1].power == pytest.approx(1 - hypergeom(60, 6, 15).pmf(0))
    assert rows["any", "clips", 0.1, 1.0].power == 1.0
    assert rows["mild", "clips", 0.5, 1.0].power == pytest.approx(1 - 0.98**50)
    for provider in ("any", "mild"):
        grows = [rows[provider, "clips", share, 0.1].power for share in (0.1, 0.25, 0.5)]
        assert grows == sorted(grows)


def test_the_draw_of_a_clip_is_that_of_its_segments():
    budget = from_seed("sixteen letters or more", 0.3)
    digests = [str(i) for i in range(400)]
    assert [draws(budget, own) for own in digests] == [bool(choose(budget, own, 5)) for own in digests]


@pytest.mark.parametrize("parameters", [{"share": 1.1}, {"share": float("nan")}, {"least": -1}, {"secret": b"short"}])
def test_impossible_budgets_are_refused(parameters):
    with pytest.raises(UsageError, match="budget"):
        Budget(**{"share": 0.5, **parameters})
