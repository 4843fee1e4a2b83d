"""`.nemo` archives: the same network by both engines, and nothing in an archive that can do harm."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import tarfile
from pathlib import Path

import nemo_archives
import numpy as np
import pytest
import torch
import yaml

import earmark
from earmark.cli import main
from earmark.errors import ModelError, UsageError
from earmark.models._nemo_settings import setting
from earmark.models._nemo_weights import durations_of, heads, max_symbols_of, renamed
from earmark.models.nemo import NemoCtcLoader, NemoTransducerLoader
from earmark.scenarios import scenario

KINDS = ("ctc", "rnnt", "tdt", "hybrid")
OPTIONS = {"name": "m", "device": "cpu", "dtype": "float32", "arithmetic": "float32", "attention": "sdpa"}
NAMES = json.loads((Path(__file__).parent / "golden" / "nemo_names.json").read_text(encoding="utf-8"))

needs_nemo = pytest.mark.skipif(
    importlib.util.find_spec("nemo") is None, reason='NeMo is not installed: pip install "earmark[nemo]"'
)


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("nemo")
    return {kind: nemo_archives.write_archive(root / f"{kind}.nemo", kind) for kind in KINDS}


@pytest.fixture(scope="module")
def tdt_parts() -> dict[str, bytes]:
    return nemo_archives.members("tdt")


@pytest.fixture
def pieces() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=n) * 3000).astype(np.int16) for n in (48_000, 31_234)]


# The network


@pytest.mark.parametrize("kind", ["ctc", "rnnt", "hybrid"])
def test_the_archives_of_these_tests_have_nemos_own_names(kind):
    """The reference is the state dict of NeMo 3.0.0; NeMo numbers the joint's last layer 1 without dropout, else 2."""
    own = nemo_archives.nemo_tensors(nemo_archives.networks(kind))
    wanted = {name.replace("joint_net.1.", "joint_net.2.") for name in NAMES[kind]}
    assert wanted <= set(own)
    assert {name for name in own if not name.startswith("encoder.")} <= {*wanted, *NAMES["ctc"]}


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_of_nemo_finds_its_place(kind):
    tensors = nemo_archives.nemo_tensors(nemo_archives.networks(kind))
    for head, network in nemo_archives.networks(kind).items():
        assert set(renamed(tensors, head)) == set(network.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_the_read_network_gives_the_numbers_of_the_written_one(archives, pieces, kind):
    model = earmark.load(archives[kind], device="cpu")
    head = heads({"target": nemo_archives.TARGETS[kind]})[0]
    assert (model.info.family, model.info.vocab_size) == (head, nemo_archives.PIECES + 1)
    written = nemo_archives.networks(kind)[head]
    features = model.extractor([piece.astype(np.float32) / 32768 for piece in pieces], sampling_rate=16_000)
    with torch.inference_mode():
        encoded = model.encode(pieces)
        states = written.encoder(features.input_features, attention_mask=features.attention_mask).last_hidden_state
    assert encoded.lengths == [model.encoder_positions(len(piece)) for piece in pieces]
    for row, length in enumerate(encoded.lengths):
        torch.testing.assert_close(encoded.states[row, :length], states[row, :length], atol=1e-5, rtol=1e-5)


def test_a_hybrid_has_two_heads(archives, pieces):
    path, written = archives["hybrid"], nemo_archives.networks("hybrid")
    by_ctc, by_tdt = (kind().load(path, **OPTIONS) for kind in (NemoCtcLoader, NemoTransducerLoader))
    assert by_tdt.durations == tuple(nemo_archives.DURATIONS)
    assert by_tdt.max_symbols == 10
    with torch.inference_mode():
        encoded = by_ctc.encode(pieces)
        torch.testing.assert_close(by_ctc.logits(encoded), written["ctc"].ctc_head(encoded.states))


@pytest.mark.parametrize("kind", KINDS)
def test_evidence_of_an_archive_passes_and_of_a_sibling_fails(archives, tmp_path, clips, kind):
    model = earmark.load(archives[kind], device="cpu")
    sibling = earmark.load(nemo_archives.write_archive(tmp_path / "sibling.nemo", kind, seed=1), device="cpu")
    assert sibling.info.weights != model.info.weights
    for clip in clips[:2]:
        request = earmark.request(clip.audio, nonce=clip.request.nonce)
        honest = earmark.record(model, request, clip.audio, level="sketch")
        assert earmark.verify(honest, request, clip.audio, model, profile="provisional").outcome == "PASS"
        other = scenario("other_checkpoint", model=sibling)
        (cheat,) = other.record(model, [earmark.Clip(audio=clip.audio, request=request)], level="sketch")
        assert earmark.verify(cheat, request, clip.audio, model, profile="provisional").outcome == "FAIL"


def test_text_comes_from_the_archives_own_pieces(archives):
    model = earmark.load(archives["tdt"], device="cpu")
    ids = model.text.pieces.encode("the hot one")
    assert model.detokenise(ids) == "the hot one"
    assert model.word_index(ids)[-1] == 2


def test_packing_does_not_change_the_digest(archives, tdt_parts, tmp_path):
    packed = nemo_archives.pack(tmp_path / "m.nemo", tdt_parts, "w:gz")
    assert earmark.load(packed).info.weights == earmark.load(archives["tdt"]).info.weights


def test_a_folder_with_one_archive_is_a_checkpoint(tdt_parts, tmp_path):
    nemo_archives.pack(tmp_path / "m.nemo", tdt_parts)
    assert earmark.load(tmp_path).info.family == "transducer"


def test_16_bit_claims_replay_in_float32(archives, clips):
    provider = earmark.load(archives["tdt"], dtype="bfloat16")
    request = earmark.request(clips[0].audio, nonce="1" * 32)
    evidence = earmark.record(provider, request, clips[0].audio)
    assert provider.in_float32().info.arithmetic == "fp32"
    verdict = earmark.verify(evidence, request, clips[0].audio, provider, profile="provisional")
    assert not [finding.code for finding in verdict.findings if finding.code.startswith("replay")]


def test_the_command_line_takes_an_archive(archives, speech_dir, tmp_path, capsys):
    model, clip, out = str(archives["ctc"]), str(speech_dir / "cards" / "005.wav"), tmp_path / "e.json"
    assert main(["record", model, clip, "--out", str(out)]) == 0
    assert main(["verify", str(out), "--model", model, "--audio", clip, "--profile", "provisional"]) == 0
    assert "PASS" in capsys.readouterr().out


# Settings


def test_settings_are_followed_and_loops_refused():
    config = nemo_archives.nemo_config("tdt")
    assert setting(config, "joint.jointnet.joint_hidden") == 24
    assert durations_of(config) == (0, 1, 2, 3, 4)
    assert durations_of(nemo_archives.nemo_config("rnnt")) == ()
    assert max_symbols_of({}) == 0
    with pytest.raises(ModelError, match="refers to itself"):
        setting({"a": "${b}", "b": "${a}"}, "a")


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("encoder", "self_attention_model", "rel_pos_local_attn"),
        ("encoder", "conv_norm_type", "layer_norm"),
        ("encoder", "subsampling", None),
        ("encoder", "att_context_size", [[70, 13], [70, 6]]),
        ("preprocessor", "normalize", "all_features"),
    ],
)
def test_another_architecture_is_refused_by_name(tdt_parts, tmp_path, part, name, value):
    config = nemo_archives.nemo_config("tdt")
    config[part][name] = value
    path = nemo_archives.pack(tmp_path / "m.nemo", tdt_parts | {"model_config.yaml": yaml.safe_dump(config).encode()})
    with pytest.raises(ModelError, match=rf"{part}\.{name} is"):
        earmark.load(path)


