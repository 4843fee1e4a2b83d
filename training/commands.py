"""What the command lines of all recipes share: options, and one way to run a recipe."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from training.sampler import Sampler
from training.trainer import Plan, Trainer

Command = Callable[[argparse.Namespace], None]


class CommandLine:
    """`[--corpus] [--speech] [--size] train | export | ...`; a recipe adds options of its own.

    Attributes:
        parser: the parser.
        commands: where further commands are added.
        training: the parser of `train`.
        exporting: the parser of `export`.
    """

    def __init__(self, doc: str | None, out: Path, sizes: Iterable[str], train: Command, export: Command) -> None:
        self.parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
        self.parser.add_argument("--corpus", type=Path, default=Path("build/corpus"))
        self.parser.add_argument("--speech", type=Path, default=Path("../shared/speech"))
        self.parser.add_argument("--size", choices=list(sizes), default="reference")
        self.commands = self.parser.add_subparsers(required=True)
        self.training = self.commands.add_parser("train")
        self.training.add_argument("--out", type=Path, default=out)
        self.training.add_argument("--steps", type=int, default=30_000)
        self.training.add_argument("--budget-s", type=float)
        self.training.add_argument("--seed", type=int, default=1)
        self.training.add_argument(
            "--real-share", type=float, default=0.2, help="share of clips that are real recordings"
        )
        self.training.add_argument(
            "--real-speed", type=float, default=0.1, help="share by which these are played faster or slower"
        )
        self.training.add_argument("--teacher", type=Path, help="a checkpoint folder of the reference size")
        self.training.add_argument("--resume", action="store_true")
        self.training.add_argument("--begin-from", type=Path, help="state of another run, to train on")
        self.training.add_argument("--begin-at", type=float, default=0.5, help="progress at which such a run begins")
        self.training.set_defaults(run=train)
        self.exporting = self.commands.add_parser("export")
        self.exporting.add_argument("--state", type=Path, default=out / "state.pt")
        self.exporting.set_defaults(run=export)

    def run(self) -> None:
        """Parse the arguments and do what they say."""
        arguments = self.parser.parse_args()
        arguments.run(arguments)


def sampler_of(arguments: argparse.Namespace, **options: Any) -> Sampler:
    """The clips that a command line asks for."""
    return Sampler(
        folder=arguments.corpus,
        speech=arguments.speech,
        seed=arguments.seed,
        real_share=arguments.real_share,
        real_speed=arguments.real_speed,
        **options,
    )


def run_training(recipe: Any, plan: Plan, arguments: argparse.Namespace, replicas: Sequence[Any] = ()) -> None:
    """Train a recipe and its replicas, or go on with --resume; streams of clips depend on seed and step alone."""
    trainer = Trainer(recipe, plan, arguments.out, lambda line: print(line, flush=True), replicas)
    if arguments.begin_from:
        trainer.begin_from(arguments.begin_from, arguments.begin_at)
    if arguments.resume:
        trainer.resume()
    for each in (recipe, *replicas):
        each.sampler.restart(trainer.step)
    trainer.run()
