"""Qwen2-Audio and the Omni thinkers: decoding is the library's own, the forced pass equals step-by-step decoding."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from audio_llm_cases import ask, check_decoding, check_verdicts
from audio_llm_checkpoints import OMNI_NETWORKS, save_qwen_omni

import earmark
from earmark import Clip, record_many
from earmark.errors import ModelError, UsageError

KINDS = list(OMNI_NETWORKS)
REQUESTS = [{}, {"language": "en"}, {"prompt": "Write down what is said."}]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return {kind: save_qwen_omni(tmp_path_factory.mktemp(kind), kind) for kind in KINDS}


@pytest.fixture(scope="module")
def models(folders):
    return {kind: earmark.load(folder, device="cpu") for kind, folder in folders.items()}


@pytest.fixture(scope="module")
def asked(clips) -> list[Clip]:
    return ask(clips, REQUESTS)


@pytest.fixture(scope="module")
def recorded(models, asked):
    return {kind: list(record_many(model, asked, batch_size=3, level="sketch")) for kind, model in models.items()}


def _own(folder, kind):
    return getattr(transformers, OMNI_NETWORKS[kind]).from_pretrained(folder, dtype=torch.float32).eval()


def _inputs(model, clip):
    """Return what the library's own processor would make: the placeholder repeated, features and their mask."""
    ids = list(model.prompt_ids(clip.request, clip.request.language))
    at = ids.index(model._placeholder)
    count = model._audio_tokens(len(clip.audio.samples))
    ids = ids[:at] + ids[at : at + 1] * count + ids[at + 1 :]
    features = model.processor.feature_extractor(
        clip.audio.samples.astype(np.float32) / 32768,
        sampling_rate=16_000,
        padding="max_length",
        return_attention_mask=True,
        return_tensors="pt",
    )
    prompt = torch.tensor([ids])
    return {
        "input_ids": prompt,
        "attention_mask": torch.ones_like(prompt),
        "input_features": features.input_features,
        "feature_attention_mask": features.attention_mask,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_checkpoint_is_found_by_its_config(models, kind):
    info = models[kind].info
    assert (info.architecture, info.family) == (kind, "autoregressive")
    assert info.window_samples == (32 if kind == "qwen3-omni" else 27) * 16_000  # 2048 positions


def test_prompt_and_features_are_those_of_qwen2_audios_own_processor(folders, models, asked):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["qwen2-audio"])
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folders["qwen2-audio"])
    processor = transformers.Qwen2AudioProcessor(extractor, tokenizer, chat_template=tokenizer.chat_template)
    for clip in asked:
        ours = _inputs(models["qwen2-audio"], clip)
        text = tokenizer.decode(models["qwen2-audio"].prompt_ids(clip.request, clip.request.language))
        wave = clip.audio.samples.astype(np.float32) / 32768
        theirs = processor(text=text, audio=[wave], sampling_rate=16_000, return_tensors="pt")
        assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
        assert torch.equal(ours["input_features"], theirs["input_features"])


def test_the_prompt_is_the_request_or_our_instruction(models, asked):
    texts = [models["qwen2.5-omni"].tokenizer.decode(models["qwen2.5-omni"].prompt_ids(c.request, c.request.language))
             for c in asked]  # fmt: skip
    head = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    head += "<|audio_start|><|audio_pad|><|audio_end|>"
    tail = "<|im_end|>\n<|im_start|>assistant\n"
    said = ["Transcribe the audio into text.", "Transcribe the English audio into text.", "Write down what is said."]
    assert texts == [f"{head}{words}{tail}" for words in said]


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_and_scores_are_those_of_the_librarys_own_decoding_step_by_step(folders, models, asked, recorded, kind):
    check_decoding(_own(folders[kind], kind), models[kind], asked, recorded[kind], _inputs)


@pytest.mark.parametrize("kind", KINDS)
def test_record_then_verify_passes_and_one_changed_token_fails(models, asked, recorded, kind):
    check_verdicts(models[kind], asked, recorded[kind])


def test_the_thinker_is_found_in_a_whole_omni_checkpoint(folders, models, tmp_path):
    """The published checkpoints hold the thinker under its name, beside parts that speak."""
    from safetensors.torch import load_file, save_file

    whole = shutil.copytree(folders["qwen2.5-omni"], tmp_path / "whole")
    config = json.loads((whole / "config.json").read_text())
    (whole / "config.json").write_text(json.dumps({"model_type": "qwen2_5_omni", "thinker_config": config}))
    tensors = {f"thinker.{name}": tensor for name, tensor in load_file(whole / "model.safetensors").items()}
    save_file(tensors | {"talker.some.weight": torch.zeros(2)}, whole / "model.safetensors", {"format": "pt"})
    opened = earmark.load(whole, device="cpu").module.state_dict()
    own = models["qwen2.5-omni"].module.state_dict()
    assert all(torch.equal(opened[name], own[name]) for name in own)


def test_what_the_model_cannot_do_is_named(models, clips):
    for options, words in (({"language": "xx"}, "no language 'xx'"), ({"task": "translate"}, "only transcribes")):
        asked = earmark.request(clips[0].audio, **options)
        with pytest.raises(UsageError, match=words):
            earmark.record(models["qwen2-audio"], asked, clips[0].audio)


def test_a_tokenizer_of_another_model_is_named(folders, tmp_path):
    other = shutil.copytree(folders["qwen2-audio"], tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    for key in ("audio_token_index", "audio_token_id"):
        if key in config:
            config[key] = 3
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="placeholder"):
        earmark.load(other)
