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

import jiwer
import msgspec
import numpy as np
import pytest
from made_profiles import row as honest_row
from made_runs import made_examples, made_run
from scipy.stats import bootstrap

from earmark.audit_log import Entry
from earmark.calibrate import calibrate
from earmark.errors import RecordError, UsageError
from earmark.examples import Examples, load_examples, path_beside
from earmark.records import codec
from earmark.report import FORMATS, Report, Source, build, read_source, render, write
from earmark.report.contents import AuditPath, ErrorRate
from earmark.report.drawing import COLOURS
from earmark.report.plots import draw_audits
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
    "What word error rates tell",
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


def test_infinite_values_are_counted_and_not_dropped():
    """Where no honest provider can come, an honest one came: the largest honest value must not look harmless."""
    run = Run(
        dataclasses.replace(r, statistics={**r.statistics, "logprob_l1": math.inf})
        if r.clip in ("clip1", "clip2")
        else r
        for r in made_run(20)
    )
    made = build([Source(name="x", run=run)])
    band = next(own for own in made.parts[0].bands if own.statistic == "logprob_l1")
    assert (band.honest.infinite, band.honest.count) == (2, 36)
    assert math.isfinite(band.honest.most)
    assert "| 36 |" not in render(made, ".md").decode()
    for form in (".md", ".html"):
        assert render(made, form).decode().count("∞ (2 clips)") >= 3
    everywhere = Run(dataclasses.replace(r, statistics={"logprob_l1": math.inf}) for r in run if not r.honest)
    mixed = build([Source(name="x", run=Run([*run.where(lambda r: r.honest), *everywhere]))])
    assert "∞ (20 clips)" in render(mixed, ".html").decode()


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
    assert paths["int8"].clips == len(paths["int8"].log_e) == 30
    assert paths["int8"].decision == "FAIL"
    assert paths["honest-batch-1"].decision != "FAIL"


def test_audits_of_a_run_find_the_cheat_and_no_honest_provider(full):
    paths = {own.name: own for own in full.parts[0].audits}
    assert paths["int8"].decided is not None
    assert paths["honest-batch-1"].decided is None
    assert len(paths["honest-batch-1"].log_e) == 15  # held out: neither scale nor bets saw them


def _entries(decisions):
    return [
        Entry(clip=f"c{i}", outcome="PASS", mode="replay", score=0.1, p_value=0.5, findings=(), log_e=0.01 * i,
              decision=decision)
        for i, decision in enumerate(decisions)
    ]  # fmt: skip


def test_a_long_log_is_thinned_to_be_drawn_and_counted_whole():
    made = build([], audits=[("long.jsonl", _entries(["INCONCLUSIVE"] * 700 + ["FAIL"] * 300))])
    (path,) = made.audits
    assert made.banner.reasons == ("long.jsonl: FAIL behind 1000 clips, decided at clip 701",)
    assert (path.clips, path.final_log_e, path.places[0], path.places[-1]) == (1000, 9.99, 1, 1000)
    assert 701 in path.places
    assert len(path.places) == len(path.log_e) <= 502
    steps = np.diff(path.places)
    assert steps.max() <= 3
    text = render(made, ".md").decode()
    assert "| long.jsonl | FAIL | 1000 | 701 | 10 |" in text


def test_an_empty_log_says_nothing():
    made = build([], audits=[("none.jsonl", [])])
    assert (made.audits[0].clips, made.audits[0].places, made.banner.tone) == (0, (), "open")
    assert "nan" not in Page(render(made, ".html").decode()).text.split()
    assert "| none.jsonl | INCONCLUSIVE | 0 | - | - |" in render(made, ".md").decode()


def test_audits_of_a_run_play_every_clip():
    paths = {own.name: own for own in build([Source(name="x", run=made_run(700))]).parts[0].audits}
    assert paths["int8"].clips > 500
    assert len(paths["int8"].places) <= 502


def test_the_honest_provider_that_comes_highest_is_drawn():
    paths = [
        AuditPath(name=name, honest=True, clips=2, final_log_e=0.0, places=(1, 2), log_e=(0.0, top), fails_at=None,
                  decided=None, decision="INCONCLUSIVE")
        for name, top in (("first", 0.1), ("highest", 5.0), ("last", 0.2))
    ]  # fmt: skip
    drawing = draw_audits(paths, "m")
    assert "highest ends INCONCLUSIVE" in drawing.alt
    assert "first" not in drawing.alt
    assert "Of 3 honest providers, highest comes highest" in drawing.caption


def test_the_page_has_the_audits_of_runs_as_numbers(full, page):
    int8 = next(own for own in full.parts[0].audits if own.name == "int8")
    table = page.text[page.text.index("Evidence over an audit") :].partition("Entropy along a clip")[0]
    assert re.search(rf"int8\s*{int8.decision}\s*{int8.clips}\s*{int8.decided}", table)


def test_word_error_rates_beside_detection(full):
    rates = {own.scenario: own for own in full.parts[0].rates}
    assert (rates["int8"].clips, rates["int8"].words) == (30, 60)
    assert rates["honest-batch-1"].rate == pytest.approx(1.5)  # "turn it" against "turn off the light"
    assert rates["int8"].difference == pytest.approx(0.5)
    assert (rates["mild"].detected, rates["int8"].detected, rates["int8"].same_text) == (0.0, 1.0, 0.0)
    assert (rates["int8"].difference_low, rates["int8"].difference_high) == (0.5, 0.5)
    assert full.parts[0].rates_say == "0 of 2 cheats lie within the interval of no difference."


