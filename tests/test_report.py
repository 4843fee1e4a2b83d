"""Reports: the numbers are right, hostile texts stay texts, every figure says what it shows, nothing is fetched."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from made_profiles import row as honest_row
from made_runs import made_examples, made_run

from earmark.audit import Entry
from earmark.calibrate import calibrate
from earmark.errors import RecordError, UsageError
from earmark.examples import Examples, load_examples, path_beside
from earmark.records import codec
from earmark.report import FORMATS, Report, Source, build, read_source, render, write
from earmark.report.sources import read_audit
from earmark.runs import Run

HOSTILE = '<script>alert("x")</script> <img src=//evil.test/x> $x_1$ | `code` \x1b[2J \ud800'
SECTIONS = [
    "What was claimed and measured",
    "What was found",
    "Honest against dishonest values",
    "Errors of every threshold",
    "Evidence over an audit",
    "Entropy along a clip",
    "Word confidence",
    "Reliability",
    "Attribution",
    "Word error rates cannot tell",
    "Cost",
    "Limits and assumptions",
    "Provenance",
]


class Page(HTMLParser):
    """What a page holds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)
        if tag == "h2":
            self.headings.append("")

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += data
        if "style" not in self.open:
            self.text += data


def _full() -> Report:
    """A report with every section."""
    entries = [
        Entry(clip=f"c{i}", outcome="FAIL", mode="replay", score=9.0, p_value=0.01, findings=(), log_e=i, decision=d)
        for i, d in enumerate(["INCONCLUSIVE"] * 9 + ["FAIL"])
    ]
    sources = [Source(name="run.jsonl", run=made_run(), examples=made_examples(), digests=(("run.jsonl", "0" * 64),))]
    return build(sources, audits=[("audit.jsonl", entries)], title="A title", command="earmark report run.jsonl")


@pytest.fixture(scope="module")
def full():
    return _full()


@pytest.fixture(scope="module")
def page(full):
    return Page(render(full, ".html").decode())


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


def test_numbers_of_the_twin(full):
    twin = json.loads(render(full, ".json"))
    (part,) = twin["parts"]
    found = {own["scenario"]: own for own in part["detections"]}
    assert (found["int8"]["detected"], found["int8"]["clips"], found["mild"]["detected"]) == (40, 40, 0)
    assert (part["alarms"], part["judged"]) == (0, 40)
    assert found["honest-batch-1"]["auc"] is None
    assert part["subject"]["clips"] == 40
    assert twin["banner"] == {
        "tone": "bad",
        "headline": "The audit says FAIL.",
        "reasons": [
            "audit.jsonl: FAIL behind 10 clips, decided at clip 10",
            "1 of 2 simulated cheats found on every clip; 0 of 40 honest clips accused.",
        ],
    }


def test_bands_and_their_thresholds(full):
    first = full.parts[0].bands[0]
    values = [row.statistics["logprob_l1"] for row in made_run() if row.honest]
    assert first.statistic == "logprob_l1"
    assert (first.honest.count, first.honest.most) == (80, max(values))
    assert first.threshold == 1e-3
    assert [own.statistic for own in full.parts[0].bands] == ["logprob_l1", "margin_max"]  # the third is NaN throughout


def test_thresholds_of_a_profile_are_where_its_p_value_fails():
    rng = np.random.default_rng(0)
    rows = [honest_row(f"c{i}", "a", (float(np.exp(rng.standard_normal())), 0.0)) for i in range(700)]
    profile = calibrate(Run(rows), ("distance",), rate=0.01)
    limit = profile.limits()["distance"]
    assert profile.judge({"distance": limit * 1.0001}).p_value <= profile.header.rate
    assert profile.judge({"distance": limit * 0.9999}).p_value > profile.header.rate


def test_a_profile_gives_the_scale_and_the_bets():
    rng = np.random.default_rng(0)
    rows = [
        honest_row(
            f"p{i}", "a", (0.0, 0.0), weights="0" * 64, statistics={"logprob_l1": float(1e-6 * np.exp(rng.normal()))}
        )
        for i in range(700)
    ]
    profile = calibrate(Run(rows), ("logprob_l1",))
    (part,) = build([Source(name="x", run=made_run(30))], profiles=[profile]).parts
    assert part.threshold_source.startswith("profile m fp32")
    paths = {own.name: own for own in part.audits}
    assert len(paths["int8"].log_e) == 30
    assert paths["int8"].decision == "FAIL"
    assert paths["honest-batch-1"].decision != "FAIL"


def test_audits_of_a_run_find_the_cheat_and_no_honest_provider(full):
    paths = {own.name: own for own in full.parts[0].audits}
    assert paths["int8"].decided is not None
    assert paths["honest-batch-1"].decided is None
    assert len(paths["honest-batch-1"].log_e) == 15  # held out: neither scale nor bets saw them


def test_word_error_rates_beside_detection(full):
    rates = {own.scenario: own for own in full.parts[0].rates}
    assert (rates["int8"].clips, rates["int8"].words) == (30, 60)
    assert rates["honest-batch-1"].rate == pytest.approx(1.5)  # "turn it" against "turn off the light"
    assert rates["int8"].difference == pytest.approx(0.5)
    assert (rates["mild"].detected, rates["int8"].detected, rates["int8"].same_text) == (0.0, 1.0, 0.0)


