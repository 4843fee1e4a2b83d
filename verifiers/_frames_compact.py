"""The compact trace of the frame-synchronous families: the sketch, the likelihood, and the least sure positions.

A CTC path is left out: the reference finds the one of least margin that collapses to the ids. A transducer's is packed
(`_transducer_pack`), since greedy decoding need not take the most probable alignment.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np

from earmark.errors import RecordError, TraceError
from earmark.fingerprint.frame_summary import FrameSummary, least_sure, shown_count
from earmark.fingerprint.frames import FrameScores
from earmark.fingerprint.sketch import PROBES, compact_values
from earmark.protocols import FrameModel, SegmentInput
from earmark.records import varint
from earmark.records.evidence import Segment
from earmark.verifiers._common_compact import ExactDigest, Float32, exact_digest
from earmark.verifiers._common_trace import Floats, Ints, array, check_logprobs, check_sketch

ROUNDING = 1.0 + 2.0**-10
"""An entropy stored in 16 bits may exceed the largest possible by this factor."""


class CompactTrace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """One segment; arrays are little-endian.

    Attributes:
        version: Version of this layout.
        path: The packed path of a transducer; empty for CTC.
        likelihood: log P(transcript | audio), float32.
        shown: Positions whose numbers follow, as the gaps between them in LEB128.
        entropy: Entropy there in nats, float16 (shown,).
        blank: Log-probability of the blank there, float16 (shown,).
        sketch: The first values of the folded hidden states, float16 (probes, values).
        exact: First 16 bytes of the digest over ids and full trace of level `sketch`.
    """

    version: Literal[1] = 1
    path: Annotated[bytes, msgspec.Meta(max_length=8192)]
    likelihood: Float32
    shown: Annotated[bytes, msgspec.Meta(max_length=512)]
    entropy: Annotated[bytes, msgspec.Meta(max_length=512)]
    blank: Annotated[bytes, msgspec.Meta(max_length=512)]
    sketch: Annotated[bytes, msgspec.Meta(max_length=4096)]
    exact: ExactDigest


def write_compact(item: SegmentInput, scores: FrameScores, packed: bytes, full: bytes) -> bytes:
    """Encode one segment as a compact trace.

    Args:
        item: The piece.
        scores: What the model said.
        packed: Its packed path, empty for CTC.
        full: The full trace of level `sketch`.
    """
    samples = len(item.samples)
    shown = least_sure(scores.entropy, shown_count(samples, len(scores.path)))
    trace = CompactTrace(
        path=packed,
        likelihood=np.float32(scores.log_likelihood).tobytes(),
        shown=varint.pack((np.diff(shown, prepend=-1) - 1).tolist()),
        entropy=np.maximum(scores.entropy[shown], 0.0).astype("<f2").tobytes(),
        blank=np.minimum(scores.blank[shown], 0.0).astype("<f2").tobytes(),
        sketch=scores.sketch[:, : compact_values(samples)].astype("<f2").tobytes(),
        exact=exact_digest(item, scores.emitted, full),
    )
    return msgspec.msgpack.encode(trace)


def summary_of(trace: CompactTrace, segment: Segment, model: FrameModel, path: Ints, tokens: Ints) -> FrameSummary:
    """Return what a compact trace says, after every rule that needs no replay.

    Args:
        trace: The decoded trace.
        segment: Its segment.
        model: The reference.
        path: Its path, already checked, (steps, 3); (0, 3) where every frame is a position.
        tokens: Which transcript token each step is spent on, (steps,).

    Raises:
        TraceError: A rule is broken.
    """
    samples = segment.end - segment.start
    frames = model.encoder_positions(samples)
    shown = _read_shown(trace.shown, samples, len(path) or frames)
    summary = FrameSummary(
        emitted=segment.ids,
        frames=frames,
        path=path,
        tokens=tokens,
        log_likelihood=float(array(trace.likelihood, "<f4", (1,), "likelihood")[0]),
        shown=shown,
        entropy=array(trace.entropy, "<f2", (len(shown),), "entropy"),
        blank=array(trace.blank, "<f2", (len(shown),), "blank"),
        sketch=array(trace.sketch, "<f2", (PROBES, compact_values(samples)), "sketch"),
    )
    check_logprobs("likelihood", np.array([summary.log_likelihood]))
    check_logprobs("blank", summary.blank)
    _check_entropy(summary.entropy, model.info.vocab_size)
    check_sketch(summary.sketch)
    return summary


def _read_shown(data: bytes, samples: int, positions: int) -> Ints:
    try:
        shown: Ints = np.cumsum(np.asarray(varint.unpack(data), np.int64) + 1) - 1
    except RecordError as error:
        raise TraceError(f"the shown positions are not well formed: {error}") from error
    expected = shown_count(samples, positions)
    if len(shown) != expected or (expected and shown[-1] >= positions):
        found = f"{len(shown)} positions shown, up to {shown.max(initial=0)}"
        raise TraceError(f"{found}; expected {expected} of {positions}")
    return shown


def _check_entropy(entropy: Floats, vocab: int) -> None:
    most = np.log(vocab) * ROUNDING
    if not ((entropy >= 0.0) & (entropy <= most)).all():
        raise TraceError(f"an entropy outside 0 to {most:.3f} nats", code="trace.value")
