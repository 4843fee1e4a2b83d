"""Statistics of frame-synchronous models (CTC, transducers): what a provider says at every position of its path.

A position is a frame of a CTC path, or a step of a transducer's path. The reference is forced along the same path, and
also says what it thinks of all other alignments of the same transcript.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.alignment import first_positions, token_shifts
from earmark.fingerprint.confidence import profile_shifts, word_confidence
from earmark.fingerprint.distances import CLIP_NATS, logprob_l1
from earmark.fingerprint.entropy import (
    entropy_correlation_distance,
    entropy_l1,
    entropy_rmse,
    renyi_from_power,
    tsallis_from_power,
)
from earmark.fingerprint.margins import margin_mismatches
from earmark.fingerprint.sequence import STATISTICS as SEQUENCE
from earmark.fingerprint.sequence import Listed, join_words, position_statistics, probe_statistics
from earmark.fingerprint.types import Statistic

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ORDER = 0.33
"""Order of the Tsallis and Renyi entropies (Laptev & Ginsburg, arXiv 2212.08703, section 5)."""
INFORMATIVE_NATS = 0.1
"""A position is informative where the reference's entropy exceeds this."""

_SHARED = {
    "logprob_l1", "margin_mismatches", "margin_max", "prob_l1", "logprob_l1_max", "topk_distance", "rank_distance",
    "entropy_l1", "entropy_rmse", "entropy_correlation_distance", "confidence_distance", "confidence_wasserstein",
    "sketch_distance", "sketch_distance_max",
}  # fmt: skip

