"""The trace of the autoregressive family: its layout, and every rule that needs no replay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from earmark.errors import TraceError
from earmark.fingerprint.sequence import Scores
from earmark.fingerprint.sketch import PROBES, VALUES
from earmark.limits import max_tokens
from earmark.protocols import AutoregressiveModel
from earmark.records.evidence import Level, Segment, TokenId
from earmark.records.request import Request

MAX_K = 1024
MAX_LOGPROB = 1e-4
"""A log-probability above 0 by more than this is no rounding error."""
MAX_MASS = 1.0 + 1e-3
"""The listed probabilities of one position may not add up to more."""


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
        scores: What the model said meanwhile.
    """

    prompt: tuple[int, ...]
    emitted: tuple[int, ...]
    scores: Scores


def write_trace(written: Written) -> bytes:
    """Encode one segment as the trace bytes of an evidence."""
    scores = written.scores
    trace = Trace(
        prompt=written.prompt,
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
    try:
        trace = msgspec.msgpack.decode(segment.trace, type=Trace)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise TraceError(f"the trace is not well formed: {str(error)[:200]}") from error
    _check_ids(segment, trace, model)
    scores = _arrays(segment, trace, model, PROBES if level == "sketch" else 0)
    _check_prompt(trace, scores, request, model)
    _check_lists(scores, model.info.vocab_size)
    _check_values(scores, model.info.vocab_size)
    _check_chosen(scores, segment.ids)
    return Written(prompt=trace.prompt, emitted=segment.ids, scores=scores)


def _array(data: bytes, kind: str, shape: tuple[int, ...], name: str) -> NDArray[Any]:
    expected = int(np.prod(shape)) * np.dtype(kind).itemsize
    if len(data) != expected:
        raise TraceError(f"trace field {name!r} has {len(data)} bytes; expected {expected} for shape {shape}")
    with np.errstate(invalid="ignore"):  # a signalling NaN is refused later, by name
        return np.frombuffer(data, dtype=kind).reshape(shape).astype(np.int64 if kind == "<i4" else np.float64)


def _arrays(segment: Segment, trace: Trace, model: AutoregressiveModel, probes: int) -> Scores:
    n, k = len(segment.ids), trace.k
    if (trace.no_speech is None) != (model.no_speech_id is None):
        raise TraceError(f"no-speech probability {trace.no_speech}; the model's kind of evidence differs")
    return Scores(
        ids=_array(trace.ids, "<i4", (n, k), "ids"),
        logprobs=_array(trace.logprobs, "<f4", (n, k), "logprobs"),
        chosen=_array(trace.chosen, "<f4", (n,), "chosen"),
        entropy=_array(trace.entropy, "<f4", (n,), "entropy"),
        ended=trace.finish == "end",
        language=_array(trace.language, "<f4", (len(model.languages),), "language"),
        no_speech=float("nan") if trace.no_speech is None else trace.no_speech,
        sketch=_array(trace.sketch, "<f2", (probes, VALUES), "sketch"),
    )


def token_limit(model: AutoregressiveModel, prompt: Sequence[int], samples: int) -> int:
    """Return the most tokens that a piece of audio may give behind a prompt."""
    return min(max_tokens(samples), model.max_new_tokens(prompt))


def _check_ids(segment: Segment, trace: Trace, model: AutoregressiveModel) -> None:
    vocab, end = model.info.vocab_size, model.end_id
    if trace.k > vocab:
        raise TraceError(f"k = {trace.k}; {model.info.name} has only {vocab} tokens")
    largest = max((*segment.ids, *trace.prompt), default=0)
    if largest >= vocab:
        raise TraceError(f"token id {largest}; {model.info.name} has only {vocab} tokens", code="token.unknown")
    limit = token_limit(model, trace.prompt, segment.end - segment.start)
    if not 1 <= len(segment.ids) <= limit:
        message = f"{len(segment.ids)} tokens in a segment; its duration allows 1 to {limit}"
        raise TraceError(message, code="token.count")
    ends = segment.ids.count(end)
    if trace.finish == "end" and (ends != 1 or segment.ids[-1] != end):
        raise TraceError(f"{ends} end tokens in a finished segment; expected one, the last", code="stop.wrong")
    if trace.finish == "length" and (ends or len(segment.ids) != limit):
        message = f"stopped after {len(segment.ids)} tokens without the end token; the limit is {limit}"
        raise TraceError(message, code="stop.early")


def _check_prompt(trace: Trace, scores: Scores, request: Request, model: AutoregressiveModel) -> None:
    """The prompt follows from the request; where that leaves the language open, from the language scores."""
    language = request.language
    if language is None and model.languages:
        language = list(model.languages)[int(scores.language.argmax())]
    expected = model.prompt_ids(request, language)
    if trace.prompt != expected:
        message = f"prompt {_some(trace.prompt)}; the request gives {_some(expected)}"
        raise TraceError(message, code="prompt.mismatch")


def _some(ids: Sequence[int]) -> str:
    return f"{list(ids[:8])}{'...' if len(ids) > 8 else ''}"


def _check_lists(scores: Scores, vocab: int) -> None:
    """Listed tokens exist, are distinct, and stand in falling order."""
    ids, ranked = scores.ids, np.sort(scores.ids, axis=1)
    if ids.min() < 0 or ids.max() >= vocab:
        raise TraceError(f"listed token ids from {ids.min()} to {ids.max()}; expected 0 to {vocab - 1}")
    if (ranked[:, 1:] == ranked[:, :-1]).any():
        raise TraceError("a token is listed twice at one position", code="trace.duplicate")
    known = np.where(np.isnan(scores.logprobs), -np.inf, scores.logprobs)
    if (known[:, 1:] > known[:, :-1]).any():
        raise TraceError("listed log-probabilities are not in falling order", code="trace.order")


def _check_values(scores: Scores, vocab: int) -> None:
    """Refuse numbers that no softmax can give."""
    for name in ("logprobs", "chosen", "language"):
        values = getattr(scores, name)
        known = values[~np.isnan(values)] if name == "logprobs" else values
        if not (np.isfinite(known).all() and (known <= MAX_LOGPROB).all()):
            message = f"{name} holds values that are not finite or above {MAX_LOGPROB}"
            raise TraceError(message, code="trace.value")
    mass = np.nansum(np.exp(scores.logprobs), axis=1).max()
    if mass > MAX_MASS:
        raise TraceError(f"listed probabilities of one position add up to {mass:.4f}", code="trace.mass")
    if not np.isfinite(scores.sketch).all():
        raise TraceError("the sketch holds values that are not finite", code="trace.value")
    bound = np.log(vocab) + 1e-3
    if not ((scores.entropy >= -1e-3) & (scores.entropy <= bound)).all():
        raise TraceError(f"an entropy outside 0 to {bound:.3f} nats", code="trace.value")


def _check_chosen(scores: Scores, emitted: Sequence[int]) -> None:
    """The emitted token's value equals the listed one, else it is no better than the last listed."""
    listed = scores.ids == np.asarray(emitted)[:, None]
    value = np.where(listed, scores.logprobs, 0.0).sum(axis=1)
    if np.isnan(value).any():
        raise TraceError("the value of an emitted token is censored", code="trace.censored")
    present = listed.any(axis=1)
    lowest = np.nan_to_num(scores.logprobs, nan=np.inf).min(axis=1)
    wrong = present & (np.abs(value - scores.chosen) > 1e-6)
    beyond = ~present & (scores.chosen > lowest + 1e-6)
    if (wrong | beyond).any():
        raise TraceError("the value of an emitted token contradicts the listed ones", code="trace.contradiction")
