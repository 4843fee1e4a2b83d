"""`make demo` judges every provider rightly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def test_demo_is_right(capsys, monkeypatch):
    path = Path(__file__).resolve().parents[1] / "examples" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    demo = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "demo", demo)  # dataclasses look their module up
    spec.loader.exec_module(demo)
    assert demo.main() == 0, capsys.readouterr().out
    assert "All verdicts are as they should be." in capsys.readouterr().out
