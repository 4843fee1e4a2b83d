"""Voxtral: decoding is the library's own, the forced pass equals step-by-step decoding with cache.

The prompt is Mistral's, written down by hand: its own library, which makes it, is no dependency.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from audio_llm_cases import check_decoding, check_verdicts
from audio_llm_checkpoints import TEKKEN_SPECIAL, save_voxtral

import earmark
from earmark import Clip, record_many
from earmark.audio import from_samples
from earmark.errors import ModelError, UsageError
from earmark.models._tekken import Tekken


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_voxtral(tmp_path_factory.mktemp("voxtral"))


@pytest.fixture(scope="module")
def model(folder):
    return earmark.load(folder, device="cpu")


@pytest.fixture(scope="module")
def asked(clips) -> list[Clip]:
    """Return two clips, and one of 34 s: two chunks of the encoder."""
    samples = np.concatenate([clip.audio.samples for clip in clips[:12]])[: 34 * 16_000]
    audio = [clips[0].audio, clips[1].audio, from_samples(samples, 16_000)]
    options = [{}, {"language": "en"}, {"language": "de"}]
    return [Clip(audio=a, request=earmark.request(a, **o)) for a, o in zip(audio, options, strict=True)]


@pytest.fixture(scope="module")
def evidence(model, asked):
    return list(record_many(model, asked, batch_size=3, level="sketch"))


def _inputs(model, clip):
    """Return what Mistral's library and the processor would make: 375 placeholders per 30 s, features by chunk."""
    prompt = list(model.prompt_ids(clip.request, clip.request.language))
    chunks = -(-len(clip.audio.samples) // 480_000)
    at = prompt.index(24)
    ids = torch.tensor([prompt[:at] + [24] * 375 * chunks + prompt[at + 1 :]])
    wave = clip.audio.samples.astype(np.float32) / 32768
    made = model.processor.feature_extractor(
        wave, sampling_rate=16_000, padding=True, truncation=False, pad_to_multiple_of=480_000, return_tensors="pt"
    )
    features = made.input_features.reshape(128, -1, 3000).transpose(0, 1)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "input_features": features}


def test_the_prompt_is_mistrals(model, asked):
    special = {name: i for i, name in enumerate(TEKKEN_SPECIAL)}
    head = [special[name] for name in ("<s>", "[INST]", "[BEGIN_AUDIO]", "[AUDIO]", "[/INST]")]
    assert head[3] == 24
    open_language, english = (list(model.prompt_ids(c.request, c.request.language)) for c in asked[:2])
    assert open_language == [*head, special["[TRANSCRIBE]"]]
    assert english[:5] == head
    assert english[-1] == special["[TRANSCRIBE]"]
    assert model.detokenise(english) == "lang:en"


def test_tekken_spells_and_merges_in_the_order_of_ranks(model):
    text = "turn on the light, Größe 今日は [INST] 12"
    ids = model.tokenise(text)
    assert model.detokenise(ids) == text
    assert not set(ids) & set(range(40))
    assert b"".join(model.token_bytes[i] for i in ids).decode() == text
    tokens = [bytes([value]) for value in range(256)] + [b"ab", b"bc", b"abc"]
    small = Tekken(r"\w+|\s+", tokens, ["<unk>"], reserved=10)
    assert small.encode("abc bc") == [10 + 258, 10 + 32, 10 + 257]
    assert max(model.word_index(model.tokenise("turn on the light"))) == 3


def test_tokens_and_scores_are_those_of_the_librarys_own_decoding_step_by_step(folder, model, asked, evidence):
    module = transformers.VoxtralForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    check_decoding(module, model, asked, evidence, _inputs, eos_token_id=2, pad_token_id=2)


def test_record_then_verify_passes_and_one_changed_token_fails(model, asked, evidence):
    check_verdicts(model, asked, evidence)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"language": "english"}, "two letters"),
        ({"task": "translate"}, "only transcribes"),
        ({"prompt": "a"}, "no prompt"),
    ],
)
def test_what_the_model_cannot_do_is_named(model, clips, options, words):
    with pytest.raises(UsageError, match=words):
        earmark.record(model, earmark.request(clips[0].audio, **options), clips[0].audio)


def test_damaged_vocabularies_are_named(folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    file = json.loads((other / "tekken.json").read_text())
    file["special_tokens"][24] |= {"token_str": "<SPECIAL_24>"}
    (other / "tekken.json").write_text(json.dumps(file))
    with pytest.raises(ModelError, match=r"lacks \[AUDIO\]"):
        earmark.load(other)
    (other / "tekken.json").write_text("{}")
    with pytest.raises(ModelError, match="no tekken vocabulary"):
        earmark.load(other)
    (other / "tekken.json").unlink()
    with pytest.raises(ModelError, match="is missing"):
        earmark.load(other)
