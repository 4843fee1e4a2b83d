"""Which arcs leave a node of a transducer lattice, for RNN-T, multi-blank, TDT and HAINAN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from earmark.lattice.checks import check_blank, check_integer
from earmark.lattice.types import LatticeError

Rule = Literal["strict", "open_end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Arcs:
    """The arcs that leave every node, blanks first.

    Attributes:
        symbols: Symbol of each arc, (N,); -1 for the next label.
        classes: Index of its duration logit, (N,); -1 where durations have no logits.
        durations: Duration the model names, (N,), frames.
        steps: Frames the arc advances, (N,); differs from `durations` for (blank, 0) under `open_end`.
        blanks: How many of the arcs are blanks.
        vocabulary: Number of token logits.
        width: Number of logits in a row.
    """

    symbols: NDArray[np.int64]
    classes: NDArray[np.int64]
    durations: NDArray[np.int64]
    steps: NDArray[np.int64]
    blanks: int
    vocabulary: int
    width: int

    def blank_ids(self) -> set[int]:
        """Return the ids that no transcript may hold: the blank and the big blanks."""
        return set(self.symbols[: self.blanks].tolist())


def build_arcs(
    width: int,
    blank: int,
    durations: Sequence[int] | None = None,
    big_blanks: Mapping[int, int] | None = None,
    rule: Rule = "strict",
) -> Arcs:
    """Return the arcs of a transducer.

    Args:
        width: Logits per row: tokens, then durations.
        blank: Id of the blank; negative ids count from the end of the vocabulary.
        durations: Durations of the model's duration logits, rising, frames; None without them.
        big_blanks: Duration of each big blank by symbol id; None without them.
        rule: `strict` or `open_end`.

    Returns:
        The arcs: blanks by rising duration, then labels by rising duration.

    Raises:
        LatticeError: The durations, big blanks or the blank are not usable.

    Example:
        >>> arcs = build_arcs(8, -1, durations=(0, 1, 2))
        >>> arcs.symbols.tolist(), arcs.steps.tolist(), arcs.blanks
        ([4, 4, -1, -1, -1], [1, 2, 0, 1, 2], 2)

    Source: Xu et al. 2023, arXiv 2304.06795 (TDT); Xu et al. 2022, arXiv 2211.03541 (multi-blank).
    """
    if rule not in ("strict", "open_end"):
        raise LatticeError(f"rule is {rule!r}; use 'strict' or 'open_end'")
    vocabulary = width - (0 if durations is None else len(durations))
    if vocabulary < 1:
        raise LatticeError(f"rows of {width} logits hold {vocabulary} tokens beside {width - vocabulary} durations")
    blank = check_blank(blank, vocabulary)
    rows: list[tuple[int, int, int, int]]
    if durations is not None:
        if big_blanks:
            raise LatticeError("durations and big_blanks exclude each other; give one of them")
        rows, blanks = _duration_arcs(durations, blank, rule)
    else:
        rows, blanks = _blank_arcs(dict(big_blanks or {}), blank, vocabulary)
    columns = np.array(rows, dtype=np.int64).T.copy()
    return Arcs(
        symbols=columns[0],
        classes=columns[1],
        durations=columns[2],
        steps=columns[3],
        blanks=blanks,
        vocabulary=vocabulary,
        width=width,
    )


def _duration_arcs(durations: Sequence[int], blank: int, rule: Rule) -> tuple[list[tuple[int, int, int, int]], int]:
    """Return the arcs of a TDT model; (blank, 0) is left out, or acts as (blank, 1) under `open_end`."""
    listed = [check_integer(d, "a duration") for d in durations]
    if not listed or listed[0] < 0 or any(b <= a for a, b in pairwise(listed)):
        raise LatticeError(f"durations are {listed}; give rising integers from 0, each once")
    if listed == [0]:
        raise LatticeError("durations are [0]; a lattice needs one that advances")
    blanks = [(blank, c, d, max(d, 1)) for c, d in enumerate(listed) if d > 0 or rule == "open_end"]
    return blanks + [(-1, c, d, d) for c, d in enumerate(listed)], len(blanks)


def _blank_arcs(big_blanks: dict[int, int], blank: int, vocabulary: int) -> tuple[list[tuple[int, int, int, int]], int]:
    """Return the arcs of an RNN-T or multi-blank model."""
    checked = [(check_integer(s, "a big blank"), check_integer(d, "its duration")) for s, d in big_blanks.items()]
    for symbol, duration in checked:
        if not 0 <= symbol < vocabulary or symbol == blank or duration < 2:
            raise LatticeError(
                f"big blank {symbol} lasts {duration} frames; its id must be in 0..{vocabulary - 1}, "
                f"not the blank {blank}, and its duration at least 2"
            )
    ordered = [(blank, 1), *sorted(checked, key=lambda item: item[1])]
    return [*((s, -1, d, d) for s, d in ordered), (-1, -1, 0, 0)], len(ordered)
