"""The compact trace of the autoregressive family: the sketch, the likelihood, and a digest of everything else."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np

from earmark.errors import TraceError
from earmark.fingerprint.sequence import Scores
from earmark.fingerprint.sketch import PROBES, compact_values
from earmark.fingerprint.summary import Summary
from earmark.protocols import AutoregressiveModel, SegmentInput
from earmark.records.evidence import Segment
from earmark.records.request import Request
from earmark.verifiers._autoregressive_trace import Written, check_length, expected_prompt, write_trace
from earmark.verifiers._common_compact import ExactDigest, Float32, exact_digest
from earmark.verifiers._common_trace import array, check_ids, check_logprobs, check_sketch, decode_trace


class CompactTrace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """One segment in about 120 bytes; arrays are little-endian.

    Attributes:
        version: Version of this layout.
        language: Number of the detected language; None where the request names it or the model has none.
        likelihood: Sum of the emitted tokens' log-probabilities, float32.
        no_speech: Probability of the no-speech token, float32; empty where the model has none.
        sketch: The first values of the folded hidden states, float16 (probes, values).
        exact: First 16 bytes of the digest over ids and full trace (`exact_digest`).
    """

    version: Literal[1] = 1
    language: Annotated[int, msgspec.Meta(ge=0, lt=1000)] | None
    likelihood: Float32
    no_speech: Annotated[bytes, msgspec.Meta(max_length=4)]
    sketch: Annotated[bytes, msgspec.Meta(max_length=4096)]
    exact: ExactDigest


def write_compact(
    item: SegmentInput, prompt: tuple[int, ...], ids: tuple[int, ...], scores: Scores, model: AutoregressiveModel
) -> bytes:
    """Encode one segment as a compact trace."""
    open_language = item.request.language is None and bool(model.languages)
    missing = np.isnan(scores.no_speech)
    trace = CompactTrace(
        language=int(scores.language.argmax()) if open_language else None,
        likelihood=np.float32(scores.chosen.sum()).tobytes(),
        no_speech=b"" if missing else np.float32(scores.no_speech).tobytes(),
        sketch=scores.sketch[:, : compact_values(len(item.samples))].astype("<f2").tobytes(),
        exact=exact_digest(item, ids, write_trace(prompt, scores)),
    )
    return msgspec.msgpack.encode(trace)


def read_compact(segment: Segment, request: Request, model: AutoregressiveModel) -> Written:
    """Decode one compact trace and check every rule that needs no replay.

    Raises:
        TraceError: The trace is not well formed, or a rule is broken.
    """
    trace, samples = decode_trace(segment.trace, CompactTrace), segment.end - segment.start
    named = 0 if trace.language is None else trace.language + 1
    if (trace.language is None) != (request.language is not None or not model.languages) or named > len(
        model.languages
    ):
        raise TraceError(f"language {trace.language}; it is given exactly where the request leaves it open")
    prompt = expected_prompt(request, trace.language, model)
    check_ids((*segment.ids, *prompt), 1, model)
    ended = bool(segment.ids) and segment.ids[-1] in model.stop_ids
    check_length(segment, prompt, "end" if ended else "length", model)
    has_no_speech = model.no_speech_id is not None
    likelihood = float(array(trace.likelihood, "<f4", (1,), "likelihood")[0])
    no_speech = array(trace.no_speech, "<f4", (int(has_no_speech),), "no_speech")
    check_logprobs("likelihood", np.array([likelihood]) / len(segment.ids))
    if not ((no_speech >= 0) & (no_speech <= 1.001)).all():
        raise TraceError("a no-speech probability outside 0 to 1", code="trace.value")
    sketch = array(trace.sketch, "<f2", (PROBES, compact_values(samples)), "sketch")
    check_sketch(sketch)
    summary = Summary(
        likelihood=likelihood,
        ended=ended,
        language=trace.language,
        no_speech=float(no_speech[0]) if has_no_speech else float("nan"),
        sketch=sketch,
    )
    return Written(prompt=prompt, emitted=segment.ids, scores=summary)
