# ruff: noqa: PLR0917 - kernels are called by position: the compiler specialises on positions
"""CTC recursions inside a band of tokens, stored at the width of the band, with a bound on the mass outside.

Frame t holds the tokens lo[t] .. lo[t] + W - 1 (`lo` never falls). Columns are shifted by one: column j stands for
u = lo[t] - 1 + j "labels out", and column 0 stays empty, so that the row kernels of the exact engine serve here too.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.lattice.compiled import jit
from earmark.lattice.ctc_kernels import backward_row, forward_row, posteriors, row_sum, viterbi_row, weighted_sum
from earmark.lattice.extended import NOTHING, add, log_of, normalise, split, split_row
from earmark.lattice.rows import summarise

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SHIFT = 2
"""Where u = 0 stands in the padded array of skips."""


@jit()
def gather_band(
    rows: NDArray[np.floating],
    labels: Ints,
    symbols: Ints,
    lo: Ints,
    scores: Floats,
    mass: Floats,
    entropies: Floats,
) -> int:
    """Write the log-probabilities of blank and band, and the mass of all symbols of the transcript.

    Args:
        rows: Logits, (T, V).
        labels: Token ids, (U,).
        symbols: The blank first, then the distinct labels.
        lo: First token count of the band, (T,).
        scores: Output, (T, W + 1): blank, then the label of each column; -inf where there is none.
        mass: Output, (T,): log of the summed probability of `symbols`.
        entropies: Output, (T, 1).

    Returns:
        The first frame that is not finite, or -1.
    """
    none = np.empty(0)
    for t in range(rows.shape[0]):
        row = rows[t]
        top, log_sum = summarise(row, none, entropies[t])
        if not np.isfinite(log_sum):
            return t
        total = 0.0
        for i in range(symbols.shape[0]):
            total += np.exp((row[symbols[i]] - top) - log_sum)
        # rounded up, so that the bound stays one
        mass[t] = min(np.log(total) + 1e-6, 0.0)
        scores[t, 0] = (row[symbols[0]] - top) - log_sum
        for j in range(1, scores.shape[1]):
            u = lo[t] - 1 + j
            inside = 1 <= u <= labels.shape[0]
            scores[t, j] = (row[labels[u - 1]] - top) - log_sum if inside else -np.inf
    return -1


@jit()
def _shifted(m: Floats, e: Ints, by: int, out_m: Floats, out_e: Ints) -> None:
    """Copy a row so that column j shows column j + by, empty where there is none; column 0 is never shown."""
    for j in range(out_m.shape[0]):
        inside = 1 <= j + by < m.shape[0]
        out_m[j] = m[j + by] if inside else 0.0
        out_e[j] = e[j + by] if inside else NOTHING


@jit()
def _mass_of(rows: Any, j: int) -> tuple[float, int]:
    return add(rows[0][j], rows[1][j], rows[2][j], rows[3][j])


@jit()
def forward(scores: Floats, skips: Ints, lo: Ints, last: int, rows: Any, suffix: Floats) -> tuple[float, int, float]:
    """Fill the forward rows; return P inside the band and log of a bound on the mass outside.

    Args:
        scores: As `gather_band` wrote them, (T, W + 1).
        skips: 0 where label u may follow u - 1 without a blank, NOTHING elsewhere, at u + SHIFT.
        lo: First token count of the band, (T,).
        last: U.
        rows: Outputs: blank and label mantissas and exponents, four of (T, W + 1).
        suffix: log of the largest mass that frames t .. T - 1 can still carry, (T + 1,).
    """
    bm, be, am, ae = rows
    frames, width = scores.shape
    pm, pe = np.empty(width), np.empty(width, np.int64)
    b0, b0e, a0, a0e = np.empty(width), np.empty(width, np.int64), np.empty(width), np.empty(width, np.int64)
    for x, e in ((bm, be), (am, ae)):
        x[0], e[0] = 0.0, NOTHING
    split_row(scores[0], pm, pe)
    bm[0, 1], be[0, 1] = normalise(pm[0], pe[0])
    if width > 2:
        am[0, 2], ae[0, 2] = normalise(pm[2], pe[2])
    lost_m, lost_e = 0.0, NOTHING
    for t in range(1, frames):
        by = lo[t] - lo[t - 1]
        before = (bm[t - 1], be[t - 1], am[t - 1], ae[t - 1])
        out_m, out_e = 0.0, NOTHING
        for j in range(1, min(by, width - 1) + 1):  # fell below the band
            m, e = _mass_of(before, j)
            out_m, out_e = add(out_m, out_e, m, e)
        edge = width - 1 + by  # may step above the band
        if lo[t] + width - 2 < last and edge < width:
            m, e = _mass_of(before, edge)
            out_m, out_e = add(out_m, out_e, m, e)
        m, e = split(suffix[t])
        lost_m, lost_e = add(lost_m, lost_e, out_m * m, out_e + e)
        _shifted(before[0], before[1], by, b0, b0e)
        _shifted(before[2], before[3], by, a0, a0e)
        # column 0 shows what stands just below the band, for the step into it
        if 1 <= by < width:
            b0[0], b0e[0], a0[0], a0e[0] = before[0][by], before[1][by], before[2][by], before[3][by]
        split_row(scores[t], pm, pe)
        at = lo[t] - 1 + SHIFT
        now = (bm[t], be[t], am[t], ae[t])
        forward_row((pm[0], pe[0]), pm, pe, skips[at : at + width], (b0, b0e, a0, a0e), now)
        bm[t, 0], be[t, 0] = 0.0, NOTHING
    end = (bm[frames - 1], be[frames - 1], am[frames - 1], ae[frames - 1])
    m, e = _mass_of(end, last - lo[frames - 1] + 1)
    return m, e, log_of(lost_m, lost_e)


@jit()
def backward(
    scores: Floats,
    skips: Ints,
    lo: Ints,
    last: int,
    rows: Any,
    total: tuple[float, int],
    blanks: Floats,
    tokens: Floats,
) -> float:
    """Write the posteriors inside the band, (T, W) each, and return the alignment entropy."""
    bm, be, am, ae = rows
    frames, width = scores.shape
    pm, pe = np.empty(width), np.empty(width, np.int64)
    one, zero = np.ones(width + 1), np.zeros(width + 1, np.int64)
    own_m, own_e = np.zeros((2, width)), np.full((2, width), NOTHING)
    next_m, next_e = np.zeros((2, width + 1)), np.full((2, width + 1), NOTHING)
    now_m, now_e = np.zeros((2, width + 1)), np.full((2, width + 1), NOTHING)
    now_m[:, last - lo[frames - 1] + 1], now_e[:, last - lo[frames - 1] + 1] = 1.0, 0
    row = np.empty(width)
    expected = 0.0
    for t in range(frames - 1, -1, -1):
        if t < frames - 1:
            split_row(scores[t + 1], pm, pe)
            for j in range(width):
                own_m[0, j], own_e[0, j] = now_m[0, j] * pm[0], now_e[0, j] + pe[0]
                own_m[1, j], own_e[1, j] = now_m[1, j] * pm[j], now_e[1, j] + pe[j]
            by = lo[t] - lo[t + 1]
            for k in range(2):
                _shifted(own_m[k], own_e[k], by, next_m[k], next_e[k])
            at = lo[t] - 1 + SHIFT
            after = (next_m[0], next_e[0], next_m[1], next_e[1])
            now = (now_m[0], now_e[0], now_m[1], now_e[1])
            backward_row((1.0, 0), one, zero, skips[at : at + width + 1], after, now)
        posteriors(bm[t], be[t], now_m[0, :width], now_e[0, :width], total, row)
        blanks[t] = row[1:]
        expected += row_sum(row[1:]) * max(scores[t, 0], -1e300)
        posteriors(am[t], ae[t], now_m[1, :width], now_e[1, :width], total, row)
        tokens[t] = row[1:]
        expected += weighted_sum(row, scores[t])
    return max(log_of(total[0], total[1]) - expected, 0.0)


@jit()
def viterbi(scores: Floats, skips: Ints, lo: Ints, last: int, states: NDArray[np.int32]) -> float:
    """Write the best state per frame, 2u or 2u - 1, and return its log-probability."""
    frames, width = scores.shape
    from_blank, from_label = np.zeros((frames, width), np.int8), np.zeros((frames, width), np.int8)
    now, before = np.full((2, width), -np.inf), np.full((2, width), -np.inf)
    now[0, 1] = scores[0, 0]
    if width > 2:
        now[1, 2] = scores[0, 2]
    for t in range(1, frames):
        by = lo[t] - lo[t - 1]
        for j in range(width):
            inside = 1 <= j + by < width
            before[0, j] = now[0, j + by] if inside else -np.inf
            before[1, j] = now[1, j + by] if inside else -np.inf
        at = lo[t] - 1 + SHIFT
        rows = (before[0], before[1], now[0], now[1])
        viterbi_row(scores[t], skips[at : at + width], rows, from_blank[t], from_label[t])
        now[0, 0] = -np.inf
    u = last
    j = last - lo[frames - 1] + 1
    in_label = now[1, j] > now[0, j]
    best = max(now[0, j], now[1, j])
    for t in range(frames - 1, -1, -1):
        states[t] = 2 * u - 1 if in_label else 2 * u
        j = u - lo[t] + 1
        move = from_label[t, j] if in_label else from_blank[t, j]
        if in_label and move > 0:
            u -= 1
            in_label = move == 2
        elif not in_label:
            in_label = move == 1
    return best  # type: ignore[no-any-return]
