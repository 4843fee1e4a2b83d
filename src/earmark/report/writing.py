"""From a `Report` to HTML, Markdown and JSON."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from earmark.errors import UsageError
from earmark.extras import need
from earmark.records.codec import write_atomically
from earmark.report.close_ups import draw_confidence, draw_curve, draw_reliability, mean, most_apart, where_apart
from earmark.report.contents import ErrorRate, Part, Report
from earmark.report.drawing import Drawing, largest, number, reach
from earmark.report.operating import RATES, misses_at
from earmark.report.plots import draw_audits, draw_bands, draw_operating

FORMATS = (".html", ".md", ".json")
CLOSE_UPS = 2
"""Example clips of a part that are drawn: an honest provider's and a dishonest one's."""


def write(report: Report, path: str | os.PathLike[str], *, twins: bool = False) -> list[Path]:
    """Write a report, whole or not at all.

    Args:
        report: The report.
        path: The file; its suffix says the form.
        twins: Write the other forms beside it.

    Returns:
        The files, that of `path` first.

    Raises:
        OutputError: A file cannot be written.
        UsageError: The suffix is unknown, or a library of the extra `report` is missing.
    """
    target = Path(path)
    if target.suffix not in FORMATS:
        raise UsageError(f"{target.name}: a report is written as {', '.join(FORMATS)}")
    wanted = [target.suffix, *(suffix for suffix in FORMATS if twins and suffix != target.suffix)]
    pages = [(target.with_suffix(suffix), render(report, suffix)) for suffix in wanted]
    for place, data in pages:
        write_atomically(place, data)
    return [place for place, _ in pages]


def render(report: Report, form: str) -> bytes:
    """Return a report in one of `FORMATS`; the same report gives the same bytes.

    Raises:
        UsageError: The form is unknown, or a library of the extra `report` is missing.
    """
    if form == ".json":
        return report.to_json()
    if form == ".md":
        page: str = _template("report.md.j2", autoescape=False).render(report=report)
        return page.encode("utf-8", "replace")
    if form == ".html":
        style = _read("report.css")
        figures = [_figures(part) for part in report.parts]
        audits = draw_audits(report.audits, "the audits") if report.audits else None
        template = _template("report.html.j2", autoescape=True)
        page = template.render(report=report, figures=figures, audits=audits, style=_markup(style))
        return page.encode("utf-8", "replace")
    raise UsageError(f"{form!r}: a report is written as {', '.join(FORMATS)}")


def _figures(part: Part) -> dict[str, list[Drawing]]:
    """Return the drawings of a part by section."""
    made: dict[str, list[Drawing | None]] = {
        "bands": [draw_bands(part)],
        "operating": [draw_operating(part)],
        "audits": [draw_audits(part.audits, part.subject.name)],
        "curves": [draw_curve(own, part) for own in _telling(part, part.curves)],
        "confidences": [draw_confidence(own, part) for own in _telling(part, part.confidences)],
        "reliability": [draw_reliability(part.calibrations, part)],
    }
    return {section: [own for own in drawings if own is not None] for section, drawings in made.items()}


def _telling(part: Part, examples: Any) -> list[Any]:
    """Return the first example of an honest provider and the first of a dishonest one."""
    honest = [own for own in examples if own.scenario in part.subject.honest]
    others = [own for own in examples if own.scenario not in part.subject.honest]
    return [*honest[:1], *others[:1]][:CLOSE_UPS]


def _template(name: str, *, autoescape: bool) -> Any:
    jinja2 = need("jinja2", what="a report", extra="report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters: dict[str, Callable[..., Any]] = {
        "share": share, "num": _or_dash, "md": markdown, "signed": _signed, "drawn": lambda own: _markup(own.svg),
        "largest": largest, "reach": reach, "between": _between, "misses_at": misses_at,
        "mean": mean, "most_apart": most_apart, "where_apart": where_apart,
    }  # fmt: skip
    environment.filters.update(filters)
    environment.globals["RATES"] = RATES
    return environment.get_template(name)


def _read(name: str) -> str:
    return files("earmark.report").joinpath("templates", name).read_text(encoding="utf-8")


def _markup(text: str) -> Any:
    """Mark what this package wrote itself, style and figures, as safe; figures hold texts that matplotlib escaped."""
    return need("markupsafe", what="a report", extra="report").Markup(text)


def share(value: float | None) -> str:
    """Return a share in percent.

    Example:
        >>> share(1.0), share(0.857493), share(0.0004), share(float("nan"))
        ('100 %', '85.7 %', '0.04 %', '-')
    """
    if value is None or math.isnan(value):
        return "-"
    percent = 100 * value
    return f"{percent:.2g} %" if 0 < abs(percent) < 0.1 else f"{percent:.1f}".removesuffix(".0") + " %"


def _signed(value: float) -> str:
    return share(value) if math.isnan(value) or value < 0 else f"+{share(value)}"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else number(value)


def _between(own: ErrorRate) -> str:
    """Return the interval of a difference in word error rates."""
    return "-" if math.isnan(own.difference_low) else f"{_signed(own.difference_low)} to {_signed(own.difference_high)}"


def markdown(text: object) -> str:
    r"""Return untrusted text as plain text inside a Markdown table.

    Example:
        >>> print(markdown("a|b <script> *c*"))
        a\|b &lt;script&gt; \*c\*
    """
    one_line = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|!])", r"\\\1", one_line)
