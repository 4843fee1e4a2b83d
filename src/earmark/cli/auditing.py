"""`earmark audit`: verify the openings of one provider in order, and decide as soon as the evidence suffices."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from earmark.audit import check_level, check_reexecute, run_audit
from earmark.audit_log import Entry
from earmark.budget import EXAMPLE_SHARE, from_seed
from earmark.cli import FAILED, INCONCLUSIVE, PASSED, files, openings, show
from earmark.cli.files import Named
from earmark.cli.options import (
    Attention,
    BatchSize,
    Budget,
    BudgetLeast,
    ClipAudio,
    Depth,
    Device,
    Devices,
    Drawn,
    Dtype,
    Engine,
    Json,
    Policy,
    Processes,
    Reference,
    StoredReceipt,
    StoredRequest,
    WorkerTimeout,
)
from earmark.decision.power import expected_power
from earmark.decision.watch import RUN_LENGTH, Watch
from earmark.engines import TIMEOUT_S, Source, open_engine
from earmark.errors import UsageError
from earmark.profiles import Profile, find_profile, load_profile
from earmark.protocols import ModelInfo
from earmark.records import lines
from earmark.records import policy as policies

REASONS = ("length", "budget", "input", "verifier")
CODES = {"PASS": PASSED, "FAIL": FAILED, "INCONCLUSIVE": INCONCLUSIVE}


def audit(
    evidence: Annotated[
        list[str], typer.Argument(help="Evidence: files, folders or JSONL manifests.", show_default=False)
    ],
    model: Reference,
    log: Annotated[Path, typer.Option(help="One line per clip; a killed audit goes on from it.")],
    audio: ClipAudio = None,
    request: StoredRequest = None,
    receipt: StoredReceipt = None,
    drawn: Drawn = None,
    unanswered: Annotated[
        Path | None, typer.Option(help="Folder with your own notes of what a server did not answer.")
    ] = None,
    policy: Policy = None,
    profile: Annotated[Path | None, typer.Option(help="Folder of a profile; by default the model's own.")] = None,
    level: Annotated[
        str | None, typer.Option(help="Level that all evidence owes; by default that of the first that is accepted.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Promised false-alarm rate; by default the profile's.")] = None,
    tolerance: Annotated[float | None, typer.Option(help="Factor by which honest noise may drift.")] = None,
    run_length: Annotated[
        float, typer.Option(help="Clips between two false alarms that an honest provider changed, at least on average.")
    ] = RUN_LENGTH,
    reexecute: Annotated[float, typer.Option(help="Share of the clips that are decoded again.")] = 0.0,
    budget: Budget = 1.0,
    budget_least: BudgetLeast = 0,
    depth: Depth = None,
    seed: Annotated[str, typer.Option(help="The verifier's secret: which clips are replayed or decoded again.")] = "",
    stop: Annotated[bool, typer.Option(help="End once the provider is found out, or changed behind a PASS.")] = True,
    engine: Engine = "local",
    processes: Processes = None,
    worker_timeout: WorkerTimeout = TIMEOUT_S,
    devices: Devices = None,
    device: Device = None,
    dtype: Dtype = "float32",
    batch_size: BatchSize = 8,
    attention: Attention = "sdpa",
    as_json: Json = False,
) -> int:
    """Verify many openings of one provider and decide about it, at a guaranteed rate, as early as possible."""
    if unanswered is None and (notes := files.find_notes([Path(place) for place in evidence])):
        raise UsageError(f"{notes[0].path} says that a server gave no evidence; count it with --unanswered FOLDER")
    check_reexecute(reexecute, seed)
    limit = from_seed(seed, budget, budget_least, depth)
    found, cases = openings.cases_of(evidence, audio, request, receipt, drawn, unanswered)
    openings.check_depth(depth, budget, cases)
    rules = policies.load_policy(policy) if policy else policies.Policy()
    given = load_profile(profile) if profile else None
    asked = check_level(level or openings.level_of(cases, rules, given), rules)
    openings.check_requests(asked, cases)
    openings.check_receipts(rules, cases)
    source = Source(model=model, dtype=dtype, arithmetic=None if reexecute else "float32", attention=attention)
    places = [place.strip() for place in devices.split(",")] if devices else []
    limit_s = worker_timeout or None
    opened = open_engine(source, kind=engine, device=device, devices=places, processes=processes, timeout_s=limit_s)
    with closing(opened), show.betting("auditing", len(cases), *_logged(log, found)) as step:
        calibrated = given or _shipped(opened.info, asked)

        def advance(entry: Entry) -> None:
            step(entry.log_e)
            if as_json:
                print(entry.to_json(), flush=True)

        state = run_audit(
            zip((item.name for item in found), cases, strict=True),
            opened,
            calibrated,
            log,
            policy=rules,
            level=asked,
            rate=rate,
            tolerance=tolerance,
            run_length=run_length,
            reexecute=reexecute,
            budget=limit,
            seed=seed,
            stop=stop,
            batch_size=batch_size,
            advance=advance,
        )
    entries = [entry for _, entry in lines.read(log, Entry.from_json)]
    _report(state, log, entries, [item.name for item in found], budget, asked, as_json=as_json)
    return INCONCLUSIVE if _changed(state) else CODES[state.outcome]


def _logged(log: Path, found: Sequence[Named]) -> tuple[int, float]:
    """Return how many of the clips an earlier run wrote down, and the log e-value behind them."""
    lines.drop_torn_line(log)
    entries = [entry for _, entry in lines.read(log, Entry.from_json)] if log.exists() else []
    names = {entry.clip for entry in entries}
    return sum(item.name in names for item in found), entries[-1].log_e if entries else 0.0


def _shipped(info: ModelInfo, level: str) -> Profile:
    profile = find_profile(info, "greedy", level)
    if profile is None:
        where = f"{info.name} at {info.precision}, greedy decoding, level {level}"
        raise UsageError(f"no profile of {where}; run `earmark calibrate`, or give --profile FOLDER or --level")
    return profile


def uncounted(entries: Sequence[Entry]) -> dict[str, int]:
    """Return how many clips do not count, by reason; all clips but these do.

    Example:
        >>> uncounted([])
        {'length': 0, 'budget': 0, 'input': 0, 'verifier': 0}
    """
    return {reason: sum(entry.uncounted == reason for entry in entries) for reason in REASONS}


def _changed(state: Watch) -> bool:
    """Say whether the clips since an alarm are covered by no decision."""
    return state.outcome != "FAIL" and state.changed_at is not None


def _change(state: Watch, entries: Sequence[Entry]) -> dict[str, Any]:
    """Return since which clip the provider changed, about, and what is said of it from there on."""
    counted = [entry.clip for entry in entries if entry.score is not None]
    return {
        "run_length": state.run_length,
        "changed_at": state.changed_at,
        "changed_at_clip": None if state.changed_at is None else counted[state.changed_at - 1],
        "since_change": "INCONCLUSIVE" if _changed(state) else None,
    }


def _report(
    state: Watch,
    log: Path,
    entries: Sequence[Entry],
    names: Sequence[str],
    budget: float,
    level: str,
    *,
    as_json: bool,
) -> None:
    bets, left = state.bets, uncounted(entries)
    facts = {
        "decision": state.outcome,
        "pass_covers": state.passed_at,
        **_change(state, entries),
        "level": level,
        "clips": state.clips,
        "not_counted": left,
        "not_counted_but_fail": sum(entry.score is None and entry.outcome == "FAIL" for entry in entries),
        "not_verified": len({*names} - {entry.clip for entry in entries}),
        "e_value": show.e_value(state.log_e),
        "fails_at": 2 / bets.rate,
        "promised_rate": bets.rate,
        "undetectable_share": bets.undetectable_share(),
        "budget": budget,
        "power_at_tenth": expected_power(bets, state.clips, EXAMPLE_SHARE),
        "log": str(log),
    }
    if as_json:
        show.json_line(facts)
        return
    shown = ", ".join(f"{reason} {count}" for reason, count in left.items() if count)
    show.facts(facts | {"not_counted": f"{sum(left.values())}{' (' * bool(shown)}{shown}{')' * bool(shown)}"})
