"""The listed trace of the autoregressive family: what an API returns of each token, and nothing more.

APIs list a few tokens per position with their log-probabilities; they leave values out (a sentinel in place of minus
infinity), often the end token, and always entropy, language and hidden states.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import msgspec
import numpy as np

from earmark.errors import TraceError, UsageError
from earmark.fingerprint.sequence import Replay, Scores
from earmark.fingerprint.sketch import VALUES
from earmark.limits import MOST_K
from earmark.protocols import AutoregressiveModel, Reported
from earmark.records.evidence import Segment
from earmark.records.request import Request
from earmark.verifiers._autoregressive_trace import Written, check_length, expected_prompt
from earmark.verifiers._common_trace import (
    MAX_K,
    array,
    check_chosen,
    check_ids,
    check_lists,
    check_logprobs,
    decode_trace,
)

MAX_MASS = 1.0 + 1e-2
"""APIs round, so listed probabilities may add up to a little more than in traces of our own."""


class ListedTrace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an API said of one segment; arrays are little-endian, one row per emitted token.

    The prompt follows from the request alone.

    Attributes:
        version: Version of this layout.
        finish: `end` where the transcript ended by itself, `length` where the limit was reached.
        k: Listed tokens per position.
        ids: Listed tokens, int32 (positions, k), in falling order of probability.
        logprobs: Their log-probabilities, float32 (positions, k); NaN where the API gave none.
        chosen: Log-probability of the emitted token, float32 (positions,); NaN for an end token that was not shown.
    """

    version: Literal[1] = 1
    finish: Literal["end", "length"]
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_K)]
    ids: bytes
    logprobs: bytes
    chosen: bytes


def write_listed(scores: Scores) -> bytes:
    """Encode one segment as a listed trace."""
    trace = ListedTrace(
        finish="end" if scores.ended else "length",
        k=scores.ids.shape[1],
        ids=scores.ids.astype("<i4").tobytes(),
        logprobs=scores.logprobs.astype("<f4").tobytes(),
        chosen=scores.chosen.astype("<f4").tobytes(),
    )
    return msgspec.msgpack.encode(trace)


def reported_scores(reported: Reported, model: AutoregressiveModel) -> tuple[tuple[int, ...], Scores]:
    """Return ids and scores of what an API reported, in the form of a trace.

    Each list is sorted, and ends where a value is missing: what is not listed is no better than what is. Tokens that
    fill a list up have no value. An end token that was not shown is added.
    """
    rows, k = [*reported.top], min(MOST_K, max(1, reported.k))
    ids, chosen = [*reported.ids], [*reported.logprobs]
    if reported.ended and (not ids or ids[-1] not in model.stop_ids):
        ids, chosen, rows = [*ids, model.end_id], [*chosen, float("nan")], [*rows, ()]
    lists = [_fill(sorted(row, key=_falling)[:k], k) for row in rows]
    with np.errstate(over="ignore"):
        values = np.array([[value for _, value in row] for row in lists], np.float64).astype(np.float32)
        own = np.array(chosen, np.float64).astype(np.float32)
    return tuple(ids), _scores(
        np.array([[i for i, _ in row] for row in lists], np.int64), values, own, ended=reported.ended
    )


def _falling(entry: tuple[int, float]) -> tuple[bool, float]:
    return bool(np.isnan(entry[1])), -entry[1]


def _fill(row: list[tuple[int, float]], k: int) -> list[tuple[int, float]]:
    """Cut a sorted list at its first missing value, and fill it up with tokens that it does not name."""
    known = [entry for entry in row if not np.isnan(entry[1])]
    taken = {i for i, _ in known}
    others = (i for i in range(len(taken) + k) if i not in taken)
    return known + [(next(others), float("nan")) for _ in range(k - len(known))]


def _scores(ids: np.ndarray, logprobs: np.ndarray, chosen: np.ndarray, *, ended: bool) -> Scores:
    return Scores(
        ids=ids,
        logprobs=logprobs,
        chosen=chosen,
        entropy=np.full(len(chosen), np.nan),
        ended=ended,
        language=np.empty(0),
        no_speech=float("nan"),
        sketch=np.empty((0, VALUES)),
    )


def read_listed(segment: Segment, request: Request, model: AutoregressiveModel) -> Written:
    """Decode one listed trace and check every rule that needs no replay.

    Raises:
        TraceError: The trace is not well formed, or a rule is broken.
        UsageError: The request names no language, which nothing in such a trace tells.
    """
    trace = decode_trace(segment.trace, ListedTrace)
    prompt = expected_prompt(request, None, model)
    check_ids((*segment.ids, *prompt), trace.k, model)
    check_length(segment, prompt, trace.finish, model)
    n, k, vocab = len(segment.ids), trace.k, model.info.vocab_size
    scores = _scores(
        array(trace.ids, "<i4", (n, k), "ids"),
        array(trace.logprobs, "<f4", (n, k), "logprobs"),
        array(trace.chosen, "<f4", (n,), "chosen"),
        ended=trace.finish == "end",
    )
    check_lists(scores.ids, scores.logprobs, vocab, mass=MAX_MASS)
    shown = n - unshown(scores)
    if not shown:
        raise TraceError("no position of the segment has a value", code="trace.censored")
    check_logprobs("chosen", scores.chosen[:shown])
    check_chosen(scores.ids[:shown], scores.logprobs[:shown], scores.chosen[:shown], segment.ids[:shown])
    return Written(prompt=prompt, emitted=segment.ids, scores=scores)


def report_of(written: Written) -> Reported:
    """Return what an API would report of a segment: its tokens and lists."""
    scores = written.scores
    if not isinstance(scores, Scores):
        raise UsageError("compact evidence holds no lists")
    rows = zip(scores.ids.tolist(), scores.logprobs.tolist(), strict=True)
    return Reported(
        ids=written.emitted,
        logprobs=tuple(scores.chosen.tolist()),
        top=tuple(tuple(zip(ids, values, strict=True)) for ids, values in rows),
        k=scores.ids.shape[1],
        ended=scores.ended,
    )


def unshown(scores: Scores) -> int:
    """Return 1 where the API did not show the end token, else 0."""
    return int(scores.ended and bool(np.isnan(scores.chosen[-1])) and bool(np.isnan(scores.logprobs[-1]).all()))


def is_listed(scores: object) -> bool:
    """Tell whether scores come from a listed trace."""
    return isinstance(scores, Scores) and bool(np.isnan(scores.entropy).all())


def shown_part(scores: Scores, replay: Replay) -> tuple[Scores, Replay]:
    """Return what of scores and replay can be compared: without an end token that was not shown, and its decision."""
    n = len(scores.chosen) - unshown(scores)
    return _first(scores, n), dataclasses.replace(
        replay, scores=_first(replay.scores, n), at_listed=replay.at_listed[:n], margins=replay.margins
    )


def _first(scores: Scores, n: int) -> Scores:
    return dataclasses.replace(
        scores,
        ids=scores.ids[:n],
        logprobs=scores.logprobs[:n],
        chosen=scores.chosen[:n],
        entropy=scores.entropy[:n],
        ended=scores.ended and n == len(scores.chosen),
        language=np.empty(0),
        no_speech=float("nan"),
    )
