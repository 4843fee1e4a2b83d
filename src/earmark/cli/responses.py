"""What other systems answered: `earmark verify --from`, `earmark convert`, `earmark record --endpoint`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.cli import PASSED, files, show
from earmark.cli.files import Named
from earmark.cli.options import Device, Dtype
from earmark.errors import EndpointError, PayloadError, UsageError
from earmark.interop import convert as interop
from earmark.interop.endpoint import APIS, Endpoint, finding_of, record_endpoint
from earmark.interop.response import SOURCES, Response, read_response
from earmark.records import codec
from earmark.records.evidence import Evidence, load_evidence
from earmark.records.policy import load_policy
from earmark.records.unanswered import Unanswered

KEY_VARIABLE = "EARMARK_API_KEY"


def _one_of(name: str, value: str, known: Sequence[str]) -> Any:
    if value not in known:
        raise UsageError(f"{name} {value!r}; known: {', '.join(known)}")
    return value


def _asked(request: Path | None, audio: Path, language: str | None) -> Any:
    """Return the stored request, or one that asks for nothing but the language."""
    import earmark
    from earmark.records.request import Request

    return codec.load(request, Request) if request else earmark.request(audio, language=language)


def verify_responses(
    given: Sequence[str],
    source: str,
    model: str,
    *,
    audio: Path | None,
    request: Path | None,
    policy: Path | None,
    profile: str | None,
    language: str | None,
    as_json: bool,
    settings: dict[str, Any],
) -> int:
    """Judge stored responses, print the verdicts and return the exit code."""
    from earmark.loading import load

    kind = _one_of("--from", source, SOURCES)
    found = [Named(Path(entry), Path(entry).name.removesuffix(".json")) for entry in given]
    alone = len(found) == 1
    clips = [files.audio_of(item, audio, alone) for item in found]
    asked = [files.request_of(item, request, alone) for item in found]
    rules = load_policy(policy) if policy else None
    reference = load(model, arithmetic="float32", **settings)
    shown = show.Verdicts(as_json=as_json)
    with show.progress("verifying", len(found)) as step:
        for item, clip, path in zip(found, clips, asked, strict=True):
            bound, data = _asked(path, clip, language), codec.read_bytes(item.path)
            verdict = interop.verify_response(data, kind, bound, clip, reference, policy=rules, profile=profile)
            shown.add(item.name, str(item.path), verdict)
            step(1)
    return shown.finish()


def convert(
    source: Annotated[Path, typer.Argument(help="A stored response, or evidence of earmark.")],
    target: Annotated[Path, typer.Argument(help="What to write.")],
    model: Annotated[str, typer.Option(help="The verifier's own copy of the claimed model; its tokens are needed.")],
    from_: Annotated[str, typer.Option("--from", help="earmark, openai, vllm or gonka.")] = "earmark",
    to: Annotated[str, typer.Option(help="earmark, gonka, or enforced (the request of Gonka's replay).")] = "earmark",
    audio: Annotated[Path | None, typer.Option(help="The clip; needed to write evidence.")] = None,
    request: Annotated[Path | None, typer.Option(help="The customer's request.")] = None,
    language: Annotated[str | None, typer.Option(help="Language code, without a request.")] = None,
    device: Device = None,
    dtype: Dtype = "float32",
) -> int:
    """Turn a response of another system into evidence, or evidence into Gonka's formats."""
    from earmark.loading import load

    kind = _one_of("--from", from_, ("earmark", *SOURCES))
    goal = _one_of("--to", to, ("earmark", "gonka", "enforced"))
    if (kind == "earmark") == (goal == "earmark"):
        raise UsageError(f"from {kind} to {goal} there is nothing to convert; one side is earmark")
    reference: Any = load(model, device=device, dtype=dtype)
    data = codec.read_bytes(source)
    if goal == "earmark":
        if audio is None:
            raise UsageError("name the clip with --audio; evidence holds its boundaries")
        interop.convert(data, kind, _asked(request, audio, language), audio, reference).save(target)
        return PASSED
    evidence = load_evidence(data)
    if not isinstance(evidence, Evidence):
        raise UsageError("compact evidence holds no lists; convert evidence of the level scores")
    payload = interop.to_gonka(evidence, reference)
    if goal == "enforced":
        response: Response = read_response(json.dumps(payload).encode(), "gonka")
        payload = interop.enforced_tokens(response, reference.end_id)
    codec.write_atomically(target, json.dumps(payload, indent=1).encode() + b"\n")
    return PASSED


def endpoint_of(
    url: str, *, served: str | None, api: str, server: str, stream: bool, timeout: float, k: int, key_variable: str
) -> Endpoint:
    """Return the server that the options name; its key comes from the environment."""
    if not served:
        raise UsageError("name the model as the server knows it with --served")
    return Endpoint(
        url=url,
        model=served,
        api=_one_of("--api", api, APIS),
        source=_one_of("--server", server, ("vllm", "openai")),
        key=os.environ.get(key_variable) or None,
        k=k,
        stream=stream,
        timeout_s=timeout,
    )


def record_from(
    endpoint: Endpoint, reference: Any, clips: Iterator[Any], failed: Callable[[Unanswered], None]
) -> Iterator[Evidence]:
    """Let a server transcribe clips; one that it does not answer is reported, and the others go on."""
    for clip in clips:
        try:
            yield record_endpoint(endpoint, clip.request, clip.audio, reference)
        except (EndpointError, PayloadError) as error:
            failed(Unanswered.of(finding_of(error), clip.request))
