"""Classifiers over several references: what they share is learned, and an unseen reference is really unseen."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from benchmarks.classifier import main
from earmark.classify import table
from earmark.classify.across import figures_across, same_labels, shared_labels
from earmark.errors import UsageError
from earmark.runs import Row, Run

SIZES = {"reference": 1e-6, "int8": 3e-2, "int4": 6e-1}


def made_run(model: str, sizes: dict[str, float], *, clips: int = 20, extra: str = "") -> Run:
    """Rows of a made-up reference whose deployments differ by their size; `extra` is a statistic of its own."""
    rng = np.random.default_rng(len(model))
    rows = []
    for clip in range(clips):
        for name, typical in sizes.items():
            size = float(typical * np.exp(0.2 * rng.standard_normal()))
            tokens = {f"shape_token_{i}": float(rng.standard_normal()) for i in range(4)}
            rows.append(
                Row(
                    clip=f"c{clip}",
                    base=f"c{clip}",
                    scenario=name if name in SIZES else f"{model}-{name}",
                    honest=name == "reference",
                    model=f"embedded:{model}",
                    weights=model[-1] * 64,
                    family=model,
                    precision="fp32",
                    level="scores",
                    outcome="PASS",
                    statistics={"logprob_l1": size, **({extra: size} if extra else {})},
                    shape={"shape_rms": size, "shape_mean": float(rng.standard_normal()), **tokens},
                )
            )
    return Run(rows)


def _table(*runs: Run):
    return table(same_labels(Run(row for run in runs for row in run)))


def test_only_what_all_references_have_is_shared():
    sizes = {**SIZES, "student": 3.0}
    data = _table(made_run("nano-a", sizes, extra="blank_l1"), made_run("nano-b", SIZES))
    assert data.names == ("logprob_l1", "shape_rms", "shape_mean")
    assert shared_labels(data) == ("int4", "int8", "reference")
    assert set(data.labels) == {*SIZES, "student"}


def test_deployments_of_equal_size_are_named_on_a_reference_that_was_never_seen():
    data = _table(made_run("nano-a", SIZES), made_run("nano-b", SIZES))
    for unseen in (False, True):
        found = figures_across(data, shared_labels(data), unseen=unseen, folds=2)
        assert [*found] == ["embedded:nano-a", "embedded:nano-b"]
        assert all(own.balanced_accuracy > 0.95 for own in found.values())
        assert all(sum(map(sum, own.closed)) == 60 for own in found.values())


def test_an_unseen_reference_is_really_unseen():
    swapped = {"reference": 1e-6, "int8": 6e-1, "int4": 3e-2}
    data = _table(made_run("nano-a", SIZES), made_run("nano-c", swapped))
    found = figures_across(data, shared_labels(data), unseen=True, folds=2)["embedded:nano-c"]
    rates = {name: rate.value for name, rate in found.closed_rates().items()}
    assert rates == {"reference": 1.0, "int8": 0.0, "int4": 0.0}


def test_strangers_are_tested_and_never_taught():
    sizes = {**SIZES, "far": 900.0}
    data = _table(made_run("nano-a", sizes), made_run("nano-b", sizes))
    found = figures_across(data, ("int4", "int8", "reference"), folds=2)["embedded:nano-a"]
    assert found.labels == ("int4", "int8", "reference", "far")
    assert found.open_rates()["far"].value > 0.9


def test_one_reference_is_none_too_many():
    with pytest.raises(UsageError, match="1 references share the deployments none"):
        shared_labels(_table(made_run("nano-a", SIZES)))
    other = Run(dataclasses.replace(row, scenario=f"x{row.scenario}") for row in made_run("nano-b", SIZES))
    with pytest.raises(UsageError, match="2 references share the deployments reference"):
        shared_labels(_table(made_run("nano-a", SIZES), other))
    data = _table(made_run("nano-a", SIZES, clips=1), made_run("nano-b", SIZES, clips=1))
    with pytest.raises(UsageError, match="do not fill"):
        figures_across(data, shared_labels(data))


def test_the_command_prints_three_classifiers_of_each_reference(tmp_path, monkeypatch, capsys):
    paths = [tmp_path / f"{name}.jsonl" for name in ("nano-a", "nano-b")]
    for path in paths:
        made_run(path.stem, SIZES, clips=10).write(path)
    monkeypatch.setattr(sys, "argv", ["classifier.py", *map(str, paths), "--folds", "2"])
    main()
    printed = capsys.readouterr().out
    assert "3 shared features, 3 deployments (int4, int8, reference), guessing 33.3%" in printed
    assert "| embedded:nano-b | 10 | 100.0% | 100.0% | 100.0% |" in printed
    assert "| without it | embedded:nano-a | int8 | 100.0 %" in printed
