"""Cost of lattice evidence: earmark, every installed peer and one reading of the logits, in one run.

    python benchmarks/lattice.py --json FILE [--jobs ctc,rnnt257,...] [--repeats 7] [--sizes]

Each row runs in a process of its own (with -P: other files of this folder must not shadow modules): least CPU and
wall time of several runs, and the peak of resident memory over what stands before the call. For the transducers the
outputs are taken off that peak, for CTC they are in it. CPU time is of the whole process, over all its threads;
`taskset -c 0` before the command makes every implementation use one thread.
`--sizes` adds a table of cost per lattice node.
"""

# ruff: noqa: ARG001 - all implementations share one signature

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

Row = dict[str, Any]
Work = Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One lattice problem of the targets in LATTICE.md."""

    batch: int
    frames: int
    tokens: int
    vocabulary: int
    durations: int = 0
    kind: str = "rnnt"


JOBS = {
    "ctc": Job(batch=16, frames=750, tokens=100, vocabulary=1025, kind="ctc"),
    "rnnt257": Job(batch=4, frames=250, tokens=60, vocabulary=257),
    "rnnt1025": Job(batch=4, frames=250, tokens=60, vocabulary=1025),
    "tdt257": Job(batch=4, frames=250, tokens=60, vocabulary=257, durations=5, kind="tdt"),
    "tdt1025": Job(batch=4, frames=250, tokens=60, vocabulary=1025, durations=5, kind="tdt"),
}
EVERYTHING = "log P, Viterbi path, occupancies, entropies, token times"
SIZES = [(1, 250, 60), (1, 500, 60), (1, 1000, 60), (1, 250, 120), (1, 250, 240), (2, 250, 60), (8, 250, 60)]


@dataclass(frozen=True, slots=True)
class Inputs:
    """Tensors of a job; every item has full length."""

    logits: torch.Tensor
    targets: torch.Tensor
    frames: torch.Tensor
    tokens: torch.Tensor


def make_inputs(job: Job) -> Inputs:
    """Return random logits and transcripts; id 0 is the blank."""
    generator = torch.Generator().manual_seed(0)
    nodes = () if job.kind == "ctc" else (job.tokens + 1,)
    shape = (job.batch, job.frames, *nodes, job.vocabulary + job.durations)
    targets = torch.randint(1, job.vocabulary, (job.batch, job.tokens), generator=generator)
    lengths = (torch.full((job.batch,), n) for n in (job.frames, job.tokens))
    return Inputs(torch.randn(shape, generator=generator), targets, *lengths)


def read_once(job: Job, x: Inputs) -> Work:
    """Add up the logits."""
    return x.logits.sum


def earmark_scores(job: Job, x: Inputs) -> Work:
    """Compute all evidence with earmark."""
    from earmark import lattice

    common = (x.logits, x.targets, x.frames, x.tokens, 0)
    if job.kind == "ctc":
        return lambda: lattice.ctc(*common)
    return lambda: lattice.transducer(*common, durations=range(job.durations) if job.durations else None)


def with_gradient(cost: Callable[[torch.Tensor], torch.Tensor], logits: torch.Tensor) -> Work:
    """Return the work of a cost and its gradient."""

    def work() -> torch.Tensor:
        leaf = logits.detach().requires_grad_()
        return torch.autograd.grad(cost(leaf), leaf)[0]

    return work


def earmark_loss(job: Job, x: Inputs) -> Work:
    """Compute loss and gradient with earmark."""
    from earmark import lattice

    durations = range(job.durations) if job.durations else None
    common = (x.targets, x.frames, x.tokens, 0)
    return with_gradient(lambda leaf: lattice.loss(leaf, *common, durations=durations, reduction="sum"), x.logits)


def torch_ctc(job: Job, x: Inputs) -> Work:
    """Compute torch's CTC forward."""
    return lambda: torch.nn.functional.ctc_loss(
        x.logits.log_softmax(-1).transpose(0, 1), x.targets, x.frames, x.tokens, reduction="none"
    )


