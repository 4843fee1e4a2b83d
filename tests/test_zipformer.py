"""Streaming Zipformer exports: a tiny hand-written one, and the real network of the weights folder on real speech."""

from __future__ import annotations

import contextlib
import json
import sys
from math import gcd
from pathlib import Path

import msgspec
import numpy as np
import onnx_files
import pytest
import soundfile
import torch
from scipy.signal import resample_poly

import earmark
from earmark import Case, Clip
from earmark.cli import main
from earmark.errors import ModelError, UsageError
from earmark.models import _kaldi
from earmark.models._onnx import refuse_external_data
from earmark.models.zipformer import TAIL_SAMPLES, Encoded, ZipformerLoader, choose_part, read_tokens
from earmark.scenarios import scenario
from earmark.verifiers._transducer_trace import Trace

REAL = "zipformer-rnnt-gigaspeech-3.3m"
FULL = "encoder.fp32-dequantised+decoder.fp32+joiner.fp32"
INT8_ENCODER = "encoder.int8+decoder.fp32+joiner.fp32"
INT8 = "encoder.int8+decoder.int8+joiner.int8"
LEAST_SECONDS = 5.0


def kaldi_features(waveform: np.ndarray) -> np.ndarray:
    """Return the features of kaldi-native-fbank, which made the reference outputs."""
    kaldi = pytest.importorskip("kaldi_native_fbank", reason="kaldi-native-fbank is not installed")
    options = kaldi.FbankOptions()
    options.frame_opts.dither, options.frame_opts.snip_edges = 0, False
    options.mel_opts.num_bins, options.mel_opts.high_freq = 80, -400
    stream = kaldi.OnlineFbank(options)
    stream.accept_waveform(16_000, waveform.astype(np.float32))
    stream.input_finished()
    return np.stack([stream.get_frame(i) for i in range(stream.num_frames_ready)])


# Features


@pytest.mark.parametrize("length", [80, 400, 1_234, 16_000, 33_333])
def test_features_are_kaldis(length):
    waveform = np.random.default_rng(length).normal(size=length) * 0.1
    own, theirs = _kaldi.fbank(waveform), kaldi_features(waveform)
    assert own.shape == theirs.shape == (_kaldi.frame_count(length), 80)
    assert np.abs(own - theirs).max() < 3e-3
    assert np.abs(own - theirs).mean() < 2e-5


def test_digital_silence_is_kaldis_floor():
    assert np.array_equal(_kaldi.fbank(np.zeros(5_000)), kaldi_features(np.zeros(5_000)))


# A tiny export


@pytest.fixture
def tiny(tmp_path) -> Path:
    return onnx_files.write_checkpoint(tmp_path / "tiny")


@pytest.fixture
def pieces() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=n) * 3000).astype(np.int16) for n in (48_000, 20_000, 1_600)]


@pytest.mark.parametrize("rows", ["N", 1])
def test_a_row_does_not_depend_on_its_batch(tmp_path, pieces, rows):
    model = earmark.load(onnx_files.write_checkpoint(tmp_path / "m", rows=rows))
    encoded = model.encode(pieces)
    assert model.lengths(encoded) == [model.encoder_positions(len(piece)) for piece in pieces]
    for row, piece in enumerate(pieces):
        assert torch.equal(model.frames(encoded, row), model.frames(model.encode([piece]), 0))


def test_greedy_steps_move_on_by_one_frame_each(tiny, pieces):
    model = earmark.load(tiny)
    encoded = model.encode(pieces)
    for steps, length in zip(model.greedy(encoded), encoded.lengths, strict=True):
        assert [step.frame for step in steps] == list(range(length))
        assert {step.duration for step in steps} == {1}


def test_states_along_a_transcript_are_those_of_greedy_decoding(tiny, pieces):
    model = earmark.load(tiny)
    encoded = model.encode(pieces[:2])
    for row, steps in enumerate(model.greedy(encoded)):
        spoken = [step.token for step in steps if step.token]
        states = model.predict([spoken, [3]])[0]
        written = np.cumsum([step.token != 0 for step in steps]) - [step.token != 0 for step in steps]
        logits = model.joint(model.frames(encoded, row), states[torch.as_tensor(written)])
        assert logits.argmax(dim=1).tolist() == [step.token for step in steps]


