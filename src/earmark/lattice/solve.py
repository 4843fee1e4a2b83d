"""One item of a batch: recursions, best path and token times from gathered log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earmark.lattice import ctc_kernels, transducer_kernels
from earmark.lattice.arcs import Arcs
from earmark.lattice.compiled import jit
from earmark.lattice.extended import NOTHING, log_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Table = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """What the recursions say about one item; see `LatticeScores` for the units.

    Attributes:
        log_likelihood: log P; -inf where no alignment is possible.
        entropy: Alignment entropy.
        viterbi_score: Log-probability of the best path.
        path: The best path, (steps, 4).
        token_frame: (U,).
        token_duration: (U,).
    """

    log_likelihood: float
    entropy: float = 0.0
    viterbi_score: float = -np.inf
    path: Table
    token_frame: Table
    token_duration: Table


def _impossible() -> Alignment:
    none = np.zeros(0, np.int32)
    return Alignment(log_likelihood=-np.inf, path=np.zeros((0, 4), np.int32), token_frame=none, token_duration=none)


def ctc_skips(labels: Ints) -> Ints:
    """Return 0 where a label may follow its neighbour without a blank, NOTHING elsewhere, (U + 1,)."""
    skips = np.full(len(labels) + 1, NOTHING, np.int64)
    skips[2:][labels[1:] != labels[:-1]] = 0
    return skips


def solve_ctc(scores: Floats, labels: Ints, blank: int, token_occupancy: Floats, blank_occupancy: Floats) -> Alignment:
    """Run CTC on one item and write its occupancies.

    Args:
        scores: Log-probabilities of the blank and the labels, (T, U + 1).
        labels: Token ids, (U,).
        blank: Id of the blank.
        token_occupancy: Output, (T, >= U).
        blank_occupancy: Output, (T, >= U + 1).
    """
    total, entropy = ctc_posteriors(scores, labels, token_occupancy, blank_occupancy)
    if total == -np.inf:
        return _impossible()
    states = np.empty(len(scores), np.int32)
    best = ctc_kernels.viterbi(scores, ctc_skips(labels), states)
    return ctc_alignment(states, labels, blank, (total, entropy, best))


def ctc_alignment(states: Table, labels: Ints, blank: int, figures: tuple[float, float, float]) -> Alignment:
    """Return the alignment of a path of states: 2u for a blank after u labels, 2u - 1 for label u (from 1).

    Args:
        states: State of each frame, (T,).
        labels: Token ids, (U,).
        blank: Id of the blank.
        figures: log P, alignment entropy, score of the path.
    """
    total, entropy, best = figures
    if total == -np.inf:
        return _impossible()
    path = np.empty((len(states), 4), np.int32)
    token_frame, token_duration = np.zeros((2, len(labels)), np.int32)
    ctc_kernels.read_states(states, labels, blank, path, token_frame, token_duration)
    return Alignment(
        log_likelihood=total,
        entropy=entropy,
        viterbi_score=best,
        path=path,
        token_frame=token_frame,
        token_duration=token_duration,
    )


def ctc_posteriors(
    scores: Floats, labels: Ints, token_occupancy: Floats, blank_occupancy: Floats
) -> tuple[float, float]:
    """Write the occupancies of one item; return log P and the alignment entropy."""
    skips = ctc_skips(labels)
    bm, am = np.empty(scores.shape), np.empty(scores.shape)
    be, ae = np.empty(scores.shape, np.int64), np.empty(scores.shape, np.int64)
    total = ctc_kernels.forward(scores, skips, bm, be, am, ae)
    if total[0] == 0.0:
        return -np.inf, 0.0
    rows = (bm, be, am, ae)
    entropy = ctc_kernels.backward(scores, skips, rows, total, blank_occupancy, token_occupancy)
    return log_of(*total), entropy


def solve_transducer(scores: Floats, labels: Ints, arcs: Arcs, open_end: bool) -> Alignment:
    """Run a transducer lattice on one item and replace the scores of its arcs by their posteriors.

    Args:
        scores: Log-probability of each arc, (T, N, U + 1); overwritten.
        labels: Token ids, (U,).
        arcs: What the arcs are.
        open_end: Whether arcs may pass the end.
    """
    frames, _, nodes = scores.shape
    route = np.empty((frames + nodes, 3), np.int32)
    best, length = transducer_kernels.viterbi(scores, arcs.steps, arcs.blanks, open_end, route)
    if length == 0:
        return _impossible()
    total, entropy = transducer_posteriors(scores, arcs, open_end)
    return transducer_alignment(route[:length], labels, arcs, (total, entropy, best))


def transducer_alignment(route: Table, labels: Ints, arcs: Arcs, figures: tuple[float, float, float]) -> Alignment:
    """Return the alignment of a path of arcs.

    Args:
        route: t, u and arc of each step, (steps, 3).
        labels: Token ids, (U,).
        arcs: What the arcs are.
        figures: log P, alignment entropy, score of the path.
    """
    total, entropy, best = figures
    if total == -np.inf or not len(route):
        return _impossible()
    t, u, n = route.T
    spoken = n >= arcs.blanks
    path = np.empty((len(route), 4), np.int32)
    path[:, 0], path[:, 1], path[:, 2], path[:, 3] = t, u, arcs.symbols[n], arcs.durations[n]
    path[spoken, 2] = labels
    return Alignment(
        log_likelihood=total,
        entropy=entropy,
        viterbi_score=best,
        path=path,
        token_frame=t[spoken].copy(),
        token_duration=arcs.durations[n[spoken]].astype(np.int32),
    )


def transducer_posteriors(scores: Floats, arcs: Arcs, open_end: bool) -> tuple[float, float]:
    """Replace the scores of all arcs by their posteriors; return log P and the alignment entropy."""
    frames, _, nodes = scores.shape
    am, ae = np.empty((frames, nodes)), np.empty((frames, nodes), np.int64)
    total = transducer_kernels.forward(scores, arcs.steps, arcs.blanks, open_end, am, ae)
    if total[0] == 0.0:
        return -np.inf, 0.0
    entropy = transducer_kernels.backward(scores, arcs.steps, arcs.blanks, open_end, am, ae, total)
    return log_of(*total), entropy


@jit()
def token_times(occupancy: Floats, mean: Floats, spread: Floats) -> None:
    """Write mean and standard deviation over frames of each token's posterior.

    Args:
        occupancy: Posteriors, (T, U).
        mean: Output, (U,), frames.
        spread: Output, (U,), frames.
    """
    mass = np.zeros(occupancy.shape[1])
    mean[:], spread[:] = 0.0, 0.0
    for t in range(occupancy.shape[0]):
        for u in range(occupancy.shape[1]):
            mass[u] += occupancy[t, u]
            mean[u] += t * occupancy[t, u]
    for u in range(occupancy.shape[1]):
        mean[u] /= mass[u] if mass[u] > 0.0 else 1.0
    for t in range(occupancy.shape[0]):
        for u in range(occupancy.shape[1]):
            spread[u] += (t - mean[u]) ** 2 * occupancy[t, u]
    for u in range(occupancy.shape[1]):
        spread[u] = np.sqrt(spread[u] / mass[u]) if mass[u] > 0.0 else 0.0
