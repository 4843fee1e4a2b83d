"""Canary in `.nemo` archives: the same network, prompts and decoding by both engines, and nothing that can do harm."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path

import nemo_archives
import nemo_canary_archives as canary
import numpy as np
import pytest
import torch
import yaml
from audio_llm_cases import ask, check_verdicts
from nemo_canary_archives import OPTIONS, REQUESTS

import earmark
from earmark import Clip, record_many
from earmark.errors import ModelError, UsageError
from earmark.models._nemo_canary_weights import renamed_canary
from earmark.models.nemo_canary import NemoCanaryLoader
from earmark.records.request import Decoding
from earmark.scenarios import scenario

NAMES = json.loads((Path(__file__).parent / "golden" / "nemo_names.json").read_text(encoding="utf-8"))["canary"]


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("nemo_canary")
    return {kind: canary.write_archive(root / f"{kind}.nemo", kind) for kind in canary.KINDS}


@pytest.fixture(scope="module")
def models(archives):
    return {kind: NemoCanaryLoader().load(path, **OPTIONS) for kind, path in archives.items()}


@pytest.fixture(scope="module")
def parts() -> dict[str, bytes]:
    return canary.members("v1")


@pytest.fixture(scope="module")
def asked(clips) -> list[Clip]:
    return ask(clips, REQUESTS)


@pytest.fixture
def pieces() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(rng.normal(size=n) * 3000).astype(np.int16) for n in (48_000, 31_234)]


# The network


def test_the_archives_of_these_tests_have_nemos_own_names():
    """The reference is the state dict of NeMo 3.0.0, second layers left out."""
    own = set(canary.nemo_tensors(canary.network("flash")))
    assert {name for name in own if ".layers.1." not in name and not name.startswith("preprocessor.")} == set(NAMES)


@pytest.mark.parametrize("kind", canary.KINDS)
def test_every_name_of_nemo_finds_its_place(kind):
    network = canary.network(kind)
    assert set(renamed_canary(canary.nemo_tensors(network))) == set(network.state_dict())


@pytest.mark.parametrize("kind", canary.KINDS)
def test_the_read_network_gives_the_numbers_of_the_written_one(models, pieces, kind):
    model, written = models[kind], canary.network(kind)
    features = model.extractor([piece.astype(np.float32) / 32768 for piece in pieces], sampling_rate=16_000)
    ids = torch.tensor([[*model.text.prompt_ids("en", "en"), 9, 17, 33]] * 2)
    with torch.inference_mode():
        encoded = model.encode(pieces)
        states = written.model.encoder(features.input_features, attention_mask=features.attention_mask)
        seen = written.bridge(states.last_hidden_state) if kind == "flash" else states.last_hidden_state
        said = written.model.decoder(
            input_ids=ids, encoder_hidden_states=seen, encoder_attention_mask=states.attention_mask
        )
        logits = written.proj_out(said.last_hidden_state)
        torch.testing.assert_close(model.project(model.forced_states(encoded, ids)), logits, atol=1e-5, rtol=1e-5)
    assert encoded.mask.sum(dim=1).tolist() == [model.encoder_positions(len(piece)) for piece in pieces]


def test_an_archive_is_found_by_its_content(archives):
    assert NemoCanaryLoader().recognises(archives["v1"])
    assert not NemoCanaryLoader().recognises(Path(__file__).parent)
    model = earmark.load(archives["v2"], device="cpu")
    assert (model.info.family, model.info.architecture, model.info.vocab_size) == (
        "autoregressive",
        "nemo-canary",
        canary.vocabulary("v2"),
    )


# Prompts and text


PROMPTS = {
    "v1": "<|startoftranscript|> <|{source}|> <|{task}|> <|{target}|> <|pnc|>",
    "flash": "<|startofcontext|> <|startoftranscript|> <|emo:undefined|> <|{source}|> <|{target}|> <|pnc|> "
    "<|noitn|> <|notimestamp|> <|nodiarize|>",
}
PROMPTS["v2"] = "▁ " + PROMPTS["flash"]  # SentencePiece puts a space before all text, and NeMo feeds it


@pytest.mark.parametrize("kind", canary.KINDS)
def test_prompts_are_those_of_nemos_templates(models, asked, kind):
    """The templates stand in nemo/collections/common/prompts; NeMo's own ids are compared below."""
    for clip in asked:
        source = clip.request.language
        target, task = ("en", "translate") if clip.request.task == "translate" else (source, "transcribe")
        ids = models[kind].prompt_ids(clip.request, source)
        expected = PROMPTS[kind].format(source=source, target=target, task=task).split()
        assert [models[kind].text.pieces[i] for i in ids] == expected


