"""What a provider does, and its customer before: `earmark canonicalise`, `earmark request`, `earmark record`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.audio import canonicalise_file
from earmark.cli import PASSED, UNUSABLE, bundling, files, responses, show
from earmark.cli.files import Named
from earmark.cli.options import (
    Attention,
    Audio,
    BatchSize,
    Beams,
    Checkpoint,
    Device,
    Dtype,
    Json,
    Language,
    Prompt,
    Seed,
    Task,
    Temperature,
    Timestamps,
    loading,
)
from earmark.errors import AudioError, UsageError
from earmark.loading import load
from earmark.recording import Clip, load_audio, record_many
from earmark.recording import request as ask
from earmark.records import codec
from earmark.records.evidence import Evidence
from earmark.records.request import Decoding, Request
from earmark.records.unanswered import Unanswered


def canonicalise(
    source: Annotated[Path, typer.Argument(help="Any audio file.")],
    target: Annotated[Path, typer.Argument(help="Canonical FLAC to write: 16 kHz, mono, 16 bits.")],
    as_json: Json = False,
) -> int:
    """Write the canonical form of an audio file, the one whose digest both sides use."""
    info = canonicalise_file(source, target)
    row = {"audio": str(target), "digest": info.digest, "samples": info.samples, "seconds": info.seconds}
    if as_json:
        show.json_line({**row, "lossless": info.lossless})
    else:
        print(f"{info.digest}  {target}  ({info.seconds:.2f} s)")
    return PASSED


def request(
    audio: Audio,
    out: Annotated[Path, typer.Option(help="Where to write the request of one clip, or a folder.")],
    language: Language = None,
    task: Task = "transcribe",
    prompt: Prompt = "",
    beams: Beams = 1,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    timestamps: Timestamps = False,
    as_json: Json = False,
) -> int:
    """Make the customer's requests: which audio, how to transcribe it, and a fresh nonce each."""
    found = files.find_audio(audio)
    places = [files.request_target(item.name, out, len(found) == 1) for item in found]
    decoding = _decoding(beams, temperature, seed, timestamps)
    with show.progress("requests", len(found)) as step:
        for item, place in zip(found, places, strict=True):
            made = ask(
                item.path,
                language=language,
                task=task,  # type: ignore[arg-type]  # checked when the request is made
                prompt=prompt,
                decoding=decoding,
            )
            made.save(place)
            if as_json:
                show.json_line({"request": str(place), "digest": made.digest(), "audio_digest": made.audio_digest})
            else:
                print(f"{made.digest()}  {place}")
            step(1)
    return PASSED