def test_the_lattice_sees_the_joint(tiny, pieces):
    model = earmark.load(tiny)
    frames, states = model.frames(model.encode(pieces[:1]), 0)[None], model.predict([[3, 4]])
    joint = model.lattice_joint(frames, states)
    assert torch.allclose(joint.function(2, 5)[0, 1, 2], model.joint(frames[0, 3:4], states[0, 2:3])[0], atol=1e-6)


def test_text_and_words(tiny):
    model = earmark.load(tiny)
    assert model.detokenise([3, 4, 5, 1, 5]) == "W3X4 W5 W5"
    assert model.word_index([3, 4, 5, 1, 5]) == [0, 0, 1, -1, 2]
    assert model.word_index([4, 4]) == [0, 0]


def test_a_tiny_export_records_and_verifies(tiny, tmp_path, clips):
    model = earmark.load(tiny)
    sibling = earmark.load(onnx_files.write_checkpoint(tmp_path / "sibling", seed=1))
    clip = Clip(audio=clips[0].audio, request=earmark.request(clips[0].audio, nonce="7" * 32))
    honest = earmark.record(model.with_threads(2), clip.request, clip.audio, level="sketch")
    assert earmark.verify(honest, clip.request, clip.audio, model, profile="provisional").outcome == "PASS"
    (cheat,) = scenario("other_checkpoint", model=sibling).record(model, [clip], level="sketch")
    assert earmark.verify(cheat, clip.request, clip.audio, model, profile="provisional").outcome == "FAIL"


# Choosing and refusing files


def test_the_float32_export_comes_first_and_int8_stands_in(tiny):
    for part in ("encoder", "decoder", "joiner"):
        (tiny / f"{part}-epoch-1-avg-1.int8.onnx").write_bytes(b"not read")
        assert choose_part(tiny, part).name == f"{part}-epoch-1-avg-1.onnx"
        (tiny / f"{part}-epoch-1-avg-1.onnx").unlink()
        assert choose_part(tiny, part).name == f"{part}-epoch-1-avg-1.int8.onnx"


def test_two_candidates_are_refused(tiny):
    (tiny / "encoder-epoch-2.onnx").write_bytes(onnx_files.encoder())
    with pytest.raises(ModelError, match="each variant in its own folder"):
        earmark.load(tiny)


def _break(folder: Path, part: str, data: bytes) -> Path:
    (folder / f"{part}-epoch-1-avg-1.onnx").write_bytes(data)
    return folder


@pytest.mark.parametrize(
    ("part", "data", "message"),
    [
        ("encoder", b"not onnx", "no ONNX graph|no graph"),
        ("encoder", b"", "no graph that ONNX Runtime can run"),
        ("encoder", onnx_files.encoder()[:-300], "no ONNX graph|no graph"),
        ("encoder", onnx_files.decoder(), "'' as T in its metadata"),
        ("encoder", onnx_files.encoder(mels=40), r"expected \(N, 45, 80\)"),
        ("encoder", onnx_files.encoder(state=1), "must have one shape"),
        ("encoder", onnx_files.encoder(rows=2), "takes 2 rows at once"),
        ("encoder", onnx_files.encoder(extra=[(14, 1)]), "weights in other files"),
        ("encoder", onnx_files.encoder(extra=[(13, onnx_files.message((1, "location"), (2, "/etc/passwd")))]), "other"),
        ("decoder", onnx_files.decoder(vocab=9), "of another model|different models"),
        ("decoder", onnx_files.joiner(), "context_size"),
        ("joiner", onnx_files.joiner(vocab=9), "different models"),
    ],
)
def test_files_of_another_kind_are_refused(tiny, part, data, message):
    with pytest.raises(ModelError, match=message):
        earmark.load(_break(tiny, part, data))


@pytest.mark.parametrize(
    "text",
    ["", "<blk> 0\n", onnx_files.tokens() + "extra 12\n", onnx_files.tokens().replace("<blk>", "S"), "x y z\n" * 12],
)
def test_tokens_of_another_model_are_refused(tiny, text):
    (tiny / "tokens.txt").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokens\.txt"):
        earmark.load(tiny)


def test_no_bytes_crash_the_search_for_external_data():
    rng, whole = np.random.default_rng(0), onnx_files.encoder()
    for _ in range(300):
        data = bytearray(whole[: rng.integers(1, len(whole))] if rng.random() < 0.5 else whole)
        data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(ModelError):
            refuse_external_data(bytes(data), "m.onnx")


