"""The trace of the ctc family: its layout, and every rule that needs no replay."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np

from earmark.errors import TraceError
from earmark.fingerprint.alignment import ctc_tokens, first_positions
from earmark.fingerprint.frame_summary import FrameSummary
from earmark.fingerprint.frames import FrameScores
from earmark.protocols import CtcModel
from earmark.records.evidence import Level, Segment
from earmark.records.request import Request
from earmark.verifiers._common_trace import MAX_K, Ints, array, check_ids, decode_trace
from earmark.verifiers._frames_compact import CompactTrace, summary_of
from earmark.verifiers._frames_rules import (
    check_frames,
    check_likelihood,
    check_request,
    check_values,
    fields_of,
    lists_of,
)


class Trace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model said while writing one segment; arrays are little-endian, one row per encoder frame.

    Attributes:
        version: Version of this layout.
        frames: Number of encoder frames, padding left out.
        path: Symbol chosen at each frame, int32 (frames,).
        k: Listed tokens per frame.
        ids: Listed tokens, int32 (frames, k), in falling order of probability.
        logprobs: Their raw log-probabilities, float32 (frames, k); NaN where censored.
        chosen: Log-probability of the path's symbol, float32 (frames,).
        blank: Log-probability of the blank, float32 (frames,).
        entropy: Entropy of the whole distribution in nats, float32 (frames,).
        power: log of sum p**0.33, float32 (frames,).
        log_likelihood: log P(transcript | audio).
        sketch: Folded hidden states, float16 (probes, values); empty below the level `sketch`.
    """

    version: Literal[1] = 1
    frames: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    path: bytes
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_K)]
    ids: bytes
    logprobs: bytes
    chosen: bytes
    blank: bytes
    entropy: bytes
    power: bytes
    log_likelihood: float
    sketch: bytes = b""


def path_of(symbols: Ints) -> Ints:
    """Return frame, symbol and duration of every frame, (frames, 3)."""
    return np.stack([np.arange(len(symbols)), symbols, np.ones_like(symbols)], axis=1)


def collapse(symbols: Ints, blank: int) -> tuple[tuple[int, ...], Ints]:
    """Return the transcript of a path, and the transcript token of each frame (-1 for blanks)."""
    tokens = ctc_tokens(symbols, blank)
    return tuple(symbols[first_positions(tokens)].tolist()), tokens


def write_trace(scores: FrameScores) -> bytes:
    """Encode one segment as the trace bytes of an evidence."""
    return msgspec.msgpack.encode(Trace(path=scores.path[:, 1].astype("<i4").tobytes(), **fields_of(scores)))


def read_path(trace: bytes) -> Ints:
    """Return the symbols of the path in the bytes of a trace.

    Raises:
        TraceError: They are not well formed.
    """
    decoded = decode_trace(trace, Trace)
    return array(decoded.path, "<i4", (decoded.frames,), "path")


def read_trace(segment: Segment, request: Request, model: CtcModel, level: Level) -> FrameScores:
    """Decode one trace and check every rule that needs no replay.

    Raises:
        TraceError: The trace is not well formed, or a rule is broken.
        UsageError: The request asks what a CTC model cannot do.
    """
    check_request(request, model)
    trace = decode_trace(segment.trace, Trace)
    check_frames(trace.frames, segment, model)
    check_ids(segment.ids, trace.k, model)
    _check_fit(segment, trace.frames)
    symbols = array(trace.path, "<i4", (trace.frames,), "path")
    if symbols.min() < 0:
        raise TraceError(f"symbol {symbols.min()} on the path; expected 0 or more", code="token.unknown")
    check_ids(symbols.tolist(), trace.k, model)
    emitted, tokens = collapse(symbols, model.blank_id)
    if emitted != segment.ids:
        message = f"the path collapses to {len(emitted)} tokens, not to the {len(segment.ids)} of the transcript"
        raise TraceError(message, code="path.mismatch")
    scores = FrameScores(
        emitted=emitted,
        frames=trace.frames,
        path=path_of(symbols),
        tokens=tokens,
        durations=np.empty((trace.frames, 0)),
        **lists_of(trace, trace.frames, level),
    )
    check_values(scores, model.blank_id, model.info.vocab_size)
    check_likelihood(scores, float(scores.chosen.sum()))
    return scores


def read_compact(segment: Segment, request: Request, model: CtcModel) -> FrameSummary:
    """Decode one compact trace and check every rule that needs no replay.

    Raises:
        TraceError: The trace is not well formed, or a rule is broken.
        UsageError: The request asks what a CTC model cannot do.
    """
    check_request(request, model)
    trace = decode_trace(segment.trace, CompactTrace)
    check_ids(segment.ids, 1, model)
    if model.blank_id in segment.ids:
        raise TraceError("the blank among the tokens of the transcript", code="path.mismatch")
    _check_fit(segment, model.encoder_positions(segment.end - segment.start))
    if trace.path:
        raise TraceError(f"a path of {len(trace.path)} bytes; compact CTC evidence has none")
    return summary_of(trace, segment, model, np.empty((0, 3), np.int64), np.empty(0, np.int64))


def _check_fit(segment: Segment, frames: int) -> None:
    ids = np.asarray(segment.ids)
    needed = len(ids) + int((ids[1:] == ids[:-1]).sum())
    if needed > frames:
        message = f"{len(ids)} tokens need {needed} frames; there are {frames}"
        raise TraceError(message, code="token.count")
