"""One small trainer for every family: learning-rate plan, snapshots, resume, progress bar, seed."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, TypeVar

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from training.sampler import Sampler

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The course of a training run; `progress` runs from 0 to 1.

    Attributes:
        steps: optimiser steps of a complete run.
        budget_s: end earlier when this many seconds of training are used up (None: never).
        learning_rate: the plateau's learning rate.
        warmup_steps: steps of linear increase.
        decay_from: progress at which the cosine decay to `final_share` of the plateau begins.
        snapshots: progress values at which the weights are kept in a file of their own.
    """

    steps: int
    budget_s: float | None = None
    learning_rate: float = 1.2e-3
    warmup_steps: int = 300
    decay_from: float = 0.6
    final_share: float = 0.01
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    snapshots: tuple[float, ...] = (0.7, 0.75, 0.8, 0.85)
    save_every_s: float = 90.0
    report_every: int = 100
    check_every_s: float = 1200.0

    def rate_at(self, step: int, progress: float) -> float:
        """Learning rate: linear warm-up, plateau, cosine to `final_share`."""
        warm = min(1.0, (step + 1) / self.warmup_steps)
        if progress < self.decay_from:
            return self.learning_rate * warm
        share = (progress - self.decay_from) / (1 - self.decay_from)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
        return self.learning_rate * warm * (self.final_share + (1 - self.final_share) * cosine)


