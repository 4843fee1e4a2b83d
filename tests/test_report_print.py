"""A printed report is whole: nothing is wider than the paper, what is folded is unfolded, colours carry no meaning."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess

import pytest
from made_runs import made_examples, made_run

from earmark.report import Source, build, render
from earmark.runs import Run

UPRIGHT_PX, BROAD_PX = 703, 1032
"""Widths of A4 upright and across, less the margins."""
MEASURE = f"""<style>body{{width:{UPRIGHT_PX}px!important}}</style><script>
const wide = [...document.querySelectorAll("table,figure,svg,.banner,dl")].filter(
  e => e.getBoundingClientRect().width > (e.closest(".broad") ? {BROAD_PX} : {UPRIGHT_PX}) + 1);
const folded = [...document.querySelectorAll("details table")].filter(e => !e.checkVisibility());
document.title = `wide:${{wide.map(e => e.tagName)}} folded:${{folded.length}}`;
</script>"""


@pytest.fixture(scope="module")
def report():
    """A report with thirty cheats of long names, and its examples."""
    cheats = [
        dataclasses.replace(own, scenario=f"a-cheat-with-a-long-name-{i}", honest=False)
        for i in range(30)
        for own in made_run(4)
        if own.scenario == "int8"
    ]
    run = Run([*made_run(), *cheats])
    return render(build([Source(name="run.jsonl", run=run, examples=made_examples())]), ".html").decode()


def _printed(html, folder):
    """Lay a page out by its print rules and return what is too wide for the paper and how many tables are folded."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here; apt install chromium")
    html = re.sub(r"<meta http-equiv[^>]*>", "", html).replace("@media print{", "@media all{")
    page = folder / "page.html"
    page.write_text(html.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    command = [
        browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--window-size=1200,900",
        f"--user-data-dir={folder / 'profile'}", "--disable-background-networking", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    found = re.search(r"<title>wide:(.*) folded:(\d+)</title>", done.stdout)
    assert found is not None
    return found.group(1), int(found.group(2))


def test_nothing_is_cut_and_nothing_stays_folded(report, tmp_path):
    assert report.count("<details") >= 2
    assert _printed(report, tmp_path) == ("", 0)


def test_a_table_that_is_cut_or_folded_would_be_found(report, tmp_path):
    spoilt = report.replace("details::details-content", "details::nothing")
    spoilt = spoilt.replace("</style>", "dl{width:900px!important}</style>")
    wide, folded = _printed(spoilt, tmp_path)
    assert wide == "DL"
    assert folded >= 2


def test_paper_has_rules_of_its_own(report):
    rules = report.partition("@media print{")[2].partition("</style>")[0]
    assert re.search(r"@page\{margin:", report)
    for kept_whole in ("tr", "figure", ".banner"):
        assert re.search(rf"(^|[,}}\n]){re.escape(kept_whole)}[^{{}}]*\{{break-inside:avoid", rules)
    assert "color-scheme:light" in rules
    assert not re.search(r"<nav\b|position:\s*fixed", report)


@pytest.mark.parametrize(("tone", "mark"), [("good", "✓"), ("bad", "✗"), ("open", "?")])
def test_the_answer_is_told_without_colours(tone, mark):
    empty = build([])
    html = render(dataclasses.replace(empty, banner=dataclasses.replace(empty.banner, tone=tone)), ".html").decode()
    banner = re.search(rf'<div class="banner {tone}".*?</div>', html, re.DOTALL)
    assert banner is not None
    assert f">{mark}</span>" in banner.group()
