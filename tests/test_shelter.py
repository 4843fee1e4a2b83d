"""Shelter: what a provider chooses counts against it, and the faults of others do not (THREATS A31)."""

from __future__ import annotations

import msgspec
import pytest
from worlds import load_world, reasons

import earmark
from earmark import Case, Clip, Policy
from earmark.limits import MOST_K
from earmark.loading import family_of
from earmark.recording import assemble, segment_inputs
from earmark.records.policy import STRICT
from earmark.records.receipt import batch
from earmark.records.request import Segmentation
from earmark.scenarios.core import Settings, run_record
from earmark.testing.bench import restamp


def _own_request(world, **changes):
    """Return evidence that brings its own request, which the verifier does not hold."""
    return restamp(world.record(), msgspec.structs.replace(world.clip.request, **changes))


def _cut(world):
    """Return the request to cut the clip in the middle."""
    middle = (world.clip.audio.samples.size // 2,)
    return msgspec.structs.replace(world.clip.request, segmentation=Segmentation(boundaries=middle))


def _lists(world, *ks):
    """Return evidence of a clip that is cut in two, each segment with a k of its own."""
    made = []
    for number, k in enumerate(ks):
        clip = Clip(audio=world.clip.audio, request=_cut(world))
        inputs = segment_inputs(clip, world.reference)
        outputs = run_record(world.reference, inputs, Settings(k=k))
        made.append(assemble(world.reference, clip, inputs, outputs, level="scores").segments[number])
    return msgspec.structs.replace(world.record(request=_cut(world)), segments=tuple(made))


SHELTERS = {
    "segments with another k each": lambda w: w.verify(_lists(w, 8, 9), request=_cut(w)),
    "lists of most of the vocabulary": lambda w: w.verify(_lists(w, MOST_K + 1, MOST_K + 1), request=_cut(w)),
    "k of one": lambda w: w.verify(w.record(k=1)),
    "text alone": lambda w: w.verify(msgspec.structs.replace(w.record(), level="text")),
    "no sketch": lambda w: w.verify(w.record(level="scores"), policy=Policy(least_level="sketch")),
    "no receipt": lambda w: w.verify(w.record(), policy=STRICT),
    "a receipt of no batch": lambda w: w.verify(
        w.record(),
        receipt=msgspec.structs.replace(
            batch([w.record().digest(), "0" * 64])[0], inclusion=batch(["1" * 64, "0" * 64, "2" * 64])[2].inclusion
        ),
    ),
    "a prompt of its own": lambda w: w.verify(_own_request(w, prompt="one two"), request=None),
    "a segmentation rule of its own": lambda w: w.verify(
        _own_request(w, segmentation=Segmentation(rule="at-random")), request=None
    ),
    "boundaries that make no sense": lambda w: w.verify(
        _own_request(w, segmentation=Segmentation(boundaries=(10,))), request=None
    ),
    "a language that the model has not": lambda w: w.verify(_own_request(w, language="tlh"), request=None),
}


@pytest.mark.parametrize("name", SHELTERS)
def test_exotic_settings_count_against_the_provider(whisper, name):
    """A31: what a provider chooses may end INCONCLUSIVE, but never by anybody else's fault."""
    verdict = SHELTERS[name](whisper)
    assert verdict.outcome != "PASS"
    assert verdict.fault == "provider", reasons(verdict)
    assert verdict.to_dict()["fault"] == "provider"


def test_faults_of_others_do_not_count_against_the_provider(whisper, monkeypatch):
    """The twins: an honest provider is charged neither with the verifier's faults nor with the customer's."""
    honest = whisper.record()
    passed = whisper.verify(honest)
    assert (passed.outcome, passed.fault) == ("PASS", None)
    unusable = msgspec.structs.replace(whisper.clip.request, segmentation=Segmentation(rule="at-random"))
    customer = whisper.verify(restamp(honest, unusable), request=unusable)
    assert (customer.outcome, customer.fault) == ("INCONCLUSIVE", "input")
    case = Case(evidence=honest, audio=whisper.clip.audio, request=whisper.clip.request)
    bare = next(earmark.verify_many([case], whisper.reference, profile="rules"))
    assert (bare.outcome, bare.fault) == ("INCONCLUSIVE", "verifier")

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(family_of(whisper.reference)), "replay", fail)
    broken = whisper.verify(honest)
    assert (broken.outcome, broken.fault) == ("INCONCLUSIVE", "verifier")


@pytest.mark.parametrize("pair", ["autoregressive", "random-ctc", "random-tdt"])
def test_segments_share_one_k_of_at_most_64(pair):
    """Lists of unequal length break a rule before any replay; equal ones of the largest length are judged."""
    world = load_world(pair)
    mixed = world.verify(_lists(world, 8, 9), request=_cut(world))
    assert (mixed.outcome, [f.code for f in mixed.findings]) == ("FAIL", ["k.mixed"])
    most = min(MOST_K, world.reference.info.vocab_size)
    assert world.verify(_lists(world, most, most), request=_cut(world)).outcome == "PASS"
