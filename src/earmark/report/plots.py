"""The figures of detection: bands, operating points, e-values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from earmark.report.contents import AuditPath, Band, Part, Spread
from earmark.report.drawing import (
    CHEAT,
    COLOURS,
    HONEST,
    INK,
    STYLES,
    Drawing,
    canvas,
    largest,
    log_ticks,
    number,
    plain,
)

MOST_BANDS = 10
MOST_LINES = 8
LEAST = 1e-9
"""Smallest value on an axis."""


def draw_bands(part: Part) -> Drawing | None:
    """Draw the honest band of the statistics that separate most against those of all cheats."""
    chosen = [band for band in part.bands if band.honest.count and any(map(_some, band.cheats.values()))]
    chosen = chosen[:MOST_BANDS]
    if not chosen:
        return None
    ends = _ends(chosen)
    floor = ends[0]
    with canvas(0.55 + 0.42 * len(chosen)) as drawn:
        axis = drawn.axes[0]
        axis.set_xscale("log")
        for row, band in enumerate(chosen):
            _strip(axis, -row, band.honest, ends, colour=HONEST, label="honest" if not row else None)
            for own in band.cheats.values():
                _strip(axis, -row - 0.22, own, ends, colour=CHEAT)
            if band.threshold is not None:
                axis.plot([max(band.threshold, floor)] * 2, [-row - 0.36, -row + 0.14], color=INK, linewidth=1.6)
            axis.text(floor, -row + 0.2, band.statistic, fontsize=8, parse_math=False)
        axis.plot([], [], color=CHEAT, linewidth=5, alpha=0.5, label="dishonest")
        axis.plot([], [], color=INK, linewidth=1.6, label="threshold")
        if any(own.infinite for band in chosen for own in _spreads(band)):
            axis.plot([], [], ">", color=INK, markersize=4, label="infinite")
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        axis.set_ylim(-len(chosen) + 0.45, 0.6)
        axis.set_xlim(floor, None)
        axis.set_xlabel(f"value of the statistic, each in its own unit (left edge: {number(floor)} or less)")
        log_ticks(axis.xaxis)
        drawn.legend(axis, 4)
        svg = drawn.svg(f"bands {part.subject.name} {part.subject.weights}")
    facts = "; ".join(_band_in_words(band) for band in chosen[:3])
    alt = f"Strips of {len(chosen)} statistics of {part.subject.name} on a logarithmic axis. {facts}."
    caption = f"{part.subject.name}: smallest to largest value, medians as dots. Thresholds: {part.threshold_source}."
    return Drawing(svg=svg, alt=alt, caption=caption)


def _spreads(band: Band) -> tuple[Spread, ...]:
    return (band.honest, *band.cheats.values())


def _some(own: Spread) -> bool:
    return bool(own.count or own.infinite)


def _ends(bands: Sequence[Band]) -> tuple[float, float]:
    """Return the left edge of the axis, and where infinite values stand: beyond all finite ones."""
    spreads = [own for band in bands for own in _spreads(band)]
    values = [value for own in spreads for value in (own.least, own.median, own.most) if value > 0]
    floor = float(10.0 ** math.floor(math.log10(max(min(values, default=LEAST), LEAST))))
    limits = [band.threshold for band in bands if band.threshold is not None]
    return floor, 10 * max([*values, *limits, floor])


def _strip(
    axis: Any, y: float, own: Spread, ends: tuple[float, float], *, colour: str, label: str | None = None
) -> None:
    floor, beyond = ends
    if own.count:
        sides = [max(own.least, floor), max(own.most, floor)]
        axis.plot(sides, [y, y], color=colour, linewidth=5, alpha=0.5, solid_capstyle="butt", label=label)
        axis.plot([max(own.median, floor)], [y], "o", color=colour, markersize=3)
    if own.infinite:
        axis.plot([beyond], [y], ">", color=colour, markersize=4)


def _band_in_words(band: Band) -> str:
    least = min((own.least for own in band.cheats.values() if own.count), default=math.inf)
    limit = f", threshold {number(band.threshold)}" if band.threshold is not None else ""
    return f"{band.statistic}: honest up to {largest(band.honest)}, dishonest from {number(least)}{limit}"


def draw_operating(part: Part) -> Drawing | None:
    """Draw miss rate against false-alarm rate of the cheats that are hardest to tell, on logarithmic axes.

    None where some threshold tells every cheat without error: nothing would be left to draw.
    """
    chosen = sorted((own for own in part.operating if own.auc < 1), key=lambda own: own.auc)[:MOST_LINES]
    if not chosen:
        return None
    floor = 0.5 / max(max(own.honest_clips, own.clips) for own in chosen)
    with canvas(3.4) as drawn:
        axis = drawn.axes[0]
        axis.set_xscale("log")
        axis.set_yscale("log")
        for i, own in enumerate(chosen):
            x, y = [max(v, floor) for v in own.false_alarms], [max(v, floor) for v in own.misses]
            label = f"{plain(own.scenario, 24)} (AUC {own.auc:.3f})"
            axis.plot(x, y, color=COLOURS[i], linestyle=STYLES[i], label=label, drawstyle="steps-post", clip_on=False)
        axis.set_xlim(floor, 1)
        axis.set_ylim(floor, 1)
        axis.set_xlabel("false alarms, share of honest clips")
        axis.set_ylabel("misses, share of dishonest clips")
        log_ticks(axis.xaxis)
        log_ticks(axis.yaxis)
        drawn.legend(axis, 1 if len(chosen) < 5 else 2)
        svg = drawn.svg(f"operating {part.subject.name} {part.subject.weights}")
    facts = ", ".join(f"{own.scenario} {own.auc:.3f}" for own in chosen)
    alt = (
        f"Misses against false alarms of every threshold for {part.subject.name}, on logarithmic axes. Areas: {facts}."
    )
    caption = f"{part.subject.name}: the errors of every threshold; axes end at half a clip, where errors are 0."
    return Drawing(svg=svg, alt=alt, caption=caption)


def draw_audits(paths: Sequence[AuditPath], name: str) -> Drawing | None:
    """Draw the e-value behind each clip, on a logarithmic axis: of honest providers that with the highest alone."""
    some = [own for own in paths if own.log_e]
    honest = sorted((own for own in some if own.honest), key=lambda own: max(own.log_e), reverse=True)
    chosen = [*honest[:1], *(own for own in some if not own.honest)][:MOST_LINES]
    if not chosen:
        return None
    top = 12 * math.log(10)
    with canvas(2.9) as drawn:
        axis = drawn.axes[0]
        for i, own in enumerate(chosen):
            values = [min(max(value, -top / 2), top) / math.log(10) for value in own.log_e]
            label = plain(own.name, 24) + (" (honest)" if own.honest else "")
            axis.plot(own.places, values, color=COLOURS[i], linestyle=STYLES[i], label=label)
        limits = {own.fails_at for own in chosen if own.fails_at is not None}
        for limit in limits:
            axis.axhline(limit / math.log(10), color=INK, linewidth=1)
            axis.annotate("FAIL", (1, limit / math.log(10)), xytext=(0, 3), textcoords="offset points", fontsize=8)
        axis.set_xlabel("clips")
        axis.set_ylabel("e-value, power of 10")
        drawn.legend(axis, 2)
        svg = drawn.svg(f"audit {name}")
    said = "; ".join(
        f"{own.name} {f'FAILs at clip {own.decided}' if own.decided else f'ends {own.decision}'}" for own in chosen
    )
    promise = "an honest provider ever reaches the line with at most the promised rate"
    of = f" Of {len(honest)} honest providers, {honest[0].name} comes highest." if len(honest) > 1 else ""
    caption = f"{name}: evidence against honesty, clip by clip; {promise}.{of}"
    return Drawing(svg=svg, alt=f"E-value over the clips of {name}: {said}.", caption=caption)