def _cases() -> dict[str, Run]:
    nan = {"logprob_l1": math.nan, "margin_max": math.nan}
    small = made_run(8)
    return {
        "no rows": Run(),
        "one clip": made_run(1),
        "two clips": made_run(2),
        "no statistics": Run(dataclasses.replace(r, statistics={}, outcome="INCONCLUSIVE") for r in small),
        "NaN": Run(dataclasses.replace(r, statistics=nan) for r in small),
        "zeros": Run(dataclasses.replace(r, statistics={"logprob_l1": 0.0}) for r in small),
        "infinite": Run(dataclasses.replace(r, statistics={"logprob_l1": math.inf}) for r in small),
        "no transcripts": Run(dataclasses.replace(r, expected=None) for r in small),
        "no words": Run(dataclasses.replace(r, expected="...", text="") for r in small),
        "honest alone": small.where(lambda r: r.honest),
        "cheats alone": small.where(lambda r: not r.honest),
        "unknown family": Run(dataclasses.replace(r, family="somebody's") for r in small),
        "unknown precision": Run(dataclasses.replace(r, precision="fp7") for r in small),
    }


@pytest.mark.parametrize("name", _cases())
def test_odd_runs_give_reports(name):
    made = build([Source(name=name, run=_cases()[name])])
    page = Page(render(made, ".html").decode())
    assert page.headings == SECTIONS
    assert "nan" not in page.text.lower().split()
    assert render(made, ".md")
    json.loads(render(made, ".json"), parse_constant=pytest.fail)


def test_what_no_threshold_gets_wrong_is_said_and_not_drawn():
    made = build([Source(name="x", run=made_run(20).where(lambda row: row.scenario != "mild"))])
    page = Page(render(made, ".html").decode())
    assert "some threshold tells int8 from the honest providers without error" in page.text
    assert not [a for _, a in page.tags if (a.get("aria-label") or "").startswith("Misses")]


def test_nothing_measured_is_said():
    assert build([]).banner.headline == "Nothing was measured."
    assert build([Source(name="x", run=_cases()["no statistics"])]).banner.headline == "Nothing was judged."


def test_all_found_is_good_and_an_accused_honest_clip_is_not():
    good = made_run(20).where(lambda row: row.scenario != "mild")
    assert build([Source(name="x", run=good)]).banner.tone == "good"
    accused = Run(dataclasses.replace(r, outcome="FAIL") if r.honest and r.clip == "clip3" else r for r in good)
    banner = build([Source(name="x", run=accused)]).banner
    assert (banner.tone, "1 of 20 honest clips accused" in banner.headline) == ("bad", True)


def test_the_same_run_twice_counts_once():
    once, twice = (build([Source(name="x", run=made_run(9))] * n) for n in (1, 2))
    assert once.parts == twice.parts
    assert "36 rows repeat" in " ".join(twice.limits)


def test_the_same_report_gives_the_same_bytes(full):
    for form in FORMATS:
        assert render(_full(), form) == render(full, form)


def test_many_clips_stay_small():
    made = build([Source(name="x", run=made_run(2500))])
    assert len(render(made, ".html")) < 1_000_000
    assert len(render(made, ".json")) < 1_000_000


def test_files_are_written_together_or_not_at_all(tmp_path):
    made = build([Source(name="x", run=made_run(3))])
    written = write(made, tmp_path / "report.html", twins=True)
    assert [own.name for own in written] == ["report.html", "report.md", "report.json"]
    assert sorted(own.name for own in tmp_path.iterdir()) == ["report.html", "report.json", "report.md"]
    with pytest.raises(UsageError, match=r"\.html, \.md, \.json"):
        write(made, tmp_path / "report.pdf")


def test_examples_lie_beside_the_run(tmp_path):
    run = tmp_path / "run.jsonl"
    made_run(3).write(run)
    assert read_source(run).examples is None
    made_examples().save(path_beside(run))
    source = read_source(run)
    assert source.examples == made_examples()
    assert [name for name, _ in source.digests] == ["run.jsonl", "run.jsonl.examples.json"]
    assert build([source]).parts[0].curves


def test_examples_of_other_weights_are_left_out():
    other = msgspec.structs.replace(made_examples(), weights="1" * 64)
    assert build([Source(name="x", run=made_run(3), examples=other)]).parts[0].curves == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "earmark.examples/2"}, "format"),
        ({"more": 1}, "more"),
        ({"curves": [{"scenario": "a", "clip": "b", "unit": "s", "places": [0], "provider": [], "reference": [0],
                      "words": []}]}, "one number per position"),
        ({"curves": [{"scenario": "a", "clip": "b", "unit": "s", "places": [1e99], "provider": [0], "reference": [0],
                      "words": []}]}, "1e12|1000000000000"),
        ({"attributions": [{"scenario": "a", "names": {"x": -1}}]}, "0"),
    ],
)  # fmt: skip
def test_damaged_examples_are_refused(tmp_path, change, said):
    run = tmp_path / "run.jsonl"
    content = json.loads(made_examples().to_json()) | change
    path_beside(run).write_text(json.dumps(content))
    with pytest.raises(RecordError, match=said):
        load_examples(run)


def test_huge_examples_are_refused(tmp_path):
    path_beside(tmp_path / "run.jsonl").write_bytes(b" " * 4_000_001)
    with pytest.raises(RecordError, match="4000000 bytes"):
        load_examples(tmp_path / "run.jsonl")


def test_examples_come_back_as_they_were():
    assert codec.decode(made_examples().to_msgpack(), Examples) == made_examples()


def test_logs_name_their_faulty_line(tmp_path):
    log = tmp_path / "audit.jsonl"
    entry = Entry(
        clip="a", outcome="PASS", mode="replay", score=0.1, p_value=0.5, findings=(), log_e=0.0, decision="INCONCLUSIVE"
    )
    log.write_text(entry.to_json() + "\n" + entry.to_json()[:20])  # cut short by a kill
    assert read_audit(log) == [entry]
    log.write_text("nonsense\n")
    with pytest.raises(RecordError, match="line 1"):
        read_audit(log)
    with pytest.raises(UsageError, match="cannot be read"):
        read_audit(tmp_path / "missing")


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
