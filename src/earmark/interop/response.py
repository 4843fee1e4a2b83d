"""A response of an OpenAI-compatible server as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from earmark.errors import PayloadError
from earmark.fingerprint.gonka import SENTINEL
from earmark.interop import wire

Source = Literal["openai", "vllm", "gonka"]
SOURCES: tuple[Source, ...] = ("openai", "vllm", "gonka")
ID_PREFIX = "token_id:"
"""What vLLM writes before an id with `return_tokens_as_token_ids`."""
REPLACEMENT = "\ufffd"
"""Stands for bytes that are no text of their own; which, is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One token of a list.

    Attributes:
        text: As the server wrote it.
        logprob: Its log-probability in nats; NaN where the server gave none, or its sentinel.
        id: Its id where the server gave it.
        data: Its bytes where they are known.
    """

    text: str
    logprob: float
    id: int | None
    data: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One emitted token and the candidates listed in its place."""

    chosen: Token
    top: tuple[Token, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What a server answered to one piece of audio.

    Attributes:
        text: The transcript.
        steps: One per emitted token.
        finish: `stop`, `length` or what else the server said; None where it did not.
        model: Name of the model as the server tells it.
    """

    text: str
    steps: tuple[Step, ...]
    finish: str | None
    model: str


def read_response(data: bytes, source: Source) -> Response:
    """Read a stored response: a chat completion, a transcription, or the lines of a stream.

    Args:
        data: The bytes as the server sent them.
        source: `gonka` takes tokens of digits for ids; `openai` and `vllm` take them for text.

    Returns:
        The response.

    Raises:
        PayloadError: It is not well formed, cut off, or holds no log-probabilities.

    Example:
        >>> data = b'{"choices": [{"message": {"content": "a"}, "finish_reason": "stop", "logprobs": {"content": '
        >>> data += b'[{"token": "64", "logprob": -0.1, "top_logprobs": [{"token": "64", "logprob": -0.1}]}]}}]}'
        >>> read_response(data, "gonka").steps[0].chosen.id
        64
    """
    start = data.lstrip()[:200]
    if start.startswith((b"data:", b"event:", b":")):
        return read_stream(data.splitlines(), source)
    kind = _kind(data)
    if kind is wire.Stored:
        return read_stream((line.encode() for line in wire.decode(data, wire.Stored).events), source)
    if kind is wire.Transcription:
        found = wire.decode(data, wire.Transcription)
        return _response(found.text, found.logprobs, source)
    whole = wire.decode(data, wire.ChatCompletion)
    choice = _only(whole.choices)
    text = choice.message.content if choice.message else None
    entries = choice.logprobs.content if choice.logprobs else None
    return _response(
        text or "", entries, source, ids=choice.token_ids, finish=choice.finish_reason, model=whole.model or ""
    )


class _Shape(msgspec.Struct, frozen=True):
    choices: Any = None
    events: Any = None
    text: Any = None


def _kind(data: bytes) -> Any:
    shape = wire.decode(data, _Shape)
    if shape.choices is None and shape.events is not None:
        return wire.Stored
    return wire.Transcription if shape.choices is None and shape.text is not None else wire.ChatCompletion


def _only(choices: Sequence[wire.Choice]) -> wire.Choice:
    if len(choices) != 1:
        raise PayloadError(f"{len(choices)} choices; ask for one", code="payload.choices")
    return choices[0]


def read_stream(lines: Iterable[bytes], source: Source) -> Response:
    """Join the events of a stream.

    Raises:
        PayloadError: An event is not well formed, or the stream ends before the transcript does.
    """
    text, entries, ids, finish, model, done = [], [], [], None, "", False
    for line in lines:
        field, _, value = line.strip().partition(b":")
        if field != b"data" or not value.strip():
            continue
        if value.strip() == b"[DONE]":
            done = True
            break
        if b'"transcript.text.' in value[:200]:
            last = wire.decode(value, wire.TranscriptEvent)
            if last.type == "transcript.text.done":
                return _response(last.text or "", last.logprobs, source)
            continue
        event = wire.decode(value.strip(), wire.ChatCompletion)
        model = event.model or model
        if not event.choices:
            continue
        choice = _only(event.choices)
        text.append((choice.delta.content if choice.delta else None) or "")
        entries += (choice.logprobs.content if choice.logprobs else None) or []
        ids += choice.token_ids or []
        finish = choice.finish_reason or finish
    if finish is None or not done:
        raise PayloadError("the stream ends before the transcript does", code="payload.cut")
    return _response("".join(text), entries, source, ids=ids or None, finish=finish, model=model)


def _response(
    text: str,
    entries: Sequence[wire.Entry] | None,
    source: Source,
    *,
    ids: Sequence[int] | None = None,
    finish: str | None = "stop",
    model: str = "",
) -> Response:
    if not entries:
        message = "the response holds no log-probabilities; ask for `logprobs` and `top_logprobs`"
        raise PayloadError(message, code="payload.no_logprobs")
    if ids is not None and len(ids) != len(entries):
        raise PayloadError(f"{len(ids)} token ids for {len(entries)} log-probabilities", code="payload.contradiction")
    steps = [
        Step(
            chosen=_token(entry, source, ids[at] if ids is not None else None),
            top=tuple(_token(candidate, source) for candidate in entry.top_logprobs or ()),
        )
        for at, entry in enumerate(entries)
    ]
    return Response(text=text, steps=tuple(steps), finish=finish, model=model)


def _token(entry: wire.Candidate, source: Source, known: int | None = None) -> Token:
    text, data = entry.token, _bytes(entry)
    given = None
    if text.startswith(ID_PREFIX) and text.removeprefix(ID_PREFIX).isascii():
        given = _digits(text.removeprefix(ID_PREFIX))
    elif source == "gonka":
        given = _digits(text)
    if known is not None and given is not None and known != given:
        raise PayloadError(f"token id {known} beside {text!r}", code="payload.contradiction")
    value = float("nan") if entry.logprob is None or entry.logprob == SENTINEL else entry.logprob
    return Token(text=text, logprob=value, id=given if known is None else known, data=data)


def _digits(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


def is_numeric(step_tokens: Iterable[str]) -> bool:
    """Tell whether all tokens of a position are ids, as Gonka asks of a payload.

    Example:
        >>> is_numeric(["42", "1", "2"]), is_numeric(["42", "-5"])
        (True, False)
    """
    return all(_digits(text) is not None for text in step_tokens)


def _bytes(entry: wire.Candidate) -> bytes | None:
    """Return the token's bytes; None where the server has lost them."""
    given = entry.bytes
    if given and all(0 <= value <= 255 and value == math.floor(value) for value in given):
        data = bytes(int(value) for value in given)
        lost = REPLACEMENT in entry.token and data == entry.token.encode()
        return None if lost else data
    return None if REPLACEMENT in entry.token else entry.token.encode("utf-8", "surrogatepass")


def read_prompt_scores(data: bytes, count: int) -> tuple[Step, ...]:
    """Read vLLM's `prompt_logprobs`: what a model says of a given transcript at the end of the prompt.

    Args:
        data: The response.
        count: Number of tokens at the end of the prompt that are the transcript.

    Returns:
        One step per token; its chosen token is the first of its list, as vLLM orders them.

    Raises:
        PayloadError: The response is not well formed, or holds fewer positions.
    """
    found = wire.decode(data, wire.ChatCompletion).prompt_logprobs
    if not found or len(found) < count or count < 1:
        message = f"{len(found or [])} prompt log-probabilities; expected at least {max(1, count)}"
        raise PayloadError(message, code="payload.no_logprobs")
    return tuple(_prompt_step(position) for position in found[-count:])


def _prompt_step(position: Any) -> Step:
    if not position:
        raise PayloadError("a position of the prompt without log-probabilities", code="payload.no_logprobs")
    tokens = []
    for key, candidate in position.items():
        if (number := _digits(key)) is None:
            raise PayloadError(f"{key[:40]!r} is no token id", code="payload.malformed")
        missing = candidate.logprob is None or candidate.logprob == SENTINEL
        value = float("nan") if missing else candidate.logprob
        tokens.append(Token(text=candidate.decoded_token or key, logprob=value, id=number, data=None))
    return Step(chosen=tokens[0], top=tuple(tokens))
