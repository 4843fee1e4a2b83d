"""Recipe of qwen3-asr-nano.

Run `python -m training.whisper_nano corpus`, then `train --out FOLDER [--resume]`, then `export --state FILE --to
FOLDER`; with OMP_NUM_THREADS=1, as two replicas train side by side.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import jiwer
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2Tokenizer, Qwen3ASRForConditionalGeneration, Qwen3ASRProcessor

from training.augment import Augmentation, Waveform, mask_features, warp_mels
from training.commands import CommandLine, run_training, sampler_of
from training.corpus import SAMPLE_RATE_HZ, load_clips
from training.qwen3_model import MELS, SIZES, Chats, Network, Size, export
from training.qwen3_tokens import chat_ids, generation_config, make_processor, train_tokenizer
from training.sampler import Batch, Sampler
from training.text import training_sentences
from training.trainer import Plan, Replicable

BATCH_S = 28.0  # of each of the two replicas
REPLICA_SEED = 1000
LANGUAGE_TOKENS = 3  # language, its name, marker
FULL = Augmentation(abrupt_end_share=0.3)
CLEAN = replace(FULL, noise_share=0.0, filter_share=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """What is trained when, as shares of the run."""

    ctc_only_until: float = 0.16
    clean_until: float = 0.25
    short_until: float = 0.12
    short_clip_s: float = 3.0
    ctc_weight: float = 0.25
    teacher_weight: float = 1.0
    warp_share: float = 0.5
    mask_from: float = 0.4
    masked_mels: int = 10
    masked_frames: int = 16
    context_share: float = 0.1


class Qwen3Nano(Replicable):
    """CTC on the encoder and the first layers at first, then the transcript too; a student also follows its teacher.

    Attributes:
        sampler: where the clips come from.
        tokenizer: the model's tokenizer.
        model: what is trained.
        teacher: a trained network with the same vocabulary, or None.
    """

    def __init__(
        self, sampler: Sampler, tokenizer: Qwen2Tokenizer, size: Size, seed: int, teacher: Network | None = None
    ) -> None:
        self.sampler, self.tokenizer, self.teacher = sampler, tokenizer, teacher
        self.curriculum = Curriculum()
        self.model = Network(tokenizer, size, seed)
        self.processor = make_processor(tokenizer, MELS)
        self.rng = np.random.default_rng(seed)

    def loss(self, progress: float) -> tuple[Tensor, dict[str, float]]:
        """CTC losses alone at first, then cross-entropy plus weighted CTC; for a student also the distance."""
        plan = self.curriculum
        self.sampler.settings = CLEAN if progress < plan.clean_until else FULL
        batch = self.sampler.draw(plan.short_clip_s if progress < plan.short_until else 100.0)
        chats = self._chats(batch, progress)
        audio, lengths, listened = self.model.listen(chats)
        heard = [row[len(first) :][:n] for row, first, n in zip(listened, chats.before, lengths.tolist(), strict=True)]
        ctc = self._ctc_loss(audio, lengths, batch.texts, 0)
        ctc = ctc + self._ctc_loss(pad_sequence(heard, batch_first=True), lengths, batch.texts, 1)
        figures = {"ctc": float(ctc.detach())}
        if progress < plan.ctc_only_until:
            return ctc, figures
        logits = self.model.answer(chats, lengths, listened)
        spoken = sum(size - LANGUAGE_TOKENS for size in chats.answers)  # the language is soon no news
        entropy = functional.cross_entropy(logits, chats.wanted(), reduction="sum") / spoken
        total = entropy + plan.ctc_weight * ctc
        figures["entropy"] = float(entropy.detach())
        if self.teacher is not None:
            distance = divergence(logits, asked(self.teacher, chats)) / spoken
            total = total + plan.teacher_weight * distance
            figures["teacher"] = float(distance.detach())
        return total, figures

    def _chats(self, batch: Batch, progress: float) -> Chats:
        features, frames = self._features(batch, progress)
        rows = [chat_ids(self.tokenizer, text, self._context(text)) for text in batch.texts]
        before, after, answers = (list(column) for column in zip(*rows, strict=True))
        return Chats(features=features, frames=frames, before=before, after=after, answers=answers)

    def _features(self, batch: Batch, progress: float) -> tuple[Tensor, Tensor]:
        """Features and frames of each clip as the processor gives them, then warped and masked."""
        waves = [wave[:length].numpy() for wave, length in zip(batch.waves, batch.lengths.tolist(), strict=True)]
        features, mask = features_of(self.processor, waves)
        if progress > self.curriculum.clean_until and self.rng.random() < self.curriculum.warp_share:
            features = warp_mels(features, self.rng)
        if progress > self.curriculum.mask_from:
            features = mask_features(features, self.rng, self.curriculum.masked_mels, self.curriculum.masked_frames)
        return features, mask.sum(-1)

    def _context(self, text: str) -> str:
        """Now and then a context: words of the training set, half of the time a word of this clip among them."""
        if self.rng.random() >= self.curriculum.context_share:
            return ""
        other = self.sampler.synthetic[self.rng.integers(len(self.sampler.synthetic))].text.split()
        own = [str(self.rng.choice(text.split()))] if text and self.rng.random() < 0.5 else []
        return " ".join([*other[:4], *own])

    def _ctc_loss(self, states: Tensor, lengths: Tensor, texts: list[str], head: int) -> Tensor:
        rows = [self.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
        sizes = torch.tensor([len(row) for row in rows])
        targets = torch.tensor([token + 1 for row in rows for token in row])
        scores = self.model.ctc_scores(states, head)
        costs = functional.ctc_loss(scores, targets, lengths, sizes, reduction="none", zero_infinity=True)
        return (costs / sizes.clamp(min=4)).mean()

    @torch.no_grad()
    def check(self) -> str:
        """Word error rates of a few held-out clips, decoded as a user would."""
        self.model.eval()
        self.model.qwen.generation_config = generation_config(self.tokenizer)
        return ", ".join(f"{name} {100 * self._error_rate(name):.1f}" for name in ("dev-text", "dev-voice"))

    def _error_rate(self, name: str) -> float:
        clips = list(load_clips(self.sampler.folder, name))
        said = []
        for clip in clips:
            inputs = self.processor.apply_transcription_request(
                audio=clip.samples.astype(np.float32) / 32768, language="English"
            )
            ids = self.model.qwen.generate(**inputs, max_new_tokens=80)[0, inputs["input_ids"].shape[1] :]
            said.append(self.tokenizer.decode(ids, skip_special_tokens=True).strip())
        return float(jiwer.wer([clip.text for clip in clips], said))


@torch.no_grad()
def asked(teacher: Network, chats: Chats) -> Tensor:
    """The teacher's logits for the same answers."""
    _, lengths, listened = teacher.listen(chats)
    return teacher.answer(chats, lengths, listened)


def divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the teacher's posteriors, summed over the ids."""
    return functional.kl_div(logits.log_softmax(-1), wanted.log_softmax(-1), reduction="sum", log_target=True)


def features_of(processor: Qwen3ASRProcessor, waves: list[Waveform]) -> tuple[Tensor, Tensor]:
    """Features (clips, mels, frames) and mask (clips, frames); each clip's own loudest cell is its measure."""
    made = [
        processor.feature_extractor(
            [wave], sampling_rate=SAMPLE_RATE_HZ, padding=True, n_window=50, return_attention_mask=True
        )
        for wave in waves
    ]
    longest = max(item["input_features"].shape[-1] for item in made)
    features, mask = (
        torch.cat([functional.pad(item[key], (0, longest - item[key].shape[-1])) for item in made])
        for key in ("input_features", "attention_mask")
    )
    return features, mask


def make_tokenizer() -> Qwen2Tokenizer:
    """The tokenizer, always the same: its merges come from a seeded set of sentences."""
    return train_tokenizer(training_sentences(20_000, seed=0))


def load_teacher(folder: Path | None, tokenizer: Qwen2Tokenizer) -> Network | None:
    """A trained model that is only asked."""
    if folder is None:
        return None
    network = Network(tokenizer, SIZES["reference"], seed=0)
    network.qwen = Qwen3ASRForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return network.eval()


def train(arguments: argparse.Namespace) -> None:
    """Train, or go on with --resume."""
    tokenizer = make_tokenizer()
    sampler = sampler_of(arguments, batch_s=BATCH_S)
    teacher = load_teacher(arguments.teacher, tokenizer)
    recipe = Qwen3Nano(sampler, tokenizer, SIZES[arguments.size], arguments.seed, teacher)
    plan = Plan(steps=arguments.steps, budget_s=arguments.budget_s, learning_rate=1.5e-3, check_every_s=600.0)
    run_training(recipe, plan, arguments, [recipe.replica(REPLICA_SEED + arguments.seed)])


def export_state(arguments: argparse.Namespace) -> None:
    """Write a training state or a snapshot as a checkpoint folder."""
    state = torch.load(arguments.state, weights_only=True)
    tokenizer = make_tokenizer()
    network = Network(tokenizer, SIZES[arguments.size], seed=0)
    network.load_state_dict(state.get("model", state))
    export(network, tokenizer, arguments.to)
    size = sum(parameter.numel() for parameter in network.qwen.parameters())
    print(json.dumps({"folder": str(arguments.to), "parameters": size}))


def main() -> None:
    """Command line."""
    line = CommandLine(__doc__, Path("build/qwen3-asr-nano"), SIZES, train, export_state)
    line.exporting.add_argument("--to", type=Path, required=True)
    line.run()


if __name__ == "__main__":
    main()