CTC_STATISTICS = (
    *(statistic for statistic in SEQUENCE if statistic.name in _SHARED),
    Statistic("logprob_l1_informative", "nats", "logprob_l1 where the reference is unsure (entropy above 0.1)"),
    Statistic("blank_distance", "nats", "mean absolute difference of the blank's log-probability, each at most 5"),
    Statistic("loglik_distance", "nats", "difference of log P(transcript | audio) per token", steady=False),
    Statistic(
        "loglik_distance_frame",
        "nats",
        "difference of log P(transcript | audio) per frame, or per token where more",
        steady=False,
    ),
    Statistic("path_distance", "nats", "difference of the log-probability of the path, per position", steady=False),
    Statistic("tsallis_l1", "nats", "mean absolute difference of the Tsallis entropy curves", steady=False),
    Statistic("tsallis_rmse", "nats", "root mean squared difference of the Tsallis entropy curves", steady=False),
    Statistic("tsallis_correlation_distance", "1", "1 - correlation of the Tsallis entropy curves", steady=False),
    Statistic("renyi_l1", "nats", "mean absolute difference of the Renyi entropy curves", steady=False),
    Statistic("renyi_rmse", "nats", "root mean squared difference of the Renyi entropy curves", steady=False),
    Statistic("renyi_correlation_distance", "1", "1 - correlation of the Renyi entropy curves", steady=False),
    Statistic("confidence_mean_shift", "1", "difference of the mean word confidence", steady=False),
    Statistic("confidence_variance_shift", "1", "difference of the variance of word confidences", steady=False),
    Statistic(
        "confidence_tail_shift",
        "1",
        "largest difference of the 5, 10 and 25 % quantiles of word confidences",
        steady=False,
    ),
    Statistic("alignment_mismatch", "1", "share of tokens that the reference's best alignment begins at other frames"),
    Statistic("token_shift", "frames", "distance of a token's begin from the reference's best alignment, mean"),
    Statistic("token_shift_max", "frames", "distance of a token's begin from the reference's best alignment, largest"),
    Statistic("token_time_shift", "frames", "distance of a token from its mean time over all alignments, mean"),
    Statistic(
        "occupancy_gap", "1", "posterior of the tokens on the best alignment, less that on the path", steady=False
    ),
    Statistic("uncovered_share", "1", "share of loud audio more than 0.5 s from any token"),
    Statistic("uncovered_span", "s", "longest stretch of loud audio more than 0.5 s from any token"),
    Statistic("informative_gap", "nats", "compact: the reference's entropy where least sure, less that where shown"),
)
TRANSDUCER_STATISTICS = (
    *CTC_STATISTICS,
    Statistic("duration_l1", "nats", "mean absolute difference of the durations' log-probabilities, each at most 5"),
    Statistic("duration_margin_mismatches", "count", "durations that the rule of decoding would not have chosen"),
    Statistic("duration_margin_max", "nats", "largest margin of a chosen duration below the best"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameScores(Listed):
    """What a frame-synchronous model said along one path; `chosen` is the symbol of the path.

    Attributes:
        emitted: Transcript, (tokens,).
        frames: Number of encoder frames.
        path: Frame, symbol and duration of every position, (positions, 3).
        tokens: Which transcript token each position is spent on, -1 for blanks, (positions,).
        blank: Log-probability of the blank, (positions,).
        power: log of sum p**0.33 of each position, for Tsallis and Renyi entropies, (positions,).
        durations: Log-probability of every duration, (positions, durations); (positions, 0) without.
        log_likelihood: log P(transcript | audio), all alignments together.
    """

    emitted: tuple[int, ...]
    frames: int
    path: Ints
    tokens: Ints
    blank: Floats
    power: Floats
    durations: Floats
    log_likelihood: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """What the reference thinks of a transcript's place in the audio.

    Attributes:
        token_frame: First frame of each token on its best alignment, (tokens,).
        token_time: Mean frame of each token's posterior, (tokens,).
        occupancy: Posterior of the tokens where the provider's path puts them, one per position spent on a token.
        best_occupancy: The same along its best alignment.
        uncovered_share: Share of loud audio that no token of the path is near to.
        uncovered_span: Longest stretch of it in seconds.
    """

    token_frame: Floats
    token_time: Floats
    occupancy: Floats
    best_occupancy: Floats
    uncovered_share: float
    uncovered_span: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameReplay:
    """What the reference said along the provider's path.

    Attributes:
        scores: Its own scores.
        at_listed: Its log-probabilities of the tokens that the provider listed, (positions, k).
        margins: Margins of the path's symbols in nats, (positions,).
        duration_margins: Margins of the path's durations in nats, (positions,); (0,) without.
        alignment: What it thinks of the other alignments.
    """

    scores: FrameScores
    at_listed: Floats
    margins: Floats
    duration_margins: Floats
    alignment: Alignment


Pairs = Sequence[tuple[FrameScores, FrameReplay]]


def frame_statistics(pairs: Pairs, words: Sequence[Sequence[int]], tie_nats: float) -> dict[str, float]:
    """Return every statistic of `TRANSDUCER_STATISTICS` for one clip; those of durations are NaN without durations.

    Args:
        pairs: Scores and replay of each segment.
        words: Word of each transcript token, per segment; -1 for tokens outside words.
        tie_nats: Largest margin that honest arithmetic can flip.

    Returns:
        Name to value; NaN where a statistic does not apply. Values over positions join all segments, log-likelihoods
        are sums over them, uncovered audio is the worst segment's.
    """
    spread = [word_of_positions(scores.tokens, index) for (scores, _), index in zip(pairs, words, strict=True)]
    return {
        **position_statistics(pairs, spread, tie_nats),
        **probe_statistics(pairs),
        **_frame_lists(pairs),
        **_likelihoods(pairs),
        **_entropies(pairs),
        **_confidences(pairs, join_words(spread)),
        **_alignments(pairs),
        **_durations(pairs, tie_nats),
        "informative_gap": float("nan"),
    }


def word_of_positions(tokens: Ints, words: Sequence[int]) -> list[int]:
    """Return the word that each position is spent on, -1 outside words.

    Args:
        tokens: Token of each position, -1 for blanks, (positions,).
        words: Word of each token, -1 for tokens outside words.

    Example:
        >>> word_of_positions(np.array([0, -1, 1, 1]), [0, 1])
        [0, -1, 1, 1]
    """
    index = [*words, -1]  # the last serves the blanks, whose token is -1
    return [index[token] for token in tokens.tolist()]


def _joined(pairs: Pairs, name: str) -> tuple[Floats, Floats]:
    provider = np.concatenate([getattr(scores, name) for scores, _ in pairs])
    return provider, np.concatenate([getattr(replay.scores, name) for _, replay in pairs])


def _clipped(provider: Floats, reference: Floats) -> float:
    return float(np.minimum(np.abs(provider - reference), CLIP_NATS).mean()) if provider.size else float("nan")


def _frame_lists(pairs: Pairs) -> dict[str, float]:
    distances = np.concatenate(
        [
            logprob_l1(scores.ids, scores.logprobs, replay.at_listed, replay.scores.ids, replay.scores.logprobs)
            for scores, replay in pairs
        ]
    )
    informative = np.concatenate([replay.scores.entropy for _, replay in pairs]) > INFORMATIVE_NATS
    return {
        "logprob_l1_informative": float(distances[informative].mean()) if informative.any() else float("nan"),
        "blank_distance": _clipped(*_joined(pairs, "blank")),
    }


def likelihood_distances(distance: float, tokens: int, frames: int) -> dict[str, float]:
    """Return a difference of log P(transcript | audio) per token, and per frame or token, of what is more.

    Per token, honest differences have no limit where a long noise has a single token; per frame they have none where an
    RNN-T writes many tokens into a frame.

    Example:
        >>> likelihood_distances(0.5, 100, 50), likelihood_distances(0.5, 1, 50)["loglik_distance_frame"]
        ({'loglik_distance': 0.005, 'loglik_distance_frame': 0.005}, 0.01)
    """
    return {"loglik_distance": distance / max(1, tokens), "loglik_distance_frame": distance / max(1, tokens, frames)}


def _likelihoods(pairs: Pairs) -> dict[str, float]:
    distance = abs(sum(scores.log_likelihood - replay.scores.log_likelihood for scores, replay in pairs))
    chosen, own = _joined(pairs, "chosen")
    tokens = sum(len(scores.emitted) for scores, _ in pairs)
    frames = sum(scores.frames for scores, _ in pairs)
    return {
        **likelihood_distances(distance, tokens, frames),
        "path_distance": float(abs(np.sum(chosen - own)) / max(1, len(chosen))),
    }


def _entropies(pairs: Pairs) -> dict[str, float]:
    provider, reference = _joined(pairs, "power")
    values = {}
    for name, entropy in (("tsallis", tsallis_from_power), ("renyi", renyi_from_power)):
        curves = entropy(provider, ORDER), entropy(reference, ORDER)
        values[f"{name}_l1"] = entropy_l1(*curves)
        values[f"{name}_rmse"] = entropy_rmse(*curves)
        values[f"{name}_correlation_distance"] = entropy_correlation_distance(*curves)
    return values


def _confidences(pairs: Pairs, words: Sequence[int]) -> dict[str, float]:
    provider, reference = (word_confidence(chosen, words) for chosen in _joined(pairs, "chosen"))
    names = ("confidence_mean_shift", "confidence_variance_shift", "confidence_tail_shift")
    return dict(zip(names, profile_shifts(provider, reference), strict=True))


def _alignments(pairs: Pairs) -> dict[str, float]:
    shifts, times, there, best, bare = [], [], [], [], []
    for scores, replay in pairs:
        own = replay.alignment
        shifts.append(token_shifts(scores.path[first_positions(scores.tokens), 0], own.token_frame))
        times.append(token_shifts(_centres(scores), own.token_time))
        there.append(own.occupancy)
        best.append(own.best_occupancy)
        bare.append((own.uncovered_share, own.uncovered_span))
    shift = np.concatenate(shifts)
    share, span = (float("nan") if np.isnan(column).all() else float(np.nanmax(column)) for column in np.array(bare).T)
    gap = _mean(np.concatenate(best)) - _mean(np.concatenate(there))
    return {
        "alignment_mismatch": _mean(shift > 0),
        "token_shift": _mean(shift),
        "token_shift_max": float(shift.max()) if shift.size else float("nan"),
        "token_time_shift": _mean(np.concatenate(times)),
        "occupancy_gap": gap if np.isnan(gap) else max(0.0, gap),
        "uncovered_share": share,
        "uncovered_span": span,
    }


def _mean(values: NDArray[np.bool_] | Floats) -> float:
    return float(np.mean(values)) if values.size else float("nan")


def _centres(scores: FrameScores) -> Floats:
    """Return the mean frame of the positions that are spent on each token, (tokens,)."""
    spoken = scores.tokens >= 0
    index, frames = scores.tokens[spoken], scores.path[spoken, 0]
    result: Floats = np.bincount(index, frames) / np.bincount(index)
    return result


def _durations(pairs: Pairs, tie_nats: float) -> dict[str, float]:
    provider, reference = (part.ravel() for part in _joined(pairs, "durations"))
    margins = np.concatenate([replay.duration_margins for _, replay in pairs])
    nan = float("nan")
    return {
        "duration_l1": _clipped(provider, reference),
        "duration_margin_mismatches": float(margin_mismatches(margins, tie_nats)) if margins.size else nan,
        "duration_margin_max": float(margins.max()) if margins.size else nan,
    }
