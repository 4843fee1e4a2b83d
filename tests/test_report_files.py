"""Reports: what they are made of and written to; odd runs give reports, damaged files are refused."""

from __future__ import annotations

import dataclasses
import json

import msgspec
import pytest
from made_reports import SECTIONS, Page, full_report, odd_runs
from made_runs import made_examples, made_run

from earmark.audit_log import Entry
from earmark.errors import RecordError, UsageError
from earmark.examples import Examples, load_examples, path_beside
from earmark.records import codec
from earmark.report import FORMATS, Source, build, read_source, render, write
from earmark.report.sources import read_audit
from earmark.runs import Run


def test_the_same_run_twice_counts_once():
    once, twice = (build([Source(name="x", run=made_run(9))] * n) for n in (1, 2))
    assert once.parts == twice.parts
    assert "36 rows repeat" in " ".join(twice.limits)


def test_the_same_report_gives_the_same_bytes(full):
    for form in FORMATS:
        assert render(full_report(), form) == render(full, form)


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


@pytest.mark.parametrize("name", odd_runs())
def test_odd_runs_give_reports(name):
    made = build([Source(name=name, run=odd_runs()[name])])
    page = Page(render(made, ".html").decode())
    assert page.headings == SECTIONS
    assert "nan" not in page.text.lower().split()
    assert render(made, ".md")
    json.loads(render(made, ".json"), parse_constant=pytest.fail)
