"""Compact evidence of CTC and transducer models: 1 KB for 30 s, and every cheat is still found."""

from __future__ import annotations

import frame_cases
import msgspec
import numpy as np
import pytest
import tiny_models

import earmark
from earmark import Clip, Policy, record_many
from earmark.errors import TraceError, UsageError
from earmark.fingerprint.frame_summary import FrameSummary, informative_gap, least_sure
from earmark.records import varint
from earmark.records.evidence import load_evidence
from earmark.scenarios import scenario
from earmark.verifiers._frames_compact import CompactTrace
from earmark.verifiers._transducer_pack import pack_path, steps_of, unpack_path
from earmark.verifiers._transducer_path import tokens_of

ACCEPTS = Policy(accept_compact=True)


@pytest.fixture(scope="module", params=frame_cases.EMBEDDED)
def bench(request, clips):
    return frame_cases.Bench.embedded(request.param, clips[:6], level="compact")


def verify(model, clips, evidence, **options):
    wire = [item if isinstance(item, bytes) else item.to_msgpack() for item in evidence]
    return frame_cases.verify(model, clips, wire, **{"policy": ACCEPTS, **options})


def outcomes(model, clips, evidence):
    return [verdict.outcome for verdict in verify(model, clips, evidence)]


def codes_of(model, clip, evidence, **options):
    return frame_cases.codes(verify(model, [clip], [evidence], **options)[0])


# Honest


def test_half_a_minute_fits_into_a_kilobyte_and_passes(bench, clips):
    samples = np.concatenate([clip.audio.samples for clip in clips])
    for first in (0, len(samples) - 30 * 16_000):
        audio = earmark.audio.from_samples(samples[first : first + 30 * 16_000], 16_000)
        clip = Clip(audio=audio, request=earmark.request(audio))
        evidence = earmark.record(bench.model, clip.request, audio, level="compact")
        assert len(evidence.to_msgpack()) <= 1024
        verdict = verify(bench.model, [clip], [evidence])[0]
        assert (verdict.outcome, verdict.findings) == ("PASS", ())


@pytest.mark.parametrize(("dtype", "batch_size"), [("float32", 1), ("float16", 1), ("bfloat16", 6)])
def test_honest_evidence_passes(bench, dtype, batch_size):
    model = bench.loaded(dtype=dtype)
    evidence = list(record_many(model, bench.asked, level="compact", batch_size=batch_size))
    assert outcomes(model, bench.asked, evidence) == ["PASS"] * len(bench.asked)


def test_statistics_that_need_every_position_are_not_there(bench):
    values = verify(bench.model, bench.asked[:1], bench.evidence[:1])[0].fingerprint
    assert max(values[name] for name in ("entropy_rmse", "blank_distance", "margin_max", "informative_gap")) < 1e-6
    assert values["loglik_distance"] < 1e-5
    assert np.isnan([values["logprob_l1"], values["confidence_distance"], values["token_shift"]]).all()


def test_both_written_forms_expand_to_the_same_evidence(bench, tmp_path):
    for file in ("a.evidence.msgpack", "a.evidence.json"):
        bench.evidence[0].save(tmp_path / file)
        record = load_evidence(tmp_path / file)
        pieces = [(segment.start, segment.end) for segment in bench.evidence[0].segments]
        whole = record.expand(bench.asked[0].request, bench.model.info.features, pieces, bench.model.detokenise)
        assert whole == msgspec.structs.replace(bench.evidence[0], request=None)


def test_equal_bits_need_no_profile(bench):
    verdicts = verify(bench.model, bench.asked[:4], bench.evidence[:4], mode="reexecute", profile=None)
    assert [[finding.code for finding in verdict.findings] for verdict in verdicts] == [["exact.match"]] * 4


def test_only_a_policy_that_says_so_takes_it(bench):
    assert codes_of(bench.model, bench.asked[0], bench.evidence[0], policy=Policy()) == ["level.compact"]


# Cheats


