"""Statistics of a written sequence: what the provider says its model thought of each token, against a replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.confidence import confidence_distance, wasserstein, word_confidence
from earmark.fingerprint.distances import loglik_distance, logprob_l1, prob_l1, rank_distance, topk_distance
from earmark.fingerprint.entropy import entropy_correlation_distance, entropy_l1, entropy_rmse
from earmark.fingerprint.gonka import current_distance
from earmark.fingerprint.margins import margin_mismatches
from earmark.fingerprint.sketch import sketch_distances
from earmark.fingerprint.types import Statistic

Floats = NDArray[np.float64]

STATISTICS = (
    Statistic("logprob_l1", "nats", "distance of listed log-probabilities, mean over positions"),
    Statistic("margin_mismatches", "count", "emitted tokens that the rule of decoding would not have chosen"),
    Statistic("margin_max", "nats", "largest margin of an emitted token below the best"),
    Statistic("prob_l1", "1", "distance of listed probabilities, mean over positions", steady=False),
    Statistic("logprob_l1_max", "nats", "distance of listed log-probabilities, largest position"),
    Statistic("loglik_distance", "nats", "difference of the sequence log-likelihood per token", steady=False),
    Statistic("topk_distance", "1", "share of the reference's best tokens that are not listed"),
    Statistic("rank_distance", "1", "share of ranks that name another token"),
    Statistic("entropy_l1", "nats", "mean absolute difference of the entropy curves", steady=False),
    Statistic("entropy_rmse", "nats", "root mean squared difference of the entropy curves", steady=False),
    Statistic("entropy_correlation_distance", "1", "1 - correlation of the entropy curves", steady=False),
    Statistic("confidence_distance", "1", "mean absolute difference of word confidences", steady=False),
    Statistic("confidence_wasserstein", "1", "Wasserstein distance of the word confidences", steady=False),
    Statistic(
        "stop_distance", "nats", "difference of the end token's log-probability at the last position", steady=False
    ),
    Statistic("language_distance", "nats", "mean absolute difference of the languages' log-probabilities"),
    Statistic("language_margin", "nats", "margin of the detected language below the best"),
    Statistic("no_speech_distance", "1", "difference of the no-speech probability", steady=False),
    Statistic("gonka_distance", "1", "1 - Gonka's similarity of the best five, its current rule; decides nothing"),
    Statistic("sketch_distance", "1", "relative distance of the probed hidden states, mean over probes"),
    Statistic("sketch_distance_max", "1", "relative distance of the probed hidden states, largest probe"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """What a model of any family said at each position of one segment.

    Attributes:
        ids: Most probable tokens in falling order, (positions, k).
        logprobs: Their log-probabilities in nats, (positions, k); NaN where censored.
        chosen: Log-probability of the emitted token, (positions,).
        entropy: Entropy of the whole distribution in nats, (positions,).
        sketch: Folded hidden states at the places that the nonce selects, (probes, values); (0, values) without.
    """

    ids: NDArray[np.int64]
    logprobs: Floats
    chosen: Floats
    entropy: Floats
    sketch: Floats


class Forced(Protocol):
    """What a reference said when it was forced to the same output.

    Attributes:
        scores: Its own scores.
        at_listed: Its log-probabilities of the tokens that the provider listed, (positions, k).
        margins: Margins of the emitted tokens in nats, (positions,).
    """

    @property
    def scores(self) -> Listed: ...  # noqa: D102

    @property
    def at_listed(self) -> Floats: ...  # noqa: D102

    @property
    def margins(self) -> Floats: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(Listed):
    """What a model said while writing, or forced to, one segment; one position per emitted token.

    Attributes:
        ended: Whether the last emitted token is the end token.
        language: Log-probability of each language token, (languages,); empty where the model has none.
        no_speech: Probability of the no-speech token, NaN where the model has none.
    """

    ended: bool
    language: Floats
    no_speech: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the reference said when it was forced to the same tokens.

    Attributes:
        scores: Its own scores.
        at_listed: Its log-probabilities of the tokens that the provider listed, (positions, k).
        margins: Margins of the emitted tokens in nats, (positions,).
    """

    scores: Scores
    at_listed: Floats
    margins: Floats


Pairs = Sequence[tuple[Scores, Replay]]


