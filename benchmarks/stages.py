"""How far another attention kernel and int8 weights move features, encoder states and log-probabilities.

OMP_NUM_THREADS=1 python benchmarks/stages.py [NAME...] [--device cpu]
"""

from __future__ import annotations

import argparse
import tempfile

import earmark
from earmark.bundles import hold_against, make_bundle
from earmark.challenges import load as load_challenges
from earmark.checkpoint import embedded_names
from earmark.comparisons import originals
from earmark.scenarios import scenario
from earmark.stages import CLIPS
from earmark.study import Sample


def main() -> None:
    """Print one line per model, precision and provider."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=originals(embedded_names()))
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    samples = [Sample(name=clip.id, audio=clip.audio()) for clip in [*load_challenges(language="en")][:CLIPS]]
    print("| model | precision | provider | features | encoder | log-probabilities |\n|---|---|---|---|---|---|")
    for name in given.names:
        for dtype in ("float32", "float16", "bfloat16"):
            reference = earmark.load(f"embedded:{name}", device=given.device, dtype=dtype)
            providers = {
                "another kernel": earmark.load(f"embedded:{name}", device=given.device, dtype=dtype, attention="eager"),
                "int8": scenario("quantise", bits=8).alternative(reference),
            }
            for label, provider in providers.items():
                with tempfile.TemporaryDirectory() as folder:
                    make_bundle(provider, samples, folder)
                    stages = hold_against(reference, folder, samples)
                cells = [f"{own.difference:.1e}{' (parted)' if own.parted else ''}" for own in stages[1:]]
                print(f"| {name} | {reference.info.precision} | {label} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
