"""The trained CTC and transducer models that ship with earmark: honest providers pass, every cheat fails."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from importlib.resources import files
from pathlib import Path

import frame_cases
import msgspec
import numpy as np
import pytest

import earmark
from earmark import record_many
from earmark.fingerprint.reliability import correct_words
from earmark.protocols import SegmentOutput
from earmark.recording import assemble, segment_inputs
from earmark.scenarios import scenario
from earmark.scenarios.grids import integer_grid
from earmark.scenarios.weights import changed_copy


@pytest.fixture(scope="module", params=frame_cases.EMBEDDED)
def bench(request, clips):
    return frame_cases.Bench.embedded(request.param, clips)


def test_it_really_transcribes(bench):
    manifest = Path(str(files("earmark.data"))) / "clips" / "manifest.jsonl"
    spoken = [json.loads(line)["text"].split() for line in manifest.read_text(encoding="utf-8").splitlines()]
    right = sum(
        int(correct_words(item.text.split(), words).sum()) for item, words in zip(bench.evidence, spoken, strict=True)
    )
    assert right > 0.6 * sum(map(len, spoken))


def test_honest_evidence_of_every_clip_passes(bench):
    verdicts = frame_cases.verify(bench.model, bench.asked, bench.evidence, batch_size=3)
    assert {verdict.outcome for verdict in verdicts} == {"PASS"}
    assert max(verdict.fingerprint["logprob_l1"] for verdict in verdicts) < 1e-4
    assert max(verdict.fingerprint["margin_mismatches"] for verdict in verdicts) == 0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("batch_size", [1, 6])
def test_honest_16_bit_passes(bench, dtype, batch_size):
    chosen = bench.asked[:6]
    model = bench.loaded(dtype=dtype)
    evidence = list(record_many(model, chosen, level="sketch", batch_size=batch_size))
    assert frame_cases.outcomes(model, chosen, evidence) == ["PASS"] * len(chosen)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("quantise", {"bits": 8}),
        ("quantise", {"bits": 8, "symmetric": False}),
        ("quantise", {"bits": 4, "group": 64}),
        ("drop_audio", {"seconds": 1.0}),
    ],
)
def test_cheats_fail_on_every_clip(bench, kind, options):
    cheated = scenario(kind, **options).record(bench.model, bench.asked[:12], level="sketch")
    assert set(frame_cases.outcomes(bench.model, bench.asked[:12], cheated)) == {"FAIL"}


def test_int8_fails_under_an_fp16_claim(bench):
    model = bench.loaded(dtype="float16")
    cheated = scenario("quantise", bits=8).record(model, bench.asked[:12], level="sketch")
    assert set(frame_cases.outcomes(model, bench.asked[:12], cheated)) == {"FAIL"}


def test_other_checkpoints_fail_on_every_clip(bench):
    """A sibling of another seed, a student: whichever ship with the model."""
    for other in bench.stand_ins():
        cheat = scenario("other_checkpoint", model=earmark.load(other, device="cpu"))
        evidence = cheat.record(bench.model, bench.asked)
        assert set(frame_cases.outcomes(bench.model, bench.asked, evidence)) == {"FAIL"}, other


def test_a_last_second_of_silence_in_place_of_speech_fails(bench):
    """The cheat keeps the length, so that the number of frames is right; on most clips words are lost."""
    items = [segment_inputs(clip, bench.model)[0] for clip in bench.asked[:8]]
    muted = [dataclasses.replace(item, samples=_muted(item.samples)) for item in items]
    family = earmark.loading.family_of(bench.model)
    outputs = family.record(bench.model, muted, k=8, level="scores", batch_size=4, advance=lambda _: None)
    cheated = [assemble(bench.model, c, [i], [o]) for c, i, o in zip(bench.asked[:8], items, outputs, strict=True)]
    assert set(frame_cases.outcomes(bench.model, bench.asked[:8], cheated)) == {"FAIL"}


def _muted(samples: np.ndarray) -> np.ndarray:
    made = samples.copy()
    made[-16_000:] = 0
    return made


def test_the_right_transcript_with_the_numbers_of_cheaper_weights_fails(bench):
    """int8 weights score the reference's own paths: text, tokens and times are right, only the numbers are not."""
    cheap = bench.model.with_module(changed_copy(bench.model.module, partial(integer_grid, bits=8)))
    items = [segment_inputs(clip, bench.model)[0] for clip in bench.asked]
    given = [SegmentOutput(ids=e.segments[0].ids, text=e.text, trace=e.segments[0].trace) for e in bench.evidence]
    family = earmark.loading.family_of(bench.model)
    outputs = family.score(cheap, items, given, k=8, level="scores", batch_size=8, advance=lambda _: None)
    forged = [assemble(bench.model, c, [i], [o]) for c, i, o in zip(bench.asked, items, outputs, strict=True)]
    assert [item.text for item in forged] == [item.text for item in bench.evidence]
    assert set(frame_cases.outcomes(bench.model, bench.asked, forged)) == {"FAIL"}


def test_evidence_of_another_clip_fails(bench):
    foreign = msgspec.structs.replace(
        bench.evidence[1], request_digest=bench.asked[0].request.digest(), request=bench.asked[0].request
    )
    assert frame_cases.outcomes(bench.model, bench.asked[:1], [foreign]) == ["FAIL"]


def test_an_edited_word_fails(bench):
    """The text, or the ids with their text, say another word than the path."""
    ids = list(bench.evidence[0].segments[0].ids)
    for changed in (
        _segment(bench.evidence[0], text="call me"),
        _segment(bench.evidence[0], ids=(*ids[:-1], ids[-1] - 1)),
    ):
        assert frame_cases.outcomes(bench.model, bench.asked[:1], [changed]) == ["FAIL"]


def _segment(evidence, **fields):
    segment = msgspec.structs.replace(evidence.segments[0], **fields)
    return msgspec.structs.replace(evidence, segments=(segment,), text=segment.text)


def test_evidence_is_small(bench):
    """A clip of 3 s at 8 listed tokens a position, sketch included."""
    assert max(len(item.to_msgpack()) for item in bench.evidence) < 8_000