def sequence_statistics(pairs: Pairs, words: Sequence[Sequence[int]], tie_nats: float) -> dict[str, float]:
    """Return every statistic of `STATISTICS` for one clip.

    Args:
        pairs: Scores and replay of each segment.
        words: Word of each emitted token, per segment; -1 for tokens outside words.
        tie_nats: Largest margin that honest arithmetic can flip.

    Returns:
        Name to value; NaN where a statistic does not apply. Values over positions join all segments, values that
        a segment has once are the largest of all segments.

    Example:
        >>> a = np.log([[0.5, 0.25]])
        >>> s = Scores(ids=np.array([[4, 2]]), logprobs=a, chosen=a[:, 0], entropy=np.array([1.0]), ended=True,
        ...            language=np.empty(0), no_speech=0.5, sketch=np.empty((0, 32)))
        >>> r = Replay(scores=s, at_listed=a, margins=np.array([0.0]))
        >>> values = sequence_statistics([(s, r)], [[-1]], 1e-3)
        >>> values["logprob_l1"], values["stop_distance"], values["no_speech_distance"]
        (0.0, 0.0, 0.0)
    """
    return {
        **position_statistics(pairs, words, tie_nats),
        **_over_segments(pairs),
        **probe_statistics(pairs),
        "gonka_distance": _gonka(pairs),
    }


def _gonka(pairs: Pairs) -> float:
    return current_distance(
        np.concatenate([t.ids for t, _ in pairs]),
        np.concatenate([t.logprobs for t, _ in pairs]),
        np.concatenate([r.scores.ids for _, r in pairs]),
        np.concatenate([r.scores.logprobs for _, r in pairs]),
    )


def probe_statistics(pairs: Sequence[tuple[Listed, Forced]]) -> dict[str, float]:
    """Return the statistics of the sketch; NaN without one."""
    provider = np.concatenate([t.sketch for t, _ in pairs])
    reference = np.concatenate([r.scores.sketch for _, r in pairs])
    distances = sketch_distances(provider, reference) if len(provider) else np.array([np.nan])
    return {"sketch_distance": float(distances.mean()), "sketch_distance_max": float(distances.max())}


def position_statistics(
    pairs: Sequence[tuple[Listed, Forced]], words: Sequence[Sequence[int]], tie_nats: float
) -> dict[str, float]:
    """Return the statistics that every family has: of listed tokens, margins, entropies and word confidences.

    Args:
        pairs: Scores and replay of each segment.
        words: Word of each position, per segment; -1 for positions outside words.
        tie_nats: Largest margin that honest arithmetic can flip.
    """
    listed = np.concatenate([t.ids for t, _ in pairs])
    best = np.concatenate([r.scores.ids for _, r in pairs])
    lists = (
        listed,
        np.concatenate([t.logprobs for t, _ in pairs]),
        np.concatenate([r.at_listed for _, r in pairs]),
        best,
        np.concatenate([r.scores.logprobs for _, r in pairs]),
    )
    provider = np.concatenate([t.chosen for t, _ in pairs])
    reference = np.concatenate([r.scores.chosen for _, r in pairs])
    curve = np.concatenate([t.entropy for t, _ in pairs])
    own = np.concatenate([r.scores.entropy for _, r in pairs])
    margins = np.concatenate([r.margins for _, r in pairs])
    index = join_words(words)
    l1 = logprob_l1(*lists)
    return {
        "logprob_l1": float(l1.mean()),
        "logprob_l1_max": float(l1.max()),
        "prob_l1": float(prob_l1(*lists).mean()),
        "topk_distance": float(topk_distance(listed, best).mean()),
        "rank_distance": float(rank_distance(listed, best).mean()),
        "loglik_distance": loglik_distance(provider, reference),
        "margin_max": float(margins.max()),
        "margin_mismatches": float(margin_mismatches(margins, tie_nats)),
        "entropy_l1": entropy_l1(curve, own),
        "entropy_rmse": entropy_rmse(curve, own),
        "entropy_correlation_distance": entropy_correlation_distance(curve, own),
        "confidence_distance": confidence_distance(provider, reference, index),
        "confidence_wasserstein": wasserstein(word_confidence(provider, index), word_confidence(reference, index)),
    }


def join_words(words: Sequence[Sequence[int]]) -> list[int]:
    """Number the words of all segments on.

    Example:
        >>> join_words([[0, -1, 1], [0, 0]])
        [0, -1, 1, 2, 2]
    """
    joined: list[int] = []
    count = 0
    for index in words:
        joined += [i + count if i >= 0 else -1 for i in index]
        count += max(index, default=-1) + 1
    return joined


def _over_segments(pairs: Pairs) -> dict[str, float]:
    names = ("stop_distance", "language_distance", "language_margin", "no_speech_distance")
    columns = np.asarray([_one_segment(scores, replay.scores) for scores, replay in pairs]).T
    return {
        name: float("nan") if np.isnan(column).all() else float(np.nanmax(column))
        for name, column in zip(names, columns, strict=True)
    }


def _one_segment(provider: Scores, reference: Scores) -> tuple[float, float, float, float]:
    stop = abs(provider.chosen[-1] - reference.chosen[-1]) if provider.ended else np.nan
    no_speech = abs(provider.no_speech - reference.no_speech)
    if not reference.language.size:
        return float(stop), np.nan, np.nan, no_speech
    distance = float(np.abs(provider.language - reference.language).mean())
    margin = float(reference.language.max() - reference.language[int(provider.language.argmax())])
    return float(stop), distance, margin, no_speech
