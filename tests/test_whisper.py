"""Whisper: our recording equals the library's own decoding, our forced pass equals step-by-step decoding."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import earmark
from earmark import Clip, record_many
from earmark.errors import ModelError, UsageError
from earmark.records.request import Decoding

NANO = Path(str(files("earmark.data"))) / "embedded" / "whisper-nano"

#: Shapes as the published sizes have them, small: multilingual, turbo or distil (few decoder layers, 128 mels),
#: and English only (no language and task tokens).
SHAPES = {
    "multilingual": {"encoder_layers": 2, "decoder_layers": 2},
    "turbo": {"encoder_layers": 3, "decoder_layers": 1, "num_mel_bins": 128},
    "english-only": {"encoder_layers": 1, "decoder_layers": 2},
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """Save random checkpoints of the real classes in the real format, with the 30 s window of the published ones."""
    root = tmp_path_factory.mktemp("whisper")
    return {name: _save(root / name, name, shape) for name, shape in SHAPES.items()}


def _save(folder: Path, name: str, shape: dict[str, int]) -> Path:
    torch.manual_seed(len(name))
    config = transformers.WhisperConfig.from_pretrained(NANO, max_source_positions=1500, d_model=32, **shape)
    config.encoder_attention_heads = config.decoder_attention_heads = 2
    config.encoder_ffn_dim = config.decoder_ffn_dim = 64
    module = transformers.WhisperForConditionalGeneration(config)
    for weight in module.parameters():
        weight.data = torch.randn_like(weight) * 0.3
    settings = transformers.GenerationConfig.from_pretrained(NANO)
    settings.max_length = 40
    if name == "english-only":
        del settings.lang_to_id, settings.task_to_id
        settings.is_multilingual = False
    module.generation_config = settings
    module.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins).save_pretrained(folder)
    transformers.WhisperTokenizer.from_pretrained(NANO).save_pretrained(folder)
    return folder


def _features(model, clips):
    waveforms = [clip.audio.samples.astype(np.float32) / 32768 for clip in clips]
    return model.extractor(waveforms, sampling_rate=16_000, return_tensors="pt").input_features


def _own(folder) -> transformers.WhisperForConditionalGeneration:
    return transformers.WhisperForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()


def _ids(evidence, end: int) -> list[list[int]]:
    return [[i for i in e.segments[0].ids if i != end] for e in evidence]


def _library_ids(output, prompt: int, end: int) -> list[list[int]]:
    return [[i for i in row if i != end] for row in output[:, prompt:].tolist()]


@pytest.mark.parametrize("beams", [1, 4])
def test_recording_equals_the_librarys_own_decoding(nano, clips, beams):
    """Whisper's own `generate`, token for token, on the model that transcribes."""
    decoding = Decoding(strategy="beam", beams=beams) if beams > 1 else Decoding()
    chosen = [
        Clip(audio=c.audio, request=earmark.request(c.audio, language="en", decoding=decoding)) for c in clips[:6]
    ]
    evidence = list(record_many(nano, chosen, batch_size=3))
    output = _own(NANO).generate(_features(nano, chosen), language="en", task="transcribe", num_beams=beams)
    ours, theirs = _ids(evidence, nano.end_id), _library_ids(output, 0, nano.end_id)
    specials = {nano._first_special, *range(nano._first_special, nano.info.vocab_size)}
    assert [[i for i in row if i not in specials] for row in theirs] == ours


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("timestamps", [False, True])
def test_every_shape_decodes_as_the_library_and_verifies(checkpoints, clips, name, timestamps):
    model = earmark.load(checkpoints[name], device="cpu")
    decoding = Decoding(timestamps=timestamps)
    language = None if name == "english-only" else "fr"
    chosen = [
        Clip(audio=c.audio, request=earmark.request(c.audio, language=language, decoding=decoding)) for c in clips[:3]
    ]
    evidence = list(record_many(model, chosen, batch_size=2))
    for item, clip in zip(evidence, chosen, strict=True):
        verdict = earmark.verify(item, clip.request, clip.audio, model, profile="provisional")
        assert (verdict.outcome, verdict.findings) == ("PASS", ())
    asked = {"language": "fr", "task": "transcribe"} if language else {}
    own = _own(checkpoints[name])
    output = own.generate(
        _features(model, chosen), return_timestamps=timestamps, max_length=40, condition_on_prev_tokens=False, **asked
    )
    # with time tokens the library decodes again from each pair of them on, so only the beginning is the same
    length = 5 if timestamps else 12
    first = [row[: length - 1] for row in _after_prompt(output, model, chosen[0].request)]
    assert first == [list(e.segments[0].ids[: length - 1]) for e in evidence]


def _after_prompt(output, model, asked) -> list[list[int]]:
    prompt = list(model.prompt_ids(asked, asked.language))
    return [row[len(prompt) :] if row[: len(prompt)] == prompt else row for row in output.tolist()]


