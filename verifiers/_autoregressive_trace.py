"""The trace of the autoregressive family: its layout, and every rule that needs no replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from earmark.errors import TraceError
from earmark.fingerprint.sequence import Scores
from earmark.fingerprint.sketch import PROBES, VALUES
from earmark.fingerprint.summary import Summary
from earmark.limits import max_tokens
from earmark.protocols import AutoregressiveModel
from earmark.records.evidence import Level, Segment, TokenId
from earmark.records.request import Request
from earmark.verifiers._common_trace import (
    MAX_K,
    array,
    check_chosen,
    check_entropy,
    check_ids,
    check_lists,
    check_logprobs,
    check_sketch,
    decode_trace,
)


class Trace(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the model said while writing one segment; arrays are little-endian, one row per emitted token.

    Attributes:
        version: Version of this layout.
        prompt: Ids that preceded the transcript.
        finish: `end` where the end token was emitted, `length` where the limit was reached.
        k: Listed tokens per position.
        ids: Listed tokens, int32 (positions, k), in falling order of probability.
        logprobs: Their raw log-probabilities, float32 (positions, k); NaN where censored.
        chosen: Log-probability of the emitted token, float32 (positions,).
        entropy: Entropy of the whole distribution in nats, float32 (positions,).
        language: Log-probability of every language token at the language position, float32; empty without.
        no_speech: Probability of the no-speech token at that position, or None.
        sketch: Folded hidden states, float16 (probes, values); empty below the level `sketch`.
    """

    version: Literal[1] = 1
    prompt: Annotated[tuple[TokenId, ...], msgspec.Meta(max_length=8192)]
    finish: Literal["end", "length"]
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_K)]
    ids: bytes
    logprobs: bytes
    chosen: bytes
    entropy: bytes
    language: bytes = b""
    no_speech: Annotated[float, msgspec.Meta(ge=0.0, le=1.001)] | None = None
    sketch: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One segment as a provider says it was written.

    Attributes:
        prompt: Ids before the transcript.
        emitted: Ids of the transcript, with the end token where it was reached.
        scores: What the model said meanwhile; of compact evidence a summary.
    """

    prompt: tuple[int, ...]
    emitted: tuple[int, ...]
    scores: Scores | Summary

    @property
    def listed(self) -> NDArray[np.int64]:
        """Listed tokens, (positions, k); k is 0 in compact evidence."""
        return self.scores.ids if isinstance(self.scores, Scores) else np.empty((len(self.emitted), 0), np.int64)


def write_trace(prompt: tuple[int, ...], scores: Scores) -> bytes:
    """Encode one segment as the trace bytes of an evidence."""
    trace = Trace(
        prompt=prompt,
        finish="end" if scores.ended else "length",
        k=scores.ids.shape[1],
        ids=scores.ids.astype("<i4").tobytes(),
        logprobs=scores.logprobs.astype("<f4").tobytes(),
        chosen=scores.chosen.astype("<f4").tobytes(),
        entropy=scores.entropy.astype("<f4").tobytes(),
        language=scores.language.astype("<f4").tobytes(),
        no_speech=None if np.isnan(scores.no_speech) else scores.no_speech,
        sketch=scores.sketch.astype("<f2").tobytes(),
    )
    return msgspec.msgpack.encode(trace)


def read_trace(segment: Segment, request: Request, model: AutoregressiveModel, level: Level) -> Written:
    """Decode one trace and check every rule that needs no replay.

    Raises:
        TraceError: The trace is not well formed, or a rule is broken.
    """
    trace = decode_trace(segment.trace, Trace)
    check_ids((*segment.ids, *trace.prompt), trace.k, model)
    check_length(segment, trace.prompt, trace.finish, model)
    scores = _arrays(segment, trace, model, PROBES if level == "sketch" else 0)
    _check_prompt(trace, scores, request, model)
    check_lists(scores.ids, scores.logprobs, model.info.vocab_size)
    check_logprobs("chosen", scores.chosen)
    check_logprobs("language", scores.language)
    check_sketch(scores.sketch)
    check_entropy(scores.entropy, model.info.vocab_size)
    check_chosen(scores.ids, scores.logprobs, scores.chosen, segment.ids)
    return Written(prompt=trace.prompt, emitted=segment.ids, scores=scores)


def _arrays(segment: Segment, trace: Trace, model: AutoregressiveModel, probes: int) -> Scores:
    n, k = len(segment.ids), trace.k
    if (trace.no_speech is None) != (model.no_speech_id is None):
        raise TraceError(f"no-speech probability {trace.no_speech}; the model's kind of evidence differs")
    return Scores(
        ids=array(trace.ids, "<i4", (n, k), "ids"),
        logprobs=array(trace.logprobs, "<f4", (n, k), "logprobs"),
        chosen=array(trace.chosen, "<f4", (n,), "chosen"),
        entropy=array(trace.entropy, "<f4", (n,), "entropy"),
        ended=trace.finish == "end",
        language=array(trace.language, "<f4", (len(model.languages),), "language"),
        no_speech=float("nan") if trace.no_speech is None else trace.no_speech,
        sketch=array(trace.sketch, "<f2", (probes, VALUES), "sketch"),
    )


def token_limit(model: AutoregressiveModel, prompt: Sequence[int], samples: int) -> int:
    """Return the most tokens that a piece of audio may give behind a prompt."""
    return min(max_tokens(samples), model.max_new_tokens(prompt))


def check_length(
    segment: Segment, prompt: tuple[int, ...], finish: Literal["end", "length"], model: AutoregressiveModel
) -> None:
    """A segment ends with its only end token, or at the limit that its duration gives.

    Raises:
        TraceError: It does not.
    """
    limit = token_limit(model, prompt, segment.end - segment.start)
    if not 1 <= len(segment.ids) <= limit:
        message = f"{len(segment.ids)} tokens in a segment; its duration allows 1 to {limit}"
        raise TraceError(message, code="token.count")
    ends = sum(i in model.stop_ids for i in segment.ids)
    if finish == "end" and (ends != 1 or segment.ids[-1] not in model.stop_ids):
        raise TraceError(f"{ends} end tokens in a finished segment; expected one, the last", code="stop.wrong")
    if finish == "length" and (ends or len(segment.ids) != limit):
        message = f"stopped after {len(segment.ids)} tokens without the end token; the limit is {limit}"
        raise TraceError(message, code="stop.early")


def _check_prompt(trace: Trace, scores: Scores, request: Request, model: AutoregressiveModel) -> None:
    """The prompt follows from the request; where that leaves the language open, from the language scores."""
    language = int(scores.language.argmax()) if model.languages else None
    expected = expected_prompt(request, language, model)
    if trace.prompt != expected:
        message = f"prompt {_some(trace.prompt)}; the request gives {_some(expected)}"
        raise TraceError(message, code="prompt.mismatch")


def expected_prompt(request: Request, language: int | None, model: AutoregressiveModel) -> tuple[int, ...]:
    """Return the prompt of a request, in the language of that number where the request leaves it open."""
    detected = None if language is None else list(model.languages)[language]
    return model.prompt_ids(request, request.language or detected)


def _some(ids: Sequence[int]) -> str:
    return f"{list(ids[:8])}{'...' if len(ids) > 8 else ''}"
