"""The challenge set, copies of it to be damaged, and the command."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from earmark import challenges as ch
from earmark.challenges import building, synthesis
from earmark.challenges.collection import default_folder
from earmark.cli import main
from earmark.errors import UsageError


@pytest.fixture(scope="session")
def shipped() -> ch.ChallengeSet:
    """Return the set that ships with earmark."""
    return ch.load()


@pytest.fixture
def copied(tmp_path) -> Path:
    """Return a copy of the set that may be damaged."""
    return shutil.copytree(default_folder(), tmp_path / "set")


@pytest.fixture
def few(tmp_path) -> Path:
    """Return a copy of the first twelve stored clips."""
    folder = tmp_path / "few"
    (folder / "audio").mkdir(parents=True)
    lines = (default_folder() / "manifest.jsonl").read_text(encoding="utf-8").splitlines()[:12]
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for line in lines:
        name = json.loads(line)["audio_filepath"]
        shutil.copy(default_folder() / name, folder / name)
    return folder


@pytest.fixture
def need(shipped) -> Callable[..., None]:
    """Return what skips a test where a synthesiser is missing, or another one than the set was built with."""

    def check(*engines: str) -> None:
        expected = building.synthesisers(shipped)
        for engine in engines:
            try:
                found = synthesis.identity(engine)
            except UsageError as error:
                pytest.skip(str(error))
            if found != expected[engine]:
                pytest.skip(f"{found} is installed, the set was built with {expected[engine]}")

    return check


@pytest.fixture
def run(capsys) -> Callable[..., tuple[int, str, str]]:
    """Return what runs `earmark challenges` and gives exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["challenges", *map(str, arguments)])
        return code, *capsys.readouterr()

    return call
