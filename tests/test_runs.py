"""Runs and studies: rows survive files whatever they hold; a study goes on with its own rows alone."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from made_profiles import CHANNELS, row
from test_lines import HOSTILE

from earmark.calibrate import calibrate
from earmark.errors import OutputError, RecordError, UsageError
from earmark.runs import Run
from earmark.scenarios import scenario
from earmark.study import Sample, study

NUMBERS = (0.5, math.nan, math.inf, -math.inf)


def rows_with(numbers=NUMBERS, **changes):
    """One row per number, which stands in the first channel."""
    return Run([row(f"clip{i}", "x", (number, 1.0), **changes) for i, number in enumerate(numbers)])


@pytest.mark.parametrize("text", ["<b>\n", HOSTILE, "\ud800"])
def test_rows_survive_files(tmp_path, text):
    """Infinite statistics stay infinite, those that do not apply NaN; no text breaks the file."""
    rows = rows_with(text=text, findings=("k.low",))
    rows = Run([*rows, row(text, "x", (1.0, 2.0))])
    rows.write(tmp_path / "run.jsonl")
    assert Run.read(tmp_path / "run.jsonl")[-1] == rows[-1]
    again = Run.read(tmp_path / "run.jsonl")
    assert np.array_equal(again.matrix(CHANNELS), rows.matrix(CHANNELS), equal_nan=True)
    assert [(r.clip, r.text, r.findings) for r in again] == [(r.clip, r.text, r.findings) for r in rows]


def test_files_without_escapes_are_read(tmp_path):
    """As earlier versions wrote them."""
    path, first = tmp_path / "run.jsonl", row("a", "x", (1.0, 2.0), text=HOSTILE)
    path.write_text(json.dumps(json.loads(first.to_json()), ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(Run.read(path)) == [first]


def test_damaged_rows_are_named(tmp_path):
    good = row("a", "x", (1.0, 2.0)).to_json()
    for damage in ("{}", "[]", good.replace("1.0", '"inf"'), good.replace("1.0", "true"), "[" * 100_000):
        (tmp_path / "bad.jsonl").write_text(good + "\n" + damage + "\n")
        with pytest.raises(RecordError, match=r"bad\.jsonl, line 2"):
            Run.read(tmp_path / "bad.jsonl")
    old = json.loads(good) | {"run": 1}
    del old["shape"]
    (tmp_path / "old.jsonl").write_text(json.dumps(old))
    with pytest.raises(RecordError, match="version 1; this version"):
        Run.read(tmp_path / "old.jsonl")
    with pytest.raises(UsageError, match="gone"):
        Run.read(tmp_path / "gone.jsonl")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seconds": "x"}, "float.*seconds"),
        ({"seconds": math.nan}, "nan seconds"),
        ({"seconds": -1.0}, "-1 seconds"),
        ({"positions": -1}, "-1 positions"),
        ({"positions": 1.5}, "int.*positions"),
        ({"text": 5}, "str.*text"),
        ({"expected": 5}, "str.*expected"),
        ({"family": ["a"]}, "str.*family"),
        ({"scenario": None}, "str.*scenario"),
        ({"honest": "false"}, "bool.*honest"),
        ({"honest": 0}, "bool.*honest"),
        ({"findings": [1]}, "str.*findings"),
        ({"findings": "statistics.x"}, "array.*findings"),
        ({"outcome": "BANANA"}, "BANANA.*PASS, FAIL, INCONCLUSIVE"),
        ({"statistics": []}, "items"),
        ({"more": 1}, "unknown columns more"),
    ],
)
def test_a_column_of_the_wrong_type_is_refused_by_name(tmp_path, change, said):
    """Else it would fail far from here, or a cheat that is honest by a word would count as honest."""
    good = json.loads(row("a", "x", (1.0, 2.0)).to_json())
    (tmp_path / "bad.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(good | change) + "\n")
    with pytest.raises(RecordError, match=rf"bad\.jsonl, line 2: no row of a run: .*{said}"):
        Run.read(tmp_path / "bad.jsonl")


def test_parquet_keeps_every_number(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    rows = rows_with(text=HOSTILE)
    rows.write(tmp_path / "run.parquet")
    table = pd.read_parquet(tmp_path / "run.parquet")
    assert len(table) == len(rows.to_pandas()) == 2 * len(NUMBERS)
    kept = table[table.statistic == CHANNELS[0]].value.to_numpy()
    assert np.array_equal(kept, NUMBERS, equal_nan=True)
    assert set(table.text) == {HOSTILE}


def test_an_infinite_statistic_is_no_yardstick():
    """It lies beyond any scale: the scale stays finite, and the clip scores infinity."""
    rng = np.random.default_rng(0)
    rows = [row(f"clip{i}", "a", (float(np.exp(rng.standard_normal())), 0.0)) for i in range(700)]
    broken = [dataclasses.replace(r, statistics={**r.statistics, CHANNELS[0]: math.inf}) for r in rows[:70]]
    profile = calibrate(Run([*broken, *rows[70:]]), CHANNELS)
    assert np.isfinite(profile.header.width).all()
    assert np.isposinf(profile.scores).any()
    assert profile.judge({CHANNELS[0]: math.inf, CHANNELS[1]: 0.0}).score == math.inf


def test_a_study_that_was_killed_goes_on(nano, clips, tmp_path):
    samples = [Sample(name=f"clip{i}", audio=clip.audio) for i, clip in enumerate(clips[:3])]
    providers = [scenario("honest", batch_size=1), scenario("quantise", bits=4, group=64)]
    whole = study(nano, providers, samples, tmp_path / "whole.jsonl", profile="provisional")
    assert [(r.scenario, r.clip, r.outcome) for r in whole] == [
        *(("honest-batch-1", f"clip{i}", "PASS") for i in range(3)),
        *(("int4-g64", f"clip{i}", "FAIL") for i in range(3)),
    ]
    lines = (tmp_path / "whole.jsonl").read_bytes()
    (tmp_path / "killed.jsonl").write_bytes(lines[: int(len(lines) * 0.6)])
    counted: list[int] = []
    again = study(nano, providers, samples, tmp_path / "killed.jsonl", profile="provisional", advance=counted.append)
    assert {(r.scenario, r.clip, r.outcome, r.text) for r in again} == {
        (r.scenario, r.clip, r.outcome, r.text) for r in whole
    }
    assert sum(counted) == 6
    assert len(again) == 6


def test_a_provider_that_raises_takes_no_other_down(nano, clips, tmp_path):
    samples = [Sample(name="clip", audio=clips[0].audio)]

    def raises(*_: object) -> None:
        raise OSError("a disk of its own")

    broken = dataclasses.replace(scenario("honest"), name="broken", produce=raises)
    told: list[tuple[str, str]] = []
    run = study(
        nano,
        [broken, scenario("honest")],
        samples,
        tmp_path / "run",
        failed=lambda provider, error: told.append((provider.name, str(error))),
    )
    assert [row.scenario for row in run] == ["honest"]
    assert told == [("broken", "a disk of its own")]
    with pytest.raises(OSError, match="a disk of its own"):
        study(nano, [broken], samples, tmp_path / "run")


def test_a_study_measures_compact_evidence(nano, clips, tmp_path):
    samples = [Sample(name=str(i), audio=clip.audio) for i, clip in enumerate(clips[:2])]
    providers = [scenario("honest"), scenario("quantise", bits=8)]
    run = study(nano, providers, samples, tmp_path / "run", level="compact", profile="provisional")
    assert [row.outcome for row in run] == ["PASS", "PASS", "FAIL", "FAIL"]
    assert {row.level for row in run} == {"compact"}


def test_a_study_measures_other_audio_and_another_language_of_the_same_name_anew(nano, clips, tmp_path):
    """The run gives rows of these requests alone; rows that name no request, of older runs, are taken as they are."""
    path, honest = tmp_path / "run.jsonl", [scenario("honest", batch_size=1)]
    asked = [Sample(name="c", audio=clips[0].audio), Sample(name="c", audio=clips[1].audio)]
    asked.append(dataclasses.replace(asked[1], language=None))
    counted = []
    for sample in asked:
        (own,) = study(nano, honest, [sample], path)
        counted.append((own.request, own.seconds))
        assert own.request == sample.clip().request.digest()
    assert len({request for request, _ in counted}) == len(Run.read(path)) == 3
    assert counted[0][1] != counted[1][1] == counted[2][1]
    (first,) = study(nano, honest, asked[:1], path)
    assert (first.request, len(Run.read(path))) == (counted[0][0], 3), "it was measured already"
    Run([dataclasses.replace(first, request="")]).write(path)
    old = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in old.items() if name != "request"}) + "\n")
    (kept,) = study(nano, honest, asked[1:2], path)
    assert (kept.request, kept.seconds) == ("", first.seconds)


def test_a_study_does_not_go_on_with_rows_of_another(nano, early, clips, tmp_path):
    """Else a calibration would save what another model did; rows of the same reference do count."""
    samples, honest = [Sample(name="clip0", audio=clips[0].audio)], [scenario("honest", batch_size=1)]
    path = tmp_path / "run.jsonl"
    (mine,) = study(nano, honest, samples, path)
    assert list(study(nano, honest, samples, path)) == [mine]
    with pytest.raises(UsageError, match=r"run\.jsonl holds rows of .*nano \(fp32.*; expected .*early"):
        study(early, honest, samples, path)
    with pytest.raises(UsageError, match=r"level scores.*expected.*level sketch"):
        study(nano, honest, samples, path, level="sketch")
    Run([dataclasses.replace(mine, precision="bf16")]).write(path)
    with pytest.raises(UsageError, match=r"\(bf16.*expected.*\(fp32"):
        study(nano, honest, samples, path)
    with pytest.raises(OutputError):
        study(nano, honest, samples, tmp_path)