@pytest.mark.parametrize(
    ("kind", "options"), [("quantise", {"bits": 8}), ("quantise", {"bits": 4}), ("drop_audio", {"seconds": 1.0})]
)
def test_cheats_fail_on_every_clip(bench, kind, options):
    cheated = scenario(kind, **options).record(bench.model, bench.asked, level="compact")
    assert set(outcomes(bench.model, bench.asked, cheated)) == {"FAIL"}


def test_int8_fails_under_an_fp16_claim(bench):
    model = bench.loaded(dtype="float16")
    cheated = scenario("quantise", bits=8).record(model, bench.asked, level="compact")
    assert set(outcomes(model, bench.asked, cheated)) == {"FAIL"}


def test_other_checkpoints_and_rescoring_fail(bench):
    """Where the cheap writer wrote the reference's own text, its evidence is the honest one."""
    for other in bench.stand_ins():
        cheap = earmark.load(other, device="cpu")
        swapped = scenario("other_checkpoint", model=cheap).record(bench.model, bench.asked[:3], level="compact")
        assert set(outcomes(bench.model, bench.asked[:3], swapped)) == {"FAIL"}, other
        rescored = scenario("rescored", writer=cheap).record(bench.model, bench.asked[:3], level="compact")
        for mine, real, verdict in zip(
            rescored, bench.evidence, verify(bench.model, bench.asked[:3], rescored), strict=False
        ):
            if mine.text != real.text:
                assert "margin.exceeded" in frame_cases.codes(verdict), other


def test_another_clip_and_another_nonce_fail(bench):
    foreign = msgspec.structs.replace(bench.evidence[1], request_digest=bench.asked[0].request.digest())
    assert verify(bench.model, bench.asked[:1], [foreign])[0].outcome == "FAIL"
    again = Clip(audio=bench.asked[0].audio, request=earmark.request(bench.asked[0].audio, nonce="f" * 32))
    stamped = msgspec.structs.replace(bench.evidence[0], request_digest=again.request.digest())
    assert "statistics.sketch_distance" in codes_of(bench.model, again, stamped)


def test_an_edited_transcript_fails_by_its_margin(bench):
    """One token is another; everything else, the packed path included, stays."""
    segment = bench.evidence[0].segments[0]
    ids = (*segment.ids[:-1], segment.ids[-1] - 1)
    edited = msgspec.structs.replace(segment, ids=ids, text=bench.model.detokenise(ids))
    evidence = msgspec.structs.replace(bench.evidence[0], segments=(edited,), text=edited.text)
    assert "margin.exceeded" in codes_of(bench.model, bench.asked[0], evidence)


def test_positions_that_tell_little_are_the_providers_choice_and_found(bench):
    """The provider shows where its model is surest, with honest numbers."""
    family, item = (
        earmark.loading.family_of(bench.model),
        earmark.recording.segment_inputs(bench.asked[0], bench.model)[0],
    )
    full = family.record(bench.model, [item], k=8, level="scores", batch_size=1, advance=lambda _: None)[0]
    segment = msgspec.structs.replace(bench.evidence[0].segments[0], trace=full.trace)
    scores = family.read(segment, bench.asked[0].request, bench.model, "scores")
    count = len(open_trace(bench.evidence[0]).entropy) // 2
    shown = np.sort(np.argsort(scores.entropy)[:count])
    dull = changed(
        bench.evidence[0],
        shown=varint.pack((np.diff(shown, prepend=-1) - 1).tolist()),
        entropy=scores.entropy[shown].astype("<f2").tobytes(),
        blank=scores.blank[shown].astype("<f2").tobytes(),
    )
    assert codes_of(bench.model, bench.asked[0], dull) == ["positions.picked"]


def open_trace(evidence):
    return msgspec.msgpack.decode(evidence.segments[0].trace, type=CompactTrace)


def changed(evidence, **fields):
    trace = msgspec.structs.replace(open_trace(evidence), **fields)
    segment = msgspec.structs.replace(evidence.segments[0], trace=msgspec.msgpack.encode(trace))
    return msgspec.structs.replace(evidence, segments=(segment,))


