"""The wire format of OpenAI-compatible servers, as far as it is read: every field optional, every size bounded."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from earmark.errors import PayloadError

MAX_TOKENS = 100_000
MAX_TOP = 1024
MAX_EVENTS = 1_000_000

Text = Annotated[str, msgspec.Meta(max_length=1_000_000)]
Bytes = Annotated[list[int | float], msgspec.Meta(max_length=4096)]
Id = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class Candidate(msgspec.Struct, frozen=True):
    """One token of a list, by its text, and its log-probability."""

    token: Text
    logprob: float | None = None
    bytes: Bytes | None = None


class Entry(Candidate, frozen=True):
    """One emitted token with the most probable ones in its place."""

    top_logprobs: Annotated[list[Candidate], msgspec.Meta(max_length=MAX_TOP)] | None = None


class Entries(msgspec.Struct, frozen=True):
    """The log-probabilities of a choice."""

    content: Annotated[list[Entry], msgspec.Meta(max_length=MAX_TOKENS)] | None = None


class Message(msgspec.Struct, frozen=True):
    """What the model wrote, whole or as a piece of a stream."""

    content: Text | None = None


class Choice(msgspec.Struct, frozen=True):
    """One answer; a stream has `delta` in place of `message`."""

    index: int = 0
    message: Message | None = None
    delta: Message | None = None
    logprobs: Entries | None = None
    finish_reason: str | None = None
    token_ids: Annotated[list[Id], msgspec.Meta(max_length=MAX_TOKENS)] | None = None


class PromptCandidate(msgspec.Struct, frozen=True):
    """One token at a position of the prompt, listed by its id."""

    logprob: float | None = None
    decoded_token: str | None = None


PromptPosition = Annotated[dict[str, PromptCandidate], msgspec.Meta(max_length=MAX_TOP)] | None


class ChatCompletion(msgspec.Struct, frozen=True):
    """A chat completion, or one event of a streamed one."""

    choices: Annotated[list[Choice], msgspec.Meta(max_length=128)]
    model: str | None = None
    prompt_logprobs: Annotated[list[PromptPosition], msgspec.Meta(max_length=MAX_TOKENS)] | None = None


class Transcription(msgspec.Struct, frozen=True):
    """What a transcriptions endpoint answers; lists of candidates are not part of it."""

    text: Text
    logprobs: Annotated[list[Entry], msgspec.Meta(max_length=MAX_TOKENS)] | None = None


class TranscriptEvent(msgspec.Struct, frozen=True):
    """One event of a streamed transcription; the last one holds everything."""

    type: str
    text: Text | None = None
    logprobs: Annotated[list[Entry], msgspec.Meta(max_length=MAX_TOKENS)] | None = None


class Stored(msgspec.Struct, frozen=True):
    """A stream that was stored as the list of its lines."""

    events: Annotated[list[Text], msgspec.Meta(max_length=MAX_EVENTS)]


def decode(data: bytes | str, kind: Any) -> Any:
    """Decode one JSON value.

    Raises:
        PayloadError: It is not well formed.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise PayloadError(f"not a {kind.__name__} of the OpenAI format: {reason}", code="payload.malformed") from error