def test_a_missing_part_is_no_checkpoint(tiny):
    next(tiny.glob("joiner*")).unlink()
    with pytest.raises(ModelError, match="no checkpoint"):
        earmark.load(tiny)


def test_another_precision_is_refused(tiny):
    with pytest.raises(UsageError, match="claim float32"):
        earmark.load(tiny, dtype="float16")


def test_without_onnx_runtime_the_message_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match=r"earmark\[onnx\]"):
        earmark.load(tiny)


def test_read_tokens_returns_pieces_by_id(tiny):
    assert read_tokens(tiny / "tokens.txt", onnx_files.VOCAB)[:3] == ["<blk>", "<unk>", "X2"]


# The real network


@pytest.fixture(scope="module")
def real(weights_dir, tmp_path_factory):
    """Return the loader of a variant: `variant(key)` with a key of reference_outputs.jsonl."""
    if not (weights_dir / REAL).is_dir():
        pytest.skip(f"no {REAL} in {weights_dir}")
    loaded = {}

    def variant(key: str):
        if key not in loaded:
            folder = tmp_path_factory.mktemp("variant") / REAL
            folder.mkdir()
            for name in (*(f"{part}.onnx" for part in key.split("+")), "tokens.txt"):
                (folder / name).symlink_to(weights_dir / REAL / name)
            loaded[key] = earmark.load(folder)
        return loaded[key]

    return variant


