"""Responses of other systems as evidence, and evidence in their format."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import msgspec

from earmark.errors import PayloadError, UsageError
from earmark.fingerprint.gonka import SENTINEL
from earmark.interop.response import Response, Source, Step, Token, read_response
from earmark.loading import family_of
from earmark.protocols import Model, Reported, SegmentInput, SegmentOutput
from earmark.recording import AudioLike, Clip, assemble, load_audio, segment_inputs
from earmark.records.evidence import Evidence
from earmark.records.policy import LISTED, Policy
from earmark.records.request import Request
from earmark.records.verdict import Verdict, unclear
from earmark.verification import provenance, verify


class Vocabulary:
    """From the tokens of a response to the ids of the reference, by what the server gives: ids, bytes, text.

    Args:
        model: The reference.

    Raises:
        UsageError: The model does not say what its tokens stand for.
    """

    def __init__(self, model: Any) -> None:
        """Number the reference's tokens by their bytes; those that several ids share belong to none."""
        table: Sequence[bytes] | None = getattr(model, "token_bytes", None)
        if table is None:
            raise UsageError(f"{model.info.name} does not tell the bytes of its tokens, so responses cannot be read")
        self._bytes = table
        self._ids: dict[bytes, int | None] = {}
        for i, data in enumerate(table):
            if data:
                self._ids[data] = None if data in self._ids else i

    def find(self, token: Token) -> int | None:
        """Return the id of a token, or None where it cannot be told."""
        if token.id is not None:
            return token.id
        return None if token.data is None else self._ids.get(token.data)

    def spell(self, ids: Sequence[int]) -> str:
        """Return the bytes of all ids, special tokens with their names, as text."""
        return b"".join(self._bytes[i] for i in ids if i < len(self._bytes)).decode("utf-8", "replace")


def reported(response: Response, vocabulary: Vocabulary) -> Reported:
    """Return a response in the ids of the reference.

    A list is cut before the first candidate whose id cannot be told: what is left is a shorter list, but a true one.
    The same candidate listed twice with one value counts once.

    Raises:
        PayloadError: An emitted token's id cannot be told.
    """
    ids = []
    for number, step in enumerate(response.steps):
        found = vocabulary.find(step.chosen)
        if found is None:
            message = f"token {number} of the response, {step.chosen.text[:40]!r}, is none of the reference's tokens"
            raise PayloadError(f"{message}; ask the server for token ids", code="token.unmapped")
        ids.append(found)
    return Reported(
        ids=tuple(ids),
        logprobs=tuple(step.chosen.logprob for step in response.steps),
        top=tuple(_list(step, own, vocabulary) for step, own in zip(response.steps, ids, strict=True)),
        k=min((len({(t.text, t.id, t.data, t.logprob) for t in step.top}) for step in response.steps), default=0),
        ended=response.finish == "stop",
    )


def _list(step: Step, own: int, vocabulary: Vocabulary) -> tuple[tuple[int, float], ...]:
    rows: list[tuple[int, float]] = []
    seen: set[tuple[int, float]] = set()
    ranked = sorted(step.top, key=lambda token: -token.logprob if not math.isnan(token.logprob) else math.inf)
    for token in ranked:
        found = vocabulary.find(token)
        if found is None:
            break
        if (found, token.logprob) not in seen:
            seen.add((found, token.logprob))
            rows.append((found, token.logprob))
    if len(rows) > 1 and rows[-1][0] == own:
        # servers put the emitted token among the best even where it is not one; then it bounds no other token
        rows.pop()
    return tuple(rows) or ((own, step.chosen.logprob),)


def to_output(response: Response, model: Model, item: SegmentInput) -> SegmentOutput:
    """Return what a server answered to one piece as the output of a provider.

    Raises:
        PayloadError: An emitted token's id cannot be told.
        UsageError: The family of the reference cannot read reports, or the model its tokens.
    """
    family: Any = family_of(model)
    if not hasattr(family, "reported"):
        raise UsageError(f"the {family.name} family cannot read what an API reports")
    vocabulary = Vocabulary(model)
    output: SegmentOutput = family.reported(model, item, reported(response, vocabulary))
    # a server shows special tokens or leaves them out, and may clean the text up; anything else is another text
    spelt = {output.text.strip(), vocabulary.spell(output.ids).strip(), vocabulary.spell(output.ids[:-1]).strip()}
    spelt |= {str(getattr(model, "raw_text", model.detokenise)(output.ids)).strip()}
    return output if response.text.strip() in spelt else dataclasses.replace(output, text=response.text)


def to_evidence(outputs: Sequence[SegmentOutput], names: Sequence[str], model: Model, clip: Clip) -> Evidence:
    """Put the outputs of all pieces of a clip together as evidence of the level `listed` that claims the reference."""
    made = assemble(model, clip, segment_inputs(clip, model), outputs, level="listed")
    name = next((name for name in names if name), "unnamed")
    return msgspec.structs.replace(made, claim=msgspec.structs.replace(made.claim, engine=f"API of {name}"[:200]))