@pytest.mark.parametrize("name", SHAPES)
def test_forced_scores_equal_step_by_step_decoding_with_cache(checkpoints, clips, name):
    model = earmark.load(checkpoints[name], device="cpu")
    language = None if name == "english-only" else "de"
    clip = Clip(audio=clips[0].audio, request=earmark.request(clips[0].audio, language=language))
    evidence = next(record_many(model, [clip]))
    ids = evidence.segments[0].ids
    prompt = list(model.prompt_ids(clip.request, language))
    own = _own(checkpoints[name])
    family = earmark.loading.family_of(model)
    scores = family.read(evidence.segments[0], clip.request, model, "scores").scores
    with torch.inference_mode():
        states = own.model.encoder(_features(model, [clip]))
        cache, fed = None, prompt
        for position, token in enumerate(ids):
            step = own(
                encoder_outputs=states, decoder_input_ids=torch.tensor([fed]), past_key_values=cache, use_cache=True
            )
            cache = step.past_key_values
            logprobs = step.logits[0, -1].log_softmax(-1)
            assert float(logprobs[token]) == pytest.approx(scores.chosen[position], abs=1e-4)
            fed = [token]


def test_detected_language_equals_the_librarys(nano, clips):
    chosen = [Clip(audio=c.audio, request=earmark.request(c.audio)) for c in clips[:4]]
    evidence = list(record_many(nano, chosen))
    detected = _own(NANO).detect_language(_features(nano, chosen))
    family = earmark.loading.family_of(nano)
    prompts = [
        family.read(e.segments[0], c.request, nano, "scores").prompt for e, c in zip(evidence, chosen, strict=True)
    ]
    assert [prompt[1] for prompt in prompts] == detected.tolist()


def test_prompt_equals_the_librarys(nano, clips):
    asked = earmark.request(clips[0].audio, language="en", prompt="turn on the light")
    theirs = nano.tokenizer.get_prompt_ids("turn on the light", return_tensors="np").tolist()
    assert list(nano.prompt_ids(asked, "en"))[: len(theirs)] == theirs


def test_special_tokens_in_a_prompt_are_refused(nano, clips):
    asked = earmark.request(clips[0].audio, language="en", prompt="<|endoftext|>")
    with pytest.raises(UsageError, match="special tokens"):
        nano.prompt_ids(asked, "en")


@pytest.mark.parametrize(
    ("options", "words"), [({"language": "xx"}, "no language 'xx'"), ({"language": "english"}, "it has: de, en")]
)
def test_unknown_language_is_named(nano, clips, options, words):
    with pytest.raises(UsageError, match=words):
        earmark.record(nano, earmark.request(clips[0].audio, **options), clips[0].audio)


def test_english_only_refuses_to_translate(checkpoints, clips):
    model = earmark.load(checkpoints["english-only"], device="cpu")
    with pytest.raises(UsageError, match="only transcribes English"):
        earmark.record(model, earmark.request(clips[0].audio, task="translate"), clips[0].audio)


# Checkpoints


def test_digest_depends_on_the_tensors_alone(checkpoints, tmp_path):
    from earmark.checkpoint import weights_digest

    folder = checkpoints["multilingual"]
    _own(folder).save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    assert weights_digest(tmp_path / "sharded") == weights_digest(folder)
    assert weights_digest(checkpoints["turbo"]) != weights_digest(folder)


def _copy(folder: Path, target: Path) -> Path:
    return Path(shutil.copytree(folder, target))


def test_damaged_checkpoints_are_named(checkpoints, tmp_path):
    good = checkpoints["multilingual"]
    sharded = _copy(good, tmp_path / "sharded")
    (sharded / "model.safetensors").unlink()
    _own(good).save_pretrained(sharded, max_shard_size="20KB")
    shard = min(sharded.glob("model-*.safetensors"))
    shard.unlink()
    with pytest.raises(ModelError, match=f"lacks 1 of .* weight files, first {shard.name}"):
        earmark.load(sharded)
    cut = _copy(good, tmp_path / "cut")
    data = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match="ends before tensor"):
        earmark.load(cut)
    (cut / "model.safetensors").write_bytes(b"no tensors here, none at all")
    with pytest.raises(ModelError, match="no complete safetensors"):
        earmark.load(cut)
    (cut / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no model\.safetensors"):
        earmark.load(cut)
    no_words = _copy(good, tmp_path / "no-words")
    for file in no_words.glob("*token*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer files are missing"):
        earmark.load(no_words)


def test_folders_that_are_no_checkpoint_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"no config\.json"):
        earmark.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        earmark.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(ModelError, match=r"model_type 'gpt2', which no plugin opens; there are: .*whisper"):
        earmark.load(tmp_path)
    with pytest.raises(ModelError, match="is a file"):
        earmark.load(tmp_path / "config.json")
    with pytest.raises(ModelError, match="no such folder"):
        earmark.load("./nowhere")
    with pytest.raises(ModelError, match=r"no embedded model 'x'; there are: .*whisper-nano"):
        earmark.load("embedded:x")


@pytest.mark.parametrize(
    ("options", "words"),
    [({"dtype": "int8"}, "dtype 'int8'"), ({"device": "cuda:99"}, "cannot be used"), ({"attention": "x"}, "sdpa")],
)
def test_unknown_options_are_named(options, words):
    with pytest.raises(UsageError, match=words):
        earmark.load("embedded:whisper-nano", **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_evidence_of_the_gpu_passes_on_the_cpu(clips, dtype):
    provider = earmark.load("embedded:whisper-nano", device="cuda", dtype=dtype)
    reference = earmark.load("embedded:whisper-nano", device="cpu", dtype=dtype, arithmetic="float32")
    for item, clip in zip(record_many(provider, clips), clips, strict=True):
        assert earmark.verify(item, clip.request, clip.audio, reference, profile="provisional").outcome == "PASS"
