"""The Parakeet recipe on tiny shapes: tokens, losses, replicas, export."""

from __future__ import annotations

import copy
import random
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoProcessor, ParakeetForCTC, ParakeetForTDT

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from training import parakeet_nano  # noqa: E402  (after the path)
from training.parakeet_growth import grow  # noqa: E402
from training.parakeet_model import CTC_BLANK, TDT_BLANK, Hybrid, Size, export_ctc, export_tdt  # noqa: E402
from training.parakeet_tokens import BLANK, PIECES, ctc_tokenizer, tdt_tokenizer, text_ids  # noqa: E402
from training.sampler import Batch  # noqa: E402
from training.text import foreign_sentences, is_test  # noqa: E402
from training.trainer import Plan, Trainer, replicate  # noqa: E402
from training.voices import cast_foreign  # noqa: E402

TINY = Size(width=16, layers=1, feed_forward=16, channels=4, predictor_width=8)
TEXTS = ["set the timer", "stop", ""]


class Tones:
    """Stands in for the sampler: three clips of a second and less."""

    def draw(self, _max_clip_s: float) -> Batch:
        generator = torch.Generator().manual_seed(0)
        waves = torch.randn(3, 16_000, generator=generator) * 0.1
        return Batch(waves=waves, lengths=torch.tensor([16_000, 9_000, 12_000]), texts=TEXTS)

    def other_stream(self, _seed: int) -> Tones:
        return copy.copy(self)


@pytest.fixture(scope="module")
def pieces():
    return parakeet_nano.make_pieces()


@pytest.fixture
def recipe(pieces):
    return parakeet_nano.ParakeetNano(Tones(), pieces, TINY, seed=0)


def test_pieces_are_reversible_and_leave_the_blank_free(pieces):
    assert pieces.get_vocab_size() == PIECES
    ctc, tdt = ctc_tokenizer(pieces), tdt_tokenizer(pieces)
    assert (ctc.pad_token_id, len(ctc)) == (CTC_BLANK, CTC_BLANK + 1)
    assert (tdt.convert_tokens_to_ids(BLANK), len(tdt)) == (TDT_BLANK, TDT_BLANK + 1)
    ids = text_ids(pieces, "it's three o'clock in the kitchen")
    assert ctc.decode(ids, group_tokens=False) == "it's three o'clock in the kitchen"
    assert ctc(TEXTS[0])["input_ids"] == tdt(TEXTS[0])["input_ids"] == text_ids(pieces, TEXTS[0])


@pytest.mark.parametrize(("progress", "tdt"), [(0.1, False), (0.5, True)])
def test_loss_reaches_the_heads_of_its_phase(recipe, progress, tdt):
    loss, figures = recipe.loss(progress)
    loss.backward()
    assert loss.isfinite()
    assert ("tdt" in figures) == tdt
    assert recipe.model.ctc.ctc_head.weight.grad.abs().sum() > 0
    assert (recipe.model.tdt.joint.head.weight.grad is not None) == tdt


def test_losses_agree_with_the_libraries(recipe):
    features, mask = recipe._features(Tones().draw(1.0), progress=0.0)
    states, frames = recipe.model.encode(features, mask)
    targets, sizes = recipe._targets(TEXTS)
    scores = recipe.model.ctc.ctc_head(states)
    mine = parakeet_nano.lattice.loss(scores, targets, frames, sizes, CTC_BLANK, reduction="none")
    wanted = torch.nn.functional.ctc_loss(
        scores.log_softmax(-1).transpose(0, 1), targets, frames, sizes, CTC_BLANK, reduction="none"
    )
    assert torch.allclose(mine, wanted, rtol=1e-4)


def test_a_model_is_its_own_best_teacher(recipe):
    features, mask = recipe._features(Tones().draw(1.0), progress=0.0)
    states, frames = recipe.model.encode(features, mask)
    logits = recipe.model.ctc.ctc_head(states)
    assert abs(parakeet_nano.divergence(logits, logits, frames).item()) < 1e-6
    assert parakeet_nano.divergence(logits, torch.roll(logits, 1, -1), frames).item() > 0


def test_replicas_share_weights_and_a_step_uses_both(recipe, tmp_path):
    replica = recipe.replica(seed=1)
    before = recipe.model.ctc.ctc_head.weight.detach().clone()
    lines: list[str] = []
    trainer = Trainer(recipe, Plan(steps=2, report_every=1), tmp_path, lines.append, [replica])
    assert len(trainer.train_step()) == 2
    assert not torch.equal(before, recipe.model.ctc.ctc_head.weight)
    for own, other in zip(recipe.model.parameters(), replica.model.parameters(), strict=True):
        assert own.data_ptr() == other.data_ptr()