# Harm


def _bad(tdt_parts, tmp_path, **changed: bytes | None) -> Path:
    parts = {**tdt_parts, **changed}
    return nemo_archives.pack(tmp_path / "bad.nemo", {name: data for name, data in parts.items() if data is not None})


class _Harm:
    """What runs when a pickle is trusted."""

    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


def test_code_in_weights_is_not_run(tdt_parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = io.BytesIO()
    torch.save({"encoder.layers.0": _Harm()}, data)
    for weights in (data.getvalue(), pickle.dumps({"a": _Harm()})):
        with pytest.raises(ModelError, match=r"model_weights\.ckpt"):
            earmark.load(_bad(tdt_parts, tmp_path, **{"model_weights.ckpt": weights}))
    assert not (tmp_path / "harm-was-done").exists()
    torch.load(io.BytesIO(data.getvalue()), weights_only=False)
    assert (tmp_path / "harm-was-done").exists()  # the trap itself works


def test_the_setting_that_lets_code_run_is_refused(archives, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(ModelError, match="TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        earmark.load(archives["ctc"])


def test_yaml_that_makes_objects_is_refused(tdt_parts, tmp_path):
    with pytest.raises(ModelError, match=r"model_config\.yaml"):
        earmark.load(_bad(tdt_parts, tmp_path, **{"model_config.yaml": b"a: !!python/object/apply:os.getcwd []"}))


@pytest.mark.parametrize("missing", ["model_config.yaml", "model_weights.ckpt", nemo_archives.TOKENIZER])
def test_a_missing_member_is_named(tdt_parts, tmp_path, missing):
    with pytest.raises(ModelError, match=missing):
        earmark.load(_bad(tdt_parts, tmp_path, **{missing: None}))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("model_weights.ckpt", b"PK\x03\x04 no zip", "not in torch's format"),
        ("model_config.yaml", b"[1, 2]", "holds no settings"),
        ("model_config.yaml", b"[" * 2_000, "cannot be read"),
        (nemo_archives.TOKENIZER, b"no pieces", "tokenizer that cannot be read"),
    ],
)
def test_a_damaged_member_is_an_error(tdt_parts, tmp_path, name, data, message):
    with pytest.raises(ModelError, match=message):
        earmark.load(_bad(tdt_parts, tmp_path, **{name: data}))


def test_a_tokenizer_of_another_model_is_an_error(tdt_parts, tmp_path, monkeypatch):
    monkeypatch.setattr(nemo_archives, "PIECES", 44)
    path = _bad(tdt_parts, tmp_path, **{nemo_archives.TOKENIZER: nemo_archives.tokenizer_model()})
    with pytest.raises(ModelError, match="tokenizer of 44 pieces; the network has 48"):
        earmark.load(path)


def test_no_archive_is_an_error(tmp_path):
    path = tmp_path / "m.nemo"
    path.write_bytes(b"RIFF")
    with pytest.raises(ModelError, match=r"no \.nemo archive"):
        earmark.load(path)


def _member(name: str, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(member, field, value)
    return member


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (_member("../outside"), "outside of it"),
        (_member("/etc/passwd"), "outside of it"),
        (_member("link", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "no plain file"),
        (_member("hard", type=tarfile.LNKTYPE, linkname="model_config.yaml"), "no plain file"),
        (_member("pipe", type=tarfile.FIFOTYPE), "no plain file"),
    ],
)
def test_members_that_reach_outside_are_refused(tdt_parts, tmp_path, member, message):
    path = _bad(tdt_parts, tmp_path)
    with tarfile.open(path, "a") as archive:
        archive.addfile(member)
    with pytest.raises(ModelError, match=message):
        earmark.load(path)


def test_a_bomb_is_refused(tdt_parts, tmp_path):
    path = nemo_archives.pack(tmp_path / "bomb.nemo", tdt_parts | {"zeros": bytes(40_000_000)}, "w:gz")
    with pytest.raises(ModelError, match="would grow"):
        earmark.load(path)


# NeMo itself


def test_an_engine_that_is_not_there_is_an_error(archives):
    with pytest.raises(UsageError, match="known: transformers, nemo"):
        NemoCtcLoader().load(archives["ctc"], **OPTIONS, engine="other")


def test_a_config_may_name_classes_of_nemo_alone(tdt_parts, tmp_path):
    config = nemo_archives.nemo_config("tdt")
    config["decoder"]["extra"] = [{"_target_": "os.system", "command": "touch harm"}]
    path = nemo_archives.pack(tmp_path / "m.nemo", tdt_parts | {"model_config.yaml": yaml.safe_dump(config).encode()})
    with pytest.raises(ModelError, match=r"os\.system"):
        NemoTransducerLoader().load(path, **OPTIONS, engine="nemo")


@pytest.fixture(scope="module")
def made_by_nemo(tmp_path_factory) -> dict[str, Path]:
    import nemo_checkpoints

    return nemo_checkpoints.write_all(tmp_path_factory.mktemp("made_by_nemo"))


@pytest.mark.parametrize("strategy", ["nar", "sar"])
def test_a_decoding_of_hainan_that_no_engine_has_is_refused(tmp_path, strategy):
    with pytest.raises(UsageError, match=f"strategy '{strategy}'; neither NeMo 3.0.0 nor transformers"):
        NemoTransducerLoader().load(tmp_path, **OPTIONS, strategy=strategy)


@needs_nemo
@pytest.mark.parametrize("kind", [*KINDS, "hainan"])
def test_both_engines_give_the_same_log_probabilities(made_by_nemo, pieces, kind, record_property):
    """1.9e-6 was the largest difference measured (docs/how-to/use-nemo-and-onnx.md)."""
    loader = NemoCtcLoader() if kind == "ctc" else NemoTransducerLoader()
    one, two = (loader.load(made_by_nemo[kind], **OPTIONS, engine=engine) for engine in ("transformers", "nemo"))
    with torch.inference_mode():
        first, second = one.encode(pieces), two.encode(pieces)
        assert first.lengths == second.lengths == [two.encoder_positions(len(piece)) for piece in pieces]
        if kind == "ctc":
            pairs = [(one.logits(first)[0], two.logits(second)[0])]
        else:
            assert one.greedy(first) == two.greedy(second)
            nodes = [m.joint(m.frames(e, 0)[:, None], m.predict([[3, 5, 9]])) for m, e in ((one, first), (two, second))]
            blocks = (slice(0, one.info.vocab_size), slice(one.info.vocab_size, None))
            pairs = [(nodes[0][..., block], nodes[1][..., block]) for block in blocks if nodes[0][..., block].numel()]
    largest = max(float((a.log_softmax(-1) - b.log_softmax(-1)).abs().max()) for a, b in pairs)
    record_property("largest_logprob_difference", largest)
    assert largest < 1e-5


@needs_nemo
@pytest.mark.parametrize("kind", ["rnnt", "tdt", "hybrid"])
def test_greedy_decoding_is_nemos_own(made_by_nemo, pieces, kind):
    model = NemoTransducerLoader().load(made_by_nemo[kind], **OPTIONS, engine="nemo")
    with torch.inference_mode():
        encoded = model.encode(pieces)
        own = [[step.token for step in steps if step.token != model.blank_id] for steps in model.greedy(encoded)]
        states, lengths = encoded.states.transpose(1, 2).contiguous(), torch.tensor(encoded.lengths)
        theirs = model.module.decoding.rnnt_decoder_predictions_tensor(states, lengths, return_hypotheses=True)
    assert sum(map(len, own)) > 10
    assert own == [hypothesis.y_sequence.tolist() for hypothesis in theirs]


@needs_nemo
@pytest.mark.parametrize("kind", KINDS)
def test_evidence_passes_across_engines_and_a_sibling_fails(made_by_nemo, clips, kind):
    loader = NemoCtcLoader() if kind == "ctc" else NemoTransducerLoader()
    by_transformers = loader.load(made_by_nemo[kind], **OPTIONS)
    by_nemo = loader.load(made_by_nemo[kind], **OPTIONS, engine="nemo")
    sibling = loader.load(made_by_nemo[f"{kind}-sibling"], **OPTIONS, engine="nemo")
    clip = clips[0]
    for provider, reference in ((by_nemo, by_transformers), (by_transformers, by_nemo)):
        evidence = earmark.record(provider, clip.request, clip.audio, level="sketch")
        verdict = earmark.verify(evidence, clip.request, clip.audio, reference, profile="provisional")
        assert verdict.outcome == "PASS", verdict
        assert verdict.fingerprint["logprob_l1"] < 1e-5
    (cheat,) = scenario("other_checkpoint", model=sibling).record(by_transformers, [clip], level="sketch")
    assert earmark.verify(cheat, clip.request, clip.audio, by_transformers, profile="provisional").outcome == "FAIL"