class Recipe(Protocol):
    """What a family adds to the trainer."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""

    def loss(self, progress: float) -> tuple[Tensor, dict[str, float]]:
        """Loss of one freshly drawn batch, and figures to report."""

    def check(self) -> str:
        """A short line on held-out data."""


def replicate(model: Model) -> Model:
    """Copy a model; the copy has the same weights in memory and gradients of its own."""
    replica = copy.deepcopy(model)
    for own, shared in zip(replica.parameters(), model.parameters(), strict=True):
        own.data = shared.data
    return replica


class Replicable:
    """A recipe whose weights can be trained by several threads, each with batches of its own.

    Attributes:
        sampler: where the clips come from.
        model: what is trained.
        rng: what else is random.
    """

    sampler: Sampler
    model: nn.Module
    rng: np.random.Generator

    def replica(self, seed: int) -> Self:
        """Copy of the recipe that trains the same weights on other batches."""
        other = copy.copy(self)
        other.sampler, other.model = self.sampler.other_stream(seed), replicate(self.model)
        other.rng = np.random.default_rng(seed)
        return other


class Trainer:
    """Runs a recipe along a plan; everything needed to go on is saved in `out`.

    Each of `replicas` is the recipe with a replica of its model and draws batches of its own, in a thread of its
    own: on a busy machine that is faster than several threads within each operation.
    """

    def __init__(
        self,
        recipe: Recipe,
        plan: Plan,
        out: Path,
        log: Callable[[str], None] = print,
        replicas: Sequence[Recipe] = (),
    ) -> None:
        self.recipe, self.plan, self.out, self.log = recipe, plan, out, log
        self.recipes = [recipe, *replicas]
        self.pool = ThreadPoolExecutor(len(self.recipes))
        self.step, self.elapsed_s, self.progress = 0, 0.0, 0.0
        groups = recipe.model.parameters()
        self.optimizer = torch.optim.AdamW(
            [parameter for parameter in groups if parameter.requires_grad],
            lr=plan.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=plan.weight_decay,
        )
        out.mkdir(parents=True, exist_ok=True)

    def save(self) -> None:
        """Save weights, optimiser and counters; the file is replaced in one go."""
        state = {
            "model": self.recipe.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "counters": (self.step, self.elapsed_s, self.progress),
        }
        torch.save(state, self.out / "state.tmp")
        (self.out / "state.tmp").replace(self.out / "state.pt")

    def resume(self) -> None:
        """Go on from the last saved state, if there is one."""
        if not (self.out / "state.pt").exists():
            return
        state = torch.load(self.out / "state.pt", weights_only=True)
        self.recipe.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.elapsed_s, self.progress = state["counters"]
        self.log(f"resumed at step {self.step}, progress {self.progress:.3f}")

    def begin_from(self, state: Path, progress: float) -> None:
        """Begin with the weights of another run, its optimiser where it fits, behind the phases before `progress`."""
        kept = torch.load(state, weights_only=True)
        self.recipe.model.load_state_dict(kept["model"])
        if "optimizer" in kept:
            self.optimizer.load_state_dict(kept["optimizer"])
        self.progress, self.elapsed_s = progress, progress * (self.plan.budget_s or 0.0)
        self.log(f"begun from {state}, step {kept['counters'][0]} of its run, at progress {progress:.3f}")

    def _backward(self, recipe: Recipe) -> dict[str, float]:
        recipe.model.train()
        recipe.model.zero_grad(set_to_none=True)
        loss, figures = recipe.loss(self.progress)
        torch.autograd.backward(loss / len(self.recipes))
        return figures | {"loss": float(loss.detach())}

    def _gather_gradients(self) -> None:
        for replica in self.recipes[1:]:
            for parameter, other in zip(self.recipe.model.parameters(), replica.model.parameters(), strict=True):
                if parameter.grad is not None and other.grad is not None:
                    parameter.grad += other.grad

    def train_step(self) -> list[dict[str, float]]:
        """Draw a batch for each replica, take one optimiser step, return the figures of each batch."""
        rate = self.plan.rate_at(self.step, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        found = list(self.pool.map(self._backward, self.recipes))
        self._gather_gradients()
        norm = nn.utils.clip_grad_norm_(self.recipe.model.parameters(), self.plan.clip_norm)
        if torch.isfinite(norm):
            self.optimizer.step()
        self.step += 1
        return [figures | {"rate": rate, "norm": float(norm)} for figures in found]

    def _advance(self, seconds: float) -> None:
        before = self.progress
        self.elapsed_s += seconds
        used = self.elapsed_s / self.plan.budget_s if self.plan.budget_s else 0.0
        self.progress = min(1.0, max(self.step / self.plan.steps, used))
        for mark in self.plan.snapshots:
            if before < mark <= self.progress:
                torch.save(self.recipe.model.state_dict(), self.out / f"snapshot-{round(100 * mark)}.pt")
                self.log(f"snapshot at progress {mark:.2f}, step {self.step}")

    def _report(self, losses: list[dict[str, float]]) -> None:
        names = sorted({name for figures in losses for name in figures})
        means = {
            name: sum(values) / len(values)
            for name in names
            if (values := [figures[name] for figures in losses if name in figures])
        }
        shown = " ".join(f"{name} {value:.4g}" for name, value in means.items())
        self.log(f"step {self.step} progress {self.progress:.3f} {self.elapsed_s:.0f} s: {shown}")

    def run(self) -> None:
        """Train to the end of the plan."""
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        saved_s = checked_s = self.elapsed_s
        recent: list[dict[str, float]] = []
        with Progress(*columns) as bar:
            task = bar.add_task("training", total=1000, completed=int(1000 * self.progress))
            while self.progress < 1.0:
                start = time.monotonic()
                recent += self.train_step()
                self._advance(time.monotonic() - start)
                bar.update(task, completed=int(1000 * self.progress))
                if self.step % self.plan.report_every == 0:
                    self._report(recent)
                    recent = []
                if self.elapsed_s - saved_s > self.plan.save_every_s:
                    self.save()
                    saved_s = self.elapsed_s
                if self.elapsed_s - checked_s > self.plan.check_every_s:
                    self.log(f"check: {self.recipe.check()}")
                    checked_s = self.elapsed_s
        self.save()
        self.log(f"done: {self.step} steps, {self.elapsed_s:.0f} s, check: {self.recipe.check()}")