@pytest.mark.parametrize("kind", canary.KINDS)
def test_text_is_without_special_tokens_and_ids_beyond_the_tokenizer(models, kind):
    model = models[kind]
    lone = model.text.parts["" if kind == "v2" else "de"].encode("the hot one")
    ids = [i + model.text.offsets.get("de", 0) for i in lone]
    assert model.detokenise([*ids, model.end_id, model.info.vocab_size - 1]).strip() == "the hot one"
    assert model.word_index([*ids, model.end_id])[-2:] == [2, -1]


def test_plain_text_becomes_ids_where_one_tokenizer_has_all_languages(models):
    single = models["v2"]
    assert single.detokenise(single.tokenise(" the hot one ")) == "the hot one"
    assert single.end_id not in single.tokenise("the <|endoftext|> one")
    with pytest.raises(UsageError, match=r"a part per language \(en, de\)"):
        models["v1"].tokenise("the hot one")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "detects no language"),
        ({"language": "it"}, r"no language 'it': its tokenizer has no <\|it\|>"),
        ({"language": "en", "prompt": "kitchen"}, "takes no prompt"),
        ({"language": "en", "decoding": Decoding(timestamps=True)}, "writes no time tokens"),
    ],
)
def test_what_the_model_cannot_do_is_named(models, clips, options, words):
    with pytest.raises(UsageError, match=words):
        earmark.record(models["v1"], earmark.request(clips[0].audio, **options), clips[0].audio)


# Evidence


@pytest.mark.parametrize("kind", canary.KINDS)
def test_record_then_verify_passes_and_one_changed_token_fails(models, asked, kind):
    check_verdicts(models[kind], asked, list(record_many(models[kind], asked, batch_size=3, level="sketch")))


def test_a_sibling_fails(models, asked, tmp_path):
    model, clip = models["v1"], asked[0]
    sibling = NemoCanaryLoader().load(canary.write_archive(tmp_path / "s.nemo", "v1", seed=1), **OPTIONS)
    assert sibling.info.weights != model.info.weights
    (cheat,) = scenario("other_checkpoint", model=sibling).record(model, [clip], level="sketch")
    assert earmark.verify(cheat, clip.request, clip.audio, model, profile="provisional").outcome == "FAIL"


def test_a_transcript_that_ends_passes_and_one_cut_short_fails(archives, asked):
    model = NemoCanaryLoader().load(archives["flash"], **OPTIONS)
    evidence = canary.ending(model, asked)
    ended = [item.segments[0].ids[-1] == model.end_id and len(item.segments[0].ids) > 3 for item in evidence]
    clip, item = asked[ended.index(True)], evidence[ended.index(True)]
    assert earmark.verify(item, clip.request, clip.audio, model, profile="provisional").outcome == "PASS"
    (cut,) = scenario("stop_early").record(model, [clip], level="sketch")
    assert earmark.verify(cut, clip.request, clip.audio, model, profile="provisional").outcome == "FAIL"


