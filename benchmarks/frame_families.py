"""Every statistic of the ctc and transducer families for honest and cheating providers, and what they detect.

    python benchmarks/frame_families.py [AUDIO...] [--models MODEL...] [--dtypes float32 float16] [--only honest int8]
    python benchmarks/frame_families.py --challenges [--share 0.33] [--seed 0] --table FILE

AUDIO is files or folders, by default the shipped clips; `--challenges` takes the challenge set in their place, or a
share of it drawn by the seed. `--table` writes the verdicts as the Markdown table of docs/explanation/frame-
synchronous.md. Stand-ins are the embedded models whose names begin with the model's: a sibling of another seed, a
student, an earlier step. For every precision it prints the verdicts of the provisional profile, then for every
statistic the largest honest value over all clips and honest providers and, for each cheat, the median over clips and
the share of clips beyond the largest honest value. Evidence is of level `sketch`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fingerprints import load_clips

import earmark
from earmark import Case, Clip, challenges
from earmark.checkpoint import embedded_names
from earmark.scenarios import Scenario, scenario
from earmark.scenarios.honest import honest_scenarios
from earmark.scenarios.stand_in import other_checkpoint

MODELS = ("embedded:parakeet-ctc-nano", "embedded:parakeet-tdt-nano")
DTYPES = ("float32", "float16", "bfloat16")


def challenge_clips(share: float, seed: int) -> list[Clip]:
    """Return a share of the challenge set, drawn by a seed, with fixed nonces."""
    everything = list(challenges.load())
    drawn = random.Random(seed).sample(everything, round(share * len(everything)))  # noqa: S311 - a draw, no secret
    audio = [challenge.audio() for challenge in drawn]
    return [Clip(audio=own, request=earmark.request(own, nonce=f"{i:032x}")) for i, own in enumerate(audio)]


def stand_ins(source: str, dtype: str, extra: list[str]) -> dict[str, Any]:
    """Return other checkpoints that share the model's tokens, by a short name."""
    name = source.removeprefix("embedded:")
    found = {other.removeprefix(f"{name}-"): f"embedded:{other}" for other in embedded_names() if f"{name}-" in other}
    found |= {Path(path).name: path for path in extra}
    return {short: earmark.load(path, device="cpu", dtype=dtype) for short, path in found.items()}


def providers(source: str, dtype: str, extra: list[str]) -> Iterator[Scenario]:
    """Yield honest providers, then cheats, each named."""
    yield from honest_scenarios()
    yield scenario("quantise", bits=8)
    yield scenario("quantise", bits=8, symmetric=False)
    yield scenario("quantise", bits=4, group=64)
    yield scenario("drop_audio", seconds=1.0)
    for short, model in stand_ins(source, dtype, extra).items():
        yield other_checkpoint(model=model, name=short)


def measure(source: str, dtype: str, clips: list[Clip], extra: list[str], only: list[str]) -> Iterator[dict[str, Any]]:
    """Yield one row per provider, of those whose names hold one of the words of `only`."""
    provider = earmark.load(source, device="cpu", dtype=dtype)
    reference = earmark.load(source, device="cpu", dtype=dtype, arithmetic="float32")
    texts: list[str] = []
    wanted = [made for made in providers(source, dtype, extra) if any(word in made.name for word in only)]
    for made in wanted:
        evidence = made.record(provider, clips, level="sketch")
        texts = texts or [e.text for e in evidence]
        cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
        verdicts = list(earmark.verify_many(cases, reference, profile="provisional", batch_size=4))
        same = [e.text == text for e, text in zip(evidence, texts, strict=True)]
        failed = [verdict.outcome == "FAIL" for verdict in verdicts]
        yield {
            "model": source,
            "dtype": dtype,
            "provider": made.name,
            "honest": made.honest,
            "clips": len(clips),
            "FAIL": sum(failed),
            "same_text": sum(same),
            "same_text_FAIL": sum(f for f, s in zip(failed, same, strict=True) if s),
            "codes": Counter(f.code for v in verdicts for f in v.findings if f.severity != "note"),
            "values": [dict(v.fingerprint) for v in verdicts if v.fingerprint is not None],
        }


