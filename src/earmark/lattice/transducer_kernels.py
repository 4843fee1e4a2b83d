"""Transducer recursions over any set of arcs: RNN-T, multi-blank, TDT and HAINAN are one lattice.

From node (t, u) arc n leads to (t + steps[n], u) if it is one of the first `blanks` arcs and to
(t + steps[n], u + 1) otherwise (Graves 2012, arXiv 1211.3711; Xu et al. 2023, arXiv 2304.06795, equation 7).
Strictly, a path ends only where a blank lands exactly on T with all labels out; `open_end` lets any arc that
reaches or passes T end it. Scores are (T, N, U + 1), so that the loops over u run over contiguous memory.
"""

# ruff: noqa: PLR0917 - kernels are called by position: the compiler specialises on positions

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earmark.lattice.compiled import jit
from earmark.lattice.extended import NOTHING, add, log_of, power_of_two, split_row

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@jit({"contract"})
def _accumulate(m1: Floats, e1: Ints, m2: Floats, e2: Ints, pm: Floats, pe: Ints) -> None:
    """Add p times the second row to the first."""
    for u in range(m1.shape[0]):
        m1[u], e1[u] = add(m1[u], e1[u], m2[u] * pm[u], e2[u] + pe[u])


@jit()
def _split_arcs(arcs: Floats, pm: Floats, pe: Ints) -> None:
    for n in range(arcs.shape[0]):
        split_row(arcs[n], pm[n], pe[n])


@jit()
def forward(arcs: Floats, steps: Ints, blanks: int, open_end: bool, am: Floats, ae: Ints) -> tuple[float, int]:
    """Fill the forward rows and return P as mantissa and exponent.

    Args:
        arcs: Log-probability of each arc, (T, N, U + 1).
        steps: Frames each arc advances, (N,).
        blanks: Number of blank arcs, which come first.
        open_end: Whether arcs may pass the end.
        am: Output, mantissas, (T, U + 1).
        ae: Output, exponents, (T, U + 1).
    """
    frames, count, width = arcs.shape
    last = width - 1
    pm, pe = np.empty((count, width)), np.empty((count, width), np.int64)
    am[:], ae[:] = 0.0, NOTHING
    am[0, 0], ae[0, 0] = 1.0, 0
    total_m, total_e = 0.0, NOTHING
    for t in range(frames):
        _split_arcs(arcs[t], pm, pe)
        m, e = am[t], ae[t]
        for n in range(blanks, count):
            if steps[n] == 0:
                for u in range(last):
                    m[u + 1], e[u + 1] = add(m[u + 1], e[u + 1], m[u] * pm[n, u], e[u] + pe[n, u])
        for n in range(count):
            to = t + steps[n]
            source = last if n < blanks else last - 1
            if to < frames:
                if n < blanks:
                    _accumulate(am[to], ae[to], m, e, pm[n], pe[n])
                elif steps[n] > 0:
                    _accumulate(am[to, 1:], ae[to, 1:], m[:last], e[:last], pm[n, :last], pe[n, :last])
            elif source >= 0 and (open_end or (n < blanks and to == frames)):
                total_m, total_e = add(total_m, total_e, m[source] * pm[n, source], e[source] + pe[n, source])
    return total_m, total_e


@jit({"contract"})
def _arc_posteriors(
    m1: Floats, e1: Ints, m2: Floats, e2: Ints, pm: Floats, pe: Ints, total: tuple[float, int], scores: Floats
) -> float:
    """Replace the scores of a row of arcs by their posteriors; return the expected score."""
    inverse, exponent = 1.0 / total[0], total[1]
    expected = 0.0
    for u in range(m1.shape[0]):
        posterior = m1[u] * pm[u] * m2[u] * inverse
        posterior *= power_of_two(min(e1[u] + pe[u] + e2[u] - exponent, 64))
        expected += posterior * max(scores[u], -1e300)
        scores[u] = posterior
    return expected


