"""`earmark audit`: verify the openings of one provider in order, and decide as soon as the evidence suffices."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from earmark.audit import Entry, run_audit
from earmark.cli import FAILED, INCONCLUSIVE, PASSED, openings, show
from earmark.decision.betting import Audit
from earmark.errors import UsageError
from earmark.loading import load
from earmark.profiles import Profile, find_profile, load_profile
from earmark.protocols import ModelInfo
from earmark.records.policy import load_policy

CODES = {"PASS": PASSED, "FAIL": FAILED, "INCONCLUSIVE": INCONCLUSIVE}


def audit_openings(
    evidence: list[str],
    model: str,
    log: Path,
    *,
    places: dict[str, Path | None],
    policy: Path | None,
    profile: Path | None,
    level: str,
    settings: dict[str, Any],
    options: dict[str, Any],
    as_json: bool,
) -> int:
    """Run the audit, show it clip by clip, and say what it found."""
    found, cases = openings.cases_of(evidence, **places)
    reference = load(model, **settings)
    calibrated = load_profile(profile) if profile else _shipped(reference.info, level)
    rules = load_policy(policy) if policy else None
    with show.progress("auditing", len(cases)) as step:

        def advance(entry: Entry) -> None:
            step(1)
            if as_json:
                print(entry.to_json(), flush=True)

        pairs = zip((item.name for item in found), cases, strict=True)
        state = run_audit(pairs, reference, calibrated, log, policy=rules, advance=advance, **options)
    _report(state, log, as_json=as_json)
    return CODES[state.outcome]


def _shipped(info: ModelInfo, level: str) -> Profile:
    profile = find_profile(info, "greedy", level)
    if profile is None:
        where = f"{info.name} at {info.precision}, greedy decoding, level {level}"
        raise UsageError(f"no profile of {where}; run `earmark calibrate`, or give --profile FOLDER")
    return profile


def _report(state: Audit, log: Path, *, as_json: bool) -> None:
    bets = state.bets
    facts = {
        "decision": state.outcome,
        "clips": state.clips,
        "e_value": math.exp(min(state.log_e, 700.0)),
        "fails_at": 2 / bets.rate,
        "promised_rate": bets.rate,
        "undetectable_share": bets.undetectable_share(),
        "log": str(log),
    }
    if as_json:
        show.json_line(facts)
        return
    show.table(("fact", "value"), [[name.replace("_", " "), _short(value)] for name, value in facts.items()])


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
