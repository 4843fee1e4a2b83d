"""`make demo` judges every provider rightly, and ends with a report."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from earmark import comparisons


@pytest.fixture
def demo(monkeypatch):
    path = Path(__file__).resolve().parents[1] / "examples" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_demo_is_right(demo, capsys):
    assert demo.judge(), capsys.readouterr().out
    assert "All verdicts are as they should be." in capsys.readouterr().out


def test_demo_ends_with_a_report_on_every_model(demo, tmp_path, monkeypatch):
    names = ["whisper-nano", "whisper-nano-early"]
    monkeypatch.setattr(demo, "EXAMPLES", 1)
    monkeypatch.setattr(comparisons, "embedded_names", lambda: names)
    page = demo.report(tmp_path, names, 2)
    (part,) = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))["parts"]
    assert part["subject"]["model"] == "embedded:whisper-nano"
    assert part["subject"]["cheats"][-1] == "whisper-nano-early"
    assert (part["alarms"], part["judged"]) == (0, 2)
    assert {own["scenario"] for own in part["detections"] if own["detected"] == own["clips"] == 2} >= {
        "int8",
        "int4-g64",
    }
    assert len(part["curves"]) == len(part["detections"])
