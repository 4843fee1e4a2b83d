"""CTC recursions over blank and label states, vectorised over the states of a frame.

Graves et al. 2006. The 2U+1 states are kept as two rows of U+1 columns: column u of the blank row is "u labels
are out, now blank", column u of the label row is "label u (from 1) is being spoken"; column 0 of the latter is
never reached. Only the label row can skip, so no work is spent on masked arcs. `scores` is (T, U + 1): the blank,
then the labels.
"""

# ruff: noqa: PLR0917 - kernels are called by position: the compiler specialises on positions

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.lattice.compiled import REDUCTION, jit
from earmark.lattice.extended import NOTHING, add, log_of, normalise, power_of_two, split_row

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Table = NDArray[np.int32]


@jit({"contract"})
def forward_row(blank: tuple[float, int], lm: Floats, le: Ints, skip: Ints, before: Any, now: Any) -> None:
    """Advance both rows by one frame; `before` and `now` are (blank m, blank e, label m, label e)."""
    bm0, be0, am0, ae0 = before
    bm1, be1, am1, ae1 = now
    pm, pe = blank
    for u in range(bm0.shape[0]):
        m, e = add(bm0[u], be0[u], am0[u], ae0[u])
        bm1[u], be1[u] = normalise(m * pm, e + pe)
    am1[0], ae1[0] = 0.0, NOTHING
    for u in range(1, bm0.shape[0]):
        e0, e1, e2 = ae0[u], be0[u - 1], ae0[u - 1] + skip[u]
        top = max(e0, e1, e2)
        total = am0[u] * power_of_two(e0 - top) + bm0[u - 1] * power_of_two(e1 - top)
        total += am0[u - 1] * power_of_two(e2 - top)
        am1[u], ae1[u] = normalise(total * lm[u], top + le[u])


@jit()
def forward(scores: Floats, skip: Ints, bm: Floats, be: Ints, am: Floats, ae: Ints) -> tuple[float, int]:
    """Fill the forward rows, each (T, U + 1), and return P as mantissa and exponent.

    Args:
        scores: Log-probabilities, (T, U + 1).
        skip: 0 where label u may follow label u - 1 without a blank, NOTHING elsewhere, (U + 1,).
        bm: Output, blank mantissas.
        be: Output, blank exponents.
        am: Output, label mantissas.
        ae: Output, label exponents.
    """
    frames, width = scores.shape
    pm, pe = np.empty(width), np.empty(width, np.int64)
    bm[0], be[0], am[0], ae[0] = 0.0, NOTHING, 0.0, NOTHING
    split_row(scores[0], pm, pe)
    bm[0, 0], be[0, 0] = normalise(pm[0], pe[0])
    if width > 1:
        am[0, 1], ae[0, 1] = normalise(pm[1], pe[1])
    for t in range(1, frames):
        split_row(scores[t], pm, pe)
        before = (bm[t - 1], be[t - 1], am[t - 1], ae[t - 1])
        forward_row((pm[0], pe[0]), pm, pe, skip, before, (bm[t], be[t], am[t], ae[t]))
    t, u = frames - 1, width - 1
    return add(bm[t, u], be[t, u], am[t, u], ae[t, u])


@jit({"contract"})
def backward_row(blank: tuple[float, int], lm: Floats, le: Ints, skip: Ints, after: Any, now: Any) -> None:
    """Step back one frame: `after` of frame t + 1 is overwritten by emission times `after`."""
    bm1, be1, am1, ae1 = after
    bm0, be0, am0, ae0 = now
    pm, pe = blank
    width = bm1.shape[0]
    for u in range(width):
        bm1[u] *= pm
        be1[u] += pe
        am1[u] *= lm[u]
        ae1[u] += le[u]
    for u in range(width - 1):
        bm0[u], be0[u] = add(bm1[u], be1[u], am1[u + 1], ae1[u + 1])
        e0, e1, e2 = ae1[u], be1[u], ae1[u + 1] + skip[u + 1]
        top = max(e0, e1, e2)
        total = am1[u] * power_of_two(e0 - top) + bm1[u] * power_of_two(e1 - top)
        total += am1[u + 1] * power_of_two(e2 - top)
        am0[u], ae0[u] = normalise(total, top)
    u = width - 1
    bm0[u], be0[u] = normalise(bm1[u], be1[u])
    am0[u], ae0[u] = add(am1[u], ae1[u], bm1[u], be1[u])


@jit({"contract"})
def posteriors(m: Floats, e: Ints, after_m: Floats, after_e: Ints, total: tuple[float, int], out: Floats) -> None:
    """Write forward times backward over P for one row of states."""
    inverse, exponent = 1.0 / total[0], total[1]
    for u in range(out.shape[0]):
        out[u] = m[u] * after_m[u] * inverse * power_of_two(min(e[u] + after_e[u] - exponent, 64))


