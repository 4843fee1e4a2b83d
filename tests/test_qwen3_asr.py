"""Qwen3-ASR: prompts and decoding are the library's own, the forced pass equals step-by-step decoding."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from audio_llm_cases import ask, check_verdicts
from audio_llm_checkpoints import save_qwen3_asr

import earmark
from earmark import Clip, record_many
from earmark.errors import ModelError, UsageError
from earmark.models.qwen3_asr import Qwen3AsrLoader
from earmark.records.request import Decoding

REQUESTS = [
    {},
    {"language": "en"},
    {"language": "German", "prompt": "names: Ann, Größe"},
    {"prompt": "the kitchen"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_qwen3_asr(tmp_path_factory.mktemp("qwen3-asr"))


@pytest.fixture(scope="module")
def model(folder):
    return _load(folder)


def _load(folder, dtype="float32", arithmetic=None):
    return earmark.load(folder, device="cpu", dtype=dtype, arithmetic=arithmetic)


@pytest.fixture(scope="module")
def asked(clips) -> list[Clip]:
    return ask(clips, REQUESTS)


@pytest.fixture(scope="module")
def evidence(model, asked):
    return list(record_many(model, asked, batch_size=4, level="sketch"))


def _own(folder):
    module = transformers.Qwen3ASRForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return module, transformers.Qwen3ASRProcessor.from_pretrained(folder)


def _inputs(processor, clip):
    """Return what the library's own processor makes of a clip and its request."""
    wave = clip.audio.samples.astype(np.float32) / 32768
    asked = clip.request
    return processor.apply_transcription_request(audio=wave, language=asked.language, prompt=asked.prompt or None)


def test_the_checkpoint_is_found_by_its_config(folder, model):
    assert Qwen3AsrLoader().recognises(folder)
    assert (model.info.architecture, model.info.family) == ("qwen3-asr", "autoregressive")
    assert model.info.features.n_mels == 128
    assert model.info.window_samples == 32 * 16_000  # 2048 positions


def test_prompts_are_those_of_the_models_own_processor(folder, model, asked):
    _, processor = _own(folder)
    audio = model.tokenizer.convert_tokens_to_ids("<|audio_pad|>")
    for clip in asked:
        theirs = _inputs(processor, clip)["input_ids"][0].tolist()
        ours = list(model.prompt_ids(clip.request, clip.request.language))
        at = ours.index(audio)
        count = model.encoder_positions(len(clip.audio.samples))
        assert ours[:at] + [audio] * count + ours[at + 1 :] == theirs


@pytest.mark.parametrize("samples", [400, 7_999, 8_000, 8_001, 15_999, 16_000, 16_160, 100_000, 159_999])
def test_audio_positions_are_those_of_the_models_own_processor(folder, model, samples):
    _, processor = _own(folder)
    theirs = processor.apply_transcription_request(audio=np.zeros(samples, np.float32))["input_ids"][0].tolist()
    assert theirs.count(model.tokenizer.convert_tokens_to_ids("<|audio_pad|>")) == model.encoder_positions(samples)
    assert len(model.encode([np.ones(samples, np.int16)])[0]) == model.encoder_positions(samples)


def test_recording_equals_the_librarys_own_decoding(folder, asked, evidence):
    module, processor = _own(folder)
    for clip, item in zip(asked, evidence, strict=True):
        inputs, ids = _inputs(processor, clip), item.segments[0].ids
        output = module.generate(**inputs, max_new_tokens=len(ids), do_sample=False)
        assert output[0, inputs["input_ids"].shape[1] :].tolist() == list(ids)


def test_record_then_verify_passes_in_batches_of_any_size_and_one_changed_token_fails(model, asked, evidence):
    alone = list(record_many(model, asked, batch_size=1, level="sketch"))
    assert [e.segments[0].ids for e in alone] == [e.segments[0].ids for e in evidence]
    check_verdicts(model, asked, evidence)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_checkpoints_record_and_verify(folder, asked, dtype):
    provider, reference = _load(folder, dtype), _load(folder, dtype, "float32")
    made = earmark.record(provider, asked[1].request, asked[1].audio)
    verdict = earmark.verify(made, asked[1].request, asked[1].audio, reference)
    # random weights have near-ties everywhere, so only the rules are judged here
    assert {f.code for f in verdict.findings} <= {"profile.missing", "margin.exceeded", "margin.near_tie"}


def test_evidence_of_other_weights_fails(model, asked, tmp_path_factory):
    other = _load(save_qwen3_asr(tmp_path_factory.mktemp("other"), seed=1))
    other.info = dataclasses.replace(other.info, weights=model.info.weights, name=model.info.name)
    made = earmark.record(other, asked[0].request, asked[0].audio)
    verdict = earmark.verify(made, asked[0].request, asked[0].audio, model, profile="provisional")
    assert verdict.outcome == "FAIL"


def test_forced_scores_equal_step_by_step_decoding_with_cache(folder, model, asked, evidence):
    module, processor = _own(folder)
    family = earmark.loading.family_of(model)
    for clip, item in zip(asked, evidence, strict=True):
        scores = family.read(item.segments[0], clip.request, model, "sketch").scores
        inputs, cache = dict(_inputs(processor, clip)), None
        with torch.inference_mode():
            for position, token in enumerate(item.segments[0].ids):
                step = module(**inputs, past_key_values=cache, use_cache=True)
                logprobs = step.logits[0, -1].log_softmax(-1)
                assert float(logprobs[token]) == pytest.approx(scores.chosen[position], abs=1e-4)
                cache, inputs = step.past_key_values, {"input_ids": torch.tensor([[token]])}