def torch_ctc_occupancies(job: Job, x: Inputs) -> Work:
    """Compute torch's CTC forward and the gradient that holds its occupancies."""

    def work() -> torch.Tensor:
        log_probs = x.logits.log_softmax(-1).requires_grad_()
        cost = torch.nn.functional.ctc_loss(log_probs.transpose(0, 1), x.targets, x.frames, x.tokens, reduction="sum")
        return torch.autograd.grad(cost, log_probs)[0]

    return work


def nemo_rnnt(job: Job, x: Inputs) -> Work:
    """Compute NeMo's RNNTLossPytorch forward."""
    from nemo.collections.asr.losses.rnnt_pytorch import RNNTLossPytorch

    loss = RNNTLossPytorch(blank=0, reduction="none")
    return lambda: loss.forward(acts=x.logits, labels=x.targets, act_lens=x.frames, label_lens=x.tokens)


def k2_like_rnnt(module: str) -> Callable[[Job, Inputs], Work]:
    """Return the forward of `rnnt_loss` of k2 or fast_rnnt."""

    def make(job: Job, x: Inputs) -> Work:
        library = importlib.import_module(module)
        zeros = torch.zeros(job.batch, dtype=torch.int64)
        boundary = torch.stack([zeros, zeros, x.tokens, x.frames], 1)
        return lambda: library.rnnt_loss(x.logits, x.targets, 0, boundary, reduction="none")

    return make


def warp_rnnt(job: Job, x: Inputs) -> Work:
    """Compute the forward of warp-transducer, which wants log-probabilities on CPU."""
    import warprnnt_pytorch

    loss = warprnnt_pytorch.RNNTLoss(blank=0, reduction="none")
    ints = [v.int() for v in (x.targets, x.frames, x.tokens)]
    return lambda: loss(x.logits.log_softmax(-1), *ints)


def hf_tdt(job: Job, x: Inputs, logits: torch.Tensor | None = None) -> Any:
    """Compute the forward of transformers' tdt_loss."""
    from transformers.loss.loss_tdt import tdt_loss

    def cost(z: torch.Tensor) -> torch.Tensor:
        tokens, spans = z[..., : job.vocabulary], z[..., job.vocabulary :]
        durations = list(range(job.durations))
        return tdt_loss(tokens, spans, x.targets, x.frames, x.tokens, 0, durations, reduction="sum")

    return cost(logits) if logits is not None else lambda: cost(x.logits)


def hf_tdt_gradient(job: Job, x: Inputs) -> Work:
    """Compute transformers' tdt_loss and its gradient."""
    return with_gradient(lambda leaf: hf_tdt(job, x, leaf), x.logits)


IMPLEMENTATIONS: dict[str, list[tuple[str, str, str, Callable[[Job, Inputs], Work]]]] = {
    kind: [
        ("read once", "torch", "sum of the logits", read_once),
        ("earmark", "earmark", EVERYTHING, earmark_scores),
        ("earmark loss", "earmark", "log P, gradient", earmark_loss),
        *peers,
    ]
    for kind, peers in {
        "ctc": [
            ("torch ctc_loss", "torch", "log P", torch_ctc),
            ("torch ctc_loss + occupancies", "torch", "log P, occupancies", torch_ctc_occupancies),
        ],
        "rnnt": [
            ("NeMo RNNTLossPytorch", "nemo", "log P", nemo_rnnt),
            ("k2 rnnt_loss", "k2", "log P", k2_like_rnnt("k2")),
            ("fast_rnnt rnnt_loss", "fast_rnnt", "log P", k2_like_rnnt("fast_rnnt")),
            ("warp-transducer", "warprnnt_pytorch", "log P", warp_rnnt),
        ],
        "tdt": [
            ("transformers tdt_loss", "transformers", "log P", hf_tdt),
            ("transformers tdt_loss + gradient", "transformers", "log P, gradient", hf_tdt_gradient),
        ],
    }.items()
}


