"""Fixtures of the lattice tests; puts the slow reference beside them on the path."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from lattice_reference import cases_path


@pytest.fixture(scope="session")
def lattice_cases() -> dict[str, dict]:
    """Return the known answers by id."""
    import json

    if not cases_path().is_file():
        pytest.skip(f"no known answers at {cases_path()}: set EARMARK_CASES to their folder")
    return {case["id"]: case for case in json.loads(cases_path().read_text(encoding="utf-8"))["cases"]}
