"""The trace of the transducer family: its layout, and every rule that needs no replay."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from earmark.errors import TraceError
from earmark.fingerprint.frame_summary import FrameSummary
from earmark.fingerprint.frames import FrameScores
from earmark.greedy import most_steps
from earmark.limits import max_tokens
from earmark.protocols import SegmentOutput, Strategy, TransducerModel
from earmark.records.evidence import Level, Segment
from earmark.records.request import Request
from earmark.verifiers._common_trace import (
    MAX_K,
    MAX_MASS,
    Ints,
    array,
    check_ids,
    check_logprobs,
    check_mass,
    decode_trace,
)
from earmark.verifiers._frames_compact import CompactTrace, summary_of
from earmark.verifiers._frames_rules import (
    check_frames,
    check_likelihood,
    check_request,
    check_values,
    fields_of,
    lists_of,
)
from earmark.verifiers._transducer_pack import unpack_path
from earmark.verifiers._transducer_path import (
    allowed_durations,
    check_path,
    emitted_of,
    symbols_so_far,
    tokens_of,
)

Floats = NDArray[np.float64]


class Trace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model said while writing one segment; arrays are little-endian, one row per step, blanks included.

    Attributes:
        version: Version of this layout.
        frames: Number of encoder frames, padding left out.
        strategy: How the prediction network was used.
        steps: Number of steps.
        path: Frame, symbol and duration of each step, int32 (steps, 3).
        k: Listed tokens per step.
        ids: Listed tokens, int32 (steps, k), in falling order of probability.
        logprobs: Their raw log-probabilities, float32 (steps, k); NaN where censored.
        chosen: Log-probability of the chosen symbol, float32 (steps,).
        blank: Log-probability of the blank, float32 (steps,).
        durations: Log-probability of every duration, float32 (steps, durations); empty without them.
        entropy: Entropy of the tokens' distribution in nats, float32 (steps,).
        power: log of sum p**0.33 of it, float32 (steps,).
        log_likelihood: log P(transcript | audio), with the open end of greedy decoding.
        sketch: Folded hidden states, float16 (probes, values); empty below the level `sketch`.
    """

    version: Literal[1] = 1
    frames: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    strategy: Strategy
    steps: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
    path: bytes
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_K)]
    ids: bytes
    logprobs: bytes
    chosen: bytes
    blank: bytes
    durations: bytes
    entropy: bytes
    power: bytes
    log_likelihood: float
    sketch: bytes = b""


def write_trace(scores: FrameScores, strategy: Strategy) -> bytes:
    """Encode one segment as the trace bytes of an evidence."""
    trace = Trace(
        strategy=strategy,
        steps=len(scores.path),
        path=scores.path.astype("<i4").tobytes(),
        durations=scores.durations.astype("<f4").tobytes(),
        **fields_of(scores),
    )
    return msgspec.msgpack.encode(trace)


def read_path(trace: bytes) -> Ints:
    """Return the path in the bytes of a trace, (steps, 3).

    Raises:
        TraceError: They are not well formed.
    """
    decoded = decode_trace(trace, Trace)
    return array(decoded.path, "<i4", (decoded.steps, 3), "path")


def read_trace(segment: Segment, request: Request, model: TransducerModel, level: Level) -> FrameScores:
    """Decode one trace and check every rule that needs no replay.

    Raises:
        TraceError: The trace is not well formed, or a rule is broken.
        UsageError: The request asks what a transducer cannot do.
    """
    check_request(request, model)
    trace = decode_trace(segment.trace, Trace)
    check_frames(trace.frames, segment, model)
    if trace.strategy != model.strategy:
        raise TraceError(f"strategy {trace.strategy}; the reference's is {model.strategy}", code="strategy.mismatch")
    path = _read_path(trace, segment, model)
    scores = FrameScores(
        emitted=segment.ids,
        frames=trace.frames,
        path=path,
        tokens=tokens_of(path, model),
        durations=array(trace.durations, "<f4", (trace.steps, len(model.durations)), "durations"),
        **lists_of(trace, trace.steps, level),
    )
    check_values(scores, model.blank_id, model.info.vocab_size)
    _check_duration_values(scores.durations)
    _check_path_score(scores, model)
    return scores