def test_encoder_states_at_the_outlets_are_the_layers(model, asked):
    """The packed states of a batch come apart into the rows that each clip gives alone."""
    from earmark.taps import Taps

    samples = [clip.audio.samples for clip in asked[:2]]
    last = model.encoder_positions(len(samples[1])) - 1
    with Taps(model.encoder_layers(), [(1, 0, 3), (1, 1, last)]) as together, torch.inference_mode():
        model.encode(samples)
    with Taps(model.encoder_layers(), [(1, 0, last)]) as alone, torch.inference_mode():
        model.encode(samples[1:])
    assert torch.allclose(together.states[1, 1, last], alone.states[1, 0, last], atol=1e-4)
    assert not torch.allclose(together.states[1, 1, last], together.states[1, 0, 3], atol=1e-2)


def test_text_is_what_stands_behind_the_marker(model):
    tokenizer = model.tokenizer
    ids = tokenizer("language English<asr_text>turn on the light<|im_end|>")["input_ids"]
    assert model.detokenise(ids) == "turn on the light"
    assert model.detokenise(ids[ids.index(tokenizer.convert_tokens_to_ids("<asr_text>")) + 1 :]) == "turn on the light"
    words = model.word_index(ids)
    assert words[-1] == -1
    assert max(words) == 3
    assert model.detokenise(model.tokenise(" turn on ")) == "turn on"


def test_token_bytes_spell_the_text(model):
    text = "turn on the light, Größe 今日は"
    ids = model.tokenizer(text)["input_ids"]
    assert b"".join(model.token_bytes[i] for i in ids).decode() == text
    assert model.token_bytes[model.end_id] == b"<|im_end|>"


def test_either_end_token_ends_a_transcript(model):
    names = {model.token_bytes[i] for i in model.stop_ids}
    assert names == {b"<|im_end|>", b"<|endoftext|>"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"language": "xx"}, "no language 'xx'"),
        ({"task": "translate"}, "only transcribes"),
        ({"prompt": "a<|im_end|>b"}, "special tokens"),
        ({"prompt": "<asr_text>turn off the light"}, "special tokens"),
        ({"decoding": Decoding(timestamps=True)}, "writes no time tokens"),
        ({"prompt": "kitchen " * 2000}, "shorten it"),
    ],
)
def test_what_the_model_cannot_do_is_named(model, clips, options, words):
    with pytest.raises(UsageError, match=words):
        earmark.record(model, earmark.request(clips[0].audio, **options), clips[0].audio)


def test_a_placeholder_among_the_emitted_tokens_is_no_audio(model, clips, asked):
    audio = model.tokenizer.convert_tokens_to_ids("<|audio_pad|>")
    prompt = model.prompt_ids(asked[0].request, None)
    encoded = model.encode([clips[0].audio.samples])
    with torch.inference_mode():
        plain = model.forced_states(encoded, torch.tensor([[*prompt, 50, 60]]))
        written = model.forced_states(encoded, torch.tensor([[*prompt, 50, audio]]))
    assert plain.shape == written.shape == (1, len(prompt) + 2, 48)
    assert torch.equal(plain[0, :-1], written[0, :-1])


# Checkpoints


def test_damaged_checkpoints_are_named(folder, tmp_path):
    raw = shutil.copytree(folder, tmp_path / "raw")
    config = json.loads((raw / "config.json").read_text())
    (raw / "config.json").write_text(json.dumps({"model_type": "qwen3_asr", "thinker_config": config}))
    with pytest.raises(ModelError, match="Qwen's own format"):
        earmark.load(raw)
    empty = shutil.copytree(folder, tmp_path / "empty")
    (empty / "tokenizer.json").unlink()
    with pytest.raises(ModelError):
        earmark.load(empty)
    lacking = shutil.copytree(folder, tmp_path / "lacking")
    from safetensors.torch import load_file, save_file

    tensors = load_file(lacking / "model.safetensors")
    name = next(n for n in tensors if n.endswith("linear_1.weight"))
    save_file({n: t for n, t in tensors.items() if n != name}, lacking / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"lacks 1 weights .* first .*{name.rpartition('model.')[2]}"):
        earmark.load(lacking)


def test_a_training_example_is_the_chat_that_the_model_is_asked_with(folder, model, asked):
    """What the recipe trains on begins with the prompt of a request, and ends as the model must."""
    from training.qwen3_tokens import AUDIO, chat_ids

    _, processor = _own(folder)
    count = model.encoder_positions(len(asked[1].audio.samples))
    before, after, answer = chat_ids(processor.tokenizer, "turn on the light")
    placeholder = processor.tokenizer.convert_tokens_to_ids(AUDIO["audio_token"])
    example = [*before, *[placeholder] * count, *after]
    prompt = _inputs(processor, asked[1])["input_ids"][0].tolist()
    assert example[: len(prompt)] == prompt
    assert len(example) - len(prompt) == answer - 3  # the language and its marker are asked for, not answered
    assert model.detokenise(example[len(prompt) :]) == "turn on the light"
    assert example[-1] == model.end_id


def test_a_servers_answer_with_language_and_marker_is_the_models_text(model, asked):
    """A chat shows all that the model wrote; the transcript is what stands behind the marker."""
    from earmark.interop.convert import to_output
    from earmark.interop.response import Response, Step, Token
    from earmark.recording import segment_inputs

    ids = model.tokenizer("language English<asr_text>turn on the light<|im_end|>")["input_ids"]
    tokens = [Token(text="", logprob=-0.1, id=i, data=None) for i in ids]
    steps = tuple(Step(chosen=token, top=(token,)) for token in tokens)
    item = segment_inputs(asked[0], model)[0]
    for text in ("language English<asr_text>turn on the light", "turn on the light", "turn it off"):
        output = to_output(Response(text=text, steps=steps, finish="stop", model="m"), model, item)
        assert (output.text == "turn on the light") == (text != "turn it off")
