"""The recipes of the attention models on tiny shapes: the same numbers as the class, phases, teachers, export."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

import earmark

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training import qwen3_model, qwen3_nano, whisper_model, whisper_nano  # noqa: E402  (after the path)
from training.qwen3_tokens import chat_ids  # noqa: E402
from training.sampler import Batch  # noqa: E402

QWEN = qwen3_model.Size(
    encoder_width=16, encoder_layers=2, encoder_feed_forward=16, channels=4, width=16, layers=3, feed_forward=16
)
WHISPER = whisper_model.Size(
    width=16, encoder_layers=1, encoder_feed_forward=16, decoder_layers=1, decoder_feed_forward=16
)
TEXTS = ["set the timer", "stop", ""]


class Tones:
    """Stands in for the sampler: three clips of three seconds and less."""

    seed = 0

    def __init__(self) -> None:
        self.synthetic: list[object] = []

    def draw(self, _max_clip_s: float, _window_s: float | None = None) -> Batch:
        generator = torch.Generator().manual_seed(0)
        waves = torch.randn(3, 40_000, generator=generator) * 0.1
        return Batch(waves=waves, lengths=torch.tensor([40_000, 9_000, 16_000]), texts=TEXTS)


@pytest.fixture(scope="module")
def qwen_tokenizer():
    return qwen3_nano.make_tokenizer()


@pytest.fixture(scope="module")
def whisper_tokenizer():
    return whisper_nano.make_tokenizer()


@pytest.fixture
def qwen(qwen_tokenizer):
    recipe = qwen3_nano.Qwen3Nano(Tones(), qwen_tokenizer, QWEN, 0)
    recipe.curriculum = qwen3_nano.Curriculum(context_share=0)
    return recipe


@pytest.fixture
def whisper(whisper_tokenizer):
    network = whisper_nano.Network(whisper_model.build_model(whisper_tokenizer, 0, WHISPER))
    recipe = whisper_nano.WhisperNano(Tones(), whisper_tokenizer, network)
    recipe.curriculum = whisper_nano.Curriculum(prompt_share=0)
    return recipe


def test_qwen3_is_trained_by_the_same_numbers_that_the_class_computes(qwen):
    """Seconds as one batch and a plain loop over the layers give what the class gives with its padding and masks."""
    qwen.model.eval()
    chats = qwen._chats(Tones().draw(9.0), 0.0)
    with torch.no_grad():
        audio, lengths, listened = qwen.model.listen(chats)
        logits = qwen.model.answer(chats, lengths, listened)
        for row in range(3):
            frames = int(chats.frames[row])
            size = -(-frames // 100) * 100
            features, mask = chats.features[row : row + 1, :, :size], (torch.arange(size) < frames)[None].long()
            own = qwen.model.qwen.model.get_audio_features(features, mask).pooler_output
            torch.testing.assert_close(audio[row, : lengths[row]], own)
            placeholder = qwen.model.qwen.config.audio_token_id
            ids = [*chats.before[row], *[placeholder] * int(lengths[row]), *chats.after[row]]
            whole = qwen.model.qwen(
                input_ids=torch.tensor([ids]), input_features=features, input_features_mask=mask
            ).logits[0]
            answer, start = chats.answers[row], sum(chats.answers[:row])
            torch.testing.assert_close(logits[start : start + answer], whole[-answer - 1 : -1], atol=1e-5, rtol=1e-4)


def test_qwen3s_answer_names_the_language_or_none(qwen_tokenizer):
    """Without words the published checkpoints answer that there is no language."""
    for text, language in (("stop", "English"), ("", "None")):
        _, after, answer = chat_ids(qwen_tokenizer, text)
        assert qwen_tokenizer.decode(after[-answer:]) == f"language {language}<asr_text>{text}<|im_end|>"
        spoken = qwen_tokenizer(text, add_special_tokens=False)["input_ids"]
        assert answer == qwen3_nano.LANGUAGE_TOKENS + len(spoken) + 1


@pytest.mark.parametrize("name", ["qwen", "whisper"])
@pytest.mark.parametrize(("progress", "named"), [(0.05, {"ctc"}), (0.5, {"ctc", "entropy"})])
def test_loss_of_each_phase(request, name, progress, named):
    """CTC alone, then both; every weight that the phase trains gets a gradient."""
    recipe = request.getfixturevalue(name)
    loss, figures = recipe.loss(progress)
    loss.backward()
    assert set(figures) == named
    if name == "qwen":
        encoder, top = recipe.model.qwen.model.audio_tower, recipe.model.qwen.model.language_model.norm
    else:
        encoder, top = recipe.model.whisper.model.encoder, recipe.model.whisper.model.decoder.layer_norm
    assert all(weight.grad is not None for weight in encoder.layers.parameters())
    assert (top.weight.grad is not None) == ("entropy" in named)


def test_a_student_that_is_its_teacher_has_no_distance(qwen, whisper):
    """And one with other weights has."""
    qwen.teacher = qwen.model
    whisper.teacher = whisper.model.whisper
    for recipe in (qwen, whisper):
        assert recipe.loss(0.3)[1]["teacher"] == pytest.approx(0, abs=1e-5)
    qwen.teacher = qwen3_model.Network(qwen.tokenizer, QWEN, seed=1)
    whisper.teacher = WhisperForConditionalGeneration(whisper.model.whisper.config)
    for recipe in (qwen, whisper):
        assert recipe.loss(0.3)[1]["teacher"] > 0.01


def test_the_exported_qwen3_opens(qwen, tmp_path):
    """With a window of ten seconds, and nothing of what only training needs."""
    qwen3_model.export(qwen.model, qwen.tokenizer, tmp_path)
    model = earmark.load(tmp_path)
    assert model.info.architecture == "qwen3-asr"
    assert model.info.window_samples == 10 * 16_000
    names = set(load_file(tmp_path / "model.safetensors"))
    assert not {name for name in names if "blanks" in name or "scales" in name}
    assert ROOT.as_posix() not in "".join(path.read_text() for path in tmp_path.glob("*.json"))
