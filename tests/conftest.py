"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def speech_dir() -> Path:
    """Return the folder of real recordings: EARMARK_SPEECH, or ../shared/speech beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "speech"
    folder = Path(os.environ.get("EARMARK_SPEECH", beside))
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip(f"no recordings in {folder}: set EARMARK_SPEECH to the folder of real speech")
    return folder