def convert(data: bytes, source: Source, request: Request, audio: AudioLike, reference: Model) -> Evidence:
    """Read a stored response as evidence.

    Args:
        data: The response as the server sent it.
        source: Whose format it is: `openai`, `vllm` or `gonka`.
        request: What was asked.
        audio: The clip.
        reference: The verifier's own copy of the claimed model.

    Returns:
        Evidence of the level `listed`; a policy must accept that (`earmark.records.policy.LISTED`).

    Raises:
        PayloadError: The response cannot be read as evidence.
        UsageError: The clip is longer than the model's window, so that one response cannot be its transcript.
    """
    clip = Clip(audio=load_audio(audio), request=request)
    pieces = segment_inputs(clip, reference)
    if len(pieces) != 1:
        window = reference.info.window_samples / 16_000
        raise UsageError(f"the clip has {len(pieces)} pieces; one response covers at most {window:g} s, cut it first")
    response = read_response(data, source)
    return to_evidence([to_output(response, reference, pieces[0])], [response.model], reference, clip)


def verify_response(
    data: bytes,
    source: Source,
    request: Request,
    audio: AudioLike,
    reference: Model,
    *,
    policy: Policy | None = None,
    profile: str | None = None,
) -> Verdict:
    """Say whether the claimed model can have given a response.

    Args:
        data: The response as the server sent it.
        source: Whose format it is.
        request: What was asked.
        audio: The clip.
        reference: The verifier's own copy of the claimed model.
        policy: What is accepted; by default `LISTED`.
        profile: As in `earmark.verify`.

    Returns:
        The verdict; a response that cannot be read is INCONCLUSIVE, and the provider's fault.

    Raises:
        AudioError: The audio cannot be used.
        UsageError: The clip is longer than the model's window.
    """
    try:
        evidence = convert(data, source, request, audio, reference)
    except PayloadError as error:
        expected = "a response with log-probabilities of the reference's tokens"
        findings = (unclear(error.code, "provider", error, expected),)
        return Verdict(
            outcome="INCONCLUSIVE", proves="reconstructable", findings=findings, provenance=provenance(reference)
        )
    return verify(evidence, request, audio, reference, policy=policy or LISTED, profile=profile)


# Evidence in Gonka's format


def to_gonka(evidence: Evidence, model: Model, k: int = 5) -> dict[str, Any]:
    """Return evidence of one segment as the payload that Gonka's executors store.

    Args:
        evidence: Evidence with lists.
        model: The model whose family reads the traces.
        k: Candidates per position.

    Returns:
        A chat completion with ids in place of tokens.

    Raises:
        UsageError: The evidence has several segments, no request, or no lists.
    """
    family: Any = family_of(model)
    if len(evidence.segments) != 1 or evidence.request is None or not hasattr(family, "report"):
        raise UsageError("only evidence of one segment, with its request and of a family with lists, can be converted")
    segment = evidence.segments[0]
    report: Reported = family.report(family.read(segment, evidence.request, model, evidence.level))
    content = [
        _entry(i, value) | {"top_logprobs": [_entry(*pair) for pair in _ranked(i, value, top)[:k]]}
        for i, value, top in zip(report.ids, report.logprobs, report.top, strict=True)
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": evidence.text},
        "logprobs": {"content": content},
        "finish_reason": "stop" if report.ended else "length",
    }
    return {"object": "chat.completion", "model": evidence.claim.model, "choices": [choice]}


def _ranked(own: int, value: float, top: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Return the emitted token first, then the others, as Gonka orders them."""
    return [(own, value), *((i, v) for i, v in top if i != own)]


def _entry(i: int, value: float) -> dict[str, Any]:
    return {"token": str(i), "logprob": SENTINEL if math.isnan(value) else round(value, 8), "bytes": None}


def enforced_tokens(response: Response, end_id: int) -> dict[str, Any]:
    """Return what makes Gonka's vLLM replay a response: its tokens and candidates, and the end token.

    Args:
        response: A response with ids.
        end_id: The end token.

    Raises:
        PayloadError: A token has no id.

    Example:
        >>> one = Token(text="64", logprob=-0.1, id=64, data=None)
        >>> two = Token(text="9", logprob=-0.2, id=9, data=None)
        >>> response = Response(text="a", steps=(Step(chosen=one, top=(one, two)),), finish="stop", model="m")
        >>> enforced_tokens(response, 2)["tokens"]
        [{'token': '64', 'top_tokens': ['64', '9']}, {'token': '2', 'top_tokens': ['2']}]
    """
    rows = [{"token": _id(step.chosen), "top_tokens": [_id(token) for token in step.top]} for step in response.steps]
    if not rows or rows[-1]["token"] != str(end_id):
        rows.append({"token": str(end_id), "top_tokens": [str(end_id)]})
    return {"tokens": rows}


def _id(token: Token) -> str:
    if token.id is None:
        raise PayloadError(f"token {token.text[:40]!r} has no id", code="token.unmapped")
    return str(token.id)


def replay_request(body: dict[str, Any], response: Response, end_id: int) -> dict[str, Any]:
    """Return the request that replays a response: the original one with its tokens enforced.

    Args:
        body: The original request.
        response: What was answered to it.
        end_id: The end token.
    """
    lists = max((len(step.top) for step in response.steps), default=5)
    asked = {"logprobs": True, "top_logprobs": lists, "stream": False}
    return {**body, **asked, "enforced_tokens": enforced_tokens(response, end_id)}
