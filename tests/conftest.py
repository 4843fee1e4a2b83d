"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

# Triton's interpreter runs the CUDA kernels on CPU tensors; it must be chosen before anything imports triton
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import earmark
from earmark import Clip, record_many
from earmark.cli import main
from earmark.testing import default_clips

# helpers of several tests lie beside them; the recipes that make checkpoints in the real format, in training/
sys.path += [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1])]

import nemo_archives
import nemo_canary_archives
from worlds import PAIRS, World, load_world

# a busy machine is no reason to fail
settings.register_profile("earmark", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("earmark")


@pytest.fixture(scope="session")
def speech_dir() -> Path:
    """Return the folder of real recordings: EARMARK_SPEECH, or ../shared/speech beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "speech"
    folder = Path(os.environ.get("EARMARK_SPEECH", beside))
    if not (folder / "manifest.jsonl").is_file():
        pytest.skip(f"no recordings in {folder}: set EARMARK_SPEECH to the folder of real speech")
    return folder


@pytest.fixture(scope="session")
def weights_dir() -> Path:
    """Return the folder of real checkpoints: EARMARK_WEIGHTS, or ../shared/weights beside the repository."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "weights"
    folder = Path(os.environ.get("EARMARK_WEIGHTS", beside))
    if not folder.is_dir():
        pytest.skip(f"no checkpoints in {folder}: set EARMARK_WEIGHTS to the folder of real weights")
    return folder


@pytest.fixture(scope="session")
def nano():
    """Return whisper-nano in float32."""
    return earmark.load("embedded:whisper-nano", device="cpu")


@pytest.fixture(scope="session")
def early():
    """Return an earlier step of whisper-nano's training."""
    return earmark.load("embedded:whisper-nano-early", device="cpu")


@pytest.fixture(scope="session")
def clips() -> list[Clip]:
    """Return the clips that ship with earmark, with English requests and fixed nonces."""
    return default_clips(24, language="en")


@pytest.fixture(scope="session")
def honest(nano, clips):
    """Return honest evidence of every clip, recorded in batches of 4."""
    return list(record_many(nano, clips, batch_size=4))


@pytest.fixture(params=PAIRS)
def world(request) -> World:
    """Return a reference, a cheaper model and a clip on which they differ, of each family in turn."""
    return load_world(request.param)


@pytest.fixture
def whisper() -> World:
    """Return the world of the family that has prompts, beams and sampling."""
    return load_world("autoregressive")


# The command line


@pytest.fixture
def run(capsys):
    """Run a command; return exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="session")
def recorded(tmp_path_factory) -> Path:
    """Return a folder with two clips and their records."""
    folder = Path(str(files("earmark.data"))) / "clips"
    root = tmp_path_factory.mktemp("recorded")
    for name in ("00.flac", "01.flac"):
        shutil.copy(folder / name, root / name)
    assert main(["record", "embedded:whisper-nano", str(root), "--out", str(root), "--language", "en", "--json"]) == 0
    return root


@pytest.fixture(scope="session")
def tdt_parts() -> dict[str, bytes]:
    """Return the members of a `.nemo` archive of a TDT."""
    return nemo_archives.members("tdt")


@pytest.fixture(scope="session")
def canary_parts() -> dict[str, bytes]:
    """Return the members of a `.nemo` archive of a Canary."""
    return nemo_canary_archives.members("v1")


@pytest.fixture(scope="session")
def ctc():
    """Return parakeet-ctc-nano."""
    return earmark.load("embedded:parakeet-ctc-nano", device="cpu")


@pytest.fixture(scope="session")
def few(clips):
    """Return two short clips to be tested on."""
    return sorted(clips, key=lambda clip: len(clip.audio.samples))[:2]


@pytest.fixture(scope="session")
def known(clips, few):
    """Return short clips that a forger learns on; those that are tested are among them, and must be left out."""
    return [*few, *sorted(clips, key=lambda clip: len(clip.audio.samples))[2:6]]


@pytest.fixture(scope="session")
def full():
    """Return a report with every section."""
    from made_reports import full_report

    return full_report()


@pytest.fixture(scope="session")
def page(full):
    """Return what its page holds."""
    from made_reports import Page

    from earmark.report import render

    return Page(render(full, ".html").decode())