def _rates(wrong: dict[str, str]) -> dict[str, ErrorRate]:
    """Rates of a run whose int8 writes `wrong` of some clips, and elsewhere what is right."""
    run = made_run(40, text="turn it", expected="turn it")
    changed = Run(
        dataclasses.replace(r, text=wrong.get(r.clip, "turn it") if r.scenario == "int8" else "turn it") for r in run
    )
    (part,) = build([Source(name="x", run=changed)]).parts
    assert part.rates_say.startswith(f"{1 + (len(wrong) < 4)} of 2 cheats lie within")
    return {own.scenario: own for own in part.rates}


def test_the_interval_of_a_word_error_rate_is_a_paired_bootstrap():
    """One wrong clip in 30 may be chance, half of them is not; against scipy's bootstrap of the same differences."""
    few, many = _rates({"clip1": "turn"})["int8"], _rates({f"clip{i}": "turn" for i in range(20)})["int8"]
    assert (few.difference, few.difference_low) == (pytest.approx(1 / 60), 0.0)
    wrong = np.asarray([float(i < 20) for i in range(40) if i % 4]) / 2
    outside = bootstrap((wrong,), np.mean, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    assert (many.difference_low, many.difference_high) == pytest.approx(tuple(outside), abs=0.03)


def test_few_clips_have_no_interval():
    (part,) = build([Source(name="x", run=made_run(8))]).parts
    assert all(math.isnan(own.difference_low) for own in part.rates)
    assert part.rates_say == ""


def test_word_errors_are_counted_as_jiwer_counts_them():
    run = made_run(12)
    run = Run(dataclasses.replace(r, text=f"{r.text} {i % 5 * 'um '}"[i % 3 :]) for i, r in enumerate(run))
    for own in build([Source(name="x", run=run)]).parts[0].rates:
        rows = [r for r in run if r.scenario == own.scenario and r.expected]
        assert own.rate == pytest.approx(jiwer.wer([r.expected for r in rows], [r.text.strip() for r in rows]))


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


def _undecided(run: Run, scenario: str, clips: int) -> Run:
    """The run with the first clips of one provider left undecided."""
    names = {f"clip{i}" for i in range(clips)}
    return Run(
        dataclasses.replace(r, outcome="INCONCLUSIVE") if r.scenario == scenario and r.clip in names else r for r in run
    )


@pytest.mark.parametrize(
    ("scenario", "clips", "headline", "reason"),
    [
        ("int8", 19, "0 of 1 simulated cheat found on every clip; 0 of 20 honest clips accused; 19 verdicts undecided.",
         "int8 of m (fp32, scores): found on 1 of 20 clips, 19 undecided"),
        ("int8", 20, "0 of 1 simulated cheat found on every clip; 0 of 20 honest clips accused; 20 verdicts undecided.",
         "int8 of m (fp32, scores): not found on any of 20 clips, 20 undecided"),
        ("honest-batch-1", 20,
         "1 of 1 simulated cheat found on every clip; 0 of 20 honest clips accused; 20 verdicts undecided.",
         "honest-batch-1 of m (fp32, scores): not accused on any of 20 clips, 20 undecided"),
    ],
)  # fmt: skip
def test_undecided_clips_are_named_and_never_good(scenario, clips, headline, reason):
    good = made_run(20).where(lambda row: row.scenario != "mild")
    banner = build([Source(name="x", run=_undecided(good, scenario, clips))]).banner
    assert (banner.tone, banner.headline, banner.reasons) == ("open", headline, (reason,))


def test_without_a_cheat_the_banner_says_who_passed():
    """As in `earmark compare --same` and of bundles: the provider elsewhere must pass."""
    honest = made_run(20).where(lambda row: row.honest)
    same = Run(
        [*honest, *(dataclasses.replace(r, scenario="b-onnx") for r in honest if r.scenario == "honest-batch-1")]
    )
    banner = build([Source(name="x", run=same)]).banner
    assert (banner.tone, banner.headline, banner.reasons) == ("good", "b-onnx passed on 20 of 20 clips.", ())
    left = build([Source(name="x", run=_undecided(same, "b-onnx", 3))]).banner
    assert (left.tone, left.headline) == ("open", "b-onnx passed on 17 of 20 clips; 3 verdicts undecided.")
    failing = Run(dataclasses.replace(r, outcome="FAIL") if r.scenario == "b-onnx" else r for r in same)
    failed = build([Source(name="x", run=failing)]).banner
    assert (failed.tone, failed.headline) == ("bad", "b-onnx passed on 0 of 20 clips.")
    assert failed.reasons == ("b-onnx of m (fp32, scores): accused on 20 of 20 clips",)
    own = build([Source(name="x", run=honest)]).banner
    assert (own.tone, own.headline) == ("good", "2 of 2 honest providers passed on every clip.")


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


def test_the_same_run_twice_counts_once():
    once, twice = (build([Source(name="x", run=made_run(9))] * n) for n in (1, 2))
    assert once.parts == twice.parts
    assert "36 rows repeat" in " ".join(twice.limits)


def test_the_same_report_gives_the_same_bytes(full):
    for form in FORMATS:
        assert render(_full(), form) == render(full, form)


def test_many_clips_stay_small():
    shape = {f"shape_{i}": 0.1 * i for i in range(307)}
    run = Run(dataclasses.replace(own, shape=shape) for own in made_run(2500))
    made = build([Source(name="x", run=run)])
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
