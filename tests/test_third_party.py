"""The package of docs/how-to/a-family-in-ten-minutes.md, from the document alone: installed, run, checked, broken."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "a-family-in-ten-minutes.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
STRICT_LINES = """        if segment.ids != joined(ids[:, 0]):
            raise TraceError("the transcript does not follow from the path", code="path.mismatch")
"""


def _files() -> dict[str, str]:
    return dict(re.findall(r'```\w+ title="([^"]+)"\n(.*?)```', TEXT, flags=re.DOTALL))


def _commands() -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", TEXT, flags=re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


DRIVER = """
import contextlib, io, json, runpy, shlex, sys
from earmark.cli import main

def script(words):
    module, sys.argv = words[0] == "-m", words[words[0] == "-m":]
    run = runpy.run_module if module else runpy.run_path
    run(sys.argv[0], run_name="__main__")
    return 0

done = {}
for command in json.load(sys.stdin):
    program, *words = shlex.split(command)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main(words) if program == "earmark" else script(words)
    done[command] = [code, out.getvalue()]
print(json.dumps(done))
"""
OTHER = "earmark verify meeting.json --model other --audio meeting.flac --profile provisional"


def _python(place: Path, *arguments: str, first: Path | None = None, stdin: str = "") -> subprocess.CompletedProcess:
    """Run Python in the folder `work`, with the package from `site` and nothing else that was not there before."""
    path = [str(first)] if first else []
    path += [str(place / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True, text=True, check=False, cwd=place / "work", env=environment, input=stdin, timeout=500,
    )  # fmt: skip


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Return a folder where the package lies in `work/letterwise` and is installed in `site`."""
    root = tmp_path_factory.mktemp("third-party")
    for name, content in _files().items():
        target = root / "work" / "letterwise" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content, encoding="utf-8")
    shutil.copy(root / "work" / "letterwise" / "check.py", root / "work")
    shutil.copy(Path(str(files("earmark.data"))) / "clips" / "00.flac", root / "work" / "meeting.flac")
    where = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(root / "site")]
    done = _python(root, "-m", "pip", "install", "--quiet", *where, "./letterwise")
    assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def outputs(place) -> dict[str, tuple[int, str]]:
    """Run every command of the page in its order, in one process, and return exit codes and what was printed."""
    commands = [*_commands()[1:], "python -m letterwise.make other 1", OTHER]
    done = _python(place, "-c", DRIVER, stdin=json.dumps(commands))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def _of(outputs, start: str) -> str:
    code, text = next(row for command, row in outputs.items() if command.startswith(start))
    assert code == 0, text
    return text


def test_the_page_holds_a_whole_package():
    assert set(_files()) == {
        "pyproject.toml", "check.py", "letterwise/__init__.py", "letterwise/model.py", "letterwise/family.py",
        "letterwise/make.py",
    }  # fmt: skip
    assert _commands()[0] == "pip install ./letterwise"


def test_it_is_listed_beside_our_own(outputs):
    listed = _of(outputs, "earmark families")
    assert "letterwise" in listed
    assert "autoregressive" in listed


def test_its_evidence_passes(outputs):
    verdict = _of(outputs, "earmark verify meeting.json --model toy")
    assert verdict.startswith("PASS (proves: committed)")
    assert len(verdict.strip().splitlines()) == 5


def test_it_keeps_every_contract(outputs):
    assert _of(outputs, "python check.py").strip() == "letterwise keeps every contract"


def test_another_checkpoint_fails(outputs):
    code, text = outputs[OTHER]
    assert code == 1
    assert "weights.mismatch" in text


def test_a_careless_family_is_told_as_the_page_says(place, tmp_path):
    shutil.copytree(place / "site" / "letterwise", tmp_path / "letterwise")
    family = tmp_path / "letterwise" / "family.py"
    source = family.read_text(encoding="utf-8")
    assert STRICT_LINES in source
    family.write_text(source.replace(STRICT_LINES, ""), encoding="utf-8")
    assert _python(place, "-m", "letterwise.make", "toy").returncode == 0
    done = _python(place, "check.py", "toy", first=tmp_path)
    assert done.returncode == 1
    promised = re.search(r"```text\n(AssertionError: .*?)\n```", TEXT)[1]
    assert promised in done.stderr
