"""What is installed from the wheel works without the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from a copy of the repository, so that no earlier build leaks into it."""
    out = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "tests", "site")
    copy = shutil.copytree(ROOT, out / "copy", ignore=ignored, symlinks=True)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(out.glob("earmark-*.whl"))


def test_wheel_holds_packages_and_data(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in (
        "earmark/py.typed",
        "earmark/verifiers/autoregressive.py",
        "earmark/models/whisper.py",
        "earmark/data/embedded/whisper-nano/model.safetensors",
        "earmark/data/embedded/whisper-nano/README.md",
        "earmark/data/clips/manifest.jsonl",
        "earmark/data/clips/00.flac",
        "earmark/data/challenges/manifest.jsonl",
        "earmark/data/challenges/README.md",
        "earmark/data/challenges/audio/clean-001.flac",
        "earmark/report/templates/report.html.j2",
        "earmark/report/templates/report.css",
        "earmark/report/templates/report.md.j2",
    ):
        assert name in names
    assert not [n for n in names if n.startswith(("verifiers/", "models/", "tests/", "training/"))]


def test_embedded_models_verify_from_the_wheel(wheel, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(install, capture_output=True, check=True)
    code = (
        "import earmark, pathlib; from importlib.resources import files;"
        "clip = pathlib.Path(str(files('earmark.data'))) / 'clips' / '00.flac';"
        "asked = earmark.request(clip, language='en');"
        "names = ('whisper', 'qwen3-asr', 'parakeet-ctc', 'parakeet-tdt');"
        "models = [earmark.load(f'embedded:{name}-nano') for name in names];"
        "evidence = [earmark.record(model, asked, clip) for model in models]; rules = {'profile': 'provisional'};"
        "verdicts = [earmark.verify(e, asked, clip, m, **rules) for e, m in zip(evidence, models)];"
        "print(earmark.__file__, clip, *(verdict.outcome for verdict in verdicts))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path, env=environment)
    file, clip, *outcomes = done.stdout.split()[-6:]
    assert outcomes == ["PASS"] * 4
    assert file.startswith(str(site))
    assert clip.startswith(str(site))


def test_challenges_load_and_are_drawn_from_the_wheel(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import sys; from earmark.challenges import load; from earmark.cli import main;"
        "clips = load(); print(len(clips), clips.folder, clips['long-001'].audio().seconds);"
        "sys.exit(main(['challenges', 'draw', '--seed', '00', '--n', '1', '--out', 'drawn']))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    count, folder, seconds = done.stdout.splitlines()[0].split()
    assert int(count) >= 160
    assert folder.startswith(str(site))
    assert float(seconds) >= 60
    if shutil.which("espeak-ng"):
        assert (done.returncode, (tmp_path / "drawn" / "manifest.jsonl").is_file()) == (0, True), done.stderr
    else:
        assert "apt install espeak-ng" in done.stderr
