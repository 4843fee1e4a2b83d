"""Other machines, engines and libraries: honest ones pass, missing ones are named."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
import torch
from providers import outcomes, run_provider

import earmark
import earmark.scenarios.onnx as onnx_module
from earmark.errors import UsageError
from earmark.scenarios import scenario
from earmark.scenarios.child import JOB, Job, Piece, read_results, run, write_job
from earmark.scenarios.clips import own_inputs
from earmark.scenarios.core import Settings, run_record
from earmark.scenarios.honest import honest as honest_provider
from earmark.scenarios.processes import CAPABILITIES, run_child


def test_padding_is_honest_and_the_silence_is_thrown_away(ctc, clips):
    evidence = honest_provider(batch_size=2, padding_s=6.0).record(ctc, clips[:3], level="sketch")
    assert len(evidence) == 3
    assert outcomes(ctc, clips[:3], evidence) == ["PASS"] * 3


def test_compiled_layers_are_honest(ctc, few):
    counted = torch._dynamo.utils.counters["stats"]
    before = counted["unique_graphs"]
    assert run_provider(ctc, few, honest_provider(compiled="aot_eager")) == ["PASS", "PASS"]
    assert counted["unique_graphs"] > before, "nothing was compiled"


def test_what_a_machine_or_model_cannot_do_is_refused_by_name(nano, ctc, few):
    with pytest.raises(UsageError, match="device 'cuda:99' cannot be used"):
        honest_provider(device="cuda:99").record(nano, few)
    with pytest.raises(UsageError, match="compiled takes"):
        honest_provider(compiled="fortran").record(nano, few)
    with pytest.raises(UsageError, match="nothing can be drafted"):
        scenario("speculative").record(ctc, few)
    with pytest.raises(UsageError, match="writes no end token"):
        scenario("stop_early").record(ctc, few)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_another_device_is_honest(nano, few):
    assert run_provider(nano, few, honest_provider(device="cuda")) == ["PASS", "PASS"]


def test_other_engines_are_told_from_the_same_one(nano, few):
    with pytest.raises(UsageError, match="both run in"):
        scenario("other_engine", model=nano).record(nano, few)
    elsewhere = nano.with_module(nano.module)
    elsewhere.info = dataclasses.replace(nano.info, engine="onnxruntime 1.0")
    made = scenario("other_engine", model=elsewhere)
    assert made.name == "honest-engine-onnxruntime"
    assert run_provider(nano, few, made) == ["PASS", "PASS"]


@pytest.mark.parametrize("name", ["whisper-nano", "parakeet-ctc-nano", "parakeet-tdt-nano"])
def test_onnx_runtime_is_honest_and_its_integers_are_not(name, few):
    model = earmark.load(f"embedded:{name}", device="cpu")
    assert run_provider(model, few, scenario("onnx_runtime"), "scores") == ["PASS", "PASS"]
    assert run_provider(model, few, scenario("onnx_runtime", kind="int8"), "scores") == ["FAIL", "FAIL"]


def test_an_encoder_that_cannot_be_exported_is_refused(ctc, few):
    made = scenario("onnx_runtime")
    with pytest.raises(UsageError, match="scores alone; got sketch"):
        made.record(ctc, few, level="sketch")
    with pytest.raises(UsageError, match="has bf16 on cpu"):
        made.record(earmark.load("embedded:parakeet-ctc-nano", device="cpu", dtype="bfloat16"), few)
    with pytest.raises(UsageError, match="runs on no other length"):
        made.record(earmark.load("embedded:qwen3-asr-nano", device="cpu"), few)


def test_an_export_that_is_another_network_is_refused(ctc, few, monkeypatch):
    monkeypatch.setattr(onnx_module, "_session", _shifted(onnx_module._session))
    with pytest.raises(UsageError, match="it is not the same network"):
        scenario("onnx_runtime").record(ctc, few)


def _shifted(make):
    """Return a maker of sessions whose numbers are a little off."""

    def made(file):
        session = make(file)
        shift = lambda value: value * np.float32(1.01) if value.dtype == np.float32 else value  # noqa: E731
        return SimpleNamespace(
            get_inputs=session.get_inputs, run=lambda names, fed: [shift(own) for own in session.run(names, fed)]
        )

    return made


def _job(model, clips, **changes):
    pieces = tuple(Piece.of(item) for item in own_inputs(model, 9, clips=clips))
    job = Job(
        source="embedded:whisper-nano",
        weights=model.info.weights,
        dtype="float32",
        attention="sdpa",
        k=4,
        level="scores",
        batch_size=2,
        pieces=pieces,
    )
    return msgspec.structs.replace(job, **changes)


def test_a_child_records_what_its_parent_would(tmp_path, nano, few):
    write_job(tmp_path / JOB, _job(nano, few))
    run(tmp_path)
    outputs, capability = read_results(tmp_path)
    assert outputs == run_record(nano, own_inputs(nano, 9, clips=few), Settings(k=4, batch_size=2))
    assert capability in CAPABILITIES.values()


def test_a_child_with_other_weights_records_nothing(tmp_path, nano, few):
    write_job(tmp_path / JOB, _job(nano, few, weights="0" * 64))
    with pytest.raises(UsageError, match="the claim is 000000000000"):
        run(tmp_path)


def test_a_child_that_fails_says_why(nano, few):
    code = "import sys; sys.exit('no such checkpoint')"
    with pytest.MonkeyPatch.context() as patch:
        real = subprocess.run
        patch.setattr(subprocess, "run", lambda _, **options: real([sys.executable, "-c", code], **options))
        with pytest.raises(UsageError, match="code 1: no such checkpoint"):
            run_child("nowhere", nano, own_inputs(nano, 1, clips=few), Settings(), {"ATEN_CPU_CAPABILITY": "avx2"})


@pytest.mark.parametrize(("library", "kind"), [("bitsandbytes", "int8"), ("torchao", "int8-dynamic")])
def test_arithmetic_of_other_libraries_fails(ctc, few, library, kind):
    pytest.importorskip(library, reason=f"{library} is not installed: pip install earmark[quant]")
    assert run_provider(ctc, few, scenario(library, kind=kind), "scores") == ["FAIL", "FAIL"]


@pytest.mark.parametrize(
    ("name", "library", "extra"),
    [("bitsandbytes", "bitsandbytes", "quant"), ("torchao", "torchao", "quant"), ("onnx_runtime", "onnx", "onnx")],
)
def test_a_missing_library_is_named(ctc, few, name, library, extra):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, library, None)
        patch.setitem(sys.modules, f"{library}.quantization", None)
        with pytest.raises(UsageError, match=rf"install earmark\[{extra}\]"):
            scenario(name, kind="int8").record(ctc, few)
