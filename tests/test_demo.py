"""`make demo` judges every provider rightly."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_demo_is_right(capsys):
    path = Path(__file__).resolve().parents[1] / "examples" / "demo.py"
    spec = importlib.util.spec_from_file_location("demo", path)
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    assert demo.main() == 0, capsys.readouterr().out
    assert "All verdicts are as they should be." in capsys.readouterr().out
