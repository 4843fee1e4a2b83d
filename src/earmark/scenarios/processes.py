"""Honest providers in other processes and engines: instruction sets, NeMo or ONNX Runtime. All must PASS.

Libraries choose their instruction sets when a process starts, so such a provider is a child: it loads the claimed
checkpoint itself, reads its work from files and writes what it recorded into others.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.scenarios.child import JOB, Job, Piece, read_results, write_job
from earmark.scenarios.core import Scenario, Settings, run_record
from earmark.scenarios.stand_in import same_tokens

CAPABILITIES = {"default": "DEFAULT", "avx2": "AVX2", "avx512": "AVX512"}
"""Values of ATEN_CPU_CAPABILITY, and what torch then says of itself."""
ONEDNN = {"default": "SSE41", "avx2": "AVX2", "avx512": "AVX512_CORE"}
"""What ONEDNN_MAX_CPU_ISA is set to beside it."""
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
TIMEOUT_S = 3600


def instruction_set(*, source: str, isa: str = "default") -> Scenario:
    """Return a provider whose CPU kernels use another instruction set.

    Args:
        source: The claimed checkpoint, as for `earmark.load`; the child loads it.
        isa: `default` (SSE), `avx2` or `avx512`.

    Raises:
        UsageError: The instruction set is unknown. A machine that lacks it is refused when it runs.

    Example:
        >>> instruction_set(source="embedded:whisper-nano", isa="avx2").name
        'honest-isa-avx2'
    """
    if isa not in CAPABILITIES:
        raise UsageError(f"instruction_set takes {', '.join(CAPABILITIES)}; got {isa!r}")
    variables = {"ATEN_CPU_CAPABILITY": isa, "ONEDNN_MAX_CPU_ISA": ONEDNN[isa]}

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        outputs, capability = run_child(source, reference, inputs, settings, variables)
        if capability != CAPABILITIES[isa]:
            raise UsageError(f"this machine computes with {capability}; {isa} cannot be had")
        return outputs

    summary = f"the claimed model with CPU kernels for {isa}"
    return Scenario(name=f"honest-isa-{isa}", honest=True, summary=summary, saves="nothing", produce=produce)


def other_engine(*, model: Model, name: str = "") -> Scenario:
    """Return a provider that runs the claimed checkpoint in another engine.

    Args:
        model: The same checkpoint, opened by the other engine: NeMo, ONNX Runtime.
        name: Name of the engine; by default the first word of what the model says.

    Returns:
        The scenario.
    """

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        same_tokens(model, reference)
        if model.info.engine == reference.info.engine:
            raise UsageError(f"both run in {model.info.engine}; give the checkpoint in another engine")
        return run_record(model, inputs, settings)

    own = name or model.info.engine.split()[0]
    summary = f"the claimed model in {model.info.engine}"
    return Scenario(name=f"honest-engine-{own}", honest=True, summary=summary, saves="nothing", produce=produce)


def run_child(
    source: str,
    reference: Model,
    inputs: Sequence[SegmentInput],
    settings: Settings,
    variables: Mapping[str, str],
) -> tuple[list[SegmentOutput], str]:
    """Record in a child process.

    Args:
        source: The checkpoint that the child loads.
        reference: The same checkpoint; precision, attention and weights are those of the child.
        inputs: The pieces.
        settings: How evidence is recorded.
        variables: Environment variables of the child.

    Returns:
        One output per piece, and the instruction set that the child's torch says it uses.

    Raises:
        UsageError: The child failed, or loaded other weights; its last line says why.
    """
    job = Job(
        source=source,
        weights=reference.info.weights,
        dtype=DTYPES[reference.info.precision],
        attention=reference.info.attention,
        k=settings.k,
        level=settings.level,
        batch_size=settings.batch_size,
        pieces=tuple(Piece.of(item) for item in inputs),
    )
    with tempfile.TemporaryDirectory(prefix="earmark-child-") as name:
        folder = Path(name)
        write_job(folder / JOB, job)
        command = [sys.executable, "-m", "earmark.scenarios.child", str(folder)]
        environment = {**os.environ, **variables}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired as error:
            raise UsageError(f"the child process took more than {TIMEOUT_S} s: give fewer clips at once") from error
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UsageError(f"the child process failed with code {done.returncode}: {reason[:300]}")
        return read_results(folder)