def record(
    model: Checkpoint,
    audio: Audio,
    out: Annotated[Path | None, typer.Option(help="Evidence file for one clip, or a folder.")] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Folder for a bundle, to compare machines, in place of --out.")
    ] = None,
    request: Annotated[
        Path | None, typer.Option(help="The customer's request, or the folder that holds those of many clips.")
    ] = None,
    k: Annotated[int, typer.Option(help="Listed tokens per position.")] = 8,
    level: Annotated[str, typer.Option(help="scores; sketch to add hidden states; compact for 1 KB.")] = "scores",
    language: Language = None,
    task: Task = "transcribe",
    prompt: Prompt = "",
    beams: Beams = 1,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    timestamps: Timestamps = False,
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    attention: Attention = "sdpa",
    endpoint: Annotated[str | None, typer.Option(help="Let this server transcribe, http://HOST:PORT/v1.")] = None,
    served: Annotated[str | None, typer.Option(help="Name of the model at the server.")] = None,
    api: Annotated[str, typer.Option(help="Which call of the server: chat or transcriptions.")] = "chat",
    server: Annotated[str, typer.Option(help="vllm (asks for token ids) or openai.")] = "vllm",
    stream: Annotated[bool, typer.Option("--stream", help="Let the server answer in pieces.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds for one piece of audio.")] = 120.0,
    key_variable: Annotated[str, typer.Option(help="Environment variable with the server's key.")] = "EARMARK_API_KEY",
    as_json: Json = False,
) -> int:
    """Transcribe clips and write evidence, receipt and request of each."""
    if bundle is not None:
        own = loading(device, dtype, attention)
        return bundling.record_bundle(model, audio, bundle, level, language, batch_size, settings=own, as_json=as_json)
    if out is None:
        raise UsageError("say with --out where the evidence goes, or with --bundle where a bundle goes")
    found = files.find_audio(audio)
    alone = len(found) == 1
    suffix = ".msgpack" if level == "compact" else ".json"
    places = [files.targets(item.name, out, alone, suffix) for item in found]
    options = {"language": language, "task": task, "prompt": prompt}
    decoding = _decoding(beams, temperature, seed, timestamps)
    clips = _Clips(found, _stored_requests(found, request), {**options, "decoding": decoding})
    asks = endpoint and responses.endpoint_of(
        endpoint, served=served, api=api, server=server, stream=stream, timeout=timeout, k=k, key_variable=key_variable
    )
    loaded = load(model, **loading(device, dtype, attention))
    settings: dict[str, Any] = {"k": k, "level": level, "batch_size": batch_size}
    rows: list[list[str]] = []
    with show.progress("recording", len(found)) as step:

        def unanswered(note: Unanswered) -> None:
            place = files.note_of(places[clips.fail(f"{note.code}: {note.found}")])
            if place is not None:
                note.save(place)

        made = (
            responses.record_from(asks, loaded, iter(clips), unanswered)
            if asks
            else record_many(loaded, clips, **settings)
        )
        for order, evidence in enumerate(made):
            item, place = found[clips.kept[order]], places[clips.kept[order]]
            _save(evidence, place)
            if as_json:
                show.json_line({"audio": item.name, "evidence": str(place.evidence), "text": evidence.text})
            rows.append([item.name, str(len(evidence.segments)), evidence.text])
            step(1)
    for failure in clips.failures:
        print(f"earmark: {failure}", file=sys.stderr)
    if rows and not as_json and not _is_stdout(places[0].evidence):
        show.table(("audio", "segments", "text"), rows)
    return UNUSABLE if clips.failures else PASSED


class _Clips:
    """The clips of some files, one after the other; what cannot be read or recorded is left out and named."""

    def __init__(self, found: Sequence[Named], asked: Sequence[Request | None], options: dict[str, Any]) -> None:
        self._found = found
        self._asked = asked
        self._options = options
        self.kept: list[int] = []
        self.failures: list[str] = []

    def __iter__(self) -> Iterator[Clip]:
        """Read one file after the other; `kept` says of each clip which file it is."""
        for number, item in enumerate(self._found):
            try:
                audio = load_audio(item.path)
                clip = Clip(audio=audio, request=self._asked[number] or ask(audio, **self._options))
            except AudioError as error:
                self.failures.append(str(error))
                continue
            self.kept.append(number)
            yield clip

    def fail(self, message: str) -> int:
        """Leave out the clip that was handed out last, and return which file it is."""
        number = self.kept.pop()
        self.failures.append(f"{self._found[number].name}: {message}")
        return number


def _decoding(beams: int, temperature: float, seed: int, timestamps: bool) -> Decoding:
    strategy: Any = "beam" if beams > 1 else "sample" if temperature > 0 else "greedy"
    try:
        return Decoding(strategy=strategy, beams=beams, temperature=temperature, seed=seed, timestamps=timestamps)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _is_stdout(path: Path) -> bool:
    return str(path) == "/dev/stdout"


def _stored_requests(found: Sequence[Named], given: Path | None) -> list[Request | None]:
    """Return the customer's request of each clip; None where there are none."""
    places = [files.request_of(item, given, len(found) == 1) for item in found]
    return [None if place is None else codec.load(place, Request) for place in places]


def _save(evidence: Evidence, place: files.Targets) -> None:
    """Write the records of one clip; the receipt, which commits to the evidence, last."""
    evidence.save(place.evidence)
    note = files.note_of(place)
    if note is not None:
        note.unlink(missing_ok=True)  # it was answered now
    if place.request is not None and place.receipt is not None and evidence.request is not None:
        evidence.request.save(place.request)
        evidence.receipt.save(place.receipt)
