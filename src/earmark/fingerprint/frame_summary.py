"""Statistics of compact evidence of frame-synchronous models: a few positions in place of all, and the sketch.

The positions are those where the model is least sure. Whether the provider's choice of them is honest, the reference's
own entropies say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.distances import CLIP_NATS
from earmark.fingerprint.frames import TRANSDUCER_STATISTICS, FrameReplay, likelihood_distances
from earmark.fingerprint.margins import margin_mismatches
from earmark.fingerprint.sketch import sketch_distances

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEAST_SHOWN, MOST_SHOWN = 8, 40
"""Positions of a short and of a long piece."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameSummary:
    """What compact evidence says of one segment.

    Attributes:
        emitted: Transcript, (tokens,).
        frames: Number of encoder frames.
        path: Frame, symbol and duration of every position, (positions, 3); (0, 3) where the reference finds it.
        tokens: Which transcript token each position is spent on, -1 for blanks, (positions,).
        log_likelihood: log P(transcript | audio), all alignments together.
        shown: Positions whose numbers are given, rising, (shown,).
        entropy: Entropy there in nats, stored in 16 bits, (shown,).
        blank: Log-probability of the blank there, stored in 16 bits, (shown,).
        sketch: The first values of the folded hidden states, (probes, values).
    """

    emitted: tuple[int, ...]
    frames: int
    path: Ints
    tokens: Ints
    log_likelihood: float
    shown: Ints
    entropy: Floats
    blank: Floats
    sketch: Floats


def shown_count(samples: int, positions: int) -> int:
    """Return how many positions compact evidence shows: one per second of audio, at least 8 and at most 40.

    Args:
        samples: Length of the piece at 16 kHz.
        positions: Positions of its path.

    Example:
        >>> shown_count(16_000, 12), shown_count(30 * 16_000, 375), shown_count(16_000, 3)
        (8, 30, 3)
    """
    return min(positions, MOST_SHOWN, max(LEAST_SHOWN, -(-samples // 16_000)))


def least_sure(entropy: Floats, count: int) -> Ints:
    """Return the positions of highest entropy, rising; of equal ones the first.

    Args:
        entropy: Entropy of each position in nats, (positions,).
        count: How many.

    Example:
        >>> least_sure(np.array([0.5, 0.1, 0.9, 0.5]), 2).tolist()
        [0, 2]
    """
    return np.sort(np.argsort(-entropy, kind="stable")[:count])


def informative_gap(entropy: Floats, shown: Ints) -> float:
    """Return how much more entropy the reference has where it is least sure than where the provider chose to show.

    Args:
        entropy: The reference's entropy at every position, (positions,).
        shown: Positions that the provider chose, (shown,).

    Returns:
        Difference of the means in nats, never below 0.

    Example:
        >>> informative_gap(np.array([0.5, 0.125, 1.0]), np.array([0, 1]))
        0.4375
    """
    if not len(shown):
        return 0.0
    own = entropy[least_sure(entropy, len(shown))]
    return max(0.0, float(own.mean() - entropy[shown].mean()))


def beyond_rounding(stored: Floats, own: Floats) -> Floats:
    """Return how far numbers stored in 16 bits lie from the reference's, beyond what storing them explains.

    Args:
        stored: Values that a float16 holds, (n,).
        own: The reference's values, (n,).

    Returns:
        |difference| less half a step of float16, never below 0, (n,).

    Example:
        >>> beyond_rounding(np.array([1.0, 1.0]), np.array([1.0004, 1.25])).round(3).tolist()
        [0.0, 0.25]
    """
    step = np.spacing(np.abs(stored).astype(np.float16)).astype(np.float64)
    result: Floats = np.maximum(np.abs(stored - own) - step / 2, 0.0)
    return result


def frame_summary_statistics(pairs: Sequence[tuple[FrameSummary, FrameReplay]], tie_nats: float) -> dict[str, float]:
    """Return every statistic of `TRANSDUCER_STATISTICS` for one clip of compact evidence.

    Args:
        pairs: Summary and replay of each segment.
        tie_nats: Largest margin that honest arithmetic can flip.

    Returns:
        Name to value; NaN for those that need lists, or the numbers of all positions.
    """
    margins = np.concatenate([replay.margins for _, replay in pairs])
    durations = np.concatenate([replay.duration_margins for _, replay in pairs])
    apart = abs(sum(summary.log_likelihood - replay.scores.log_likelihood for summary, replay in pairs))
    entropy = np.concatenate([beyond_rounding(s.entropy, r.scores.entropy[s.shown]) for s, r in pairs])
    blank = np.concatenate([beyond_rounding(s.blank, r.scores.blank[s.shown]) for s, r in pairs])
    probes = np.concatenate([sketch_distances(s.sketch, r.scores.sketch[:, : s.sketch.shape[1]]) for s, r in pairs])
    bare = np.array([(r.alignment.uncovered_share, r.alignment.uncovered_span) for _, r in pairs])
    nan = float("nan")
    return {
        **{statistic.name: nan for statistic in TRANSDUCER_STATISTICS},
        "margin_mismatches": float(margin_mismatches(margins, tie_nats)),
        "margin_max": float(margins.max()),
        "duration_margin_mismatches": float(margin_mismatches(durations, tie_nats)) if durations.size else nan,
        "duration_margin_max": float(durations.max()) if durations.size else nan,
        **likelihood_distances(apart, sum(len(s.emitted) for s, _ in pairs), sum(s.frames for s, _ in pairs)),
        "entropy_l1": float(entropy.mean()),
        "entropy_rmse": float(np.sqrt(np.mean(entropy**2))),
        "blank_distance": float(np.minimum(blank, CLIP_NATS).mean()),
        "sketch_distance": float(probes.mean()),
        "sketch_distance_max": float(probes.max()),
        "informative_gap": max(informative_gap(r.scores.entropy, s.shown) for s, r in pairs),
        "uncovered_share": _worst(bare[:, 0]),
        "uncovered_span": _worst(bare[:, 1]),
    }


def _worst(values: Floats) -> float:
    return float("nan") if np.isnan(values).all() else float(np.nanmax(values))