@jit()
def backward(
    arcs: Floats, steps: Ints, blanks: int, open_end: bool, am: Floats, ae: Ints, total: tuple[float, int]
) -> float:
    """Replace the score of every arc by its posterior; return the alignment entropy in nats.

    Args:
        arcs: Log-probability of each arc, (T, N, U + 1); overwritten.
        steps: Frames each arc advances, (N,).
        blanks: Number of blank arcs, which come first.
        open_end: Whether arcs may pass the end.
        am: Mantissas that `forward` filled.
        ae: Exponents that `forward` filled.
        total: P, as `forward` returned it.
    """
    frames, count, width = arcs.shape
    last = width - 1
    size = min(steps.max(), frames) + 1
    pm, pe = np.empty((count, width)), np.empty((count, width), np.int64)
    # rows t .. t + size - 1; one more row stands for the end of the audio
    bm, be = np.zeros((size + 1, width)), np.full((size + 1, width), NOTHING)
    bm[size, last], be[size, last] = 1.0, 0
    dead_m, dead_e = np.zeros(width), np.full(width, NOTHING)
    expected = 0.0
    for t in range(frames - 1, -1, -1):
        _split_arcs(arcs[t], pm, pe)
        m, e = bm[t % size], be[t % size]
        m[:], e[:] = 0.0, NOTHING
        for n in range(count):
            row = _landing(t + steps[n], frames, size, open_end, n < blanks)
            if row >= 0 and n < blanks:
                _accumulate(m, e, bm[row], be[row], pm[n], pe[n])
            elif row >= 0 and steps[n] > 0:
                _accumulate(m[:last], e[:last], bm[row, 1:], be[row, 1:], pm[n, :last], pe[n, :last])
        for n in range(blanks, count):
            if steps[n] == 0:
                for u in range(last - 1, -1, -1):
                    m[u], e[u] = add(m[u], e[u], m[u + 1] * pm[n, u], e[u + 1] + pe[n, u])
        for n in range(count):
            row = _landing(t + steps[n], frames, size, open_end, n < blanks)
            to_m, to_e = (bm[row], be[row]) if row >= 0 else (dead_m, dead_e)
            if n < blanks:
                expected += _arc_posteriors(am[t], ae[t], to_m, to_e, pm[n], pe[n], total, arcs[t, n])
            else:
                source = (am[t, :last], ae[t, :last])
                target = (to_m[1:], to_e[1:])
                p = (pm[n, :last], pe[n, :last])
                expected += _arc_posteriors(*source, *target, *p, total, arcs[t, n, :last])
                arcs[t, n, last] = 0.0
    return max(log_of(total[0], total[1]) - expected, 0.0)


@jit()
def _landing(to: int, frames: int, size: int, open_end: bool, is_blank: bool) -> int:
    """Return the row of the ring an arc lands on: `size` for the end, -1 for nowhere."""
    if to < frames:
        return to % size
    return size if open_end or (is_blank and to == frames) else -1


@jit()
def viterbi(arcs: Floats, steps: Ints, blanks: int, open_end: bool, path: NDArray[np.int32]) -> tuple[float, int]:
    """Write the best path and return its log-probability and number of arcs.

    Args:
        arcs: Log-probability of each arc, (T, N, U + 1).
        steps: Frames each arc advances, (N,).
        blanks: Number of blank arcs, which come first.
        open_end: Whether arcs may pass the end.
        path: Output, (T + U, 3): t, u and arc of each step; the first arrival wins a tie.
    """
    frames, count, width = arcs.shape
    last = width - 1
    size = min(steps.max(), frames) + 1
    best = np.full((size, width), -np.inf)
    came = np.zeros((frames, width), np.int16)
    best[0, 0] = 0.0
    total, total_arc, total_t = -np.inf, -1, -1
    for t in range(frames):
        row = best[t % size]
        for n in range(blanks, count):
            if steps[n] == 0:
                _improve(row[:last], arcs[t, n, :last], row[1:], came[t, 1:], n)
        for n in range(count):
            to, shift = t + steps[n], 0 if n < blanks else 1
            if to < frames and steps[n] > 0:
                end = width - shift
                _improve(row[:end], arcs[t, n, :end], best[to % size, shift:], came[to, shift:], n)
            elif to >= frames and last >= shift and (open_end or (n < blanks and to == frames)):
                score = row[last - shift] + arcs[t, n, last - shift]
                if score > total:
                    total, total_arc, total_t = score, n, t
        row[:] = -np.inf
    if total_arc < 0:
        return total, 0
    return total, trace(came, steps, blanks, (total_t, total_arc), path)


@jit()
def _improve(row: Floats, scores: Floats, target: Floats, came: NDArray[np.int16], arc: int) -> None:
    """Take an arc from every node of a row where it is better; `target` may be the row itself, one node on."""
    for u in range(target.shape[0]):
        if row[u] + scores[u] > target[u]:
            target[u] = row[u] + scores[u]
            came[u] = arc


@jit()
def trace(came: NDArray[np.int16], steps: Ints, blanks: int, end: tuple[int, int], path: NDArray[np.int32]) -> int:
    """Follow the arcs back from the last one; write them in order of time and return their number."""
    t, arc = end
    u = came.shape[1] - 1 - (0 if arc < blanks else 1)
    length = 0
    while True:
        path[length, 0], path[length, 1], path[length, 2] = t, u, arc
        length += 1
        if t == 0 and u == 0:
            break
        arc = came[t, u]
        t -= steps[arc]
        u -= 0 if arc < blanks else 1
    for i in range(length // 2):
        for k in range(3):
            path[i, k], path[length - 1 - i, k] = path[length - 1 - i, k], path[i, k]
    return length
