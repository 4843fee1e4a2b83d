"""Margins: how far an emitted token lies below the token that the rule of decoding would have chosen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

TIE_NATS = {"fp32": 2e-3, "fp16": 0.1, "bf16": 0.8}
"""Margins up to this much are near-ties that honest arithmetic of that precision may flip.

fp32: float32 kernels differ by about 1e-5 in a logit; fp16 and bf16: a logit of 16 is spaced 2^-6 and 2^-3, of which
honest batches move a few steps: up to 0.054 and 0.39 nats on 2 400 clips of the calibration corpus. Beyond, a rule is
broken, whatever a profile says; below, its `margin_max` is judged like any other channel.
"""


def argmax_margins(best: Floats, emitted: Floats) -> NDArray[np.float64]:
    """Return the margin of every emitted token: best score minus its own, in nats, never below 0.

    Args:
        best: Highest score after the model's own rules, (positions,).
        emitted: Score of the emitted token after the same rules, -inf where they forbid it, (positions,).

    Returns:
        Margins, (positions,); infinite for a forbidden token.

    Example:
        >>> argmax_margins(np.array([2.0, 1.0]), np.array([2.0, 0.25])).tolist()
        [0.0, 0.75]
    """
    result: NDArray[np.float64] = np.maximum(np.asarray(best, np.float64) - np.asarray(emitted, np.float64), 0.0)
    return result


def margin_mismatches(margins: Floats, tie_nats: float) -> int:
    """Return how many margins are too large for a near-tie.

    Args:
        margins: Margins in nats, (positions,).
        tie_nats: Largest margin that honest arithmetic can flip.

    Returns:
        The number of positions beyond it.

    Example:
        >>> margin_mismatches(np.array([0.0, 0.001, 0.3]), 2e-3)
        1
    """
    return int(np.sum(~(np.asarray(margins) <= tie_nats)))
