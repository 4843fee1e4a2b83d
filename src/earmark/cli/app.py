"""The commands."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark import __version__
from earmark.cli import PASSED, UNUSABLE, challenges, exit_code, files, openings, responses, show, texts
from earmark.errors import AudioError, UsageError

app = typer.Typer(
    name="earmark",
    help="Tells which speech-recognition model really transcribed your audio.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "EARMARK"},
)

app.add_typer(challenges.app, name="challenges")

# typer may bring its own copy of click, so the base of its errors is reached through one of them
CLICK_ERROR: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; by default cuda where there is one.")]
Dtype = Annotated[str, typer.Option(help="Claimed precision: float32, float16 or bfloat16.")]
BatchSize = Annotated[int, typer.Option(min=1, help="Segments at once.")]
Attention = Annotated[str, typer.Option(help="Attention kernel: sdpa or eager.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines in place of a table.")]
Language = Annotated[str | None, typer.Option(help="Language code; the model detects it by default.")]
Task = Annotated[str, typer.Option(help="transcribe or translate.")]
Prompt = Annotated[str, typer.Option(help="Text that precedes the transcript.")]
Beams = Annotated[int, typer.Option(help="More than 1 for beam search.")]
Temperature = Annotated[float, typer.Option(help="More than 0 for sampling.")]
Seed = Annotated[int, typer.Option(help="Seed of the sampling.")]
Timestamps = Annotated[bool, typer.Option(help="Let the model write time tokens.")]
Audio = Annotated[list[Path], typer.Argument(help="Files, folders or JSONL manifests.", show_default=False)]


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    try:
        code = app(arguments, prog_name="earmark", standalone_mode=False)
        return int(code or PASSED)
    except typer.Exit as leaving:
        return int(leaving.exit_code)
    except typer.Abort:
        return UNUSABLE
    except CLICK_ERROR as error:
        print(f"earmark: {error.format_message().rstrip('.')}; see `earmark --help`", file=sys.stderr)
        return UNUSABLE


def _version(wanted: bool) -> None:
    if wanted:
        print(f"earmark {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it.")] = False,
) -> None:
    """Tells which speech-recognition model really transcribed your audio."""


@app.command()
def canonicalise(
    source: Annotated[Path, typer.Argument(help="Any audio file.")],
    target: Annotated[Path, typer.Argument(help="Canonical FLAC to write: 16 kHz, mono, 16 bits.")],
    as_json: Json = False,
) -> int:
    """Write the canonical form of an audio file, the one whose digest both sides use."""
    from earmark.audio import canonicalise_file

    info = canonicalise_file(source, target)
    row = {"audio": str(target), "digest": info.digest, "samples": info.samples, "seconds": info.seconds}
    if as_json:
        show.json_line({**row, "lossless": info.lossless})
    else:
        print(f"{info.digest}  {target}  ({info.seconds:.2f} s)")
    return PASSED


def _decoding(beams: int, temperature: float, seed: int, timestamps: bool) -> Any:
    from earmark.records.request import Decoding

    strategy: Any = "beam" if beams > 1 else "sample" if temperature > 0 else "greedy"
    try:
        return Decoding(strategy=strategy, beams=beams, temperature=temperature, seed=seed, timestamps=timestamps)
    except ValueError as error:
        raise UsageError(str(error)) from error


@app.command()
def request(
    audio: Annotated[Path, typer.Argument(help="The clip.")],
    out: Annotated[Path, typer.Option(help="Where to write the request.")],
    language: Language = None,
    task: Task = "transcribe",
    prompt: Prompt = "",
    beams: Beams = 1,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    timestamps: Timestamps = False,
    as_json: Json = False,
) -> int:
    """Make the customer's request: which audio, how to transcribe it, and a fresh nonce."""
    import earmark

    made = earmark.request(
        audio,
        language=language,
        task=task,  # type: ignore[arg-type]  # checked when the request is made
        prompt=prompt,
        decoding=_decoding(beams, temperature, seed, timestamps),
    )
    made.save(out)
    if as_json:
        show.json_line({"request": str(out), "digest": made.digest(), "audio_digest": made.audio_digest})
    else:
        print(f"{made.digest()}  {out}")
    return PASSED


