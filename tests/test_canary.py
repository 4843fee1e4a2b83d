"""Canary: prompts and decoding are the library's own, the forced pass equals step-by-step decoding."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from audio_llm_cases import ask, check_verdicts
from audio_llm_checkpoints import save_canary

import earmark
from earmark import Clip, record_many
from earmark.errors import ModelError, UsageError
from earmark.records.request import Decoding

REQUESTS = [{"language": "en"}, {"language": "de"}, {"language": "fr", "task": "translate"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_canary(tmp_path_factory.mktemp("canary"))


@pytest.fixture(scope="module")
def model(folder):
    return earmark.load(folder, device="cpu")


@pytest.fixture(scope="module")
def asked(clips) -> list[Clip]:
    return ask(clips, REQUESTS)


@pytest.fixture(scope="module")
def evidence(model, asked):
    return list(record_many(model, asked, batch_size=3, level="sketch"))


def _own(folder):
    module = transformers.CanaryForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return module, transformers.CanaryProcessor.from_pretrained(folder)


def _inputs(processor, clip):
    wave = clip.audio.samples.astype(np.float32) / 32768
    target = "en" if clip.request.task == "translate" else None
    return processor.apply_transcription_request(wave, source_language=clip.request.language, target_language=target)


def test_prompts_are_those_of_the_models_own_processor(folder, model, asked):
    _, processor = _own(folder)
    for clip in asked:
        theirs = _inputs(processor, clip)["decoder_input_ids"][0].tolist()
        assert list(model.prompt_ids(clip.request, clip.request.language)) == theirs
        assert len(theirs) == 9


def test_recording_equals_the_librarys_own_decoding(folder, asked, evidence):
    module, processor = _own(folder)
    for clip, item in zip(asked, evidence, strict=True):
        inputs, ids = _inputs(processor, clip), item.segments[0].ids
        output = module.generate(**inputs, max_new_tokens=len(ids), do_sample=False)
        assert output[0, inputs["decoder_input_ids"].shape[1] :].tolist() == list(ids)


def test_record_then_verify_passes_and_one_changed_token_fails(model, asked, evidence):
    check_verdicts(model, asked, evidence)


def test_beams_are_searched_and_verified(model, asked):
    decoding = Decoding(strategy="beam", beams=3)
    request = earmark.request(asked[0].audio, language="en", decoding=decoding)
    made = earmark.record(model, request, asked[0].audio)
    verdict = earmark.verify(made, request, asked[0].audio, model, profile="provisional")
    assert verdict.outcome == "PASS"


def test_forced_scores_equal_step_by_step_decoding_with_cache(folder, model, asked, evidence):
    module, processor = _own(folder)
    family = earmark.loading.family_of(model)
    for clip, item in zip(asked, evidence, strict=True):
        scores = family.read(item.segments[0], clip.request, model, "sketch").scores
        inputs = _inputs(processor, clip)
        with torch.inference_mode():
            encoded = module.model.encoder(inputs["input_features"], attention_mask=inputs["attention_mask"])
            cache, fed = None, inputs["decoder_input_ids"]
            for position, token in enumerate(item.segments[0].ids):
                step = module(encoder_outputs=encoded, decoder_input_ids=fed, past_key_values=cache, use_cache=True)
                logprobs = step.logits[0, -1].log_softmax(-1)
                assert float(logprobs[token]) == pytest.approx(scores.chosen[position], abs=1e-4)
                cache, fed = step.past_key_values, torch.tensor([[token]])


@pytest.mark.parametrize("samples", [1_600, 15_999, 16_000, 45_680, 100_001])
def test_positions_are_counted_as_the_network_counts(model, samples):
    noise = np.random.default_rng(samples).integers(-3000, 3000, samples).astype(np.int16)
    assert int(model.encode([noise]).mask.sum()) == model.encoder_positions(samples)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "detects no language"),
        ({"language": "xx"}, "no language 'xx'"),
        ({"language": "en", "prompt": "kitchen"}, "takes no prompt"),
        ({"language": "en", "decoding": Decoding(timestamps=True)}, "writes no time tokens"),
    ],
)
def test_what_the_model_cannot_do_is_named(model, clips, options, words):
    with pytest.raises(UsageError, match=words):
        earmark.record(model, earmark.request(clips[0].audio, **options), clips[0].audio)


def test_a_tokenizer_of_another_model_is_named(folder, tmp_path):
    import json
    import shutil

    other = shutil.copytree(folder, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"decoder_start_token_id": 9}))
    with pytest.raises(ModelError, match="startofcontext"):
        earmark.load(other)
