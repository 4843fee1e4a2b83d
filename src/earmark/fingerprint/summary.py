"""Statistics of compact evidence: sums in place of lists, and the first values of the sketch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.margins import margin_mismatches
from earmark.fingerprint.sequence import STATISTICS, Replay, Scores
from earmark.fingerprint.sketch import sketch_distances

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """What compact evidence says of one segment.

    Attributes:
        likelihood: Sum of the emitted tokens' log-probabilities in nats.
        ended: Whether the last emitted token is the end token.
        language: Number of the language that was detected; None where the request names it or the model has none.
        no_speech: Probability of the no-speech token, NaN where the model has none.
        sketch: The first values of the folded hidden states, (probes, values).
    """

    likelihood: float
    ended: bool
    language: int | None
    no_speech: float
    sketch: Floats


def language_margin(provider: Scores | Summary, reference: Scores) -> float | None:
    """Return how far the provider's language of one segment lies below the reference's best, in nats.

    Args:
        provider: What the provider says.
        reference: What the reference says.

    Returns:
        The margin; None where nobody detects a language.
    """
    chosen = provider.language
    if chosen is None or not np.size(chosen) or not reference.language.size:
        return None
    number = chosen if isinstance(chosen, int) else int(chosen.argmax())
    return float(reference.language.max() - reference.language[number])


def summary_statistics(pairs: Sequence[tuple[Summary, Replay]], tie_nats: float) -> dict[str, float]:
    """Return every statistic of `STATISTICS` for one clip of compact evidence.

    Args:
        pairs: Summary and replay of each segment.
        tie_nats: Largest margin that honest arithmetic can flip.

    Returns:
        Name to value; NaN for those that need lists.

    Example:
        >>> from earmark.fingerprint.sequence import Scores
        >>> a = np.log([[0.5, 0.25]])
        >>> s = Scores(ids=np.array([[4, 2]]), logprobs=a, chosen=a[:, 0], entropy=np.array([1.0]), ended=True,
        ...            language=np.empty(0), no_speech=0.5, sketch=np.ones((4, 32)))
        >>> r = Replay(scores=s, at_listed=a, margins=np.array([0.0]))
        >>> short = Summary(likelihood=-1.0, ended=True, language=None, no_speech=0.5, sketch=np.ones((4, 8)))
        >>> values = summary_statistics([(short, r)], 1e-3)
        >>> round(values["loglik_distance"], 3), values["sketch_distance"], values["logprob_l1"]
        (0.307, 0.0, nan)
    """
    margins = np.concatenate([r.margins for _, r in pairs])
    apart = sum(t.likelihood - float(r.scores.chosen.sum()) for t, r in pairs)
    languages = [margin for t, r in pairs if (margin := language_margin(t, r.scores)) is not None]
    no_speech = np.array([abs(t.no_speech - r.scores.no_speech) for t, r in pairs])
    probes = np.concatenate([sketch_distances(t.sketch, r.scores.sketch[:, : t.sketch.shape[1]]) for t, r in pairs])
    return {
        **{statistic.name: float("nan") for statistic in STATISTICS},
        "margin_mismatches": float(margin_mismatches(margins, tie_nats)),
        "margin_max": float(margins.max()),
        "loglik_distance": abs(apart) / len(margins),
        "language_margin": max(languages, default=float("nan")),
        "no_speech_distance": float("nan") if np.isnan(no_speech).all() else float(np.nanmax(no_speech)),
        "sketch_distance": float(probes.mean()),
        "sketch_distance_max": float(probes.max()),
    }
