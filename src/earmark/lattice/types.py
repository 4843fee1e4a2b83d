"""What the lattice functions return and raise; nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int32]


class LatticeError(UsageError):
    """Logits, transcript and lengths do not make a lattice; `item` is the place in the batch, or None."""

    def __init__(self, message: str, *, item: int | None = None) -> None:
        """Keep the message, led by the item, and the item."""
        super().__init__(message if item is None else f"item {item}: {message}")
        self.item = item


@dataclass(frozen=True, slots=True, kw_only=True)
class LatticeScores:
    """Everything a lattice says about transcripts given logits.

    B items, T frames, U tokens (the largest of the batch); entries past an item's own lengths are 0, or -1 for
    integers. For CTC a token's occupancy at a frame is the posterior that the frame is spent on it; for a
    transducer that it is emitted there. Nats and frames throughout.

    Attributes:
        log_likelihood: log P(tokens | audio), over all alignments, (B,); -inf where `errors` has a message.
        viterbi_score: Log-probability of the best alignment, (B,).
        paths: Best alignment of each item as rows (frame, tokens out before, symbol, duration): one per frame
            for CTC, one per arc for a transducer; (steps, 4).
        token_frame: Frame at which the best alignment emits each token, (B, U).
        token_duration: Frames the best alignment gives it (transducer: the duration of its arc), (B, U).
        token_occupancy: Posterior of each token at each frame, (B, T, U).
        blank_occupancy: Posterior of a blank at each frame after u tokens, (B, T, U + 1).
        alignment_entropy: Entropy of the distribution over alignments, (B,).
        token_time_mean: Mean frame of each token's posterior, (B, U).
        token_time_spread: Standard deviation of it, frames, (B, U).
        row_entropy: Gibbs entropy of each row of token probabilities, (B, T) or (B, T, U + 1).
        log_power_sums: log of sum p**order of each row, (..., K).
        orders: The K orders.
        errors: Why an item has no scores, or None, per item.
        rule: The end rule that was used: `ctc`, `strict` or `open_end`.
    """

    log_likelihood: Floats
    viterbi_score: Floats
    paths: tuple[Ints, ...]
    token_frame: Ints
    token_duration: Ints
    token_occupancy: Floats
    blank_occupancy: Floats
    alignment_entropy: Floats
    token_time_mean: Floats
    token_time_spread: Floats
    row_entropy: Floats
    log_power_sums: Floats
    orders: tuple[float, ...]
    errors: tuple[str | None, ...]
    rule: str

    def tsallis_entropy(self, order: float) -> Floats:
        """Return (1 - sum p**order) / (order - 1) of every row; `order` is one of `orders`.

        Source: Laptev & Ginsburg, arXiv 2212.08703, equation 6.
        """
        if order == 1.0:
            return self.row_entropy
        result: Floats = -np.expm1(self._log_power(order)) / (order - 1.0)
        return result

    def renyi_entropy(self, order: float) -> Floats:
        """Return log(sum p**order) / (1 - order) of every row; `order` is one of `orders`.

        Source: Laptev & Ginsburg, arXiv 2212.08703, equation 9.
        """
        if order == 1.0:
            return self.row_entropy
        result: Floats = self._log_power(order) / (1.0 - order)
        return result

    def _log_power(self, order: float) -> Floats:
        if order not in self.orders:
            raise LatticeError(f"order {order} was not asked for; this result has {list(self.orders)}")
        values: Floats = self.log_power_sums[..., self.orders.index(order)]
        return values

    def __repr__(self) -> str:
        """Return one line."""
        failed = sum(error is not None for error in self.errors)
        best = ", ".join(f"{value:.4f}" for value in self.log_likelihood[:4])
        more = ", ..." if len(self.log_likelihood) > 4 else ""
        return f"LatticeScores(rule={self.rule!r}, log_likelihood=[{best}{more}], failed={failed})"