def show(rows: list[dict[str, Any]]) -> None:
    """Print the tables of one model."""
    print("| dtype | provider | clips | FAIL | same text | of these FAIL | findings |\n|---|---|---|---|---|---|---|")
    for row in rows:
        codes = ", ".join(f"{code} {count}" for code, count in row["codes"].most_common(3)) or "-"
        keys = ("dtype", "provider", "clips", "FAIL", "same_text", "same_text_FAIL")
        print("| " + " | ".join(str(row[key]) for key in keys) + f" | {codes} |")
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        show_statistics([row for row in rows if row["dtype"] == dtype])


def show_statistics(rows: list[dict[str, Any]]) -> None:
    """Print every statistic of one precision."""
    cheats = [row for row in rows if not row["honest"] and row["values"]]
    print(f"\n| {rows[0]['dtype']} | honest, largest | " + " | ".join(row["provider"] for row in cheats) + " |")
    print("|---" * (len(cheats) + 2) + "|")
    for name in rows[0]["values"][0]:
        worst = _largest([row for row in rows if row["honest"]], name)
        cells = [_cell(np.array([values[name] for values in row["values"]]), worst) for row in cheats]
        print(f"| {name} | {worst:.2g} | " + " | ".join(cells) + " |")


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the verdicts of all models and precisions as one Markdown table; honest settings are added up."""
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    head = ["model", "provider", *(f"{dtype} FAIL" for dtype in dtypes), f"same text ({dtypes[0]})"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    names = dict.fromkeys((row["model"], row["honest"] or row["provider"]) for row in rows)
    for model, provider in names:
        own = [row for row in rows if (row["model"], row["honest"] or row["provider"]) == (model, provider)]
        cells = [_sum([row for row in own if row["dtype"] == dtype], "FAIL") for dtype in dtypes]
        settings = sum(row["dtype"] == dtypes[0] for row in own)
        label = f"honest, {settings} settings" if provider is True else provider
        same = _sum([row for row in own if row["dtype"] == dtypes[0]], "same_text")
        lines.append("| " + " | ".join([model.removeprefix("embedded:"), label, *cells, same]) + " |")
    return "\n".join(lines) + "\n"


def _sum(rows: Sequence[dict[str, Any]], name: str) -> str:
    return f"{sum(row[name] for row in rows)} of {sum(row['clips'] for row in rows)}" if rows else "-"


def _largest(rows: list[dict[str, Any]], name: str) -> float:
    values = np.array([values[name] for row in rows for values in row["values"]])
    return float("nan") if np.isnan(values).all() else float(np.nanmax(values))


def _cell(values: np.ndarray, worst: float) -> str:
    known = values[~np.isnan(values)]
    return f"{np.median(known):.2g} ({np.mean(known > worst):.0%})" if known.size else "-"


def main() -> None:
    """Measure every provider of every model at every precision."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("audio", nargs="*", type=Path)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--stand-ins", nargs="*", default=[])
    parser.add_argument("--only", nargs="+", default=[""])
    parser.add_argument("--dtypes", nargs="+", default=DTYPES)
    parser.add_argument("--challenges", action="store_true", help="Take the challenge set.")
    parser.add_argument("--share", type=float, default=1.0, help="Share of it.")
    parser.add_argument("--seed", type=int, default=0, help="Draws the share.")
    parser.add_argument("--table", type=Path, help="Write the verdicts as one Markdown table.")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    drawn = challenge_clips(arguments.share, arguments.seed) if arguments.challenges else None
    clips = drawn or load_clips(arguments.audio, None)
    everything: list[dict[str, Any]] = []
    for source in arguments.models:
        rows: list[dict[str, Any]] = []
        for dtype in arguments.dtypes:
            for row in measure(source, dtype, clips, arguments.stand_ins, arguments.only):
                rows.append(row)
                if arguments.table:
                    arguments.table.write_text(table([*everything, *rows]), encoding="utf-8")
                if arguments.json:
                    with arguments.json.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
        print(f"\n## {source}, {len(clips)} clips\n")
        show(rows)
        everything += rows


if __name__ == "__main__":
    main()
