"""Scenarios beyond altered weights, each beside a twin that changes nothing and passes."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest
from providers import FOUR_BITS, outcomes, run_provider

import earmark.scenarios.forged as forged_module
from earmark.errors import UsageError
from earmark.scenarios import scenario
from earmark.scenarios.clips import own_inputs
from earmark.scenarios.core import Settings, run_record, run_score
from earmark.scenarios.forger import difference, learn
from earmark.scenarios.honest import honest as honest_provider
from earmark.scenarios.mixing import draws
from earmark.scenarios.tampered import DAMAGES
from earmark.scenarios.traces import open_numbers
from earmark.scenarios.weights import quantise

CHEATS = [
    ("quantise", {"bits": 8, "rotation": "hadamard"}),
    ("quantise_activations", {}),
    ("skip_frames", {}),
    ("other_precision", {}),
    ("drop_silence", {}),
    ("stop_early", {}),
    ("laundered", {}),
    ("fabricated", {}),
    ("other_audio", {}),
    ("restamped", {}),
    *(("malformed", {"kind": kind}) for kind in DAMAGES),
]


@pytest.mark.parametrize(("name", "parameters"), CHEATS)
def test_each_cheat_fails_on_every_clip(nano, few, name, parameters):
    assert run_provider(nano, few, scenario(name, **parameters)) == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("skip_frames", {}), ("other_audio", {}), ("restamped", {})],
)
def test_the_same_cheats_fail_on_ctc(ctc, few, name, parameters):
    assert run_provider(ctc, few, scenario(name, **parameters)) == ["FAIL", "FAIL"]


def test_sixteen_bits_change_nothing_that_shows(nano, few):
    assert run_provider(nano, few, quantise(bits=16)) == ["PASS", "PASS"]


def test_copied_shapes_fail(ctc, few, known):
    assert run_provider(ctc, few, scenario("copied_shapes", clips=known), "scores") == ["FAIL", "FAIL"]


@pytest.mark.parametrize("kind", ["ridge", "mlp"])
def test_a_learned_forger_fails_and_one_with_nothing_to_forge_passes(ctc, few, known, kind):
    made = scenario("forger", kind=kind, clips=known)
    assert run_provider(ctc, few, made, "scores") == ["FAIL", "FAIL"]
    twin = scenario("forger", kind=kind, clips=known, writer=ctc)
    assert run_provider(ctc, few, twin, "scores") == ["PASS", "PASS"]


def test_a_forger_comes_nearer_to_the_reference_on_what_it_learned_from(ctc, few):
    inputs, settings, cheap = own_inputs(ctc, 2, clips=few), Settings(), FOUR_BITS.alternative(ctc)
    learned = learn(ctc, cheap, inputs, settings, kind="ridge")
    written = run_record(cheap, inputs, settings)
    true = [open_numbers(o) for o in run_score(ctc, inputs, written, dataclasses.replace(settings, k=257))]
    own = [open_numbers(o) for o in written]
    before, after = (
        np.concatenate([difference(made, real) for made, real in zip(numbers, true, strict=True)])
        for numbers in (own, [learned.forge(numbers) for numbers in own])
    )
    assert (after**2).sum() < 0.6 * (before**2).sum()


def test_a_single_clip_still_gets_other_audio(nano, ctc, few, known):
    """A run that goes on may find one clip left to measure."""
    for model, own in ((nano, None), (ctc, known)):
        made = scenario("other_audio", clips=own)
        for clip in few:
            assert run_provider(model, [clip], made) == ["FAIL"]
    with pytest.raises(UsageError, match="has no other audio"):
        scenario("other_audio", clips=few).record(nano, few)


def test_other_audio_is_that_of_the_clip_before_or_of_the_clips_given(nano, few, known, monkeypatch):
    heard = []
    monkeypatch.setattr(forged_module, "run_record", lambda _model, inputs, _settings: heard.append(inputs) or [])
    inputs = own_inputs(nano, 2, clips=few)
    for clips in (None, known):
        scenario("other_audio", clips=clips).produce(nano, inputs, Settings())
    for swapped, donors in zip(heard, (few[::-1], [known[5], known[2]]), strict=True):
        for item, tested, donor in zip(swapped, few, donors, strict=True):
            assert np.array_equal(item.samples, np.resize(donor.audio.samples, len(tested.audio.samples)))


def test_a_request_that_already_says_so_is_no_cheat_and_is_refused(nano, few):
    asked = [dataclasses.replace(c, request=msgspec.structs.replace(c.request, language="de")) for c in few]
    cheat = scenario("other_request", language="de")
    assert [cheat.obeys(clip) for clip in (*few, *asked)] == [False, False, True, True]
    assert run_provider(nano, few, cheat) == ["FAIL", "FAIL"]
    with pytest.raises(UsageError, match="1 of 2 pieces already ask for language-de"):
        cheat.record(nano, [few[0], asked[1]])
    assert not quantise(bits=8).obeys(few[0])


def test_forgers_never_see_what_they_are_tested_on(nano, few):
    inputs = own_inputs(nano, 9, clips=few)
    assert own_inputs(nano, 9, clips=few, apart_from=inputs) == []
    with pytest.raises(UsageError, match="nothing to learn on"):
        scenario("forger", clips=few).record(nano, few)
    with pytest.raises(UsageError, match="seen no honest evidence"):
        scenario("copied_shapes", clips=few).record(nano, few)


def test_fabricated_numbers_without_noise_of_the_reference_itself_pass(nano, few):
    assert run_provider(nano, few, scenario("fabricated", noise=0.0, writer=nano)) == ["PASS", "PASS"]


def test_cached_evidence_of_the_level_scores_fails_by_the_stored_receipt_alone(nano, few):
    receipts = [own.receipt for own in honest_provider().record(nano, few)]
    cached = scenario("restamped").record(nano, few)
    assert outcomes(nano, few, cached) == ["PASS", "PASS"], "nothing in its numbers depends on the nonce"
    assert outcomes(nano, few[::-1], cached[::-1], receipts) == ["FAIL", "FAIL"]


def test_lossy_speculation_fails_where_it_writes_otherwise_and_lossless_passes(nano, early, clips):
    some = clips[:4]
    plain = honest_provider().record(nano, some)
    lossy = scenario("speculative", accept=0.01, draft=early).record(nano, some)
    differs = [mine.text != real.text for mine, real in zip(lossy, plain, strict=True)]
    assert any(differs)
    assert [outcome == "FAIL" for outcome in outcomes(nano, some, lossy)] == differs
    lossless = scenario("speculative", draft=early).record(nano, some)
    assert [own.text for own in lossless] == [own.text for own in plain]
    assert set(outcomes(nano, some, lossless)) == {"PASS"}


def test_a_mixing_provider_cheats_on_the_requests_that_it_drew(ctc, clips):
    some = clips[:6]
    outcomes = run_provider(ctc, some, scenario("mixed", cheat=FOUR_BITS, share=0.5))
    drawn = [draws(clip.request.digest(), 0.5, 0) for clip in some]
    assert set(drawn) == {True, False}
    assert outcomes == ["FAIL" if cheated else "PASS" for cheated in drawn]
