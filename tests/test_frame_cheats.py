"""Frame-synchronous families on small random models: honest providers pass, every cheat fails."""

from __future__ import annotations

import frame_cases
import msgspec
import numpy as np
import pytest
import tiny_models

import earmark
from earmark import Clip, record_many
from earmark.errors import UsageError
from earmark.protocols import SegmentOutput
from earmark.scenarios import scenario
from earmark.verifiers import _ctc_trace, _transducer_trace

#: Seed of a reference, seed of another checkpoint of the same shape and vocabulary, type of their traces.
KINDS = {
    "ctc": (1, 2, _ctc_trace.Trace),
    "tdt": (1, 4, _transducer_trace.Trace),
    "rnnt": (1, 2, _transducer_trace.Trace),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return tiny_models.parakeet(tmp_path_factory.mktemp(kind), kind, seed=KINDS[kind][0])


@pytest.fixture(scope="module")
def bench(kind, folder, clips):
    asked = frame_cases.without_language(clips[:4])
    return frame_cases.Bench(earmark.load(folder, device="cpu"), KINDS[kind][2], asked)


@pytest.fixture(scope="module")
def other(kind, tmp_path_factory):
    return earmark.load(tiny_models.parakeet(tmp_path_factory.mktemp("other"), kind, KINDS[kind][1]), device="cpu")


def _outcomes(bench, evidence, **options):
    """The outcomes, one word where all are the same."""
    found = set(frame_cases.outcomes(bench.model, bench.asked, evidence, **options))
    return found.pop() if len(found) == 1 else found


# Honest


def test_honest_evidence_passes_without_a_finding(bench, kind):
    for verdict in frame_cases.verify(bench.model, bench.asked, bench.evidence):
        assert (verdict.outcome, verdict.findings) == ("PASS", ())
        assert verdict.fingerprint["logprob_l1"] < 1e-4
        assert verdict.fingerprint.family == bench.model.info.family
        assert np.isnan(verdict.fingerprint.get("duration_l1", np.nan)) == (kind != "tdt")


def test_reexecution_finds_the_same_tokens(bench):
    assert _outcomes(bench, bench.evidence, mode="reexecute") == "PASS"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_honest_16_bit_passes(folder, bench, dtype):
    model = earmark.load(folder, device="cpu", dtype=dtype)
    made = list(record_many(model, bench.asked, level="sketch", batch_size=2))
    verdicts = frame_cases.verify(model, bench.asked, made)
    assert {verdict.outcome for verdict in verdicts} == {"PASS"}
    assert max(verdict.fingerprint["logprob_l1"] for verdict in verdicts) > 0


# Cheats


def test_evidence_of_another_clip_is_found(bench):
    asked = bench.asked[0].request
    foreign = msgspec.structs.replace(bench.evidence[1], request_digest=asked.digest(), request=asked)
    assert frame_cases.outcomes(bench.model, bench.asked[:1], [foreign]) == ["FAIL"]


def test_fabricated_scores_with_the_right_transcript_fail(bench, other):
    """The cheat writes the reference's own transcript and path, with the numbers of another checkpoint."""
    model, asked = bench.model, bench.asked
    items = [earmark.recording.segment_inputs(clip, model)[0] for clip in asked]
    first = [(evidence.segments[0], evidence.text) for evidence in bench.evidence]
    outputs = [SegmentOutput(ids=segment.ids, text=text, trace=segment.trace) for segment, text in first]
    family = earmark.loading.family_of(model)
    scored = family.score(other, items, outputs, k=8, level="sketch", batch_size=4, advance=lambda _: None)
    for item, (segment, _), output, clip in zip(items, first, scored, asked, strict=True):
        assert output.ids == segment.ids
        forged = earmark.recording.assemble(model, clip, [item], [output], level="sketch")
        codes = frame_cases.codes(frame_cases.verify(model, [clip], [forged])[0])
        assert "statistics.logprob_l1" in codes
        assert "margin.exceeded" not in codes, "the path is the reference's own"


@pytest.mark.parametrize(
    ("name", "options"),
    [("quantise", {"bits": 8}), ("quantise", {"bits": 4, "group": 16}), ("drop_audio", {"seconds": 0.5})],
)
def test_scenarios_fail_on_every_clip(bench, name, options):
    cheated = scenario(name, **options).record(bench.model, bench.asked, level="sketch")
    assert _outcomes(bench, cheated) == "FAIL"


def test_other_checkpoint_fails_and_the_reference_itself_passes(bench, other):
    cheated = scenario("other_checkpoint", model=other).record(bench.model, bench.asked)
    assert _outcomes(bench, cheated) == "FAIL"
    same = scenario("other_checkpoint", model=bench.model).record(bench.model, bench.asked)
    assert _outcomes(bench, same) == "PASS"


def test_rescoring_is_found_by_the_path(bench, other):
    """The cheap model writes, the real one scores: honest numbers along a path that it would not have taken."""
    rescored = scenario("rescored", writer=other).record(bench.model, bench.asked)
    for verdict in frame_cases.verify(bench.model, bench.asked, rescored):
        assert verdict.outcome == "FAIL"
        assert "margin.exceeded" in frame_cases.codes(verdict)
        assert verdict.fingerprint["logprob_l1"] < 1e-4


def test_restamped_evidence_fails_by_its_sketch(bench):
    audio = bench.asked[0].audio
    again = Clip(audio=audio, request=earmark.request(audio, nonce="f" * 32))
    stamp = {"request_digest": again.request.digest(), "request": again.request}
    restamped = msgspec.structs.replace(bench.evidence[0], **stamp)
    assert frame_cases.codes(frame_cases.verify(bench.model, [again], [restamped])[0]) == ["statistics.sketch_distance"]


def test_a_model_of_another_family_is_refused(nano, bench):
    assert "family.mismatch" in frame_cases.codes(frame_cases.verify(nano, bench.asked[:1], bench.evidence[:1])[0])


def test_unknown_k_is_refused(bench):
    with pytest.raises(UsageError, match="lists between 1 and"):
        list(record_many(bench.model, bench.asked[:1], k=10_000))
