"""The figures of example clips: entropy, word confidence, reliability."""

from __future__ import annotations

import math
from collections.abc import Sequence

from earmark.examples import Calibration, EntropyCurve, WordConfidence
from earmark.report.contents import Part
from earmark.report.drawing import CHEAT, COLOURS, HONEST, STYLES, Drawing, canvas, number, plain

MOST_WORDS = 22
"""Words that fit along an axis."""
UNITS = {"s": "seconds", "tokens": "tokens (this family writes no times)"}


def draw_curve(curve: EntropyCurve, part: Part) -> Drawing:
    """Draw the entropy of provider and reference along a clip, and their difference."""
    differences = [a - b for a, b in zip(curve.provider, curve.reference, strict=True)]
    with canvas(3.3, rows=2, ratios=(2, 1)) as drawn:
        top, below = drawn.axes
        top.plot(curve.places, curve.reference, color=HONEST, linewidth=2.4, alpha=0.7, label="reference")
        top.plot(curve.places, curve.provider, color=CHEAT, linestyle="--", linewidth=1.1, label="provider")
        highest = max([*curve.provider, *curve.reference, 1e-9])
        for place, word in spaced(curve.words, curve.places):
            top.annotate(
                plain(word, 16),
                (place, highest * 1.06),
                rotation=60,
                fontsize=7,
                annotation_clip=False,
                parse_math=False,
            )
        top.set_ylim(0, highest * 1.05)
        top.set_ylabel("entropy, nats")
        below.axhline(0, color="#8a8a8a", linewidth=0.8)
        below.plot(curve.places, differences, color=CHEAT, linewidth=1)
        below.set_ylabel("provider\n- reference")
        below.set_xlabel(UNITS[curve.unit])
        below.legend(*top.get_legend_handles_labels(), loc="upper center", bbox_to_anchor=(0.5, -0.55), ncols=2)
        svg = drawn.svg(f"entropy {part.subject.name} {part.subject.weights} {curve.scenario}")
    most = most_apart(curve)
    words = " ".join(word for _, word in curve.words)
    alt = (
        f"Entropy of provider {curve.scenario} and reference {part.subject.name} along clip {curve.clip} "
        f"({words[:200]}); they differ by at most {number(most)} nats."
    )
    caption = (
        f"{part.subject.name}, provider {curve.scenario}, clip {curve.clip}: largest difference {number(most)} nats."
    )
    return Drawing(svg=svg, alt=alt, caption=caption)


def spaced(words: Sequence[tuple[float, str]], places: Sequence[float]) -> list[tuple[float, str]]:
    """Return those words that stand far enough apart to be read.

    Example:
        >>> spaced([(0.0, "a"), (0.1, "b"), (50.0, "c")], [0.0, 100.0])
        [(0.0, 'a'), (50.0, 'c')]
    """
    step = (max(places) - min(places)) / MOST_WORDS if places else 0.0
    kept: list[tuple[float, str]] = []
    for place, word in words:
        if not kept or place - kept[-1][0] >= step:
            kept.append((place, word))
    return kept


def draw_confidence(line: WordConfidence, part: Part) -> Drawing:
    """Draw how sure provider and reference are of each word."""
    count = min(len(line.words), MOST_WORDS)
    with canvas(2.7) as drawn:
        axis = drawn.axes[0]
        at = range(count)
        axis.plot(
            at, line.reference[:count], "o-", color=HONEST, linewidth=2.4, alpha=0.7, markersize=5, label="reference"
        )
        axis.plot(at, line.provider[:count], "s--", color=CHEAT, linewidth=1.1, markersize=3, label="provider")
        axis.set_xticks(
            list(at), [plain(word, 16) for word in line.words[:count]], rotation=60, ha="right", parse_math=False
        )
        axis.set_ylabel("confidence")
        axis.set_ylim(min(0.5, *line.provider[:count], *line.reference[:count]) - 0.02, 1.02)
        drawn.legend(axis)
        svg = drawn.svg(f"confidence {part.subject.name} {part.subject.weights} {line.scenario}")
    most = most_apart(line)
    alt = (
        f"Confidence of provider {line.scenario} and reference {part.subject.name} in each word of clip {line.clip} "
        f"({' '.join(line.words)[:200]}); they differ by at most {number(most)}."
    )
    caption = f"{part.subject.name}, provider {line.scenario}, clip {line.clip}: largest difference {number(most)}."
    return Drawing(svg=svg, alt=alt, caption=caption)


def draw_reliability(calibrations: Sequence[Calibration], part: Part) -> Drawing | None:
    """Draw accuracy over confidence: the reference on an honest provider's words, and every provider on its own."""
    chosen = [own for own in calibrations if own.words][: len(COLOURS)]
    if not chosen:
        return None
    with canvas(3.2) as drawn:
        axis = drawn.axes[0]
        axis.plot([0, 1], [0, 1], color="#8a8a8a", linewidth=0.8)
        for i, own in enumerate(chosen):
            diagram, marks = own.provider, {"color": COLOURS[i], "linestyle": STYLES[i]}
            axis.plot(diagram.confidence, diagram.accuracy, "o", markersize=3.5, label=plain(own.scenario, 24), **marks)
        axis.set_xlabel("confidence")
        axis.set_ylabel("share of right words")
        axis.set_xlim(-0.02, 1.02)
        axis.set_ylim(-0.02, 1.02)
        drawn.legend(axis)
        svg = drawn.svg(f"reliability {part.subject.name} {part.subject.weights}")
    said = ", ".join(f"{own.scenario} {_or_dash(own.provider.ece)}" for own in chosen)
    alt = f"Share of right words over confidence for {part.subject.name}. Expected calibration errors: {said}."
    return Drawing(svg=svg, alt=alt, caption=f"{part.subject.name}: a point on the diagonal is as right as it is sure.")


def mean(values: Sequence[float]) -> float:
    """Return the mean; NaN of nothing.

    Example:
        >>> mean([0.1, 0.3]), mean([])
        (0.2, nan)
    """
    return sum(values) / len(values) if values else math.nan


def most_apart(own: EntropyCurve | WordConfidence) -> float:
    """Return the largest difference of provider and reference; NaN without positions."""
    return abs(own.provider[where_apart(own)] - own.reference[where_apart(own)]) if own.provider else math.nan


def where_apart(own: EntropyCurve | WordConfidence) -> int:
    """Return where provider and reference differ most."""
    return max(range(len(own.provider)), key=lambda i: abs(own.provider[i] - own.reference[i]))


def _or_dash(value: float | None) -> str:
    return "-" if value is None else number(value)