@pytest.fixture(scope="module")
def manifest(speech_dir) -> dict[str, dict]:
    rows = map(json.loads, (speech_dir / "manifest.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["id"]: row for row in rows}


@pytest.fixture(scope="module")
def reference_outputs(weights_dir) -> list[dict]:
    lines = (weights_dir / REAL / "reference_outputs.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def real_clips(speech_dir, manifest, reference_outputs) -> list[Clip]:
    """Return every clip of the reference run that has at least 5 s and fits into one segment."""
    names = [row["clip"] for row in reference_outputs if LEAST_SECONDS <= manifest[row["clip"]]["seconds"] < 30]
    audio = [earmark.load_audio(speech_dir / manifest[name]["path"]) for name in names]
    return [Clip(audio=a, request=earmark.request(a, nonce=f"{i:032x}")) for i, a in enumerate(audio)]


def _reference_audio(path: Path) -> np.ndarray:
    """Return audio as the reference run read it: float, resampled by scipy, 0.6 s of silence behind."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono, common = samples.mean(axis=1), gcd(rate, 16_000)
    resampled = mono if rate == 16_000 else resample_poly(mono, 16_000 // common, rate // common)
    return np.concatenate([resampled, np.zeros(TAIL_SAMPLES)])


def _text(model, features: np.ndarray) -> str:
    states = model.module.encoder(torch.from_numpy(np.asarray(features, np.float32))[None])
    steps = model.greedy(Encoded(states, [states.shape[1]]))[0]
    return model.detokenise([step.token for step in steps if step.token != model.blank_id])


@pytest.mark.speech
@pytest.mark.parametrize("key", [FULL, INT8_ENCODER, INT8])
def test_every_reference_text_is_reproduced(real, speech_dir, manifest, reference_outputs, key):
    """51 clips, of the very features that the reference run used; the int8 graphs need them to the last bit."""
    model = real(key)
    for row in reference_outputs:
        waveform = _reference_audio(speech_dir / manifest[row["clip"]]["path"])
        assert _text(model, kaldi_features(waveform)) == row["outputs"][key], row["clip"]


@pytest.mark.speech
def test_every_reference_text_is_reproduced_with_own_features(real, speech_dir, manifest, reference_outputs):
    model = real(FULL)
    for row in reference_outputs:
        waveform = _reference_audio(speech_dir / manifest[row["clip"]]["path"])
        assert _text(model, _kaldi.fbank(waveform)) == row["outputs"][FULL], row["clip"]


@pytest.mark.speech
def test_recording_16_khz_clips_gives_the_reference_texts(real, speech_dir, manifest, reference_outputs):
    """Where nothing is resampled canonical audio is the reference run's own; resampled clips may differ in a letter."""
    rows = [row for row in reference_outputs if manifest[row["clip"]]["sample_rate"] == 16_000]
    assert len(rows) >= 10
    for row in rows:
        audio = earmark.load_audio(speech_dir / manifest[row["clip"]]["path"])
        if audio.seconds < 30:
            assert earmark.record(real(FULL), earmark.request(audio), audio).text == row["outputs"][FULL], row["clip"]


def _verify(reference, clips, evidence):
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    return list(earmark.verify_many(cases, reference, profile="provisional"))


@pytest.fixture(scope="module")
def honest(real, real_clips):
    return list(earmark.record_many(real(FULL), real_clips, level="sketch", batch_size=8))


@pytest.mark.speech
@pytest.mark.parametrize(("threads", "batch_size"), [(1, 1), (2, 5)])
def test_float32_passes_under_other_threads_and_batches(real, real_clips, threads, batch_size):
    provider = real(FULL).with_threads(threads)
    evidence = list(earmark.record_many(provider, real_clips, level="sketch", batch_size=batch_size))
    for verdict in _verify(real(FULL), real_clips, evidence):
        assert verdict.outcome == "PASS", verdict
        assert verdict.fingerprint["logprob_l1"] < 1e-5


@pytest.mark.speech
@pytest.mark.parametrize("key", [INT8_ENCODER, INT8])
def test_int8_claimed_as_float32_fails_on_every_clip(real, real_clips, honest, key):
    evidence = scenario("other_checkpoint", model=real(key)).record(real(FULL), real_clips, level="sketch")
    verdicts = _verify(real(FULL), real_clips, evidence)
    assert len(verdicts) >= 30
    assert {verdict.outcome for verdict in verdicts} == {"FAIL"}
    same = [verdict for verdict, own, cheat in zip(verdicts, honest, evidence, strict=True) if own.text == cheat.text]
    assert len(same) >= 10  # a cheat whose words are the reference's own is found as well
    assert min(verdict.fingerprint["logprob_l1"] for verdict in same) > 0.01


@pytest.mark.speech
def test_a_dropped_last_second_of_speech_fails(real, real_clips):
    evidence = scenario("drop_audio", seconds=1.0).record(real(FULL), real_clips[:6])
    assert [verdict.outcome for verdict in _verify(real(FULL), real_clips[:6], evidence)] == ["FAIL"] * 6


@pytest.mark.speech
def test_evidence_of_another_clip_fails(real, real_clips, honest):
    evidence = [*honest[1:6], honest[0]]
    assert [verdict.outcome for verdict in _verify(real(FULL), real_clips[:6], evidence)] == ["FAIL"] * 6


@pytest.mark.speech
def test_an_edited_word_fails(real, real_clips, honest):
    """In the text alone, and in text, ids and path together."""
    model, clip, evidence = real(FULL), real_clips[0], honest[0]
    segment = evidence.segments[0]
    words = [model.detokenise([i]) for i in range(model.info.vocab_size)]
    ids = list(segment.ids)
    at = next(i for i, token in enumerate(ids) if model.tokens[token] == "\u2581THE")
    ids[at] = words.index("A") if "A" in words else model.tokens.index("\u2581A")
    text = model.detokenise(ids)
    trace = msgspec.msgpack.decode(segment.trace, type=Trace)
    path = np.frombuffer(trace.path, "<i4").reshape(-1, 3).copy()
    path[np.flatnonzero(path[:, 1] != model.blank_id)[at], 1] = ids[at]
    forged = msgspec.msgpack.encode(msgspec.structs.replace(trace, path=path.tobytes()))
    only_text = msgspec.structs.replace(segment, text=text)
    everywhere = msgspec.structs.replace(segment, text=text, ids=tuple(ids), trace=forged)
    for changed in (only_text, everywhere):
        cheat = msgspec.structs.replace(evidence, text=text, segments=(changed,))
        assert _verify(model, [clip], [cheat])[0].outcome == "FAIL"


@pytest.mark.speech
def test_the_command_line_records_and_verifies(weights_dir, speech_dir, tmp_path, capsys):
    model, clip, out = str(weights_dir / REAL), str(speech_dir / "misc" / "jfk.flac"), tmp_path / "e.json"
    assert ZipformerLoader().recognises(weights_dir / REAL)
    assert main(["record", model, clip, "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["text"].endswith("ASK WHAT YOU CAN DO FOR YOUR COUNTRY")
    check = ["verify", str(out), "--model", model, "--profile", "provisional", "--audio"]
    assert main([*check, clip]) == 0
    assert main([*check, str(speech_dir / "misc" / "harvard.flac")]) == 1