F4 = np.float32
TAMPERED = {
    "likelihood above 0": ({"likelihood": F4(1).tobytes()}, "trace.value"),
    "likelihood NaN": ({"likelihood": F4(np.nan).tobytes()}, "trace.value"),
    "likelihood of another model": ({"likelihood": F4(-900).tobytes()}, "statistics.loglik_distance_frame"),
    "no positions": ({"shown": b"", "entropy": b"", "blank": b""}, "trace.malformed"),
    "positions cut off": ({"shown": b"\x80"}, "trace.malformed"),
    "positions past the end": ({"shown": varint.pack([0, 0, 0, 0, 0, 0, 0, 2**30])}, "trace.malformed"),
    "entropies left out": ({"entropy": b""}, "trace.malformed"),
    "entropies below 0": ({"entropy": np.full(8, -1, "<f2").tobytes()}, "trace.value"),
    "entropies NaN": ({"entropy": np.full(8, np.nan, "<f2").tobytes()}, "trace.value"),
    "entropies above the largest": ({"entropy": np.full(8, 9, "<f2").tobytes()}, "trace.value"),
    "entropies of another model": ({"entropy": np.full(8, 5, "<f2").tobytes()}, "statistics.entropy_rmse"),
    "blanks above 0": ({"blank": np.full(8, 1, "<f2").tobytes()}, "trace.value"),
    "blanks of another model": ({"blank": np.full(8, -40, "<f2").tobytes()}, "statistics.blank_distance"),
    "sketch left out": ({"sketch": b""}, "trace.malformed"),
    "sketch of zeros": ({"sketch": bytes(64)}, "statistics.sketch_distance"),
    "another path": ({"path": b"\x01\x01"}, None),
}


@pytest.mark.parametrize("change", TAMPERED)
def test_tampering_is_named(bench, change):
    fields, code = TAMPERED[change]
    verdict = verify(bench.model, bench.asked[:1], [changed(bench.evidence[0], **fields)])[0]
    assert verdict.outcome == "FAIL"
    assert code is None or code in frame_cases.codes(verdict)


def test_ids_that_no_transcript_holds_are_named(bench):
    short = bench.evidence[0].compact()
    for ids, code in (
        ([10**6], "token.unknown"),
        ([bench.model.blank_id], "path.mismatch"),
        ([5] * 9999, "token.count"),
    ):
        piece = msgspec.structs.replace(short.segments[0], ids=varint.pack(ids))
        found = codes_of(bench.model, bench.asked[0], msgspec.structs.replace(short, segments=(piece,)).to_msgpack())
        assert found in ([code], ["path.mismatch"])


def test_word_confidences_are_not_in_it(bench):
    family = earmark.loading.family_of(bench.model)
    summary = family.read(bench.evidence[0].segments[0], bench.asked[0].request, bench.model, "compact")
    assert isinstance(summary, FrameSummary)
    with pytest.raises(UsageError, match="compact evidence"):
        family.confidences(summary, None, bench.model)


# Parts


@pytest.mark.parametrize("kind", ["rnnt", "tdt"])
def test_packed_paths_come_back(kind, tmp_path, clips):
    """Of random checkpoints, which reach limits and force themselves on more often than trained ones."""
    model = earmark.load(tiny_models.parakeet(tmp_path, kind, seed=1), device="cpu")
    for clip in clips[:2]:
        path = np.asarray(model.greedy(model.encode([clip.audio.samples]))[0], np.int64)
        tokens = tokens_of(path, model)
        ids = path[tokens >= 0, 1].tolist()
        packed = pack_path(path, tokens, model)
        assert (unpack_path(packed, ids, model, len(path)) == path).all()
        assert len(packed) <= len(path) * np.log2(len(steps_of(model))) / 8 + 1
        for bad, limit in ((packed, len(path) - 1), (b"\0" + packed, 9999), (b"", 9999)):
            with pytest.raises(TraceError):
                unpack_path(bad, ids, model, limit)
        with pytest.raises(TraceError, match="tokens"):
            unpack_path(packed, [*ids, 5], model, len(path))


def test_the_gap_of_the_least_sure_positions_is_zero():
    entropy = np.random.default_rng(0).random(50)
    assert informative_gap(entropy, least_sure(entropy, 9)) == 0
    assert informative_gap(entropy, np.argsort(entropy)[:9]) > 0.5
