"""A budget with a depth: the encoder of what is left out runs so far and no farther, and shows what lies there."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from made_profiles import calibrated

import earmark
from earmark import Case
from earmark.budget import Budget, choose
from earmark.errors import UsageError
from earmark.fingerprint.sketch import choose_probes, sketch_distances
from earmark.loading import family_of
from earmark.recording import segment_inputs
from earmark.records.evidence import join_texts
from earmark.records.request import Segmentation
from earmark.scenarios.weights import quantise
from earmark.taps import Taps

SECRET = b"sixteen bytes and more"
NONE = 1e-9
"""A share by which nothing is replayed."""
ALL = 99
"""Deeper than any encoder here."""


@pytest.fixture(scope="module", params=["whisper-nano", "parakeet-ctc-nano", "parakeet-tdt-nano"])
def model(request):
    """Return one model of each family."""
    return earmark.load(f"embedded:{request.param}", device="cpu")


@pytest.fixture(scope="module")
def asked(clips):
    """Return three short clips with requests that every family takes."""
    short = sorted(clips, key=lambda clip: len(clip.audio.samples))[:3]
    return [dataclasses.replace(c, request=earmark.request(c.audio, nonce=c.request.nonce)) for c in short]


@pytest.fixture(scope="module")
def honest(model, asked):
    return list(earmark.record_many(model, asked, level="sketch"))


@pytest.fixture(scope="module")
def cheap(model, asked):
    return quantise(bits=4, group=64).record(model, asked, level="sketch")


def _verify(model, clips, evidence, share=NONE, depth=ALL, **options):
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    budget = Budget(share=share, depth=depth, secret=SECRET)
    return list(earmark.verify_many(cases, model, **{"profile": "provisional", "budget": budget, **options}))


def _codes(verdict):
    return [finding.code for finding in verdict.findings if finding.code != "margin.near_tie"]


def test_a_block_is_left_behind_the_last_layer_that_is_wanted():
    ran = []
    layers = [torch.nn.Identity() for _ in range(4)]
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    values = torch.arange(6.0).reshape(1, 3, 2)
    with Taps(layers, [(1, 0, 2)], depth=2) as taps:
        torch.nn.Sequential(*layers)(values)
    assert ran == [0, 1]
    assert taps.states[1, 0, 2].tolist() == [4.0, 5.0]
    torch.nn.Sequential(*layers)(values)
    assert ran == [0, 1, 0, 1, 2, 3], "nothing is left attached"
    with pytest.raises(ZeroDivisionError), Taps(layers, [], depth=2):
        raise ZeroDivisionError


def test_probes_in_the_first_layers_are_those_of_the_whole_replay(model, asked, honest):
    family, reference = family_of(model), model.in_float32()
    inputs = [segment_inputs(clip, model)[0] for clip in asked]
    traces = [family.read(e.segments[0], clip.request, model, "sketch") for e, clip in zip(honest, asked, strict=True)]
    sketches = [np.asarray(getattr(trace, "scores", trace).sketch) + 1.0 for trace in traces]
    whole = family.replay(reference, inputs, traces, batch_size=2, advance=lambda _: None)
    layers = len(model.encoder_layers())
    for depth in (1, 3, layers, ALL):
        moved = [_with_sketch(trace, sketch) for trace, sketch in zip(traces, sketches, strict=True)]
        found = family.probe(reference, inputs, moved, depth=depth, batch_size=2, advance=lambda _: None)
        for item, sketch, full, distances in zip(inputs, sketches, whole, found, strict=True):
            places = choose_probes(item.request.nonce, 0, layers=layers, positions=1, tokens=1)
            within = [i for i, place in enumerate(places) if place.layer is not None and place.layer < depth]
            expected = sketch_distances(sketch, full.scores.sketch)[within]
            assert distances == pytest.approx(expected, rel=1e-4)
    assert all(len(distances) == 3 for distances in found)


def _with_sketch(trace, sketch):
    if hasattr(trace, "scores"):
        return dataclasses.replace(trace, scores=dataclasses.replace(trace.scores, sketch=sketch))
    return dataclasses.replace(trace, sketch=sketch)


def test_nothing_behind_the_depth_is_run(model, asked, honest):
    ran, layers = [], model.encoder_layers()
    handles = [
        layer.register_forward_hook(lambda *_, number=number: ran.append(number)) for number, layer in enumerate(layers)
    ]
    _verify(model, asked, honest, depth=2)
    for handle in handles:
        handle.remove()
    assert set(ran) == {0, 1}


def test_a_look_finds_a_cheat_and_passes_nobody(model, asked, honest, cheap):
    for verdict in _verify(model, asked, honest):
        assert (verdict.outcome, verdict.fault, verdict.fingerprint) == ("INCONCLUSIVE", "verifier", None)
        assert _codes(verdict) == ["budget.skipped", "budget.probed"]
    for verdict in _verify(model, asked, cheap):
        assert (verdict.outcome, verdict.fault) == ("FAIL", "provider")
        assert _codes(verdict) == ["budget.skipped", "budget.probed", "statistics.sketch_distance"]
    assert {verdict.outcome for verdict in _verify(model, asked, cheap, depth=None)} == {"INCONCLUSIVE"}


def test_without_a_sketch_there_is_nothing_to_look_at(model, asked, cheap):
    scores = [earmark.score(model, own, clip.audio) for own, clip in zip(cheap[:1], asked, strict=False)]
    assert _codes(_verify(model, asked[:1], scores)[0]) == ["budget.skipped"]


def test_a_look_adds_to_the_segments_that_are_replayed(clips):
    """A cheat on one segment of a long clip: found where it is replayed, and by the depth where it is not."""
    model = earmark.load("embedded:parakeet-ctc-nano", device="cpu")
    longest = max(clips, key=lambda clip: len(clip.audio.samples))
    asked = earmark.request(longest.audio, nonce="0" * 32, segmentation=Segmentation(max_samples=16_000))
    clip = dataclasses.replace(longest, request=asked)
    real = earmark.record(model, asked, clip.audio, level="sketch")
    cheap = quantise(bits=4, group=64).record(model, [clip], level="sketch")[0]
    verdict = _verify(model, [clip], [real], share=0.5)[0]
    assert (verdict.outcome, _codes(verdict)) == ("PASS", ["budget.partial", "budget.probed"])
    assert "no token of these was looked at" in verdict.findings[-1].expected
    found = {True: set(), False: set()}
    for number in range(len(real.segments)):
        segments = [*real.segments[:number], cheap.segments[number], *real.segments[number + 1 :]]
        mixed = msgspec.structs.replace(real, segments=tuple(segments), text=join_texts([s.text for s in segments]))
        among = number in choose(Budget(share=0.5, secret=SECRET), mixed.digest(), len(segments))
        outcomes = [_verify(model, [clip], [mixed], share=0.5, depth=depth)[0].outcome for depth in (None, ALL)]
        found[among].add(tuple(outcomes))
    assert found == {True: {("FAIL", "FAIL")}, False: {("PASS", "FAIL")}}


def test_a_calibrated_profile_promises_nothing_of_a_look(nano, clips):
    """Its rate is one of whole clips, so the verdict asks for the rest."""
    cheap = quantise(bits=4, group=64).record(nano, clips[:1], level="sketch")
    profile = calibrated(nano, level="sketch", channels=("sketch_distance",))
    verdict = _verify(nano, clips[:1], cheap, profile=profile)[0]
    assert (verdict.outcome, verdict.fault) == ("INCONCLUSIVE", "verifier")
    assert "statistics.part" in _codes(verdict)


def test_a_look_that_breaks_is_the_verifiers_fault(nano, clips, monkeypatch):
    evidence = list(earmark.record_many(nano, clips[:2], level="sketch"))
    real = type(family_of(nano)).probe

    def broken(self, model, inputs, traces, **options):
        if any(len(item.samples) == len(clips[0].audio.samples) for item in inputs):
            raise RuntimeError("out of memory")
        return real(self, model, inputs, traces, **options)

    monkeypatch.setattr(type(family_of(nano)), "probe", broken)
    first, second = _verify(nano, clips[:2], evidence)
    assert _codes(first) == ["budget.skipped", "replay.failed"]
    assert (first.outcome, first.fault) == ("INCONCLUSIVE", "verifier")
    assert _codes(second) == ["budget.skipped", "budget.probed"], "one case shelters no other"


def test_impossible_depths_are_refused():
    with pytest.raises(UsageError, match="a depth of 0; expected 1 or more layers"):
        Budget(share=0.5, depth=0)


def test_a_family_without_probes_refuses_a_depth(nano, clips, monkeypatch):
    evidence = list(earmark.record_many(nano, clips[:1], level="sketch"))
    monkeypatch.setattr("earmark.probing.family_of", lambda _: SimpleNamespace(name="third party"))
    with pytest.raises(UsageError, match="'third party' has no probes to look at"):
        _verify(nano, clips[:1], evidence)
