"""Batches on a CUDA device: Triton kernels for rows and recursions, torch for the few gathered values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earmark.lattice import triton_ctc, triton_transducer
from earmark.lattice.arcs import Arcs
from earmark.lattice.checks import Batch
from earmark.lattice.joint import AdditiveJoint
from earmark.lattice.results import Results
from earmark.lattice.solve import ctc_alignment, transducer_alignment
from earmark.lattice.sources import ChunkedJoint
from earmark.lattice.transducer_kernels import trace
from earmark.lattice.triton_joint import joint_stats
from earmark.lattice.triton_rows import row_stats


def on_device(batch: Batch, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return labels (B, U), frames and tokens (B,) on the device; refused items get no frames."""
    counts = [len(labels) for labels in batch.labels]
    labels = torch.zeros((len(counts), max(counts, default=0)), dtype=torch.int64)
    good = set(batch.good())
    for b in good:
        labels[b, : counts[b]] = torch.from_numpy(batch.labels[b])
    frames = torch.tensor([t if b in good else 0 for b, t in enumerate(batch.frames)], dtype=torch.int32)
    tokens = torch.tensor([u if b in good else 0 for b, u in enumerate(counts)], dtype=torch.int32)
    return labels.to(device), frames.to(device), tokens.to(device)


def _refuse_bad_rows(batch: Batch, norms: Tensor) -> None:
    """Refuse the items with a row that is not finite; rows past an item's lengths hold 0."""
    bad = ~torch.isfinite(norms).all(-1)
    for b in torch.unique(bad.nonzero()[:, 0]).tolist():
        t, u = bad[b].nonzero()[0].tolist()
        where = f"frame {t}" if norms.shape[2] == 1 else f"frame {t} after {u} tokens"
        batch.refuse(b, f"the logits at {where} hold NaN or +inf, or are all -inf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Solved:
    """What the kernels say about a batch, on the device.

    Attributes:
        norms: Maximum and log sum of each row, (B, T, U + 1, 4): of the tokens, then of the durations; for CTC
            (B, T, 1, 2).
        entropies: Entropies of each row, (B, T, U + 1, 1 + K); for CTC (B, T, 1, 1 + K).
        posteriors: Posterior of each arc, (B, T, N, U + 1); for CTC of each state, (B, T, 2U + 1).
        found: What `triton_ctc.solve` or `triton_transducer.solve` found.
    """

    norms: Tensor
    entropies: Tensor
    posteriors: Tensor
    found: dict[str, Tensor]


def solve_ctc(logits: Tensor, batch: Batch, blank: int, orders: tuple[float, ...], *, paths: bool = True) -> Solved:
    """Solve a CTC batch.

    Args:
        logits: (B, T, V).
        batch: Labels and lengths; items with bad rows are refused.
        blank: Id of the blank.
        orders: Orders of the power sums.
        paths: Whether best paths are wanted.
    """
    rows = logits.detach().contiguous()[:, :, None]
    labels, frames, tokens = on_device(batch, logits.device)
    norms, entropies = row_stats(rows, frames, torch.zeros_like(tokens), (0, logits.shape[2]), orders)
    _refuse_bad_rows(batch, norms.sum(-1, keepdim=True))
    columns = torch.nn.functional.pad(labels, (1, 0), value=blank)
    picked = rows[:, :, 0].gather(2, columns[:, None].expand(-1, rows.shape[1], -1)).double()
    scores = (picked - norms[:, :, 0, :1] - norms[:, :, 0, 1:]).contiguous()
    _, frames, tokens = on_device(batch, logits.device)
    lengths = (frames.clamp_min(1), tokens)  # a refused item costs one frame
    found = triton_ctc.solve(scores, labels.int().contiguous(), *lengths, paths=paths)
    return Solved(norms=norms, entropies=entropies, posteriors=found.pop("posteriors"), found=found)


def score_ctc(logits: Tensor, batch: Batch, blank: int, results: Results) -> None:
    """Fill the results of a CTC batch; see `solve_ctc`."""
    solved = solve_ctc(logits, batch, blank, results.orders)
    results.entropies[...] = solved.entropies[:, :, 0].cpu().numpy()
    posteriors = solved.posteriors.cpu().numpy()
    host = {name: value.cpu().numpy() for name, value in solved.found.items()}
    for b in batch.good():
        t, u = batch.frames[b], len(batch.labels[b])
        results.blank_occupancy[b, :t, : u + 1] = posteriors[b, :t, : 2 * u + 1 : 2]
        results.token_occupancy[b, :t, :u] = posteriors[b, :t, 1 : 2 * u : 2]
        states = _ctc_states(host["moves"][b], int(host["end"][b]), t)
        results.keep(b, ctc_alignment(states, batch.labels[b], blank, _figures(host, b)))


def _figures(host: dict[str, NDArray[Any]], item: int) -> tuple[float, float, float]:
    """Return log P, alignment entropy and best score of an item."""
    return float(host["total"][item]), float(host["entropy"][item]), float(host["best"][item])


def _ctc_states(moves: NDArray[np.int8], state: int, frames: int) -> NDArray[np.int32]:
    """Follow the moves back from the last state."""
    states = np.empty(frames, np.int32)
    for t in range(frames - 1, -1, -1):
        states[t] = state
        state -= int(moves[t, state])
    return states


def solve_transducer(
    logits: Tensor | ChunkedJoint | AdditiveJoint,
    batch: Batch,
    arcs: Arcs,
    sigma: float,
    orders: tuple[float, ...],
    *,
    open_end: bool,
    paths: bool = True,
) -> Solved:
    """Solve a transducer batch.

    Args:
        logits: (B, T, >= U + 1, V + D), a joint whose chunks lie on the device, or one that is fused.
        batch: Labels and lengths; items with bad rows are refused.
        arcs: What the arcs are.
        sigma: Subtracted from every arc.
        orders: Orders of the power sums.
        open_end: Whether arcs may pass the end.
        paths: Whether best paths are wanted.
    """
    parts, norms, entropies = [], [], []
    for start, (rows, row_entropies, picked) in _gathered(logits, batch, arcs, orders):
        _, frames, tokens = on_device(batch, rows.device)
        scores, spans = _arc_scores(rows, picked, tokens, arcs)
        t, u = (torch.arange(n, device=rows.device) for n in rows.shape[1:3])
        valid = (start + t[:, None] < frames[:, None, None]) & (u <= tokens[:, None])[:, None]
        norms.append(torch.where(valid[..., None], torch.cat([rows, spans], -1), 0.0))
        entropies.append(row_entropies)
        parts.append(scores - sigma)
    whole = torch.cat(norms, 1)
    _refuse_bad_rows(batch, whole.sum(-1, keepdim=True))
    posteriors = torch.cat(parts, 1).contiguous()  # still scores
    _, frames, tokens = on_device(batch, posteriors.device)
    found = triton_transducer.solve(posteriors, arcs, frames, tokens, open_end=open_end, paths=paths)
    return Solved(norms=whole, entropies=torch.cat(entropies, 1), posteriors=posteriors, found=found)


def score_transducer(
    logits: Tensor | ChunkedJoint | AdditiveJoint,
    batch: Batch,
    arcs: Arcs,
    sigma: float,
    *,
    results: Results,
    open_end: bool,
) -> None:
    """Fill the results of a transducer batch; see `solve_transducer`."""
    solved = solve_transducer(logits, batch, arcs, sigma, results.orders, open_end=open_end)
    results.entropies[...] = solved.entropies.cpu().numpy()
    host = {name: value.cpu().numpy() for name, value in solved.found.items()}
    host["blanks"] = solved.posteriors[:, :, : arcs.blanks].sum(2).cpu().numpy()
    host["labels"] = solved.posteriors[:, :, arcs.blanks :, :-1].sum(2).cpu().numpy()
    for b in batch.good():
        _keep_transducer(results, b, batch, arcs, host)


def _keep_transducer(results: Results, b: int, batch: Batch, arcs: Arcs, host: dict[str, NDArray[Any]]) -> None:
    """Keep the occupancies and the alignment of one item."""
    t, u = batch.frames[b], len(batch.labels[b])
    results.blank_occupancy[b, :t, : u + 1] = host["blanks"][b, :t, : u + 1]
    results.token_occupancy[b, :t, :u] = host["labels"][b, :t, :u]
    route = np.empty((t + u + 1, 3), np.int32)
    end_t, end_arc = host["end"][b].tolist()
    length = 0
    if end_arc >= 0:
        came = np.ascontiguousarray(host["came"][b, :t, : u + 1])
        length = trace(came, arcs.steps, arcs.blanks, (end_t, end_arc), route)
    results.keep(b, transducer_alignment(route[:length], batch.labels[b], arcs, _figures(host, b)))


def _picks(arcs: Arcs) -> list[int]:
    """Return the columns a node needs: blanks, the next label (-1), durations."""
    return [*dict.fromkeys(arcs.symbols[: arcs.blanks].tolist()), -1, *range(arcs.vocabulary, arcs.width)]


def _gathered(
    logits: Tensor | ChunkedJoint | AdditiveJoint, batch: Batch, arcs: Arcs, orders: tuple[float, ...]
) -> Iterator[tuple[int, tuple[Tensor, Tensor, Tensor]]]:
    """Yield first frame and (normalisers, entropies, picked logits) of the nodes of each chunk."""
    picks = _picks(arcs)
    nodes = 1 + max(len(labels) for labels in batch.labels)
    if isinstance(logits, AdditiveJoint) and logits.weight.dtype == torch.float64:
        logits = logits.chunked()  # tensor cores have no such type
    if isinstance(logits, AdditiveJoint):
        labels, *lengths = on_device(batch, logits.weight.device)
        padded = torch.nn.functional.pad(labels, (0, logits.shape[2] - nodes))
        found = joint_stats(logits, padded, (lengths[0], lengths[1]), picks, arcs.vocabulary, orders=orders)
        yield 0, (found[0][:, :, :nodes], found[1][:, :, :nodes], found[2][:, :, :nodes])
        return
    joint = logits if isinstance(logits, ChunkedJoint) else None
    for start, stop in joint.spans() if joint else [(0, int(logits.shape[1]))]:
        with torch.no_grad():
            part = joint.compute(start, stop) if joint else logits
        part = part.detach()[:, :, :nodes].contiguous()  # type: ignore[union-attr]
        labels, frames, tokens = on_device(batch, part.device)
        norms, entropies = row_stats(part, (frames - start).clamp_min(0), tokens, (0, arcs.vocabulary), orders)
        columns = torch.tensor(picks, device=part.device).expand(*part.shape[::2][:2], -1)
        following = torch.nn.functional.pad(labels, (0, 1))[..., None]
        columns = torch.where(columns < 0, following, columns)[:, None].expand(-1, part.shape[1], -1, -1)
        yield start, (norms, entropies, part.gather(3, columns))


def _arc_scores(norms: Tensor, picked: Tensor, tokens: Tensor, arcs: Arcs) -> tuple[Tensor, Tensor]:
    """Return the scores of all arcs, (B, T, N, U + 1), and the normalisers of the durations, 0 without them."""
    count = len(_picks(arcs)) - (arcs.width - arcs.vocabulary)
    log_probs = picked[..., :count].double() - norms.sum(-1, keepdim=True)
    last = torch.arange(picked.shape[2], device=picked.device) >= tokens[:, None]
    label = log_probs[..., -1].masked_fill(last[:, None], float("-inf"))
    spans = picked[..., count:].double()
    span_norms = torch.zeros_like(norms)
    if spans.shape[-1]:
        top = spans.amax(-1, keepdim=True)
        span_norms = torch.cat([top, (spans - top).exp().sum(-1, keepdim=True).log()], -1)
        spans = spans - span_norms.sum(-1, keepdim=True)
    place = {symbol: i for i, symbol in enumerate(_picks(arcs)[: count - 1])}
    columns = []
    for symbol, kind in zip(arcs.symbols.tolist(), arcs.classes.tolist(), strict=True):
        score = label if symbol < 0 else log_probs[..., place[symbol]]
        columns.append(score if kind < 0 else score + spans[..., kind])
    return torch.stack(columns, 2), span_norms