@app.command()
def record(
    model: Annotated[str, typer.Argument(help="embedded:NAME, a checkpoint folder or a hub id.")],
    audio: Audio,
    out: Annotated[Path, typer.Option(help="Evidence file for one clip, or a folder.")],
    request: Annotated[Path | None, typer.Option(help="The customer's request; for one clip.")] = None,
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
    from earmark.loading import load
    from earmark.recording import record_many

    found = files.find_audio(audio)
    alone = len(found) == 1
    suffix = ".msgpack" if level == "compact" else ".json"
    places = [files.targets(item.name, out, alone, suffix) for item in found]
    asked = _stored_request(request, alone)
    options = {"language": language, "task": task, "prompt": prompt}
    decoding = _decoding(beams, temperature, seed, timestamps)
    loaded = load(model, device=device, dtype=dtype, attention=attention)
    failures: list[str] = []
    kept: list[int] = []

    def clips() -> Iterator[Any]:
        for number, item in enumerate(found):
            try:
                clip = _clip(item.path, asked, {**options, "decoding": decoding})
            except AudioError as error:
                failures.append(str(error))
                continue
            kept.append(number)
            yield clip

    rows: list[list[str]] = []
    with show.progress("recording", len(found)) as step:
        settings: dict[str, Any] = {"k": k, "level": level, "batch_size": batch_size}
        if endpoint:
            asks = responses.endpoint_of(
                endpoint,
                served=served,
                api=api,
                server=server,
                stream=stream,
                timeout=timeout,
                k=k,
                key_variable=key_variable,
            )

            def failed(message: str) -> None:
                failures.append(f"{found[kept.pop()].name}: {message}")

            made = responses.record_from(asks, loaded, clips(), failed)
        else:
            made = record_many(loaded, clips(), **settings)
        for order, evidence in enumerate(made):
            item, place = found[kept[order]], places[kept[order]]
            _save(evidence, place)
            row = [item.name, str(len(evidence.segments)), evidence.text]
            if as_json:
                show.json_line({"audio": row[0], "evidence": str(place.evidence), "text": evidence.text})
            rows.append(row)
            step(1)
    for failure in failures:
        print(f"earmark: {failure}", file=sys.stderr)
    if rows and not as_json and not _is_stdout(places[0].evidence):
        show.table(("audio", "segments", "text"), rows)
    return UNUSABLE if failures else PASSED


def _is_stdout(path: Path) -> bool:
    return str(path) == "/dev/stdout"


def _stored_request(path: Path | None, alone: bool) -> Any:
    from earmark.records import codec
    from earmark.records.request import Request

    if path is None:
        return None
    if not alone:
        raise UsageError("--request names one request for many clips; record them one by one")
    return codec.load(path, Request)


def _clip(path: Path, asked: Any, options: dict[str, Any]) -> Any:
    import earmark
    from earmark.recording import Clip, load_audio

    audio = load_audio(path)
    return Clip(audio=audio, request=asked or earmark.request(audio, **options))


def _save(evidence: Any, place: files.Targets) -> None:
    """Write the records of one clip; the receipt, which commits to the evidence, last."""
    evidence.save(place.evidence)
    if place.request is not None and place.receipt is not None:
        evidence.request.save(place.request)
        evidence.receipt.save(place.receipt)


@app.command()
def audit(
    evidence: Annotated[list[str], typer.Argument(help="Opened evidence: files or folders.", show_default=False)],
    model: Annotated[str, typer.Option(help="The verifier's own copy of the claimed model.")],
    log: Annotated[Path, typer.Option(help="One line per clip; a killed audit goes on from it.")],
    audio: Annotated[Path | None, typer.Option(help="The folder of the clips.")] = None,
    request: Annotated[Path | None, typer.Option(help="The folder of the requests.")] = None,
    receipt: Annotated[Path | None, typer.Option(help="The folder of the stored receipts.")] = None,
    drawn: Annotated[Path | None, typer.Option(help="What `earmark draw` printed: all of it must be opened.")] = None,
    policy: Annotated[Path | None, typer.Option(help="What is accepted: `strict`, `listed`, or a file.")] = None,
    profile: Annotated[Path | None, typer.Option(help="Folder of a profile; by default the model's own.")] = None,
    level: Annotated[str, typer.Option(help="Level of the evidence, to find the profile.")] = "scores",
    rate: Annotated[float | None, typer.Option(help="Promised false-alarm rate; by default the profile's.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Factor by which honest noise may drift.")] = None,
    reexecute: Annotated[float, typer.Option(help="Share of the clips that are decoded again.")] = 0.0,
    seed: Annotated[str, typer.Option(help="The verifier's secret: which clips are decoded again.")] = "",
    stop: Annotated[bool, typer.Option(help="End as soon as the provider is found out.")] = True,
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    attention: Attention = "sdpa",
    as_json: Json = False,
) -> int:
    """Verify many openings of one provider and decide about it, at a guaranteed rate, as early as possible."""
    from earmark.cli.auditing import audit_openings

    options: dict[str, Any] = {"rate": rate, "tolerance": tolerance, "reexecute": reexecute, "seed": seed, "stop": stop}
    return audit_openings(
        evidence,
        model,
        log,
        places={"audio": audio, "request": request, "receipt": receipt, "drawn": drawn},
        policy=policy,
        profile=profile,
        level=level,
        settings={"device": device, "dtype": dtype, "attention": attention},
        options={**options, "batch_size": batch_size},
        as_json=as_json,
    )


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="embedded:NAME, a checkpoint folder or a hub id.")],
    audio: Audio,
    out: Annotated[Path, typer.Option(help="Folder of the profile.")],
    rate: Annotated[float | None, typer.Option(help="False-alarm rate of one clip; 1e-3 if it can be.")] = None,
    level: Annotated[str, typer.Option(help="Level of the evidence: scores or sketch.")] = "scores",
    language: Language = "en",
    tolerance: Annotated[float, typer.Option(min=1.0, help="Factor by which honest noise may drift.")] = 1.5,
    run: Annotated[Path | None, typer.Option(help="File of the measured rows; a killed run goes on from it.")] = None,
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    attention: Attention = "sdpa",
    as_json: Json = False,
) -> int:
    """Measure honest behaviour on many clips and write a profile with a guaranteed false-alarm rate."""
    from earmark.cli.calibration import make_profile

    return make_profile(
        model,
        files.find_audio(audio),
        out,
        run=run,
        rate=rate,
        level=level,
        language=language,
        tolerance=tolerance,
        batch_size=batch_size,
        settings={"device": device, "dtype": dtype, "attention": attention},
        as_json=as_json,
    )


