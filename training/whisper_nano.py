"""Recipe of whisper-nano.

Run `python -m training.whisper_nano corpus`, then `train --out FOLDER [--resume]`, then `export --to FOLDER`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import WhisperForConditionalGeneration, WhisperTokenizer

from training.augment import mask_features, warp_mels
from training.commands import CommandLine, run_training, sampler_of
from training.corpus import (
    SAMPLE_RATE_HZ,
    build_foreign_shard,
    build_test_sets,
    build_training_shard,
    load_clips,
)
from training.real_speech import build_real_shard
from training.sampler import Batch, Sampler
from training.text import training_sentences
from training.trainer import Plan
from training.whisper_model import HOP_SAMPLES, SIZES, LogMel, build_model, encode_window, export
from training.whisper_tokens import MERGES, WINDOW_S, text_ids, train_tokenizer

IGNORED = -100
CTC_CLASSES = 256 + MERGES + 1  # blank is 0, then the text tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """What is trained when, as shares of the run."""

    ctc_only_until: float = 0.12
    short_until: float = 0.08
    short_clip_s: float = 3.0
    ctc_weight: float = 0.35
    teacher_weight: float = 1.0
    prompt_share: float = 0.05
    mask_from: float = 0.4
    warp_share: float = 0.5
    full_window_late_from: float = 0.72
    full_window_early_share: float = 0.08
    full_window_late_share: float = 0.2
    full_window_only_from: float = 0.97


class Network(nn.Module):
    """The model and, for training only, a CTC head on its encoder."""

    def __init__(self, model: WhisperForConditionalGeneration) -> None:
        super().__init__()
        self.whisper = model
        self.ctc_head = nn.Linear(model.config.d_model, CTC_CLASSES)


class WhisperNano:
    """Joint attention and CTC training on windows of varying length; a student also follows its teacher.

    Attributes:
        sampler: where the clips come from.
        tokenizer: the model's tokenizer.
        model: what is trained.
        teacher: a trained model with the same vocabulary, or None.
    """

    def __init__(
        self,
        sampler: Sampler,
        tokenizer: WhisperTokenizer,
        network: Network,
        teacher: WhisperForConditionalGeneration | None = None,
    ) -> None:
        self.sampler, self.tokenizer, self.model, self.teacher = sampler, tokenizer, network, teacher
        self.device = network.ctc_head.weight.device
        self.curriculum = Curriculum()
        self.log_mel = LogMel().to(self.device)
        self.rng = np.random.default_rng(sampler.seed)
        ids = tokenizer.convert_tokens_to_ids
        self.start = ids(["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"])
        self.end, self.silence = ids("<|endoftext|>"), ids("<|nospeech|>")
        self.previous = ids("<|startofprev|>")

    def loss(self, progress: float) -> tuple[Tensor, dict[str, float]]:
        """CTC loss alone at first, then cross-entropy plus weighted CTC."""
        plan = self.curriculum
        batch = self.sampler.draw(plan.short_clip_s if progress < plan.short_until else 100.0, self._window_s(progress))
        features = self.log_mel(batch.waves.to(self.device))
        if self.rng.random() < plan.warp_share:
            features = warp_mels(features, self.rng)
        if progress > plan.mask_from:
            features = mask_features(features, self.rng, most_mels=10, most_frames=6)
        states = encode_window(self.model.whisper.model.encoder, features)
        texts = [text_ids(self.tokenizer, text) for text in batch.texts]
        ctc = self._ctc_loss(states, texts, batch)
        if progress < plan.ctc_only_until:
            return ctc, {"ctc": float(ctc.detach())}
        inputs, targets = self._forced(texts)
        logits = decode(self.model.whisper, states, inputs)
        entropy = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)
        loss = (1 - plan.ctc_weight) * entropy + plan.ctc_weight * ctc
        figures = {"ctc": float(ctc.detach()), "entropy": float(entropy.detach())}
        if self.teacher is not None:
            with torch.no_grad():
                wanted = decode(self.teacher, encode_window(self.teacher.model.encoder, features), inputs)
            distance = divergence(logits, wanted, targets != IGNORED)
            loss = loss + plan.teacher_weight * distance
            figures["teacher"] = float(distance.detach())
        return loss, figures

    def _window_s(self, progress: float) -> float | None:
        plan = self.curriculum
        share = plan.full_window_early_share
        if progress > plan.full_window_late_from:
            share = plan.full_window_late_share
        if progress > plan.full_window_only_from:
            share = 1.0
        return WINDOW_S if progress > plan.short_until and self.rng.random() < share else None

    def _ctc_loss(self, states: Tensor, texts: list[list[int]], batch: Batch) -> Tensor:
        scores = self.model.ctc_head(states).log_softmax(-1).transpose(0, 1)
        frames = (batch.lengths // (2 * HOP_SAMPLES)).clamp(min=1, max=states.shape[1])
        targets = torch.tensor([token + 1 for text in texts for token in text], device=states.device)
        sizes = torch.tensor([len(text) for text in texts])
        losses = functional.ctc_loss(scores, targets, frames, sizes, reduction="none", zero_infinity=True)
        return (losses / sizes.clamp(min=4).to(losses)).mean()

    def _forced(self, texts: list[list[int]]) -> tuple[Tensor, Tensor]:
        """Input ids of the decoder (clips, positions) and the ids that it shall answer with."""
        rows, labels = [], []
        for text in texts:
            prompt = self._prompt()
            sequence = [*prompt, *self.start, *text, self.end]
            first = self.silence if not text else self.start[1]
            rows.append(sequence[:-1])
            labels.append([IGNORED] * len(prompt) + [first, *self.start[2:], *text, self.end])
        size = max(map(len, rows))
        inputs = torch.tensor([row + [self.end] * (size - len(row)) for row in rows], device=self.device)
        targets = torch.tensor([row + [IGNORED] * (size - len(row)) for row in labels], device=self.device)
        return inputs, targets

    def _prompt(self) -> list[int]:
        if self.rng.random() >= self.curriculum.prompt_share:
            return []
        clip = self.sampler.synthetic[self.rng.integers(len(self.sampler.synthetic))]
        return [self.previous, *text_ids(self.tokenizer, clip.text)]

    @torch.no_grad()
    def check(self) -> str:
        """Word error rates of a few held-out clips, decoded as a user would."""
        self.model.eval()
        return ", ".join(f"{name} {100 * self._error_rate(name):.1f}" for name in ("dev-text", "dev-voice"))

    def _error_rate(self, name: str) -> float:
        clips = list(load_clips(self.sampler.folder, name))
        waves = torch.zeros(len(clips), WINDOW_S * SAMPLE_RATE_HZ)
        for row, clip in zip(waves, clips, strict=True):
            row[: len(clip.samples)] = torch.from_numpy(clip.samples.astype(np.float32) / 32768)
        ids = self.model.whisper.generate(self.log_mel(waves.to(self.device)), language="en", task="transcribe")
        said = [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        return float(jiwer.wer([clip.text for clip in clips], said))


def decode(model: WhisperForConditionalGeneration, states: Tensor, inputs: Tensor) -> Tensor:
    """Logits (clips, positions, words) of the decoder forced to `inputs`."""
    decoder = model.model.decoder
    hidden = decoder(input_ids=inputs, encoder_hidden_states=states, use_cache=False).last_hidden_state
    logits: Tensor = model.proj_out(hidden)
    return logits


def divergence(logits: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the teacher's posteriors, mean over the counted positions."""
    distance = functional.kl_div(logits.log_softmax(-1), wanted.log_softmax(-1), reduction="none", log_target=True)
    return distance.sum(-1)[counted].mean()


