"""`earmark study`, `earmark report` and `earmark compare` on the shipped clips."""

from __future__ import annotations

import json
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from made_runs import made_run

from earmark.cli import main
from earmark.cli.samples import find_samples
from earmark.errors import RecordError
from earmark.runs import Run

CLIPS = Path(str(files("earmark.data"))) / "clips"
MODEL = "embedded:parakeet-ctc-nano"


def _study(*more: str) -> int:
    """Make a small study in `run.jsonl`."""
    clips = [str(CLIPS / name) for name in ("00.flac", "01.flac")]
    words = ["study", MODEL, *clips, "--out", "run.jsonl", "--examples", "1", "--device", "cpu", *more]
    return main([*words, "--scenario", "honest", "--scenario", "quantise:bits=4"])


def test_a_study_is_reported_and_repeats_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _study("--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["scenario"], row["detected"], row["clips"]) for row in rows] == [("honest", 0, 2), ("int4", 2, 2)]
    made = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(made) == {"run.jsonl", "run.jsonl.examples.json"}
    assert _study() == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == made
    assert "100.0%" in capsys.readouterr().out
    assert main(["report", "run.jsonl", "--out", "report.html", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["report.html", "report.md", "report.json"]
    assert said["headline"] == "1 of 1 simulated cheat found on every clip; 0 of 2 honest clips accused."
    assert "Entropy of provider" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_study_says_what_every_clip_looks_like(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _study("--match", "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[2:] == [
        {"scenario": "honest", "looks_like": {"none of the known": 2}},
        {"scenario": "int4", "looks_like": {"int4": 2}},  # no recipe of the library, but one of this study
    ]
    assert [row.looks_like for row in Run.read("run.jsonl")] == ["none of the known"] * 2 + ["int4"] * 2
    assert main(["report", "run.jsonl", "--out", "report.json"]) == 0
    (part,) = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["parts"]
    assert part["attributions"][1] == {"scenario": "int4", "names": {"int4": 2}}


def test_a_run_is_matched_as_a_whole_or_not_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert _study() == 0
    assert "looks like" not in capsys.readouterr().out
    assert {row.looks_like for row in Run.read("run.jsonl")} == {None}
    assert _study("--match") == 3
    assert "not matched with int8; expected all matched" in capsys.readouterr().err


def test_models_are_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["compare", MODEL, f"{MODEL}-student", str(CLIPS / "00.flac"), "--out", "c.html", "--device", "cpu"]
    assert main([*words, "--examples", "0"]) == 0
    assert "1 of 1 simulated cheat found on every clip; 0 of 1 honest clip accused." in capsys.readouterr().out
    (run,) = (tmp_path / "c.runs").glob("*.jsonl")
    assert Run.read(run).scenarios()[-1] == "parakeet-ctc-nano-student"


def test_runs_are_compared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made_run(4, model="a").write("a.jsonl")
    made_run(4, model="b").write("b.jsonl")
    assert main(["compare", "a.jsonl", "b.jsonl", "--out", "both.json"]) == 0
    twin = json.loads((tmp_path / "both.json").read_text(encoding="utf-8"))
    assert [part["subject"]["model"] for part in twin["parts"]] == ["a", "b"]
    assert twin["title"] == "a.jsonl against b.jsonl"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["report", "--out", "a.html"], "nothing to report on"),
        (["report", "missing.jsonl", "--out", "a.html"], "missing.jsonl"),
        (["report", "missing.jsonl", "--out", "a.pdf"], ".html, .md, .json"),
        (["compare", MODEL, "fp7", "--out", "a.txt"], ".html, .md, .json"),
        (["study", MODEL, "missing.flac", "--out", "a.jsonl"], "no such file"),
    ],
)
def test_faults_are_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 3
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_reports_say_what_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    made_run(4).write("run.jsonl")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["report", "run.jsonl", "--out", "a.html"]) == 3
    assert "install earmark[report]" in capsys.readouterr().err
    assert not (tmp_path / "a.html").exists()


def test_clips_come_with_their_transcripts(tmp_path):
    samples = find_samples([CLIPS], language="en", limit=5)
    assert len(samples) == 5
    assert samples[0].expected == "call lucy at two three nine five seven three"
    assert {sample.language for sample in samples} == {"en"}
    assert find_samples([CLIPS / "00.flac"], language=None)[0].expected is None
    (tmp_path / "list.jsonl").write_text("nonsense\n")
    with pytest.raises(RecordError, match="line 1"):
        find_samples([tmp_path / "list.jsonl"], language="en")


def test_a_challenge_set_has_its_mixes_and_languages():
    samples = find_samples([CLIPS.parent / "challenges"], language="fr")
    assert {sample.language for sample in samples} == {"fr"}
    assert any(not isinstance(sample.audio, Path) for sample in samples)  # mixes are made when they are asked for


def test_the_challenge_set_is_the_default():
    samples = find_samples([], language="de", limit=4)
    assert {sample.language for sample in samples} == {"de"}
    assert all(sample.expected for sample in samples)
