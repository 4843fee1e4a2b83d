"""Draw the entropy curve of a transducer's evidence: how unsure the model was, frame by frame.

    python examples/entropy_curve.py MODEL EVIDENCE [OTHER_EVIDENCE ...] --out curve.svg

Further evidence of the same clip is drawn below as its difference from the first. Needs matplotlib
(`pip install "earmark[report]"`).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray

import earmark
from earmark.records import codec
from earmark.records.evidence import Evidence
from earmark.registry import registry

mpl.use("svg")
mpl.rcParams |= {"svg.hashsalt": "earmark", "svg.fonttype": "none"}  # the same curve gives the same file


def read(path: Path, model: Any) -> Any:
    """Return what the first segment of an evidence says."""
    evidence = codec.load(path, Evidence)
    segment, family = evidence.segments[0], registry("family").get(evidence.claim.family)
    return family.read(segment, evidence.request, model, evidence.level)


def seconds(scores: Any, model: Any) -> NDArray[np.float64]:
    """Return the time of each step: the frames of a piece lie evenly in time."""
    step = 1_000 / model.encoder_positions(1_000 * 16_000)  # a long piece, so that the silence behind it counts little
    result: NDArray[np.float64] = scores.path[:, 0] * step
    return result


def draw(model: Any, paths: list[Path], out: Path) -> None:
    """Draw the curve of the first evidence with its words, and the differences of the others."""
    scores = [read(path, model) for path in paths]
    first, times = scores[0], seconds(scores[0], model)
    figure, axes = plt.subplots(len(paths), 1, figsize=(9, 2.2 * len(paths)), sharex=True, squeeze=False)
    top = axes[0][0]
    top.fill_between(times, first.entropy, step="mid", color="#3b6ea5", linewidth=0)
    top.set_ylabel("entropy, nats")
    for at, word in words(first, model):
        top.annotate(word, (times[at], first.entropy.max() * 1.05), rotation=60, fontsize=7)
    top.set_ylim(0, first.entropy.max() * 1.6)
    for (axis,), path, other in zip(axes[1:], paths[1:], scores[1:], strict=True):
        shared = min(len(other.entropy), len(first.entropy))
        axis.plot(times[:shared], other.entropy[:shared] - first.entropy[:shared], linewidth=0.8, color="#a53b3b")
        axis.set_ylabel(f"{path.stem}\nminus {paths[0].stem}")
    axes[-1][0].set_xlabel("seconds")
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None})


def words(scores: Any, model: Any) -> list[tuple[int, str]]:
    """Return step and text of the first piece of every word."""
    at = np.flatnonzero(scores.tokens >= 0)
    index = model.word_index(scores.emitted)
    opening = [i for i, word in enumerate(index) if i == 0 or word != index[i - 1]]
    ends = [*opening[1:], len(index)]
    return [(int(at[i]), model.detokenise(scores.emitted[i:end])) for i, end in zip(opening, ends, strict=True)]


def main() -> None:
    """Read the arguments and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the checkpoint that is claimed")
    parser.add_argument("evidence", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("curve.svg"))
    arguments = parser.parse_args()
    draw(earmark.load(arguments.model), arguments.evidence, arguments.out)
    print(arguments.out)


if __name__ == "__main__":
    main()