@app.command()
def draw(
    receipts: Annotated[list[Path], typer.Argument(help="Receipt files, their folders, or lists of short receipts.")],
    seed_file: Annotated[Path, typer.Option(help="At least 16 secret bytes, chosen before and kept.")],
    count: Annotated[int | None, typer.Option(min=0, help="How many to draw.")] = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Which share to draw, without --count.")] = 0.05,
    as_json: Json = False,
) -> int:
    """Draw the receipts whose evidence the provider must open, after all of them were handed in."""
    from earmark.cli.files import find_receipts
    from earmark.records import receipt

    found = find_receipts(receipts)
    wanted = math.ceil(share * len(found)) if count is None else count
    for i in receipt.draw([item.commitment for _, item in found], _secret(seed_file), wanted):
        name, item = found[i]
        if as_json:
            show.json_line({"receipt": name, "token": item.token, "commitment": item.commitment})
        else:
            print(f"{item.token}  {name}")
    return PASSED


def _secret(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; write at least 16 random bytes there") from error


@app.command()
def verify(
    evidence: Annotated[
        list[str], typer.Argument(help="Evidence files or folders; with --text transcripts.", show_default=False)
    ],
    model: Annotated[str, typer.Option(help="The verifier's own copy of the claimed model.")],
    audio: Annotated[Path | None, typer.Option(help="The clip, or the folder of the clips.")] = None,
    request: Annotated[Path | None, typer.Option(help="The customer's request, or their folder.")] = None,
    receipt: Annotated[Path | None, typer.Option(help="The stored receipt, or their folder.")] = None,
    policy: Annotated[Path | None, typer.Option(help="What is accepted: `strict`, `listed`, or a file.")] = None,
    drawn: Annotated[Path | None, typer.Option(help="What `earmark draw` printed: all of it must be opened.")] = None,
    source: Annotated[
        str, typer.Option("--from", help="Whose format: earmark, or stored responses of openai, vllm, gonka.")
    ] = "earmark",
    text: Annotated[bool, typer.Option("--text", help="Judge text alone: words, or .txt and .json files.")] = False,
    language: Language = None,
    profile: Annotated[str | None, typer.Option(help="Folder of a profile, `provisional`, or `rules`.")] = None,
    mode: Annotated[str, typer.Option(help="replay, or reexecute to decode again as well.")] = "replay",
    attribution: Annotated[str, typer.Option(help="Name the cheat: never, on_fail or always.")] = "on_fail",
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    attention: Attention = "sdpa",
    as_json: Json = False,
) -> int:
    """Say of each evidence whether the claimed model can have made it: PASS, FAIL or INCONCLUSIVE."""
    from earmark.loading import load
    from earmark.records.policy import load_policy
    from earmark.verification import verify_many

    settings = {"device": device, "dtype": dtype, "attention": attention}
    if source != "earmark":
        return responses.verify_responses(
            evidence,
            source,
            model,
            audio=audio,
            request=request,
            policy=policy,
            profile=profile,
            language=language,
            as_json=as_json,
            settings=settings,
        )
    if text:
        return texts.verify_texts(evidence, model, audio, request, language, batch_size, as_json, settings)
    found, cases = openings.cases_of(evidence, audio, request, receipt, drawn)
    alone = len(found) == 1
    rules = load_policy(policy) if policy else None
    arithmetic = None if mode == "reexecute" else "float32"
    reference = load(model, device=device, dtype=dtype, arithmetic=arithmetic, attention=attention)
    rows, outcomes = [], set()
    with show.progress("verifying", len(cases)) as step:
        verdicts = verify_many(
            cases,
            reference,
            policy=rules,
            profile=profile,
            mode=mode,  # type: ignore[arg-type]  # checked by verify_many
            attribution=attribution,  # type: ignore[arg-type]  # checked by verify_many
            batch_size=batch_size,
            advance=step,
        )
        for item, verdict in zip(found, verdicts, strict=True):
            outcomes.add(verdict.outcome)
            rows.append(show.verdict_cells(item.name, verdict))
            if as_json:
                show.json_line(show.verdict_row(str(item.path), verdict))
            last = verdict
    if not as_json:
        show.verdicts(rows, last if alone else None)
    return exit_code(outcomes)


app.command()(responses.convert)


def _plugins(kind: str, as_json: bool, extra: dict[str, list[str]] | None = None) -> int:
    from earmark.registry import registry

    plugins = registry(kind).inspect_all()
    rows = [
        {
            "name": plugin.name,
            "summary": getattr(plugin.value, "summary", None) or (plugin.value.__doc__ or "").split("\n")[0]
            if plugin.error is None
            else "",
            "origin": " and ".join(plugin.origins),
            "error": plugin.error,
        }
        for plugin in plugins
    ]
    if as_json:
        for row in rows:
            show.json_line(row)
        return PASSED
    cells = [[str(row["name"]), str(row["error"] or row["summary"]), str(row["origin"])] for row in rows]
    show.table((kind, "what it is", "from"), cells)
    for title, names in (extra or {}).items():
        print(f"{title}: {', '.join(names) or 'none'}")
    return PASSED


@app.command()
def families(as_json: Json = False) -> int:
    """List the architecture families that can be verified, and plugins that do not load."""
    return _plugins("family", as_json)


@app.command()
def models(as_json: Json = False) -> int:
    """List the model families that can be loaded, and the models that ship with earmark."""
    from earmark.checkpoint import EMBEDDED, embedded_names

    return _plugins("model", as_json, {"shipped with earmark": [f"{EMBEDDED}{name}" for name in embedded_names()]})


@app.command()
def scenarios(as_json: Json = False) -> int:
    """List the simulated providers."""
    return _plugins("scenario", as_json)


@app.command()
def doctor(as_json: Json = False) -> int:
    """Check this installation: versions, devices, plugins, embedded models."""
    from earmark.cli.doctor import examine

    checks = examine()
    if as_json:
        for check in checks:
            show.json_line(check)
    else:
        show.table(("check", "state", "detail"), [[c["check"], c["state"], c["detail"]] for c in checks])
    return UNUSABLE if any(check["state"] == "broken" for check in checks) else PASSED