@pytest.mark.parametrize("kind", ["v1", "flash"])
def test_forced_scores_equal_step_by_step_decoding_with_cache(models, asked, kind):
    from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderModelOutput

    model, family = models[kind], earmark.loading.family_of(models[kind])
    for clip in asked[:2]:
        segment = earmark.record(model, clip.request, clip.audio, level="sketch").segments[0]
        trace = family.read(segment, clip.request, model, "sketch")
        items = earmark.recording.segment_inputs(clip, model)
        forced = family.replay(model, items, [trace], batch_size=1, advance=lambda _: None)[0].scores
        with torch.inference_mode():
            encoded = model.encode([item.samples for item in items])
            seen = ParakeetEncoderModelOutput(last_hidden_state=encoded.states, attention_mask=encoded.mask)
            cache, fed = None, torch.tensor([model.prompt_ids(clip.request, clip.request.language)])
            for position, token in enumerate(segment.ids):
                step = model.module(encoder_outputs=seen, decoder_input_ids=fed, past_key_values=cache, use_cache=True)
                logprobs = step.logits[0, -1].log_softmax(-1)
                assert int(logprobs.argmax()) == token
                assert float(logprobs[token]) == pytest.approx(forced.chosen[position], abs=1e-4)
                cache, fed = step.past_key_values, torch.tensor([[token]])


def test_beams_are_searched_and_verified(models, asked):
    request = earmark.request(asked[0].audio, language="en", decoding=Decoding(strategy="beam", beams=3))
    made = earmark.record(models["v2"], request, asked[0].audio)
    assert earmark.verify(made, request, asked[0].audio, models["v2"], profile="provisional").outcome == "PASS"


def test_16_bit_claims_replay_in_float32(archives, asked):
    provider = NemoCanaryLoader().load(archives["flash"], **OPTIONS | {"dtype": "bfloat16", "arithmetic": "bfloat16"})
    clip = asked[0]
    evidence = earmark.record(provider, clip.request, clip.audio)
    assert provider.in_float32().info.arithmetic == "fp32"
    verdict = earmark.verify(evidence, clip.request, clip.audio, provider, profile="provisional")
    assert not [finding.code for finding in verdict.findings if finding.code.startswith("replay")]


# Other archives


def _with_config(tmp_path, parts, **changed) -> Path:
    config = canary.nemo_config("v1")
    for name, value in changed.items():
        *path, last = name.split("__")
        place = config
        for part in path:
            place = place[part]
        place[last] = value
    data = yaml.safe_dump(config, sort_keys=False).encode()
    return nemo_archives.pack(tmp_path / "m.nemo", parts | {"model_config.yaml": data})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"prompt_format": "chat"}, "prompt_format is 'chat'; known: canary, canary2"),
        ({"tokenizer__custom_tokenizer___target_": "a.B"}, "tokenizer of 'a.B'"),
        ({"tokenizer__type": "wpe"}, "tokenizer of"),
        ({"encoder__self_attention_model": "rel_pos_local_attn"}, "encoder.self_attention_model is"),
        ({"transf_decoder__config_dict__pre_ln": False}, "transf_decoder.config_dict.pre_ln is False"),
        ({"transf_decoder__config_dict__learn_positional_encodings": True}, "learn_positional_encodings is True"),
        ({"preprocessor__normalize": "all_features"}, "preprocessor.normalize is"),
        ({"target": "nemo.collections.asr.models.EncDecCTCModelBPE"}, "expected NeMo's EncDecMultiTaskModel"),
    ],
)
def test_another_architecture_is_refused_by_name(parts, tmp_path, changed, words):
    with pytest.raises(ModelError, match=words):
        NemoCanaryLoader().load(_with_config(tmp_path, parts, **changed), **OPTIONS)


def _with_weights(tmp_path, parts, change) -> Path:
    tensors, data = canary.nemo_tensors(canary.network("v1")), io.BytesIO()
    change(tensors)
    torch.save(tensors, data)
    return nemo_archives.pack(tmp_path / "m.nemo", parts | {"model_weights.ckpt": data.getvalue()})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["log_softmax.mlp.layer0.weight"].add_(1), "in NeMo they are one"),
        (lambda t: t.update({"log_softmax.mlp.layer2.weight": torch.ones(2, 2)}), "head of more than one layer"),
        (lambda t: t.update({"transf_encoder.a": torch.ones(1)}), "second encoder"),
        (lambda t: t.pop("transf_decoder._decoder.layers.1.layer_norm_2.bias"), "other weights than a Canary"),
        (lambda t: t.pop("transf_decoder._embedding.position_embedding.pos_enc"), "other weights than a Canary"),
        (lambda t: t.pop("transf_decoder._embedding.token_embedding.weight"), "no embedding of tokens"),
    ],
)
def test_other_weights_are_refused_by_name(parts, tmp_path, change, words):
    with pytest.raises(ModelError, match=words):
        NemoCanaryLoader().load(_with_weights(tmp_path, parts, change), **OPTIONS)