def test_a_run_begins_from_the_state_of_another(pieces, recipe, tmp_path):
    Trainer(recipe, Plan(steps=2), tmp_path / "first").save()
    other = parakeet_nano.ParakeetNano(Tones(), pieces, TINY, seed=5)
    trainer = Trainer(other, Plan(steps=9, budget_s=60.0), tmp_path / "second", lambda _line: None)
    trainer.begin_from(tmp_path / "first" / "state.pt", 0.5)
    assert torch.equal(other.model.ctc.ctc_head.weight, recipe.model.ctc.ctc_head.weight)
    assert (trainer.step, trainer.elapsed_s, trainer.progress) == (0, 30.0, 0.5)


@pytest.mark.parametrize("language", ["de", "fr", "es"])
def test_sentences_of_other_languages_are_seeded_and_never_of_the_test_split(language):
    texts = foreign_sentences(language, 50, seed=0)
    assert texts == foreign_sentences(language, 50, seed=0) != foreign_sentences(language, 50, seed=1)
    assert len(texts) == 50
    assert not any(map(is_test, texts))
    assert all(cast_foreign(text, language, random.Random(0)).voice.startswith(language) for text in texts)


def test_gradients_of_replicas_are_averaged(recipe, tmp_path):
    alone = copy.deepcopy(recipe.model)
    trainer = Trainer(recipe, Plan(steps=2), tmp_path, replicas=[recipe.replica(seed=1)])
    recipe.rng, trainer.recipes[1].rng = np.random.default_rng(3), np.random.default_rng(3)
    for each in trainer.recipes:
        trainer._backward(each)
    trainer._gather_gradients()
    single = copy.copy(recipe)
    single.model, single.rng = alone, np.random.default_rng(3)
    single.model.train()
    torch.autograd.backward(single.loss(0.0)[0])
    for own, other in zip(recipe.model.parameters(), alone.parameters(), strict=True):
        assert (own.grad is None) == (other.grad is None)
        if own.grad is not None:
            assert torch.allclose(own.grad, other.grad, atol=1e-5)


def test_replicate_keeps_the_shared_encoder():
    hybrid = Hybrid(TINY, seed=0)
    assert replicate(hybrid).tdt.encoder is not hybrid.tdt.encoder
    assert (twin := replicate(hybrid)).tdt.encoder is twin.ctc.encoder


@pytest.mark.parametrize(("write", "kind"), [(export_ctc, ParakeetForCTC), (export_tdt, ParakeetForTDT)])
def test_exports_load_and_decode(pieces, tmp_path, write, kind):
    hybrid = Hybrid(TINY, seed=0)
    write(hybrid, pieces, tmp_path)
    model = AutoModel.from_pretrained(tmp_path, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(model) is kind
    inputs = processor([np.zeros(8_000, dtype=np.float32)], sampling_rate=16_000, return_tensors="pt")
    found = model.generate(**inputs)
    assert len(processor.batch_decode(getattr(found, "sequences", found), skip_special_tokens=True)) == 1
    text = processor([np.zeros(8_000, dtype=np.float32)], text=[TEXTS[0]], sampling_rate=16_000)
    assert text["labels"][0].tolist() == text["decoder_input_ids"][0].tolist()[1:] == text_ids(pieces, TEXTS[0])
    assert ROOT.as_posix() not in "".join(path.read_text() for path in tmp_path.glob("*.json"))


def test_a_grown_model_computes_the_same():
    small, large = Hybrid(TINY, seed=0), Hybrid(Size(**{**asdict(TINY), "layers": 3, "feed_forward": 40}), seed=1)
    for name, value in small.named_parameters():
        if "norm" in name:
            value.data += 0.3 * torch.randn(value.shape)
    grow(small, large)
    features, mask = torch.randn(2, 160, 80), torch.ones(2, 160, dtype=torch.bool)
    for hybrid in (small, large):
        hybrid.eval()
    wanted, found = (hybrid.encode(features, mask)[0] for hybrid in (small, large))
    assert torch.allclose(wanted, found, atol=1e-3), "but for the epsilon of one normalisation more"
    assert torch.equal(small.tdt.joint.head.weight, large.tdt.joint.head.weight)
    loss = large.encode(features, mask)[0].square().sum()
    loss.backward()
    assert large.ctc.encoder.layers[-1].feed_forward1.linear2.weight.grad.abs().max() > 0, "what is new can learn"
