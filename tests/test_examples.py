"""Examples of a real study: what is kept beside a run, for a model that writes tokens and one that writes frames."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

import earmark
from earmark.comparisons import checkpoints, possible, precisions, usual
from earmark.errors import UsageError
from earmark.examples import collect
from earmark.scenarios import scenario
from earmark.scenarios.naming import parse_scenario
from earmark.study import Sample

CLIP = Path(str(files("earmark.data"))) / "clips" / "01.flac"
SAID = "the farmer in the beach carried a white box"


@pytest.fixture(scope="module", params=["whisper-nano", "parakeet-ctc-nano"])
def found(request):
    reference = earmark.load(f"embedded:{request.param}", device="cpu")
    providers = [scenario("honest", batch_size=1), scenario("quantise", bits=8)]
    return collect(reference, providers, [Sample(name="a", audio=CLIP, expected=SAID)], command="a command")


def test_every_part_is_there_for_every_provider(found):
    parts = (found.curves, found.confidences, found.calibrations, found.attributions, found.costs)
    for part in parts:
        assert [own.scenario for own in part] == ["honest-batch-1", "int8"]


def test_honest_curves_agree_and_rounded_weights_do_not(found):
    honest, int8 = (max(abs(a - b) for a, b in zip(own.provider, own.reference, strict=True)) for own in found.curves)
    assert honest < 1e-4 < int8


def test_words_stand_where_they_were_said(found):
    for curve, line in zip(found.curves, found.confidences, strict=True):
        assert " ".join(word for _, word in curve.words).split() == list(line.words)
        places = [place for place, _ in curve.words]
        assert places == sorted(places)
        assert places[0] >= 0
        assert places[-1] <= curve.places[-1]
    assert found.curves[0].unit == ("tokens" if "whisper" in found.model else "s")
    if found.curves[0].unit == "s":
        assert found.curves[0].places[-1] == pytest.approx(2.31, abs=0.1)  # the clip lasts 2.31 s


def test_attribution_names_the_cheat_and_accuses_no_honest_provider(found):
    assert [own.names for own in found.attributions] == [{"none of the known": 1}, {"int8": 1}]


def test_costs_are_counted(found):
    for cost in found.costs:
        assert cost.clips == 1
        assert cost.audio_s == pytest.approx(2.31, abs=0.01)
        assert cost.evidence_bytes > 500
        assert cost.record_s > 0
        assert cost.verify_s > 0


def test_reliability_counts_the_words_that_were_written(found):
    for own, line in zip(found.calibrations, found.confidences, strict=True):
        assert own.words == len(line.words) == sum(own.provider.counts)


def test_compact_evidence_has_fewer_examples_and_no_error():
    reference = earmark.load("embedded:whisper-nano", device="cpu")
    made = collect(reference, [scenario("honest")], [Sample(name="a", audio=CLIP, expected=SAID)], level="compact")
    assert (made.curves, made.confidences, made.calibrations) == ((), (), ())
    assert made.costs[0].evidence_bytes < 1024


def _load(source, precision="float32"):
    return earmark.load(source, dtype=precision, device="cpu")


def test_scenarios_are_named_in_one_word():
    assert parse_scenario("drop_audio:seconds=0.5", _load).name == "drop-0.5s"
    assert parse_scenario("honest:batch_size=3,attention=eager", _load).name == "honest-batch-3-attention-eager"
    made = parse_scenario("embedded:whisper-nano-early", _load)
    assert (made.name, made.honest) == ("whisper-nano-early", False)


@pytest.mark.parametrize("text", ["quantise:bits", "quantise:bits=99", "quantise:nonsense=1", "honest:=1"])
def test_faulty_scenarios_are_refused(text):
    with pytest.raises(UsageError):
        parse_scenario(text, _load)


def test_a_usual_study_has_the_variants_of_the_model():
    task = usual(_load("embedded:whisper-nano"), _load)
    names = [own.name for own in task.scenarios]
    assert sum(own.honest for own in task.scenarios) == 4
    assert {"int8", "int4-g64", "fp8", "skip-1-layer", "drop-1s", "whisper-nano-early"} <= set(names)
    assert len(names) == len(set(names))


def test_cheaper_precisions_run_in_place_of_the_claim():
    found = {
        t.reference.info.precision: [s.name for s in t.scenarios] for t in precisions("embedded:whisper-nano", _load)
    }
    assert {claim: names[2:] for claim, names in found.items()} == {
        "fp32": ["fp16", "bf16", "fp8", "int8", "int4-g64"],
        "fp16": ["bf16", "fp8", "int8", "int4-g64"],
        "bf16": ["fp16", "fp8", "int8", "int4-g64"],
    }
    (one,) = precisions("embedded:whisper-nano", _load, only="int8", claim="fp16")
    assert [own.name for own in one.scenarios][2:] == ["int8"]
    with pytest.raises(UsageError, match="spares nothing"):
        list(precisions("embedded:whisper-nano", _load, only="fp32", claim="fp16"))
    with pytest.raises(UsageError, match="known: fp32"):
        list(precisions("embedded:whisper-nano", _load, only="fp7"))


def test_checkpoints_of_one_kind_stand_in_and_families_stand_side_by_side():
    a, b = _load("embedded:whisper-nano"), _load("embedded:whisper-nano-early")
    other = _load("embedded:parakeet-ctc-nano")
    (task,) = checkpoints(a, b, "embedded:whisper-nano-early", load=_load)
    assert [(own.name, own.honest) for own in task.scenarios][2:] == [("whisper-nano-early", False)]
    (engine,) = checkpoints(a, b, "embedded:whisper-nano-early", load=_load, same=True)
    assert engine.scenarios[-1].honest
    assert not possible(task.scenarios[-1], other)
    beside = list(checkpoints(a, other, "embedded:parakeet-ctc-nano", load=_load))
    assert [own.reference.info.family for own in beside] == ["autoregressive", "ctc"]
    with pytest.raises(UsageError, match="another engine"):
        list(checkpoints(a, other, "embedded:parakeet-ctc-nano", load=_load, same=True))
