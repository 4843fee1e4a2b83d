"""wav2vec 2.0 and its kin: our transcripts equal the library's, numbers do not depend on the batch, cheats fail."""

from __future__ import annotations

import shutil
from pathlib import Path

import frame_cases
import numpy as np
import pytest
import tiny_models
import torch
import transformers
from safetensors.torch import load_file, save_file

import earmark
from earmark import record_many
from earmark.errors import ModelError
from earmark.models._transformers import waveforms
from earmark.scenarios import scenario

#: Architecture, and how its feature encoder normalises: `group` as the base checkpoints, `layer` as the large ones.
KINDS = {
    "wav2vec2": ("wav2vec2", "layer"),
    "wav2vec2-base": ("wav2vec2", "group"),
    "hubert": ("hubert", "layer"),
    "wavlm": ("wavlm", "layer"),
    "wavlm-base": ("wavlm", "group"),
    "wav2vec2-bert": ("wav2vec2-bert", "layer"),
}


@pytest.fixture(scope="module", params=KINDS)
def folder(request, tmp_path_factory):
    kind, norm = KINDS[request.param]
    return tiny_models.wav2vec2(tmp_path_factory.mktemp(request.param), kind, seed=1, norm=norm)


@pytest.fixture(scope="module")
def model(folder):
    return earmark.load(folder, device="cpu")


@pytest.fixture(scope="module")
def asked(clips):
    return frame_cases.without_language(clips[:4])


@pytest.fixture(scope="module")
def evidence(model, asked):
    return list(record_many(model, asked, level="sketch", batch_size=4))


def _processor(folder, model):
    if "bert" in folder.name:
        return transformers.Wav2Vec2BertProcessor(model.extractor, model.tokenizer)
    return transformers.Wav2Vec2Processor(model.extractor, model.tokenizer)


def test_transcripts_equal_the_librarys_one_by_one(folder, model, asked, evidence):
    """The library's own class, its processor, argmax and its `batch_decode`, on each clip alone."""
    own = type(model.module).from_pretrained(folder, dtype=torch.float32).eval()
    processor = _processor(folder, model)
    for item, clip in zip(evidence, asked, strict=True):
        inputs = processor(waveforms([clip.audio.samples])[0], sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            best = own(**inputs).logits.argmax(-1)
        best = best[:, : model.encoder_positions(len(clip.audio.samples))]  # what the network's own mask counts
        assert item.text == processor.batch_decode(best)[0]
        joined = [i for i in torch.unique_consecutive(best[0]).tolist() if i != model.blank_id]
        assert list(item.segments[0].ids) == joined


def test_numbers_do_not_depend_on_the_batch(model, asked, evidence):
    verdicts = frame_cases.verify(model, asked, evidence, batch_size=1)
    assert [verdict.outcome for verdict in verdicts] == ["PASS"] * len(asked)
    assert max(verdict.fingerprint["logprob_l1"] for verdict in verdicts) < 1e-4


@pytest.mark.parametrize("samples", [1600, 4321, 16_000, 47_999, 48_001])
def test_frames_are_counted_as_the_network_counts_them(model, samples):
    with torch.inference_mode():
        logits = model.logits(model.encode([np.arange(samples).astype(np.int16)]))
    half = model.info.features.n_mels > 0  # a last frame that is half padding is given out, but masked
    assert logits.shape[1] - half <= model.encoder_positions(samples) <= logits.shape[1]


@pytest.mark.parametrize(("name", "options"), [("quantise", {"bits": 8}), ("drop_audio", {"seconds": 0.5})])
def test_cheats_fail_on_every_clip(model, asked, name, options):
    cheated = scenario(name, **options).record(model, asked, level="sketch")
    assert frame_cases.outcomes(model, asked, cheated) == ["FAIL"] * len(asked)


def test_claims_pin_the_features(model, evidence):
    features = evidence[0].claim.features
    assert features == model.info.features
    assert features.normalisation in ("zero-mean-unit-variance", "zero-mean-unit-variance-per-band")


def test_a_checkpoint_may_lack_what_only_training_uses(folder, model, tmp_path):
    """As the published base checkpoints do; any other weight that is missing is named."""
    weights = load_file(folder / "model.safetensors")
    name = next(key for key in weights if key.endswith("masked_spec_embed"))
    bare = Path(shutil.copytree(folder, tmp_path / "bare"))
    _save({key: value for key, value in weights.items() if key != name}, bare)
    assert earmark.load(bare, device="cpu").info.vocab_size == model.info.vocab_size
    _save({key: value for key, value in weights.items() if key != "lm_head.bias"}, bare)
    with pytest.raises(ModelError, match=r"lacks 1 weights of .*lm_head\.bias"):
        earmark.load(bare, device="cpu")


def _save(weights, folder):
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_words_end_at_the_delimiter(model):
    ids = model.tokenizer.convert_tokens_to_ids(list("|the|inn|"))
    assert model.word_index(ids) == [-1, 0, 0, 0, -1, 1, 1, 1, -1]
    assert model.detokenise(ids) == "the inn"