def test_a_tokenizer_of_another_model_is_an_error(parts, tmp_path):
    swapped = parts | {"1_tokenizer.model": canary.tokenizer_model("single")}
    with pytest.raises(ModelError, match="pieces; the network has 120"):
        NemoCanaryLoader().load(nemo_archives.pack(tmp_path / "m.nemo", swapped), **OPTIONS)
    swapped = parts | {"0_tokenizer.model": nemo_archives.tokenizer_model()}
    with pytest.raises(ModelError, match=r"the tokenizer has no <\|endoftext\|>"):
        NemoCanaryLoader().load(nemo_archives.pack(tmp_path / "m.nemo", swapped), **OPTIONS)


# Harm


class _Harm:
    """What runs when a pickle is trusted."""

    def __reduce__(self):
        return (Path.touch, (Path("harm-was-done"),))


@pytest.mark.parametrize("engine", ["transformers", "nemo"])
def test_code_in_weights_is_not_run(parts, tmp_path, monkeypatch, engine):
    monkeypatch.chdir(tmp_path)
    data = io.BytesIO()
    torch.save({"encoder.layers.0": _Harm()}, data)
    path = nemo_archives.pack(tmp_path / "m.nemo", parts | {"model_weights.ckpt": data.getvalue()})
    with pytest.raises(ModelError, match=r"model_weights\.ckpt"):
        NemoCanaryLoader().load(path, **OPTIONS, engine=engine)
    assert not (tmp_path / "harm-was-done").exists()


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd"])
@pytest.mark.parametrize("engine", ["transformers", "nemo"])
def test_members_that_reach_outside_are_refused(parts, tmp_path, name, engine):
    path = nemo_archives.pack(tmp_path / "m.nemo", parts)
    with nemo_archives.tarfile.open(path, "a") as archive:
        archive.addfile(nemo_archives.tarfile.TarInfo(name))
    with pytest.raises(ModelError, match="outside of it"):
        NemoCanaryLoader().load(path, **OPTIONS, engine=engine)


def test_what_is_no_archive_or_lacks_a_member_is_refused(parts, tmp_path):
    path = tmp_path / "m.nemo"
    path.write_bytes(b"RIFF")
    with pytest.raises(ModelError, match=r"no \.nemo archive"):
        NemoCanaryLoader().load(path, **OPTIONS)
    for name in ("model_config.yaml", "model_weights.ckpt", "2_tokenizer.model"):
        nemo_archives.pack(path, {key: data for key, data in parts.items() if key != name})
        with pytest.raises(ModelError, match=name):
            NemoCanaryLoader().load(path, **OPTIONS)
    nemo_archives.pack(path, parts | {"1_tokenizer.model": b"no pieces"})
    with pytest.raises(ModelError, match="a tokenizer cannot be read"):
        NemoCanaryLoader().load(path, **OPTIONS)


def test_a_config_may_name_classes_of_nemo_alone(parts, tmp_path):
    path = _with_config(tmp_path, parts, loss={"_target_": "os.system", "command": "touch harm"})
    with pytest.raises(ModelError, match=r"os\.system"):
        NemoCanaryLoader().load(path, **OPTIONS, engine="nemo")


def test_an_engine_that_is_not_there_is_an_error(archives):
    with pytest.raises(UsageError, match="known: transformers, nemo"):
        NemoCanaryLoader().load(archives["v1"], **OPTIONS, engine="other")
    if importlib.util.find_spec("nemo") is None:
        with pytest.raises(ModelError, match="pip install"):
            NemoCanaryLoader().load(archives["v1"], **OPTIONS, engine="nemo")
