"""What a child process does: load a checkpoint, record the pieces of a job, write the results; no pickle anywhere.

`python -m earmark.scenarios.child FOLDER` reads `job.msgpack` and writes `results.msgpack` into the same folder.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from earmark.errors import RecordError, UsageError
from earmark.protocols import SegmentInput, SegmentOutput
from earmark.records.evidence import Level
from earmark.records.request import Request

JOB, RESULTS = "job.msgpack", "results.msgpack"


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One segment: its samples (int16, little-endian), its request, its number within the clip."""

    samples: bytes
    request: Request
    index: int

    @classmethod
    def of(cls, item: SegmentInput) -> Piece:
        """Return the piece of an input."""
        return cls(samples=item.samples.astype("<i2").tobytes(), request=item.request, index=item.index)

    def input(self) -> SegmentInput:
        """Return the input of a piece."""
        samples = np.frombuffer(self.samples, "<i2").astype(np.int16)
        return SegmentInput(samples=samples, request=self.request, index=self.index)


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to record, and how.

    Attributes:
        source: The checkpoint.
        weights: Its digest.
        dtype: Its claimed precision.
        attention: Attention kernel.
        k: Listed tokens per position.
        level: Level of the evidence.
        batch_size: Segments at once.
        pieces: The audio.
    """

    source: str
    weights: str
    dtype: str
    attention: str
    k: int
    level: Level
    batch_size: int
    pieces: tuple[Piece, ...]


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded of one piece."""

    ids: tuple[int, ...]
    text: str
    trace: bytes


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What was recorded, and the instruction set that torch used."""

    capability: str
    outputs: tuple[Output, ...]


def write_job(path: Path, job: Job) -> None:
    """Write a job."""
    path.write_bytes(msgspec.msgpack.encode(job))


def read_results(folder: Path) -> tuple[list[SegmentOutput], str]:
    """Read what a child wrote: one output per piece, and its instruction set."""
    results = _read(folder / RESULTS, Results)
    outputs = [SegmentOutput(ids=own.ids, text=own.text, trace=own.trace) for own in results.outputs]
    return outputs, results.capability


def run(folder: Path) -> None:
    """Do the job of a folder.

    Raises:
        UsageError: The checkpoint has other weights than the job says.
    """
    import torch

    from earmark.loading import load
    from earmark.scenarios.core import Settings, run_record

    job = _read(folder / JOB, Job)
    model = load(job.source, device="cpu", dtype=job.dtype, attention=job.attention)
    if model.info.weights != job.weights:
        raise UsageError(f"{job.source} has weights {model.info.weights[:12]}; the claim is {job.weights[:12]}")
    settings = Settings(job.k, job.level, job.batch_size)
    made = run_record(model, [piece.input() for piece in job.pieces], settings)
    outputs = tuple(Output(ids=own.ids, text=own.text, trace=own.trace) for own in made)
    results = Results(capability=torch.backends.cpu.get_cpu_capability(), outputs=outputs)
    (folder / RESULTS).write_bytes(msgspec.msgpack.encode(results))


def _read(path: Path, kind: type[Any]) -> Any:
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error


if __name__ == "__main__":
    run(Path(sys.argv[1]))
