"""Slow, obvious float64 references for the lattice engine: recursions as written in the papers, and enumeration.

Plain Python floats and dictionaries, one item at a time, no sharing with the engine.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np


def cases_path() -> Path:
    """Return the file of known answers: EARMARK_CASES, or ../shared/cases beside the repository."""
    beside = Path(__file__).resolve().parents[3] / "shared" / "cases"
    return Path(os.environ.get("EARMARK_CASES", beside)) / "lattice.json"


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Return float64 log-probabilities over the last axis."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def logsumexp(values: Sequence[float]) -> float:
    """Return log of the sum of exponentials; -inf for none."""
    top = max(values, default=-math.inf)
    return top if top == -math.inf else top + math.log(math.fsum(math.exp(v - top) for v in values))


def ctc_log_likelihood(logits: np.ndarray, labels: Sequence[int], blank: int) -> float:
    """Return log P by the forward recursion of Graves 2006."""
    k = log_softmax(logits)
    z = [blank]
    for label in labels:
        z += [label, blank]
    alpha = [k[0, z[s]] if s < 2 else -math.inf for s in range(len(z))]
    for t in range(1, len(k)):
        before = alpha
        alpha = []
        for s in range(len(z)):
            sources = [before[s]] + ([before[s - 1]] if s >= 1 else [])
            if s >= 2 and z[s] != blank and z[s] != z[s - 2]:
                sources.append(before[s - 2])
            alpha.append(k[t, z[s]] + logsumexp(sources))
    return logsumexp(alpha[-2:])


def ctc_paths(frames: int, labels: Sequence[int], blank: int) -> Iterator[tuple[int, ...]]:
    """Yield every symbol sequence of `frames` frames that collapses to the labels."""
    for path in itertools.product(sorted({blank, *labels}), repeat=frames):
        collapsed = [symbol for symbol, _ in itertools.groupby(path) if symbol != blank]
        if collapsed == list(labels):
            yield path


def transducer_arcs(
    width: int,
    blank: int,
    durations: Sequence[int] | None = None,
    big_blanks: dict[int, int] | None = None,
    rule: str = "strict",
) -> list[tuple[bool, int, int | None, int, int]]:
    """Return arcs as (is blank, symbol or -1 for the label, duration column, duration, frames advanced)."""
    if durations is None:
        blanks = [(True, blank, None, 1, 1)]
        blanks += [(True, s, None, d, d) for s, d in (big_blanks or {}).items()]
        return [*blanks, (False, -1, None, 0, 0)]
    vocabulary = width - len(durations)
    arcs = []
    for i, d in enumerate(durations):
        if d > 0:
            arcs.append((True, blank, vocabulary + i, d, d))
        elif rule == "open_end":
            arcs.append((True, blank, vocabulary + i, 0, 1))
        arcs.append((False, -1, vocabulary + i, d, d))
    return arcs


def transducer_paths(
    logits: np.ndarray,
    labels: Sequence[int],
    blank: int,
    durations: Sequence[int] | None = None,
    big_blanks: dict[int, int] | None = None,
    sigma: float = 0.0,
    rule: str = "strict",
) -> Iterator[tuple[float, list[tuple[int, int, int, int]]]]:
    """Yield (score, arcs as (t, u, symbol, duration)) of every alignment."""
    frames, width = logits.shape[0], logits.shape[-1]
    vocabulary = width - len(durations or ())
    tokens = log_softmax(logits[..., :vocabulary])
    spans = log_softmax(logits[..., vocabulary:]) if durations is not None else None
    arcs = transducer_arcs(width, blank, durations, big_blanks, rule)

    def follow(t: int, u: int, score: float, steps: list) -> Iterator[tuple[float, list]]:
        for is_blank, symbol, column, duration, advance in arcs:
            if not is_blank and u == len(labels):
                continue
            out = symbol if is_blank else labels[u]
            value = tokens[t, u, out] - sigma
            if spans is not None:
                value += spans[t, u, column - vocabulary]
            to, after = t + advance, u + (not is_blank)
            here = [*steps, (t, u, int(out), duration)]
            if to < frames:
                yield from follow(to, after, score + value, here)
            elif after == len(labels) and (rule == "open_end" or (is_blank and to == frames)):
                yield score + value, here

    yield from follow(0, 0, 0.0, [])


def transducer_log_likelihood(
    logits: np.ndarray,
    labels: Sequence[int],
    blank: int,
    durations: Sequence[int] | None = None,
    big_blanks: dict[int, int] | None = None,
    sigma: float = 0.0,
    rule: str = "strict",
) -> float:
    """Return log P by the forward recursion, log-sum-exp over the arcs that arrive at each node."""
    frames, width = logits.shape[0], logits.shape[-1]
    vocabulary = width - len(durations or ())
    tokens = log_softmax(logits[..., :vocabulary])
    spans = log_softmax(logits[..., vocabulary:]) if durations is not None else None
    arrivals: dict[tuple[int, int], list[float]] = {(0, 0): [0.0]}
    ends: list[float] = []
    for t, u in itertools.product(range(frames), range(len(labels) + 1)):
        alpha = logsumexp(arrivals.get((t, u), []))
        for is_blank, symbol, column, _, advance in transducer_arcs(width, blank, durations, big_blanks, rule):
            if not is_blank and u == len(labels):
                continue
            value = alpha + tokens[t, u, symbol if is_blank else labels[u]] - sigma
            if spans is not None:
                value += spans[t, u, column - vocabulary]
            to, after = t + advance, u + (not is_blank)
            if to < frames:
                arrivals.setdefault((to, after), []).append(value)
            elif after == len(labels) and (rule == "open_end" or (is_blank and to == frames)):
                ends.append(value)
    return logsumexp(ends)


def alignment_statistics(scored: list[tuple[float, list]]) -> tuple[float, float, float]:
    """Return log P, the best score and the entropy of a list of (score, path)."""
    scores = [score for score, _ in scored]
    total = logsumexp(scores)
    entropy = -math.fsum(math.exp(s - total) * (s - total) for s in scores if s > -math.inf)
    return total, max(scores), entropy
