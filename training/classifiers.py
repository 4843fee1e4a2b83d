"""Builds the classifiers that ship with earmark, data/classifiers/NAME, from the challenge set.

Run `OMP_NUM_THREADS=1 python -m training.classifiers [NAME...] [--limit N] [--features KIND...] [--runs FOLDER]`
whenever an embedded model changed. Runs are kept in build/classifiers and go on where one was stopped; a run of other
weights is refused, so delete it first. Every model takes its student, sibling and earlier checkpoint where they lie
beside it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import earmark
from earmark.challenges import Challenge
from earmark.challenges import load as load_clips
from earmark.classify import train
from earmark.classify.card import figures_markdown
from earmark.classify.speakers import speakers_of
from earmark.cli.show import progress
from earmark.protocols import Model
from earmark.scenarios import scenario
from earmark.scenarios.core import Scenario
from earmark.scenarios.honest import honest
from earmark.scenarios.stand_in import other_checkpoint
from earmark.study import Sample, study

EMBEDDED, OUT, RUNS = Path("data/embedded"), Path("data/classifiers"), Path("build/classifiers")
RELATIVES = ("student", "sibling")
MODELS = ("whisper-nano", "qwen3-asr-nano", "parakeet-ctc-nano", "parakeet-tdt-nano")
LONGEST_S = 60.0
"""Longer clips cost as much as all others together."""


def known(name: str) -> list[Scenario]:
    """Return the deployments that are trained on, beside the reference."""
    return [scenario("quantise", bits=8), scenario("quantise", bits=4, group=64), *relatives(name, RELATIVES)]


def relatives(name: str, kinds: Sequence[str]) -> list[Scenario]:
    """Return the checkpoints of a model's kin that are there."""
    found = [kind for kind in kinds if (EMBEDDED / f"{name}-{kind}").is_dir()]
    names = [f"{name}-{kind}" for kind in found]  # as `earmark study` calls them
    return [other_checkpoint(model=earmark.load(f"embedded:{own}"), name=own) for own in names]


def strangers(name: str) -> list[Scenario]:
    """Return the deployments that are tested and never trained on."""
    return [
        scenario("float8"),
        scenario("quantise", bits=4, group=128),
        scenario("quantise", bits=8, symmetric=False),
        scenario("quantise", bits=8, sharing="tensor"),
        *relatives(name, ("early",)),
    ]


def variants() -> list[Scenario]:
    """Return the honest variations."""
    return [
        honest(batch_size=1),
        honest(batch_size=8, attention="eager"),
        honest(batch_size=3, threads=1),
    ]


def samples(limit: int | None, *, english: bool) -> list[Sample]:
    """Return the clips that are measured; `english` asks for English everywhere, for models that know no other."""
    clips = [clip for clip in load_clips() if clip.row.duration <= LONGEST_S]
    chosen = clips if limit is None else [clips[i * len(clips) // limit] for i in range(min(limit, len(clips)))]
    return [_sample(clip, english=english) for clip in chosen]


def _sample(clip: Challenge, *, english: bool) -> Sample:
    language = "en" if english else clip.language
    return Sample(name=clip.id, audio=clip.audio(), language=language, expected=clip.text)


def build(name: str, *, limit: int | None, features: Sequence[str], runs: Path) -> None:
    """Measure one model's deployments and train its classifiers."""
    reference: Model = earmark.load(f"embedded:{name}")
    taught, others = known(name), strangers(name)
    clips = samples(limit, english=reference.info.family != "autoregressive")
    runs.mkdir(parents=True, exist_ok=True)
    providers = [*variants(), *taught, *others]
    recipes = taught if "matched" in features else []
    with progress(f"measuring {name}", len(providers) * len(clips)) as step:
        run = study(reference, providers, clips, runs / f"{name}.jsonl", batch_size=16, recipes=recipes, advance=step)
    command = " ".join(["python -m training.classifiers", *sys.argv[1:]])
    exclude = [own.name for own in others]
    for kind in features:
        made = train(run, features=kind, exclude=exclude, speakers=speakers_of(load_clips()), source=command)  # type: ignore[arg-type]  # checked there
        folder = OUT / (name if kind == "replay" else f"{name}-{kind}")
        made.save(folder)
        print(f"\n## {folder}\n\n{figures_markdown(made.header.figures)}", flush=True)


def main() -> None:
    """Command line: names of embedded models, by default all that have a classifier."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=MODELS)
    parser.add_argument("--limit", type=int, help="most clips, spread evenly")
    parser.add_argument("--features", nargs="+", default=("replay", "matched"), choices=("alone", "replay", "matched"))
    parser.add_argument("--runs", type=Path, default=RUNS)
    arguments = parser.parse_args()
    for name in arguments.names:
        build(name, limit=arguments.limit, features=arguments.features, runs=arguments.runs)


if __name__ == "__main__":
    main()