def _read_path(trace: Trace, segment: Segment, model: TransducerModel) -> Ints:
    samples = segment.end - segment.start
    limit = most_steps(trace.frames, model.max_symbols)
    if trace.steps > limit:
        raise TraceError(f"{trace.steps} steps; {trace.frames} frames allow {limit}", code="token.count")
    _check_count(segment)
    check_ids(segment.ids, trace.k, model)
    path = array(trace.path, "<i4", (trace.steps, 3), "path")
    if path[:, 1].min() < 0:
        raise TraceError(f"symbol {path[:, 1].min()} on the path; expected 0 or more", code="token.unknown")
    check_ids(path[:, 1].tolist(), trace.k, model)
    check_path(path, trace.frames, samples, model)
    emitted = emitted_of(path, tokens_of(path, model))
    if emitted != segment.ids:
        message = f"the path writes {len(emitted)} tokens, not the {len(segment.ids)} of the transcript"
        raise TraceError(message, code="path.mismatch")
    return path


def read_compact(segment: Segment, request: Request, model: TransducerModel) -> FrameSummary:
    """Decode one compact trace and check every rule that needs no replay.

    Raises:
        TraceError: The trace is not well formed, or a rule is broken.
        UsageError: The request asks what a transducer cannot do.
    """
    check_request(request, model)
    trace = decode_trace(segment.trace, CompactTrace)
    _check_count(segment)
    check_ids(segment.ids, 1, model)
    samples = segment.end - segment.start
    frames = model.encoder_positions(samples)
    path = unpack_path(trace.path, segment.ids, model, most_steps(frames, model.max_symbols))
    check_path(path, frames, samples, model)
    tokens = tokens_of(path, model)
    if emitted_of(path, tokens) != segment.ids:
        raise TraceError("a blank among the tokens of the transcript", code="path.mismatch")
    return summary_of(trace, segment, model, path, tokens)


def read_compact_path(output: SegmentOutput, model: TransducerModel) -> Ints:
    """Return the path in the bytes of a compact trace, (steps, 3).

    Raises:
        TraceError: They are not well formed.
    """
    packed = decode_trace(output.trace, CompactTrace).path
    return unpack_path(packed, output.ids, model, 8 * len(packed))


def _check_count(segment: Segment) -> None:
    limit = max_tokens(segment.end - segment.start)
    if len(segment.ids) > limit:
        message = f"{len(segment.ids)} tokens in a segment; its duration allows {limit}"
        raise TraceError(message, code="token.count")


def _check_duration_values(durations: Floats) -> None:
    """All durations are listed, so their probabilities add up to 1."""
    if not durations.size:
        return
    check_logprobs("durations", durations)
    check_mass(durations)
    mass = float(np.exp(durations).sum(axis=1).min())
    if mass < 2.0 - MAX_MASS:
        raise TraceError(f"the durations' probabilities at one step add up to {mass:.4f}", code="trace.mass")


def _check_path_score(scores: FrameScores, model: TransducerModel) -> None:
    """A path on which the decoder was never forced on by its limit of tokens is one of the lattice's."""
    spoken = scores.tokens >= 0
    limited = spoken & (symbols_so_far(scores.path, spoken) == model.max_symbols) & (scores.path[:, 2] == 1)
    if limited.any() or scores.path[-1, 0] + scores.path[-1, 2] < scores.frames:
        return
    total = float(scores.chosen.sum())
    if model.durations:
        allowed = allowed_durations(scores.path, spoken, model)
        total += float(np.where(allowed, scores.durations, -np.inf).max(axis=1).sum())
    check_likelihood(scores, total)