def make_tokenizer() -> WhisperTokenizer:
    """The tokenizer, always the same: its merges come from a seeded set of sentences."""
    return train_tokenizer(training_sentences(20_000, seed=0))


def build_corpus(arguments: argparse.Namespace) -> None:
    """Synthesise the corpus (existing shards are kept)."""
    build_test_sets(arguments.corpus)
    if arguments.speech.exists():
        build_real_shard(arguments.corpus, arguments.speech)
    for index in range(arguments.shards):
        build_training_shard(arguments.corpus, index)
    for language in arguments.languages:
        build_foreign_shard(arguments.corpus, language, 0)


def train(arguments: argparse.Namespace) -> None:
    """Train, or go on with --resume."""
    torch.set_num_threads(arguments.threads)
    sampler = sampler_of(arguments)
    tokenizer, teacher = make_tokenizer(), None
    if arguments.teacher:
        teacher = WhisperForConditionalGeneration.from_pretrained(arguments.teacher, dtype=torch.float32)
        teacher = teacher.eval().to(arguments.device)
    network = Network(build_model(tokenizer, arguments.seed, SIZES[arguments.size])).to(arguments.device)
    recipe = WhisperNano(sampler, tokenizer, network, teacher)
    plan = Plan(steps=arguments.steps, budget_s=arguments.budget_s)
    run_training(recipe, plan, arguments)


def export_state(arguments: argparse.Namespace) -> None:
    """Write a training state or a snapshot as a checkpoint folder."""
    state = torch.load(arguments.state, weights_only=True)
    tokenizer = make_tokenizer()
    network = Network(build_model(tokenizer, 0, SIZES[arguments.size]))
    network.load_state_dict(state.get("model", state))
    export(network.whisper, tokenizer, arguments.to)
    size = sum(parameter.numel() for parameter in network.whisper.parameters())
    print(json.dumps({"folder": str(arguments.to), "parameters": size}))


def main() -> None:
    """Command line."""
    line = CommandLine(__doc__, Path("build/whisper-nano"), SIZES, train, export_state)
    corpus = line.commands.add_parser("corpus")
    corpus.add_argument("--shards", type=int, default=16)
    corpus.add_argument("--languages", nargs="*", choices=("de", "fr", "es"), default=(), help="a shard of each")
    corpus.set_defaults(run=build_corpus)
    line.training.add_argument("--device", default="cpu")
    line.training.add_argument("--threads", type=int, default=2)
    line.exporting.add_argument("--to", type=Path, required=True)
    line.run()


if __name__ == "__main__":
    main()
