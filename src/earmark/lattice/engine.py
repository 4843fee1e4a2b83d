"""The scoring functions: `ctc` and `transducer`, batched and threaded over the compiled recursions."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from earmark.lattice.arcs import Arcs, Rule, build_arcs
from earmark.lattice.checks import (
    Batch,
    OnError,
    check_batch,
    check_blank,
    check_orders,
    check_sigma,
    ctc_frames_needed,
)
from earmark.lattice.gather import gather_ctc, gather_transducer
from earmark.lattice.joint import AdditiveJoint
from earmark.lattice.results import Results
from earmark.lattice.solve import solve_ctc, solve_transducer
from earmark.lattice.sources import ChunkedJoint, as_block, chunks, shape_of
from earmark.lattice.types import LatticeError, LatticeScores

Floats = NDArray[np.float64]
Result = TypeVar("Result")
Backend = Literal["auto", "compiled", "triton"]

BLOCK_VALUES = 1 << 21
"""Logits per task: 8 MiB of float32, which is also all that half precision widens at a time and thread."""


def use_triton(backend: Backend, logits: Any) -> bool:
    """Return whether the Triton kernels are to be used.

    Raises:
        LatticeError: Triton was asked for and is not installed, or the backend has another name.
    """
    if backend not in ("auto", "compiled", "triton"):
        raise LatticeError(f"backend is {backend!r}; use 'auto', 'compiled' or 'triton'")
    tensor = next(iter(getattr(logits, "tensors", ())), logits)
    if backend == "compiled" or (backend == "auto" and not getattr(tensor, "is_cuda", False)):
        return False
    there = importlib.util.find_spec("triton") is not None
    if backend == "triton" and not there:
        raise LatticeError("backend 'triton' needs the package triton, which is not installed; use 'compiled'")
    if not there:
        warnings.warn("triton is not installed: logits on a CUDA device are scored on the CPU", stacklevel=3)
    return there


def run_all(task: Callable[..., Result], items: Iterable[tuple[Any, ...]], threads: int | None) -> list[Result]:
    """Return the results of a task on all items, run in threads where there is more than one.

    Args:
        task: Function of the members of one item; spends its time in compiled code without the lock.
        items: Arguments of each call.
        threads: Most threads; None for one per processor this process may use.

    Raises:
        LatticeError: The number of threads is not positive; or the error of the first item that has one.
    """
    if threads is not None and threads < 1:
        raise LatticeError(f"threads is {threads}; give at least 1, or None for one per processor")
    listed = list(items)
    count = min(threads or processors(), len(listed))
    if count <= 1:
        return [task(*item) for item in listed]
    with ThreadPoolExecutor(count) as pool:
        return [done.result() for done in [pool.submit(task, *item) for item in listed]]


def processors() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def spans(batch: Batch, start: int, stop: int, values_per_frame: int) -> list[tuple[int, int, int]]:
    """Return (item, first frame, frame after the last) of tasks of about BLOCK_VALUES logits."""
    step = max(1, BLOCK_VALUES // values_per_frame)
    return [
        (b, t, min(t + step, stop, batch.frames[b]))
        for b in batch.good()
        for t in range(start, min(stop, batch.frames[b]), step)
    ]


def ctc(
    logits: Any,
    targets: Any,
    logit_lengths: Any,
    target_lengths: Any,
    blank: int,
    *,
    orders: Sequence[float] = (),
    on_error: OnError = "raise",
    threads: int | None = None,
    backend: Backend = "auto",
) -> LatticeScores:
    """Score transcripts under a CTC model, exactly.

    Args:
        logits: Unnormalised logits or log-probabilities, tensor or array, (B, T, V); 16 to 64 bits.
        targets: Token ids, (B, >= U); what lies past an item's length is ignored.
        logit_lengths: Frames of each item, (B,).
        target_lengths: Tokens of each item, (B,).
        blank: Id of the blank; negative ids count from the end.
        orders: Orders of Tsallis and Renyi entropies to prepare; the Gibbs entropy is always there.
        on_error: `raise` at a faulty item, or `keep` its message in `errors` and score the others.
        threads: Most threads; None for one per processor.
        backend: `compiled` (CPU), `triton` (CUDA), or `auto`: Triton for tensors on a CUDA device where it is there.

    Returns:
        The scores.

    Raises:
        LatticeError: Shapes do not fit, or an item is faulty or infeasible.

    Example:
        >>> scores = ctc(np.zeros((1, 3, 5)), [[3, 3]], [3], [2], blank=0)
        >>> round(float(scores.log_likelihood[0]), 4), scores.paths[0][:, 2].tolist()
        (-4.8283, [3, 0, 3])

    Source: Graves et al. 2006, Connectionist Temporal Classification, section 4.
    """
    shape = shape_of(logits, 3)
    vocabulary = shape[2]
    blank = check_blank(blank, vocabulary)
    wanted = check_orders(orders)
    batch = check_batch(
        shape, targets, logit_lengths, target_lengths, blanks={blank}, vocabulary=vocabulary, on_error=on_error
    )
    refuse_short(batch)
    results = Results(batch, shape, wanted, rule="ctc")
    if use_triton(backend, logits):
        from earmark.lattice.triton_engine import score_ctc

        score_ctc(logits, batch, blank, results)
        return results.finish()

    def score(b: int) -> None:
        scores = gather_ctc_item(logits, batch, b, blank, results)
        if scores is not None:
            tokens, blanks = results.token_occupancy[b], results.blank_occupancy[b]
            results.keep(b, solve_ctc(scores, batch.labels[b], blank, tokens, blanks))

    run_all(score, ((b,) for b in batch.good()), threads)
    return results.finish()


def refuse_short(batch: Batch) -> None:
    """Refuse the items whose transcript cannot fit their frames under CTC."""
    for b in batch.good():
        labels, frames = batch.labels[b], batch.frames[b]
        needed = ctc_frames_needed(labels)
        if frames < needed:
            repeats = needed - len(labels)
            batch.refuse(b, f"{len(labels)} tokens with {repeats} repeats need {needed} frames, there are {frames}")


def gather_ctc_item(logits: Any, batch: Batch, item: int, blank: int, results: Results) -> Floats | None:
    """Return the log-probabilities of blank and labels, (T_b, U_b + 1), of an item; refuse NaN and return None."""
    labels, frames = batch.labels[item], batch.frames[item]
    scores, orders = np.empty((frames, len(labels) + 1)), np.array(results.orders)
    step = max(1, BLOCK_VALUES // int(logits.shape[2]))
    for first in range(0, frames, step):
        last = min(first + step, frames)
        norms, entropies = results.row_outputs(item, first, last)
        bad = gather_ctc(
            as_block(logits[item, first:last]), labels, blank, orders, scores[first:last], norms, entropies
        )
        if bad >= 0:
            batch.refuse(item, f"the logits at frame {first + bad} hold NaN or +inf, or are all -inf")
            return None
    return scores


def transducer(
    logits_or_joint: Any,
    targets: Any,
    logit_lengths: Any,
    target_lengths: Any,
    blank: int,
    *,
    durations: Sequence[int] | None = None,
    big_blanks: Mapping[int, int] | None = None,
    sigma: float = 0.0,
    rule: Rule = "strict",
    orders: Sequence[float] = (),
    on_error: OnError = "raise",
    threads: int | None = None,
    backend: Backend = "auto",
) -> LatticeScores:
    """Score transcripts under a transducer (RNN-T, multi-blank, TDT, HAINAN), exactly.

    Args:
        logits_or_joint: Unnormalised logits, (B, T, >= U + 1, V + D), or a `ChunkedJoint` or
            `AdditiveJoint` that yields them.
        targets: Token ids, (B, >= U); what lies past an item's length is ignored.
        logit_lengths: Frames of each item, (B,).
        target_lengths: Tokens of each item, (B,).
        blank: Id of the blank; negative ids count from the end of the vocabulary.
        durations: Durations of the D duration logits, rising, frames; None without them.
        big_blanks: Duration of each big blank by symbol id; None without them.
        sigma: Subtracted from every arc (logit under-normalisation of training); 0 for evidence.
        rule: `strict` (a path ends with a blank that lands on T), or `open_end` (as greedy decoders do: (blank, 0)
            advances by 1, and any arc that reaches or passes T ends the path).
        orders: Orders of Tsallis and Renyi entropies to prepare; the Gibbs entropy is always there.
        on_error: `raise` at a faulty item, or `keep` its message in `errors` and score the others.
        threads: Most threads; None for one per processor.
        backend: `compiled` (CPU), `triton` (CUDA), or `auto`: Triton for tensors on a CUDA device where it is there.

    Returns:
        The scores.

    Raises:
        LatticeError: Shapes do not fit, or an item is faulty or infeasible.

    Example:
        >>> logits = np.zeros((1, 3, 2, 7))
        >>> scores = transducer(logits, [[0]], [3], [1], 3, durations=(0, 1, 2), sigma=0.05)
        >>> round(float(scores.log_likelihood[0]), 4), scores.paths[0].tolist()
        (-4.1557, [[0, 0, 0, 1], [1, 1, 3, 2]])

    Source: Graves 2012, arXiv 1211.3711; Xu et al. 2022, arXiv 2211.03541; Xu et al. 2023, arXiv 2304.06795.
    """
    shape = shape_of(logits_or_joint, 4)
    arcs = build_arcs(shape[3], blank, durations, big_blanks, rule)
    wanted = check_orders(orders)
    batch = check_batch(
        shape,
        targets,
        logit_lengths,
        target_lengths,
        blanks=arcs.blank_ids(),
        vocabulary=arcs.vocabulary,
        on_error=on_error,
    )
    sigma = check_sigma(sigma)
    results = Results(batch, shape, wanted, rule=rule)
    if use_triton(backend, logits_or_joint):
        from earmark.lattice.triton_engine import score_transducer

        score_transducer(logits_or_joint, batch, arcs, sigma, results=results, open_end=rule == "open_end")
        return results.finish()
    source = logits_or_joint.chunked() if isinstance(logits_or_joint, AdditiveJoint) else logits_or_joint
    scores = gather_arcs(source, batch, arcs, sigma, results=results, threads=threads)

    def solve(b: int) -> None:
        found = solve_transducer(scores[b], batch.labels[b], arcs, rule == "open_end")
        frames, _, nodes = scores[b].shape
        if found.log_likelihood > -np.inf:
            np.sum(scores[b][:, : arcs.blanks], axis=1, out=results.blank_occupancy[b, :frames, :nodes])
            labels = scores[b][:, arcs.blanks :, :-1]
            np.sum(labels, axis=1, out=results.token_occupancy[b, :frames, : nodes - 1])
        results.keep(b, found)

    run_all(solve, ((b,) for b in batch.good()), threads)
    return results.finish()


def gather_arcs(
    logits: Any | ChunkedJoint, batch: Batch, arcs: Arcs, sigma: float, *, results: Results, threads: int | None
) -> list[Floats]:
    """Return the score of every arc, (T_b, N, U_b + 1), of every item; refuse NaN."""
    count = len(arcs.symbols)
    scores = [np.empty((batch.frames[b], count, len(batch.labels[b]) + 1)) for b in range(len(batch.frames))]
    bad = [-1] * len(scores)
    orders = np.array(results.orders)
    for start, stop, block in chunks(logits):

        def gather(b: int, first: int, last: int, block: Any = block) -> int:
            norms, entropies = results.row_outputs(b, first, last)
            labels, out = batch.labels[b], scores[b][first:last]
            where: int = gather_transducer(
                block(b, first, last), labels, arcs.vocabulary, arcs.symbols, arcs.classes, sigma, orders, out,
                norms, entropies,
            )  # fmt: skip
            return where if where < 0 else first * (len(labels) + 1) + where

        tasks = spans(batch, start, stop, int(logits.shape[2] * logits.shape[3]))
        for (item, _, _), where in zip(tasks, run_all(gather, tasks, threads), strict=True):
            bad[item] = where if bad[item] < 0 else bad[item]
    for item, where in enumerate(bad):
        if where >= 0:
            t, u = divmod(where, len(batch.labels[item]) + 1)
            batch.refuse(item, f"the logits at frame {t} after {u} tokens hold NaN or +inf, or are all -inf")
    return scores
