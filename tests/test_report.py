"""Reports: hostile texts stay texts, every figure says what it shows, nothing is fetched."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import numpy as np
import pytest
from made_reports import SECTIONS, Page
from made_runs import made_examples, made_run

from earmark.report import Source, build, render, write
from earmark.report.drawing import COLOURS
from earmark.runs import Run

HOSTILE = '<script>alert("x")</script> <img src=//evil.test/x> $x_1$ | `code` \x1b[2J \ud800'


def test_sections_stand_in_their_order(page):
    assert page.headings == SECTIONS


def test_every_figure_says_what_it_shows(page):
    labels = [attributes.get("aria-label") or "" for tag, attributes in page.tags if attributes.get("role") == "img"]
    assert len(labels) == sum(tag == "svg" for tag, _ in page.tags) == 9
    assert len(set(labels)) == 9
    assert all(len(label) > 40 and re.search(r"\d", label) for label in labels)


def test_a_figure_without_a_label_would_be_found():
    found = Page('<div role="img"><svg></svg></div>')
    assert [a.get("aria-label") for _, a in found.tags if a.get("role") == "img"] == [None]


def _fetches(page: Page) -> list[str]:
    addresses = [value for _, attributes in page.tags for name, value in attributes.items()
                 if name in ("src", "href", "xlink:href", "srcset", "action", "data") and value]  # fmt: skip
    return [address for address in addresses if not address.startswith(("#", "data:"))]


def test_nothing_is_fetched_and_nothing_runs(full, page):
    html = render(full, ".html").decode()
    assert _fetches(page) == []
    assert "://" not in html
    assert "@import" not in html
    assert not {"script", "iframe", "img", "object", "embed", "form"} & {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert set(re.findall(r"url\(([^)]*)\)", html)) <= {f"#{own}" for own in re.findall(r'id="([^"]+)"', html)}


def test_ids_are_unique(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_fetch_would_be_found():
    assert _fetches(Page('<img src="//evil.test/x">')) == ["//evil.test/x"]


def _ragged(text: str) -> list[str]:
    """Return rows of Markdown tables that have not as many cells as their head."""
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert tables
    cells = [[len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()] for table in tables]
    return [table for table, own in zip(tables, cells, strict=True) if len(set(own)) > 1]


def test_a_ragged_table_would_be_found():
    assert len(_ragged("| a |\n|---|\n| x | y |\n")) == 1


def test_hostile_texts_are_shown_as_texts():
    run = Run(dataclasses.replace(r, text=f"{r.text} {HOSTILE}", clip=f"{r.clip}{HOSTILE}") for r in made_run(8))
    run = Run(dataclasses.replace(r, scenario=f"{r.scenario}{HOSTILE}", model=HOSTILE) for r in run)
    examples = msgspec.structs.replace(made_examples(HOSTILE), model=HOSTILE)
    made = build([Source(name=HOSTILE, run=run, examples=examples)], title=HOSTILE, command=HOSTILE)
    page = Page(render(made, ".html").decode())
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert HOSTILE[:27] in page.text
    assert _fetches(page) == []
    text = render(made, ".md").decode()
    assert "<script>" not in text
    assert _ragged(text) == []
    assert json.loads(render(made, ".json"))["title"] == HOSTILE.replace("\ud800", "?")


def test_words_on_the_figures_are_the_words_of_the_clip(page):
    assert page.text.count("light") >= 2


def test_markdown_has_the_sections_of_the_page(full):
    text = render(full, ".md").decode()
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == SECTIONS
    assert _ragged(text) == []
    assert (
        "| m, fp32, scores | mild | 0.776 | 60 | 30 | 80 % | 80 % | 56.7 % |"
        in text.partition("## Errors of every threshold")[2]
    )
    assert "| m, fp32, scores | int8 | clip0 | 3 | 0.27 | 0.23 | 0.1 | 0.5 s |" in text
    assert "| m, fp32, scores | int8 | clip0 | 3 | 0.9 | 0.87 | 0.1 | off |" in text
    assert "| m, fp32, scores | int8 | 4 | 10.0 | 2.00 | 0.50 | 0.25 | 1000 |" in text


def _luminance(colour: str) -> float:
    parts = np.asarray([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _contrast(a: str, b: str) -> float:
    """Contrast ratio of WCAG 2.2."""
    low, high = sorted((_luminance(a), _luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colour", COLOURS)
def test_lines_stand_out_from_the_page(colour):
    """WCAG 1.4.11 asks for 3."""
    assert _contrast(colour, "#ffffff") >= 3
    assert _contrast(colour, "#14171a") >= 3


def test_a_pale_colour_would_be_found():
    assert _contrast("#e69f00", "#ffffff") < 3


def _browse(page: Path, folder: Path) -> tuple[str, list[str], list[str]]:
    """Open a page in a browser: what it shows, what its console says, and whom it asks."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here; apt install chromium")
    log = folder / "net.json"
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--no-first-run",
        f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    urls = re.findall(r'"url":"((?:http|ws)[^"]*)"', log.read_text(encoding="utf-8", errors="replace"))
    foreign = [url for url in urls if not re.match(r"https?://[\w.]*google(apis)?\.com/", url)]  # the browser's own
    return done.stdout, re.findall(r"CONSOLE.*", done.stderr), foreign


def test_a_browser_shows_it_and_neither_complains_nor_asks_anybody(full, tmp_path):
    shown, console, asked = _browse(write(full, tmp_path / "report.html")[0], tmp_path)
    assert "What was claimed and measured" in shown
    assert (console, asked) == ([], [])


def test_a_browser_that_complains_and_asks_would_be_found(tmp_path):
    page = tmp_path / "page.html"
    page.write_text('<img src="http://127.0.0.1:9/leak"><script>console.error("boom")</script>')
    _, console, asked = _browse(page, tmp_path)
    assert "boom" in console[0]
    assert asked[0] == "http://127.0.0.1:9/leak"
