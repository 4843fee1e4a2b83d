"""What a customer does with evidence: `earmark draw`, `earmark verify`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from earmark import budget as budgets
from earmark.cli import PASSED, files, openings, responses, show, texts
from earmark.cli.options import (
    Attention,
    BatchSize,
    Budget,
    BudgetLeast,
    ClipAudio,
    Delivered,
    Depth,
    Device,
    Drawn,
    Dtype,
    Json,
    Language,
    Policy,
    Reference,
    StoredReceipt,
    StoredRequest,
    loading,
)
from earmark.errors import UsageError
from earmark.loading import load
from earmark.records import lines
from earmark.records.policy import load_policy
from earmark.records.receipt import draw as draw_receipts
from earmark.verification import verify_many


def draw(
    receipts: Annotated[list[Path], typer.Argument(help="Receipt files, their folders, or lists of short receipts.")],
    seed_file: Annotated[Path, typer.Option(help="At least 16 secret bytes, chosen before and kept.")],
    count: Annotated[int | None, typer.Option(min=0, help="How many to draw.")] = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Which share to draw, without --count.")] = 0.05,
    as_json: Json = False,
) -> int:
    """Draw the receipts whose evidence the provider must open, after all of them were handed in."""
    found = files.find_receipts(receipts)
    wanted = math.ceil(share * len(found)) if count is None else count
    for i in draw_receipts([item.commitment for _, item in found], _secret(seed_file), wanted):
        name, item = found[i]
        if as_json:
            show.json_line({"receipt": name, "token": item.token, "commitment": item.commitment})
        else:
            print(f"{item.token}  {lines.plain(name)}")
    return PASSED


def _secret(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; write at least 16 random bytes there") from error


def verify(
    evidence: Annotated[
        list[str], typer.Argument(help="Evidence files or folders; with --text transcripts.", show_default=False)
    ],
    model: Reference,
    audio: ClipAudio = None,
    request: StoredRequest = None,
    receipt: StoredReceipt = None,
    transcript: Delivered = None,
    policy: Policy = None,
    drawn: Drawn = None,
    source: Annotated[
        str, typer.Option("--from", help="Whose format: earmark, or stored responses of openai, vllm, gonka.")
    ] = "earmark",
    text: Annotated[bool, typer.Option("--text", help="Judge text alone: words, or .txt and .json files.")] = False,
    language: Language = None,
    profile: Annotated[str | None, typer.Option(help="Folder of a profile, `provisional`, or `rules`.")] = None,
    mode: Annotated[str, typer.Option(help="replay, or reexecute to decode again as well.")] = "replay",
    attribution: Annotated[str, typer.Option(help="Name the cheat: never, on_fail or always.")] = "on_fail",
    budget: Budget = 1.0,
    budget_least: BudgetLeast = 0,
    depth: Depth = None,
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    attention: Attention = "sdpa",
    as_json: Json = False,
) -> int:
    """Say of each evidence whether the claimed model can have made it: PASS, FAIL or INCONCLUSIVE."""
    settings = loading(device, dtype, attention)
    if text or source != "earmark":
        _refuse_parts(budget, budget_least, depth)
        if transcript is not None:
            raise UsageError("--transcript is compared with evidence; leave it out with --text or --from")
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
    openings.check_depth(depth, budget, cases)
    cases = openings.with_transcripts(found, cases, transcript)
    rules = load_policy(policy) if policy else None
    arithmetic = None if mode == "reexecute" else "float32"
    reference = load(model, arithmetic=arithmetic, **settings)
    shown = show.Verdicts(as_json=as_json)
    with show.progress("verifying", len(cases)) as step:
        verdicts = verify_many(
            cases,
            reference,
            policy=rules,
            profile=profile,
            mode=mode,  # type: ignore[arg-type]  # checked by verify_many
            attribution=attribution,  # type: ignore[arg-type]  # checked by verify_many
            budget=budgets.Budget(share=budget, least=max(budget_least, int(len(cases) == 1)), depth=depth),
            batch_size=batch_size,
            advance=step,
        )
        for item, verdict in zip(found, verdicts, strict=True):
            shown.add(item.name, str(item.path), verdict)
    return shown.finish()


def _refuse_parts(budget: float, least: int, depth: int | None) -> None:
    """Refuse options that choose parts of evidence where there is none to choose from."""
    given = {"--budget": budget != 1.0, "--budget-least": least != 0, "--depth": depth is not None}
    if named := [name for name, used in given.items() if used]:
        raise UsageError(f"{', '.join(named)} with --text or --from, which look at all there is: leave it out")
