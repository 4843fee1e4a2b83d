"""Lattices as acceptors in the text forms of OpenFst and k2, so that other tools can check them or go on from them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from earmark.lattice.arcs import Rule, build_arcs
from earmark.lattice.checks import check_batch, check_blank, check_sigma, ctc_frames_needed, integers
from earmark.lattice.gather import gather_ctc, gather_transducer
from earmark.lattice.sources import as_block, shape_of
from earmark.lattice.types import LatticeError

FINAL = -1
"""Symbol of the arcs into the final state, as k2 wants it."""

Arc = tuple[int, int, int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fsa:
    """An acyclic acceptor; state 0 is the start and the last state is final.

    Attributes:
        arcs: (from, to, symbol, score) sorted by `from`; scores are log-probabilities, to be maximised.
        states: Number of states.
    """

    arcs: tuple[Arc, ...]
    states: int

    def openfst(self, shift: int = 1) -> str:
        """Return the text that `fstcompile --acceptor` reads.

        Args:
            shift: Added to every symbol: 0 is epsilon in OpenFst, but often the id of the blank. Arcs into the final
                state become epsilon.

        Returns:
            One line "from to symbol cost" per arc, cost = -score, and the final state.

        Example:
            >>> print(Fsa(arcs=((0, 1, 4, -0.5), (1, 2, FINAL, 0.0)), states=3).openfst())
            0 1 5 0.5
            1 2 0 0.0
            2
            <BLANKLINE>
        """
        lines = [f"{a} {b} {0 if s == FINAL else s + shift} {0.0 - score!r}" for a, b, s, score in self.arcs]
        return "\n".join([*lines, str(self.states - 1), ""])

    def k2(self) -> str:
        """Return the text that `k2.Fsa.from_str` reads; symbols are ids, -1 leads to the final state.

        Example:
            >>> print(Fsa(arcs=((0, 1, 4, -0.5), (1, 2, FINAL, 0.0)), states=3).k2())
            0 1 4 -0.5
            1 2 -1 0.0
            2
            <BLANKLINE>
        """
        lines = [f"{a} {b} {s} {score!r}" for a, b, s, score in self.arcs]
        return "\n".join([*lines, str(self.states - 1), ""])


def _fsa(arcs: Iterator[Arc], states: int) -> Fsa:
    possible = [(a, b, s, float(score)) for a, b, s, score in arcs if score > -np.inf]
    return Fsa(arcs=tuple(sorted(possible)), states=states)


def transcript(shape: tuple[int, ...], targets: Any, blanks: set[int], vocabulary: int) -> NDArray[np.int64]:
    """Return the checked token ids of one item."""
    given = integers(targets, "targets", 1)
    batch = check_batch(
        (1, *shape), given[None], [shape[0]], [len(given)], blanks=blanks, vocabulary=vocabulary, on_error="raise"
    )
    return batch.labels[0]


def ctc_fsa(logits: Any, targets: Any, blank: int) -> Fsa:
    """Return the CTC lattice of one item.

    Args:
        logits: Logits, (T, V).
        targets: Token ids, (U,).
        blank: Id of the blank.

    Returns:
        An acceptor of the frame-by-frame symbols of every alignment.

    Example:
        >>> ctc_fsa(np.zeros((1, 2)), [1], 0).arcs
        ((0, 2, 1, -0.6931471805599453), (2, 4, -1, 0.0))
    """
    rows = as_block(logits)
    shape = shape_of(rows[None], 3)[1:]
    blank = check_blank(blank, shape[1])
    labels = transcript(shape, targets, {blank}, shape[1])
    if shape[0] < ctc_frames_needed(labels):
        raise LatticeError(f"{len(labels)} tokens need {ctc_frames_needed(labels)} frames, there are {shape[0]}")
    scores = np.empty((shape[0], len(labels) + 1))
    bad = gather_ctc(rows, labels, blank, np.empty(0), scores, np.empty((shape[0], 2)), np.empty((shape[0], 1)))
    _refuse(bad)
    symbols = np.full(2 * len(labels) + 1, blank)
    symbols[1::2] = labels
    count = len(symbols)

    def arcs() -> Iterator[Arc]:
        for t in range(shape[0]):
            for s in range(count):
                score = scores[t, 0 if s % 2 == 0 else (s + 1) // 2]
                sources = [s - k for k in range(3) if s >= k and (k < 2 or _may_skip(symbols, s, blank))]
                for before in sources if t else [0] * (s < 2):
                    yield (1 + (t - 1) * count + before if t else 0), 1 + t * count + s, int(symbols[s]), score
        for s in range(max(count - 2, 0), count):
            yield 1 + (shape[0] - 1) * count + s, 1 + shape[0] * count, FINAL, 0.0

    return _trimmed(_fsa(arcs(), 2 + shape[0] * count))


def _may_skip(symbols: NDArray[np.int64], s: int, blank: int) -> bool:
    return bool(s >= 2 and symbols[s] != blank and symbols[s] != symbols[s - 2])


def _trimmed(fsa: Fsa) -> Fsa:
    """Return the acceptor without arcs that no path from start to end uses."""
    reached, leading = {0}, {fsa.states - 1}
    for a, b, _, _ in fsa.arcs:
        if a in reached:
            reached.add(b)
    for a, b, _, _ in reversed(fsa.arcs):
        if b in leading:
            leading.add(a)
    useful = reached & leading
    return Fsa(arcs=tuple(arc for arc in fsa.arcs if arc[0] in useful and arc[1] in useful), states=fsa.states)


def _refuse(bad: int) -> None:
    if bad >= 0:
        raise LatticeError(f"row {bad} of the logits holds NaN or +inf, or is all -inf")


def transducer_fsa(
    logits: Any,
    targets: Any,
    blank: int,
    *,
    durations: Sequence[int] | None = None,
    big_blanks: Mapping[int, int] | None = None,
    sigma: float = 0.0,
    rule: Rule = "strict",
) -> Fsa:
    """Return the transducer lattice of one item; two arcs of one symbol differ in duration.

    Args:
        logits: Logits, (T, U + 1, V + D).
        targets: Token ids, (U,).
        blank: Id of the blank.
        durations: As for `transducer`.
        big_blanks: As for `transducer`.
        sigma: As for `transducer`.
        rule: As for `transducer`.

    Returns:
        An acceptor of the symbols of every alignment, blanks included.

    Example:
        >>> transducer_fsa(np.zeros((1, 1, 2)), [], 0).arcs
        ((0, 1, 0, -0.6931471805599453), (1, 2, -1, 0.0))
    """
    rows = as_block(logits)
    shape = shape_of(rows[None], 4)[1:]
    kinds = build_arcs(shape[2], blank, durations, big_blanks, rule)
    labels = transcript(shape, targets, kinds.blank_ids(), kinds.vocabulary)
    frames, nodes = shape[0], len(labels) + 1
    scores = np.empty((frames, len(kinds.symbols), nodes))
    norms, entropies = np.empty((frames, nodes, 4)), np.empty((frames, nodes, 1))
    bad = gather_transducer(
        rows,
        labels,
        kinds.vocabulary,
        kinds.symbols,
        kinds.classes,
        check_sigma(sigma),
        np.empty(0),
        scores,
        norms,
        entropies,
    )
    _refuse(bad)
    end = frames * nodes

    def arcs() -> Iterator[Arc]:
        for t, n, u in np.ndindex(scores.shape):
            to, after = t + int(kinds.steps[n]), u + (n >= kinds.blanks)
            symbol = int(kinds.symbols[n] if n < kinds.blanks or u == len(labels) else labels[u])
            if to < frames and after < nodes:
                yield t * nodes + u, to * nodes + after, symbol, float(scores[t, n, u])
            elif after == len(labels) and (rule == "open_end" or (n < kinds.blanks and to == frames)):
                yield t * nodes + u, end, symbol, float(scores[t, n, u])
        yield end, end + 1, FINAL, 0.0

    return _trimmed(_fsa(arcs(), end + 2))
