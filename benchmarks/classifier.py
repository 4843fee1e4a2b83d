"""Balanced accuracy of classifiers: of one reference, of several at once, and of a reference that was never seen.

python benchmarks/classifier.py RUN.jsonl... [--exclude NAME...] [--features replay|alone|matched] [--folds N]

Runs are what `earmark study`, `examples/demo.py` and `training.classifiers` write; deployments that all of their
references have are named, the others are ignored. A reference is named by its own classifier, by one that was trained
on all references, and by one that was trained on all others, without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from earmark.challenges import load as load_clips
from earmark.classify import table
from earmark.classify.across import figures_across, same_labels, shared_labels
from earmark.classify.evaluation import cross_validate
from earmark.classify.features import Table
from earmark.classify.figures import Figures
from earmark.classify.speakers import speakers_of
from earmark.runs import Run


def main() -> None:
    """Print one line per reference, and what a deployment of an unseen reference is called."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--features", default="replay", choices=("alone", "replay", "matched"))
    parser.add_argument("--exclude", nargs="*", default=(), help="deployments that are left out")
    parser.add_argument("--folds", type=int, default=5)
    given = parser.parse_args()
    run = same_labels(Run.read(*given.runs)).where(lambda row: row.scenario not in given.exclude)
    shared, known = _table(run, given.features, None)
    pooled = figures_across(shared, known, folds=given.folds)
    unseen = figures_across(shared, known, unseen=True, folds=given.folds)
    names = ", ".join(known)
    print(f"{len(shared.names)} shared features, {len(known)} deployments ({names}), guessing {1 / len(known):.1%}\n")
    print("| reference | clips | its own classifier | one for all | without it |\n|---|---|---|---|---|")
    for name in pooled:
        own, _ = _table(run.where(lambda row, name=name: row.model == name), given.features, known)  # type: ignore[misc]  # bound at once
        alone = cross_validate(own, folds=given.folds)
        cells = [_share(alone), _share(pooled[name]), _share(unseen[name])]
        print(f"| {name} | {len({row.base for row in own.rows})} | {' | '.join(cells)} |", flush=True)
    _print_rates({"one for all": pooled, "without it": unseen}, known)


def _table(run: Run, features: Any, known: tuple[str, ...] | None) -> tuple[Table, tuple[str, ...]]:
    """Return the features of the deployments that are named, and their names."""
    made = table(run, features, speakers=speakers_of(load_clips()))
    names = shared_labels(made) if known is None else known
    return made.where(label in names for label in made.labels), names


def _share(figures: Figures) -> str:
    return f"{figures.balanced_accuracy:.1%}"


def _print_rates(kinds: Mapping[str, Mapping[str, Figures]], known: tuple[str, ...]) -> None:
    """Print how often each deployment is named right, and how often it is called reference."""
    print("\n| classifier | reference | deployment | named right | taken for the reference |\n|---|---|---|---|---|")
    for kind, found in kinds.items():
        for name, figures in found.items():
            for row, rate in zip(figures.closed, figures.closed_rates().items(), strict=True):
                taken = row[known.index("reference")] / max(1, sum(row)) if rate[0] != "reference" else None
                print(f"| {kind} | {name} | {rate[0]} | {rate[1]} | {'-' if taken is None else f'{taken:.1%}'} |")


if __name__ == "__main__":
    main()
