"""From a matplotlib figure to SVG that stands inside a page: small, repeatable, at home in light and dark."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from earmark.extras import need
from earmark.report.contents import Spread

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8f00ff", "#cc0031", "#bc66ff", "#7f596c")
"""Four of Okabe and Ito's colours for the colour-blind, and four that were searched for.

Each has a contrast of 3 or more with the light and with the dark page, and lies 17 or more (CIE 1976 colour difference)
from all others, as seen with full colour vision and without red, green or blue cones (Machado, Oliveira and Fernandes
2009)."""
HONEST, CHEAT = COLOURS[:2]
STYLES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (1, 1)), (0, (3, 1, 1, 1)), (0, (8, 2)))
"""A line is told by its dashes as well as by its colour."""
INK = "#010203"
"""Stands for the page's own text colour until the figure is written."""
WIDTH_IN = 4.7
"""Figures are as wide as a phone; a desktop shows two side by side."""

SETTINGS = {
    "svg.fonttype": "none",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": "#8a8a8a",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": "#8a8a8a",
    "grid.alpha": 0.3,
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "xtick.color": "#8a8a8a",
    "ytick.color": "#8a8a8a",
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A figure of a page.

    Attributes:
        svg: The figure, safe to stand in HTML.
        alt: What it shows, for those who do not see it.
        caption: What it shows, for all.
    """

    svg: str
    alt: str
    caption: str


class Canvas:
    """A figure on its way: draw on `axes`, then take `svg`."""

    def __init__(self, figure: Any, axes: Sequence[Any]) -> None:
        """Keep the figure and its axes."""
        self.figure, self.axes = figure, axes

    def legend(self, axis: Any, columns: int = 2) -> None:
        """Put the legend above an axis; labels are plain text."""
        handles, labels = axis.get_legend_handles_labels()
        if handles:
            made = axis.legend(
                handles, labels, loc="lower left", bbox_to_anchor=(0, 1.01), ncols=columns, borderaxespad=0
            )
            for text in made.get_texts():
                text.set_parse_math(False)

    def svg(self, name: str) -> str:
        """Return the figure as an `svg` element without addresses, dates, fonts or ids that others could share."""
        buffer = io.StringIO()
        import matplotlib as mpl

        with mpl.rc_context({"svg.hashsalt": name.encode("utf-8", "replace").decode()}):
            self.figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.04)
        return _inline(buffer.getvalue())


@contextmanager
def canvas(height_in: float, rows: int = 1, ratios: Sequence[float] | None = None) -> Iterator[Canvas]:
    """Open a figure with some axes below one another.

    Raises:
        UsageError: matplotlib is not installed.
    """
    mpl = need("matplotlib", what="a report", extra="report")
    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that matplotlib's own font lacks; the page's font draws them
        figure = need("matplotlib.figure", what="a report", extra="report").Figure(figsize=(WIDTH_IN, height_in))
        axes = figure.subplots(rows, 1, sharex=rows > 1, squeeze=False, gridspec_kw={"height_ratios": ratios})[:, 0]
        yield Canvas(figure, axes)


def plain(text: str, longest: int = 40) -> str:
    r"""Return a label without control characters, cut where it is too long.

    Example:
        >>> plain("a\x00b"), len(plain("a" * 99))
        ('a b', 40)
    """
    clean = re.sub(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]", " ", text)
    clean = f" {clean}" if clean.startswith("_") else clean  # matplotlib leaves such labels out
    return clean if len(clean) <= longest else clean[: longest - 1] + "…"


def number(value: float) -> str:
    """Return a number in few characters.

    Example:
        >>> number(0.000012345), number(0.0001), number(12.0), number(float("nan"))
        ('1.2e-5', '1e-4', '12', '-')
    """
    if not math.isfinite(value):
        return "-" if math.isnan(value) else "∞" if value > 0 else "-∞"
    text = f"{value:.1e}".replace(".0e", "e") if 0 < abs(value) < 1e-3 else f"{value:.2g}"
    return re.sub(r"e([+-])0*(\d)", lambda m: f"e{m[1].strip('+')}{m[2]}", text)


def largest(own: Spread) -> str:
    """Return the largest value of a statistic; infinite ones with their clips.

    Example:
        >>> largest(Spread(count=2, least=0.1, median=0.2, most=0.3))
        '0.3'
        >>> largest(Spread(count=2, least=0.1, median=0.2, most=0.3, infinite=1))
        '∞ (1 clip)'
    """
    return f"∞ ({own.infinite} clip{'' if own.infinite == 1 else 's'})" if own.infinite else number(own.most)


def reach(own: Spread) -> str:
    """Return the smallest and the largest value of a statistic.

    Example:
        >>> reach(Spread(count=2, least=0.1, median=0.2, most=0.3, infinite=4))
        '0.1 to ∞ (4 clips)'
    """
    return f"{number(own.least)} to {largest(own)}" if own.count else largest(own)


def log_ticks(axis: Any) -> None:
    """Write the ticks of a logarithmic axis in plain numbers."""
    ticker = need("matplotlib.ticker", what="a report", extra="report")
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: number(value)))
    axis.set_minor_formatter(ticker.NullFormatter())


def _inline(text: str) -> str:
    """Strip what belongs to a file, and let text take the page's font and colour."""
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(
        r"<svg[^>]*?viewBox=\"([^\"]*)\"[^>]*>", r'<svg viewBox="\1" preserveAspectRatio="xMidYMid meet">', body
    )
    body = re.sub(r'<g id="[^"]*"', "<g", body)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"font: (?:\w+ )?([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r' d="[^"]*"', lambda m: re.sub(r"(\.\d\d)\d+", r"\1", m[0]), body)
    for colour, name in ((INK, "currentColor"), (HONEST, "var(--honest)"), (CHEAT, "var(--cheat)")):
        body = body.replace(f": {colour}", f": {name}")
    return re.sub(r"\n\s*", "\n", body).strip()