def resident_mb(name: str) -> float:
    """Return VmRSS or VmHWM of this process in MiB."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def output_mb(result: Any) -> float:
    """Return the size of what a call returned, in MiB."""
    if isinstance(result, torch.Tensor):
        return float(result.numel() * result.element_size() / 2**20)
    values = [getattr(result, f.name) for f in fields(result)]
    return float(sum(v.nbytes for v in values if isinstance(v, np.ndarray)) / 2**20)


def measure(job: Job, make: Callable[[Job, Inputs], Work], repeats: int) -> Row:
    """Return times and memory of one implementation, after a small call that loads and compiles everything."""
    small = Job(batch=2, frames=12, tokens=3, vocabulary=job.vocabulary, durations=job.durations, kind=job.kind)
    make(small, make_inputs(small))()
    work = make(job, make_inputs(job))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before = resident_mb("VmRSS")
    result = work()
    extra = resident_mb("VmHWM") - before
    extra -= 0.0 if job.kind == "ctc" else output_mb(result)
    del result
    times = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
        if sum(t[1] for t in times) > 20:  # seconds; slow peers need no seven runs
            break
    cpu_ms, wall_ms = (round(1e3 * min(column), 2) for column in zip(*times, strict=True))
    return {"cpu_ms": cpu_ms, "wall_ms": wall_ms, "extra_peak_mb": round(extra, 1)}


def version(module: str) -> str:
    """Return the installed version of the package that holds a module."""
    return importlib.metadata.version(importlib.metadata.packages_distributions().get(module, [module])[0])


def rows(jobs: list[str], repeats: int) -> Iterator[Row]:
    """Run every implementation of the jobs in its own process."""
    for name in jobs:
        for label, module, outputs, _ in IMPLEMENTATIONS[JOBS[name].kind]:
            if importlib.util.find_spec(module) is None:
                print(f"{name}: {label} left out, {module} is not installed", file=sys.stderr)
                continue
            command = [sys.executable, "-P", __file__, "--one", name, label, "--repeats", str(repeats)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{name}: {label} failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
                continue
            row = {"job": name, "implementation": label, "version": version(module), "outputs": outputs}
            yield {**row, **json.loads(done.stdout)}


def size_rows(repeats: int) -> Iterator[Row]:
    """Return the cost of everything per lattice node over sizes, RNN-T with 257 symbols."""
    for batch, frames, tokens in SIZES:
        job = Job(batch=batch, frames=frames, tokens=tokens, vocabulary=257)
        row = measure(job, earmark_scores, repeats)
        nodes = batch * frames * (tokens + 1)
        row["ns_per_node"] = round(1e6 * row["cpu_ms"] / nodes, 1)
        yield {
            "job": f"rnnt257 B{batch} T{frames} U{tokens}",
            "implementation": "earmark",
            "version": version("earmark"),
            "outputs": EVERYTHING,
            **row,
        }


def show(found: list[Row]) -> None:
    """Print the table, with ratios to earmark and to one reading."""
    table = Table("job", "implementation", "version", "CPU ms", "wall ms", "MiB", "x earmark", "x read once", "outputs")
    cpu = {(row["job"], row["implementation"]): row["cpu_ms"] for row in found}
    for row in found:
        ratios = [cpu.get((row["job"], base)) for base in ("earmark", "read once")]
        shown = [f"{row['cpu_ms'] / base:.1f}" if base else "" for base in ratios]
        figures = [f"{row[name]:.1f}" for name in ("cpu_ms", "wall_ms", "extra_peak_mb")]
        table.add_row(row["job"], row["implementation"], row["version"], *figures, *shown, row["outputs"])
    Console(width=165).print(table)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--jobs", default=",".join(JOBS), help="jobs, by comma; default all")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--sizes", action="store_true", help="add the cost over sizes")
    parser.add_argument("--one", nargs=2, metavar=("JOB", "IMPLEMENTATION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        job = JOBS[options.one[0]]
        make = next(make for label, _, _, make in IMPLEMENTATIONS[job.kind] if label == options.one[1])
        print(json.dumps(measure(job, make, options.repeats)))
        return
    found = list(rows(options.jobs.split(","), options.repeats))
    if options.sizes:
        found += size_rows(options.repeats)
    show(found)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
