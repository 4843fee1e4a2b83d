"""Evidence from a server that speaks the OpenAI format: the audio goes out, the log-probabilities come back."""

from __future__ import annotations

import base64
import io
import json
import secrets
import wave
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.interop.convert import to_evidence, to_output
from earmark.interop.http import post
from earmark.interop.response import Response, Source, read_response
from earmark.protocols import Model, SegmentInput
from earmark.recording import AudioLike, Clip, load_audio, segment_inputs
from earmark.records.evidence import Evidence
from earmark.records.request import Request
from earmark.records.verdict import Finding, unclear

Api = Literal["chat", "transcriptions"]
APIS: tuple[Api, ...] = ("chat", "transcriptions")
PATHS: dict[Api, str] = {"chat": "chat/completions", "transcriptions": "audio/transcriptions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A server and how to ask it.

    Attributes:
        url: Its address up to the version, for instance `http://localhost:8000/v1`.
        model: Name of the model as the server knows it.
        api: `chat` (the audio as `input_audio`) or `transcriptions`.
        source: `vllm` asks for token ids as well, which other servers refuse.
        key: Key that is sent along, or None.
        k: Candidates to ask for at every position.
        stream: Whether the answer comes in pieces.
        timeout_s: Seconds for one piece of audio.
    """

    url: str
    model: str
    api: Api = "chat"
    source: Source = "vllm"
    key: str | None = None
    k: int = 8
    stream: bool = False
    timeout_s: float = 120.0


def record_endpoint(endpoint: Endpoint, request: Request, audio: AudioLike, reference: Model) -> Evidence:
    """Let a server transcribe a clip and write down the evidence that its answers hold.

    Args:
        endpoint: The server.
        request: What is asked; only greedy decoding can be asked for.
        audio: The clip; each of its pieces is one call.
        reference: The verifier's own copy of the claimed model; it is not run, its tokens are needed.

    Returns:
        Evidence of the level `listed`.

    Raises:
        EndpointError: The server cannot be reached, refuses, takes too long or breaks off.
        PayloadError: Its answer holds no log-probabilities of the reference's tokens.
        UsageError: The request asks what cannot be asked of a server.
    """
    clip = Clip(audio=load_audio(audio), request=request)
    if request.audio_digest != clip.audio.digest:
        raise UsageError("the request is for other audio; make a request for this audio")
    if request.decoding.strategy != "greedy" or request.decoding.timestamps or request.task != "transcribe":
        raise UsageError("a server can only be asked for a greedy transcript without time tokens")
    pieces = segment_inputs(clip, reference)
    answers = [ask(endpoint, item, reference) for item in pieces]
    outputs = [to_output(answer, reference, item) for answer, item in zip(answers, pieces, strict=True)]
    return to_evidence(outputs, [answer.model for answer in answers], reference, clip)


def ask(endpoint: Endpoint, item: SegmentInput, reference: Model) -> Response:
    """Send one piece of audio and read the answer."""
    kind, body = _chat(endpoint, item, reference) if endpoint.api == "chat" else _form(endpoint, item)
    headers = {"Content-Type": kind, "Accept": "text/event-stream" if endpoint.stream else "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    url = f"{endpoint.url.rstrip('/')}/{PATHS[endpoint.api]}"
    return read_response(post(url, body, headers, timeout_s=endpoint.timeout_s), endpoint.source)


def finding_of(error: Any) -> Finding:
    """Return a failure to get evidence as a finding: never a FAIL, and never a PASS.

    Args:
        error: EndpointError or PayloadError.
    """
    return unclear(error.code, getattr(error, "fault", "provider"), error, "an answer with log-probabilities")


def wav(samples: NDArray[np.int16]) -> bytes:
    """Return canonical samples as a WAV file, 16 kHz mono int16.

    Example:
        >>> len(wav(np.zeros(10, np.int16)))
        64
    """
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def _chat(endpoint: Endpoint, item: SegmentInput, reference: Any) -> tuple[str, bytes]:
    audio = {"data": base64.b64encode(wav(item.samples)).decode(), "format": "wav"}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [{"type": "input_audio", "input_audio": audio}]},
    ]
    if item.request.prompt:
        messages.insert(0, {"role": "system", "content": item.request.prompt})
    body: dict[str, Any] = {
        "model": endpoint.model,
        "messages": messages,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": endpoint.k,
        "stream": endpoint.stream,
    }
    if endpoint.source == "vllm":
        body |= {"return_token_ids": True, "return_tokens_as_token_ids": True}
    if item.request.language:
        prefix = getattr(reference, "answer_prefix", None)
        if prefix is None or endpoint.source != "vllm":
            raise UsageError("a chat cannot be told the language here; leave it open, or use --api transcriptions")
        messages.append({"role": "assistant", "content": prefix(item.request.language)})
        body |= {"continue_final_message": True, "add_generation_prompt": False}
    return "application/json", json.dumps(body).encode()


def _form(endpoint: Endpoint, item: SegmentInput) -> tuple[str, bytes]:
    """Return the audio and what is asked as a multipart form."""
    asked = item.request
    fields = {"model": endpoint.model, "response_format": "json", "temperature": "0", "include[]": "logprobs"}
    fields |= {"language": asked.language} if asked.language else {}
    fields |= {"prompt": asked.prompt} if asked.prompt else {}
    fields |= {"stream": "true"} if endpoint.stream else {}
    if endpoint.source == "vllm":
        fields |= {"logprobs": "true", "top_logprobs": str(endpoint.k)}
    border = f"earmark-{secrets.token_hex(16)}"
    head = f'--{border}\r\nContent-Disposition: form-data; name="'
    parts = [f'{head}{name}"\r\n\r\n{value}\r\n'.encode() for name, value in fields.items()]
    parts.append(f'{head}file"; filename="audio.wav"\r\nContent-Type: audio/wav\r\n\r\n'.encode())
    parts += [wav(item.samples), f"\r\n--{border}--\r\n".encode()]
    return f"multipart/form-data; boundary={border}", b"".join(parts)
