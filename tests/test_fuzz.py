"""A short run of benchmarks/fuzz.py: no crash, no hang, no PASS by accident."""

from __future__ import annotations

import importlib.util
from itertools import islice
from pathlib import Path

import frame_cases
import pytest

import earmark
from earmark.testing import mutated_evidence


@pytest.fixture(scope="module")
def fuzz():
    path = Path(__file__).resolve().parents[1] / "benchmarks" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("level", "kinds"), [("sketch", 16), ("compact", 12)])  # compact has fewer fields to damage
def test_damaged_evidence_never_crashes_and_never_passes(fuzz, nano, clips, level, kinds):
    evidence = earmark.record(nano, clips[0].request, clips[0].audio, level=level)
    figures, survivors = fuzz.fuzz_rules(clips[0], evidence, nano, records=4000, keep=60, seed=1)
    assert figures["slowest_ms"] < 1000
    assert figures["grown_mb"] < 64
    assert len(figures["findings"]) >= kinds
    assert survivors
    verdicts = fuzz.fuzz_verdicts(clips[0], evidence, nano, survivors)
    assert verdicts["wrong"] == []


@pytest.mark.parametrize(("level", "records", "kinds"), [("sketch", 3000, 16), ("compact", 1000, 8)])
@pytest.mark.parametrize("name", ["parakeet-ctc-nano", "parakeet-tdt-nano"])
def test_damaged_evidence_of_frame_synchronous_models_never_crashes_and_never_passes(
    fuzz, clips, name, level, records, kinds
):
    model = earmark.load(f"embedded:{name}", device="cpu")
    clip = frame_cases.without_language(clips[:1])[0]
    evidence = earmark.record(model, clip.request, clip.audio, level=level)
    figures, survivors = fuzz.fuzz_rules(clip, evidence, model, records=records, keep=40, seed=1)
    assert figures["slowest_ms"] < 1000
    assert len(figures["findings"]) >= kinds
    assert fuzz.fuzz_verdicts(clip, evidence, model, survivors)["wrong"] == []


def test_damage_can_be_repeated(honest):
    first, again = (list(islice(mutated_evidence(honest[0], 7), 50)) for _ in range(2))
    assert first == again
    assert honest[0].to_msgpack() not in first
