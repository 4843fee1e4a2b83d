"""Recipe of parakeet-ctc-nano and parakeet-tdt-nano: one run trains an encoder with a CTC head and a TDT head.

Run `python -m training.whisper_nano corpus`, then `train --out FOLDER [--resume]`, then `export --state FILE`; with
OMP_NUM_THREADS=1, as two replicas train side by side.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import jiwer
import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import ParakeetFeatureExtractor, ParakeetForCTC

from earmark import lattice
from training.augment import Augmentation, mask_features, warp_mels
from training.commands import CommandLine, run_training, sampler_of
from training.corpus import SAMPLE_RATE_HZ, load_clips
from training.parakeet_model import (
    CTC_BLANK,
    DURATIONS,
    SIZES,
    TDT_BLANK,
    Hybrid,
    Size,
    export_ctc,
    export_tdt,
)
from training.parakeet_tokens import ctc_tokenizer, text_ids, train_pieces
from training.sampler import Batch, Sampler
from training.text import training_sentences
from training.trainer import Plan, Replicable

BATCH_S = 28.0  # of each of the two replicas
REPLICA_SEED = 1000
FULL = Augmentation(abrupt_end_share=0.4)  # a window without silence changes the normalised features of a short clip
CLEAN = replace(FULL, noise_share=0.0, filter_share=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Curriculum:
    """What is trained when, as shares of the run."""

    ctc_only_until: float = 0.45
    clean_until: float = 0.35
    short_until: float = 0.35
    short_clip_s: float = 3.0
    ctc_weight: float = 1.0
    teacher_weight: float = 2.0
    sigma: float = 0.05
    warp_share: float = 0.5
    mask_from: float = 0.4
    masked_mels: int = 12
    masked_frames: int = 12


class ParakeetNano(Replicable):
    """CTC first, then CTC and TDT; a student also follows its teacher's CTC posteriors.

    Attributes:
        sampler: where the clips come from.
        pieces: the tokenizer's pieces.
        model: what is trained.
        teacher: a trained model with the same vocabulary, or None.
    """

    def __init__(
        self, sampler: Sampler, pieces: Tokenizer, size: Size, seed: int, teacher: ParakeetForCTC | None = None
    ) -> None:
        self.sampler, self.pieces, self.teacher = sampler, pieces, teacher
        self.model = Hybrid(size, seed)
        self.curriculum = Curriculum()
        self.extractor = ParakeetFeatureExtractor()
        self.rng = np.random.default_rng(seed)

    def loss(self, progress: float) -> tuple[Tensor, dict[str, float]]:
        """CTC loss alone at first, then TDT plus weighted CTC; for a student also the distance to its teacher."""
        plan = self.curriculum
        self.sampler.settings = CLEAN if progress < plan.clean_until else FULL
        batch = self.sampler.draw(plan.short_clip_s if progress < plan.short_until else 100.0)
        features, mask = self._features(batch, progress)
        states, frames = self.model.encode(features, mask)
        targets, sizes = self._targets(batch.texts)
        logits = self.model.ctc.ctc_head(states)
        ctc = per_token(
            lattice.loss(logits, targets, frames, sizes, CTC_BLANK, reduction="none", on_error="keep", threads=1), sizes
        )
        total, figures = ctc, {"ctc": float(ctc.detach())}
        if progress >= plan.ctc_only_until:
            tdt = self._tdt_loss(states, targets, frames, sizes)
            total = tdt + plan.ctc_weight * ctc
            figures["tdt"] = float(tdt.detach())
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(features, attention_mask=mask).logits
            distance = divergence(logits, wanted, frames)
            total = total + plan.teacher_weight * distance
            figures["teacher"] = float(distance.detach())
        return total, figures

    def _features(self, batch: Batch, progress: float) -> tuple[Tensor, Tensor]:
        """Features and mask as the processor gives them, then warped and masked."""
        waves = [wave[:length].numpy() for wave, length in zip(batch.waves, batch.lengths.tolist(), strict=True)]
        inputs = self.extractor(waves, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        features, mask = inputs["input_features"].transpose(1, 2), inputs["attention_mask"]
        if progress > self.curriculum.clean_until and self.rng.random() < self.curriculum.warp_share:
            features = warp_mels(features, self.rng)
        if progress > self.curriculum.mask_from:
            features = mask_features(features, self.rng, self.curriculum.masked_mels, self.curriculum.masked_frames)
        return features.transpose(1, 2), mask

    def _targets(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        rows = [torch.tensor(text_ids(self.pieces, text), dtype=torch.long) for text in texts]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])

    def _tdt_loss(self, states: Tensor, targets: Tensor, frames: Tensor, sizes: Tensor) -> Tensor:
        costs = lattice.loss(
            self.model.joint(states, targets),
            targets,
            frames,
            sizes,
            TDT_BLANK,
            durations=DURATIONS,
            sigma=self.curriculum.sigma,
            reduction="none",
            on_error="keep",
            threads=1,
        )
        return per_token(costs, sizes)

    @torch.no_grad()
    def check(self) -> str:
        """Word error rates of a few held-out clips, decoded as a user would, CTC and TDT."""
        self.model.eval()
        names = ("dev-text", "dev-voice")
        return ", ".join(f"{name} {ctc:.1f} {tdt:.1f}" for name in names for ctc, tdt in [self._error_rates(name)])

    def _error_rates(self, name: str) -> tuple[float, float]:
        clips = list(load_clips(self.sampler.folder, name))
        waves = [clip.samples.astype(np.float32) / 32768 for clip in clips]
        inputs = self.extractor(waves, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        tokenizer = ctc_tokenizer(self.pieces)
        heard = tokenizer.batch_decode(self.model.ctc.generate(**inputs), skip_special_tokens=True)
        ids = self.model.tdt.generate(**inputs).sequences.clamp(max=CTC_BLANK)
        spoken = tokenizer.batch_decode(ids, skip_special_tokens=True, group_tokens=False)
        wanted = [clip.text for clip in clips]
        return 100 * float(jiwer.wer(wanted, heard)), 100 * float(jiwer.wer(wanted, spoken))


def per_token(costs: Tensor, sizes: Tensor) -> Tensor:
    """Mean cost per token; short texts weigh less, clips too short for their text do not count."""
    return (torch.where(costs.isfinite(), costs, 0) / sizes.clamp(min=4)).mean()


def divergence(logits: Tensor, wanted: Tensor, frames: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the teacher's posteriors, mean over the frames."""
    distance = functional.kl_div(logits.log_softmax(-1), wanted.log_softmax(-1), reduction="none", log_target=True)
    inside = torch.arange(logits.shape[1]) < frames[:, None]
    return distance.sum(-1)[inside].mean()


