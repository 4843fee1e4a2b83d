"""The arrays that fill up while a batch is scored, and become a `LatticeScores`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from earmark.lattice.checks import Batch
from earmark.lattice.solve import Alignment, token_times
from earmark.lattice.types import LatticeScores

Floats = NDArray[np.float64]


class Results:
    """Output arrays of a batch, padded with 0 (floats) and -1 (integers).

    Attributes:
        orders: Orders of the power sums.
        norm_width: Normalisers per row: 2 for CTC, 4 for a transducer.
    """

    def __init__(
        self, batch: Batch, shape: tuple[int, ...], orders: tuple[float, ...], rule: str, keep_norms: bool = False
    ) -> None:
        """Make room for logits of `shape`; `keep_norms` keeps the normalisers that gradients need."""
        items, frames = shape[:2]
        tokens = max((len(labels) for labels in batch.labels), default=0)
        self._batch, self._rule = batch, rule
        self.orders = orders
        self.norm_width = 2 if len(shape) == 3 else 4
        rows = (items, frames) if len(shape) == 3 else (items, frames, tokens + 1)
        self.entropies = np.zeros((*rows, 1 + len(orders)))
        self.norms = np.empty((*rows, self.norm_width)) if keep_norms else None
        self.token_occupancy = np.zeros((items, frames, tokens))
        self.blank_occupancy = np.zeros((items, frames, tokens + 1))
        self._alignments: list[Alignment | None] = [None] * items

    def row_outputs(self, item: int, first: int, last: int) -> tuple[Floats, Floats]:
        """Return where the normalisers and entropies of some frames go; the former are scratch by default."""
        entropies = self.entropies[item, first:last]
        if self.norms is None:
            return np.empty((*entropies.shape[:-1], self.norm_width)), entropies
        return self.norms[item, first:last], entropies

    def keep(self, item: int, alignment: Alignment) -> None:
        """Keep what the recursions found, or refuse the item where they found no path."""
        if alignment.log_likelihood == -np.inf:
            self._batch.refuse_impossible(item, self._rule)
        else:
            self._alignments[item] = alignment

    def finish(self) -> LatticeScores:
        """Return the scores."""
        items, _, tokens = self.token_occupancy.shape
        log_likelihood, viterbi_score = np.full(items, -np.inf), np.full(items, -np.inf)
        alignment_entropy = np.zeros(items)
        token_frame, token_duration = np.full((2, items, tokens), -1, np.int32)
        mean, spread = np.zeros((2, items, tokens))
        paths = [np.zeros((0, 4), np.int32)] * items
        for b, found in enumerate(self._alignments):
            if found is None:
                self._clear(b)
                continue
            count = len(found.token_frame)
            log_likelihood[b], viterbi_score[b] = found.log_likelihood, found.viterbi_score
            alignment_entropy[b], paths[b] = found.entropy, found.path
            token_frame[b, :count], token_duration[b, :count] = found.token_frame, found.token_duration
            token_times(self.token_occupancy[b], mean[b], spread[b])
        return LatticeScores(
            log_likelihood=log_likelihood,
            viterbi_score=viterbi_score,
            paths=tuple(paths),
            token_frame=token_frame,
            token_duration=token_duration,
            token_occupancy=self.token_occupancy,
            blank_occupancy=self.blank_occupancy,
            alignment_entropy=alignment_entropy,
            token_time_mean=mean,
            token_time_spread=spread,
            row_entropy=self.entropies[..., 0],
            log_power_sums=self.entropies[..., 1:],
            orders=self.orders,
            errors=tuple(self._batch.errors),
            rule=self._rule,
        )

    def _clear(self, item: int) -> None:
        """Leave nothing half computed of a refused item."""
        self.token_occupancy[item] = 0.0
        self.blank_occupancy[item] = 0.0
        self.entropies[item] = 0.0
