"""The commands."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark import __version__
from earmark.cli import FAILED, INCONCLUSIVE, PASSED, UNUSABLE, files, show
from earmark.errors import AudioError, UsageError

app = typer.Typer(
    name="earmark",
    help="Tells which speech-recognition model really transcribed your audio.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "EARMARK"},
)

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
    level: Annotated[str, typer.Option(help="scores, or sketch to add hidden states.")] = "scores",
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
    as_json: Json = False,
) -> int:
    """Transcribe clips and write evidence, receipt and request of each."""
    from earmark.loading import load
    from earmark.recording import record_many

    found = files.find_audio(audio)
    alone = len(found) == 1
    places = [files.targets(item.name, out, alone) for item in found]
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
        for order, evidence in enumerate(record_many(loaded, clips(), **settings)):
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
    evidence: Annotated[list[Path], typer.Argument(help="Evidence files or folders.", show_default=False)],
    model: Annotated[str, typer.Option(help="The verifier's own copy of the claimed model.")],
    audio: Annotated[Path | None, typer.Option(help="The clip, or the folder of the clips.")] = None,
    request: Annotated[Path | None, typer.Option(help="The customer's request, or their folder.")] = None,
    receipt: Annotated[Path | None, typer.Option(help="The stored receipt, or their folder.")] = None,
    policy: Annotated[Path | None, typer.Option(help="What is accepted: `strict`, or a file (TOML, JSON).")] = None,
    profile: Annotated[str | None, typer.Option(help="`provisional` for documented bounds.")] = None,
    mode: Annotated[str, typer.Option(help="replay, or reexecute to decode again as well.")] = "replay",
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    attention: Attention = "sdpa",
    as_json: Json = False,
) -> int:
    """Say of each evidence whether the claimed model can have made it: PASS, FAIL or INCONCLUSIVE."""
    from earmark.loading import load
    from earmark.records.policy import load_policy
    from earmark.rules import Case
    from earmark.verification import verify_many

    found = files.find_evidence(evidence)
    alone = len(found) == 1
    cases = [
        Case(
            evidence=item.path,
            audio=files.audio_of(item, audio, alone),
            request=files.record_of(item, request, "request", alone),
            receipt=files.record_of(item, receipt, "receipt", alone),
        )
        for item in found
    ]
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
        _print_verdicts(rows, last if alone else None)
    return FAILED if "FAIL" in outcomes else INCONCLUSIVE if "INCONCLUSIVE" in outcomes else PASSED


def _print_verdicts(rows: list[list[str]], alone: Any) -> None:
    if alone is not None:
        print(alone)
        return
    show.table(show.VERDICT_COLUMNS, rows)
    counts = {outcome: sum(row[1] == outcome for row in rows) for outcome in ("PASS", "FAIL", "INCONCLUSIVE")}
    print(", ".join(f"{count} {outcome}" for outcome, count in counts.items()))


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