def make_pieces() -> Tokenizer:
    """The tokenizer's pieces, always the same: they come from a seeded set of sentences."""
    return train_pieces(training_sentences(20_000, seed=0))


def load_teacher(folder: Path | None) -> ParakeetForCTC | None:
    """A trained model that is only asked."""
    return ParakeetForCTC.from_pretrained(folder, dtype=torch.float32).eval() if folder else None


def train(arguments: argparse.Namespace) -> None:
    """Train, or go on with --resume."""
    sampler = sampler_of(arguments, batch_s=BATCH_S)
    teacher = load_teacher(arguments.teacher)
    recipe = ParakeetNano(sampler, make_pieces(), SIZES[arguments.size], arguments.seed, teacher)
    plan = Plan(
        steps=arguments.steps, budget_s=arguments.budget_s, learning_rate=1.5e-3, decay_from=0.62, check_every_s=420.0
    )
    run_training(recipe, plan, arguments, [recipe.replica(REPLICA_SEED + arguments.seed)])


def export(arguments: argparse.Namespace) -> None:
    """Write a training state or a snapshot as checkpoint folders, one for each head that is asked for."""
    state = torch.load(arguments.state, weights_only=True)
    hybrid, pieces = Hybrid(SIZES[arguments.size], seed=0), make_pieces()
    hybrid.load_state_dict(state.get("model", state))
    for folder, write in ((arguments.ctc, export_ctc), (arguments.tdt, export_tdt)):
        if folder:
            write(hybrid, pieces, folder)
    sizes = {name: sum(value.numel() for value in half.parameters()) for name, half in hybrid.named_children()}
    print(json.dumps({"parameters": sizes}))


def main() -> None:
    """Command line."""
    line = CommandLine(__doc__, Path("build/parakeet-nano"), SIZES, train, export)
    line.exporting.add_argument("--ctc", type=Path, help="folder for the CTC model")
    line.exporting.add_argument("--tdt", type=Path, help="folder for the TDT model")
    line.run()


if __name__ == "__main__":
    main()