@jit()
def backward(
    scores: Floats,
    skip: Ints,
    rows: Any,
    total: tuple[float, int],
    blank_occupancy: Floats,
    token_occupancy: Floats,
) -> float:
    """Write the posteriors of all states and return the alignment entropy in nats.

    Args:
        scores: Log-probabilities, (T, U + 1).
        skip: As for `forward`, (U + 1,).
        rows: The four arrays that `forward` filled.
        total: P, as `forward` returned it.
        blank_occupancy: Output, (T, >= U + 1).
        token_occupancy: Output, (T, >= U).
    """
    frames, width = scores.shape
    bm, be, am, ae = rows
    pm, pe = np.empty(width), np.empty(width, np.int64)
    ring_m, ring_e = np.zeros((2, 2, width)), np.full((2, 2, width), NOTHING)
    labels = np.empty(width)
    now = (frames - 1) & 1
    ring_m[now, :, width - 1], ring_e[now, :, width - 1] = 1.0, 0
    expected = 0.0
    for t in range(frames - 1, -1, -1):
        now = t & 1
        bm0, be0, am0, ae0 = ring_m[now, 0], ring_e[now, 0], ring_m[now, 1], ring_e[now, 1]
        if t < frames - 1:
            split_row(scores[t + 1], pm, pe)
            after = (ring_m[1 - now, 0], ring_e[1 - now, 0], ring_m[1 - now, 1], ring_e[1 - now, 1])
            backward_row((pm[0], pe[0]), pm, pe, skip, after, (bm0, be0, am0, ae0))
        posteriors(bm[t], be[t], bm0, be0, total, blank_occupancy[t, :width])
        posteriors(am[t], ae[t], am0, ae0, total, labels)
        token_occupancy[t, : width - 1] = labels[1:]
        expected += weighted_sum(labels, scores[t])
        expected += row_sum(blank_occupancy[t, :width]) * max(scores[t, 0], -1e300)
    return max(log_of(total[0], total[1]) - expected, 0.0)


@jit(REDUCTION)
def weighted_sum(weights: Floats, scores: Floats) -> float:
    """Return the sum of weight times score, where a weight of 0 silences a score of -inf."""
    total = 0.0
    for i in range(1, weights.shape[0]):
        total += weights[i] * max(scores[i], -1e300)
    return total


@jit(REDUCTION)
def row_sum(row: Floats) -> float:
    """Return the sum of a row over vector lanes."""
    total = 0.0
    for i in range(row.shape[0]):
        total += row[i]
    return total


@jit()
def viterbi(scores: Floats, skip: Ints, states: Table) -> float:
    """Write the best state per frame and return its log-probability.

    Args:
        scores: Log-probabilities, (T, U + 1).
        skip: As for `forward`, (U + 1,).
        states: Output, (T,): 2 * u for a blank after u labels, 2 * u - 1 while label u (from 1) is spoken.

    Returns:
        The score of the best path; the earliest arrival wins a tie.
    """
    frames, width = scores.shape
    from_blank, from_label = np.zeros((frames, width), np.int8), np.zeros((frames, width), np.int8)
    ring = np.full((2, 2, width), -np.inf)
    ring[0, 0, 0] = scores[0, 0]
    if width > 1:
        ring[0, 1, 1] = scores[0, 1]
    for t in range(1, frames):
        blank0, label0 = ring[1 - (t & 1)]
        blank1, label1 = ring[t & 1]
        viterbi_row(scores[t], skip, (blank0, label0, blank1, label1), from_blank[t], from_label[t])
    blank0, label0 = ring[(frames - 1) & 1]
    u = width - 1
    in_label = label0[u] > blank0[u]
    best = label0[u] if in_label else blank0[u]
    for t in range(frames - 1, -1, -1):
        states[t] = 2 * u - 1 if in_label else 2 * u
        move = from_label[t, u] if in_label else from_blank[t, u]
        if in_label and move > 0:
            u -= 1
            in_label = move == 2
        elif not in_label:
            in_label = move == 1
    return best  # type: ignore[no-any-return]


@jit()
def viterbi_row(
    scores: Floats, skip: Ints, rows: Any, from_blank: NDArray[np.int8], from_label: NDArray[np.int8]
) -> None:
    """Advance the best scores by one frame; `rows` are (blank, label) before and now."""
    blank0, label0, blank1, label1 = rows
    for u in range(scores.shape[0]):
        better = label0[u] > blank0[u]
        blank1[u] = (label0[u] if better else blank0[u]) + scores[0]
        from_blank[u] = 1 if better else 0
    for u in range(1, scores.shape[0]):
        best, move = label0[u], np.int8(0)
        if blank0[u - 1] > best:
            best, move = blank0[u - 1], np.int8(1)
        skipped = label0[u - 1] if skip[u] == 0 else -np.inf
        if skipped > best:
            best, move = skipped, np.int8(2)
        label1[u] = best + scores[u]
        from_label[u] = move


@jit()
def read_states(
    states: Table, labels: Ints, blank: int, path: Table, token_frame: Table, token_duration: Table
) -> None:
    """Write the steps of a path, and first frame and number of frames of each label.

    Args:
        states: As `viterbi` wrote them, (T,).
        labels: Token ids, (U,).
        blank: Id of the blank.
        path: Output, (T, 4): frame, tokens out before, symbol, 1.
        token_frame: Output, (U,).
        token_duration: Output, (U,); comes as zeros.
    """
    for t in range(states.shape[0]):
        spoken, u = states[t] % 2 == 1, states[t] // 2
        path[t, 0], path[t, 1], path[t, 2], path[t, 3] = t, u, labels[u] if spoken else blank, 1
        if spoken:
            if token_duration[u] == 0:
                token_frame[u] = t
            token_duration[u] += 1
