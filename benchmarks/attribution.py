"""Attribution: how often the matched filter names a known cheat, and names nothing where there is nothing to name.

    python benchmarks/attribution.py --json FILE [--models MODEL...] [--dtypes float32 ...] [--clips 60 --seed 0]

Every clip of the challenge set that is drawn is recorded by each provider and matched with each recipe of
`earmark.attribution.library()`. Right is the recipe's own name for a cheat of the library, and `none of the known` for
honest providers and for quantisers outside the library. Every clip is a flushed line of a run file in FILE.runs; a
second call goes on where one stopped.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from detection import DTYPES, references, samples, usable

import earmark
from earmark.attribution import NONE, applies, library, named_in
from earmark.cli import show
from earmark.decision.operating import exact_interval
from earmark.protocols import Model
from earmark.records import lines
from earmark.records.codec import write_atomically
from earmark.runs import Run
from earmark.scenarios.core import Scenario
from earmark.scenarios.gptq import gptq
from earmark.scenarios.honest import honest_scenarios
from earmark.scenarios.weights import quantise
from earmark.study import study

KINDS = ("known", "honest", "outside")


def providers(model: Model) -> dict[str, list[Scenario]]:
    """Return the providers of each kind; known cheats that this model cannot be made into are left out."""
    outside = [
        quantise(bits=8, symmetric=False),
        quantise(bits=8, rotation="hadamard"),
        quantise(bits=8, rounding="stochastic"),
        gptq(bits=8, group=None),
        gptq(bits=4),
    ]
    known = [recipe for recipe in library() if applies(recipe, model)]
    return dict(zip(KINDS, (known, honest_scenarios(), outside), strict=True))


def rows(run: Run, kinds: dict[str, list[Scenario]]) -> Iterator[dict[str, Any]]:
    """Yield one row per provider: on how many clips the name was right, and what it was otherwise."""
    for kind, found in kinds.items():
        for scenario in found:
            names = [named_in(row.shape) for row in run if row.scenario == scenario.name]
            right = scenario.name if kind == "known" else NONE
            named = Counter(name for name in names if name is not None)
            total = named.total()
            interval = exact_interval(named[right], total) if total else (0.0, 1.0)
            wrong = {name: count for name, count in named.most_common() if name != right}
            facts = {"kind": kind, "scenario": scenario.name, "clips": total, "unmatched": len(names) - total}
            yield {**facts, "right": named[right], "ci_low": interval[0], "wrong": wrong}


def shown(row: dict[str, Any]) -> str:
    """Return a row of the Markdown table."""
    wrong = ", ".join(f"{name} {count}" for name, count in row["wrong"].items()) or "-"
    return f"| {row['kind']} | {row['scenario']} | {row['clips']} | {row['right']} | {row['ci_low']:.2f} | {wrong} |"


def totals(found: list[dict[str, Any]]) -> str:
    """Return the share of right names of each kind."""
    parts = []
    for kind in KINDS:
        own = [row for row in found if row["kind"] == kind]
        right, clips = (sum(row[key] for row in own) for key in ("right", "clips"))
        parts.append(f"{kind} {right} of {clips} ({right / max(clips, 1):.1%})")
    return ", ".join(parts)


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--models", nargs="+", default=None)
    parser.add_argument("--dtypes", nargs="+", default=("float32",), choices=DTYPES)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=10.0, help="longest clip")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = given.json.with_name(given.json.name + ".runs")
    folder.mkdir(parents=True, exist_ok=True)
    drawn, table = samples(given.clips, given.seed, given.seconds), []
    for source in given.models or references():
        for dtype in given.dtypes:
            model = earmark.load(source, dtype=dtype)
            kinds, clips = providers(model), usable(model, drawn)
            path = folder / f"{source.replace(':', '-').replace('/', '-')}-{dtype}.jsonl"
            every = [scenario for found in kinds.values() for scenario in found]
            with show.progress(path.stem, len(every) * len(clips)) as step:
                run = study(model, every, clips, path, recipes=kinds["known"], advance=step)
            found = list(rows(run, kinds))
            table += [{"model": source, "precision": model.info.precision, **row} for row in found]
            write_atomically(given.json, "".join(lines.to_line(row) + "\n" for row in table).encode())
            print(f"\n## {source}, {dtype}: {totals(found)}\n\n| kind | scenario | clips | right | at least | wrong |")
            print("|---" * 6 + "|", *map(shown, found), sep="\n", flush=True)


if __name__ == "__main__":
    main()
