"""An audit: a stream of clips of one provider, verified in rounds and decided sequentially, one line per clip.

The log is the state: a killed audit reads it back and loses nothing. Engines verify, here or elsewhere; the decision is
taken here alone, in the order of the clips.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import Any, get_args

from earmark.audit_log import Entry, read_log, records_digest, terms_digest
from earmark.budget import Budget, check_seed, from_seed
from earmark.decision.watch import RUN_LENGTH, Watch
from earmark.engines import Engine, Group, InProcess, Terms
from earmark.errors import EarmarkError, OutputError, RecordError, UsageError
from earmark.profiles import Profile, covers
from earmark.protocols import Model
from earmark.records.evidence import Level
from earmark.records.policy import Policy
from earmark.records.verdict import Verdict
from earmark.replaying import Mode
from earmark.rules import Case

ROUND = 32
"""Clips that are verified together, and between two looks at the decision."""
LEFT_OUT = ("budget.partial", "budget.skipped", "budget.undrawn")
"""Findings of clips that the budget did not draw: none of them counts, however much of it was replayed."""

LENGTH = "profile.length"
"""Finding of a clip for whose length the profile promises nothing, where it came to a replay."""


def run_audit(
    cases: Iterable[tuple[str, Case]],
    reference: Model | Engine,
    profile: Profile,
    log: str | os.PathLike[str],
    *,
    policy: Policy | None = None,
    level: str | None = None,
    rate: float | None = None,
    tolerance: float | None = None,
    run_length: float = RUN_LENGTH,
    reexecute: float = 0.0,
    budget: float | Budget = 1.0,
    seed: str = "",
    stop: bool = True,
    batch_size: int = 8,
    advance: Callable[[Entry], None] | None = None,
) -> Watch:
    """Verify clips in the order given until the audit is decided.

    Args:
        cases: Name and case of each clip; the names are distinct.
        reference: The verifier's own copy of the claimed model, or an engine whose workers hold copies.
        profile: Its calibrated profile.
        log: The log; one JSON line per clip. What it already holds is not verified again, but for the round that a
            kill cut short: its clips share their batch again, so that the log becomes the same.
        policy: What is accepted.
        level: Level that every clip owes, see `Policy.at_level`; None asks for no more than the policy.
        rate: Promised false-alarm rate of the audit; by default the profile's.
        tolerance: Declared drift; by default the profile's.
        run_length: Clips between two false alarms of the detector of change, on average at least.
        reexecute: Share of the clips that are decoded again, chosen by `seed`.
        budget: Share of the clips that is replayed, chosen by `seed` and the evidence; a `Budget` of whole clips
            chooses by its own secret. A clip that is not drawn counts neither for nor against the provider.
        seed: The verifier's secret; at least 16 bytes wherever it draws.
        stop: End once the audit says FAIL, or the detector alarms behind a PASS; the rest stays unverified.
        batch_size: Segments at once.
        advance: Called with every new entry.

    Returns:
        The state of the audit, with its outcome, and of the detector beside it.

    Raises:
        OutputError: The log cannot be written.
        RecordError: The log is of another audit.
        UsageError: The profile is of another model or cannot judge the level, the policy does not accept the level, a
            name stands twice, a share is no share, the seed is too short, or the budget draws segments in place of
            clips.
    """
    engine = reference if isinstance(reference, Engine) else InProcess(reference)
    profile.check_fits(engine.info)
    check_reexecute(reexecute, seed)
    rules = _rules(policy or Policy(), level, profile)
    limit = _of_clips(budget) if isinstance(budget, Budget) else from_seed(seed, budget)
    bets = profile.bets(rate=rate, tolerance=tolerance)
    state = Watch(bets=bets, run_length=run_length)
    drawn = {"seed": seed if 0 < reexecute < 1 else "", "budget": asdict(limit) if limit.share < 1 else None}
    asked = {"policy": rules, "level": level, "bets": asdict(bets), "run_length": run_length, "reexecute": reexecute}
    terms = terms_digest(profile, **asked, **drawn)
    done = _resume(Path(log), state, terms)
    rounds = _rounds(cases, done)
    if stop and state.ended:  # the round that a kill cut short, and no other
        rounds = takewhile(lambda clips: any(name in done for name, _ in clips), rounds)
    if (first := next(rounds, None)) is None:
        return state
    groups = (_group(clips, seed, reexecute) for clips in chain([first], rounds))
    order = Terms(profile=profile, policy=rules, budget=limit, batch_size=batch_size)
    try:
        with Path(log).open("a", encoding="utf-8") as file:
            for group, verdicts in engine.verify(groups, order):
                for name, case, mode, verdict in zip(group.names, group.cases, group.modes, verdicts, strict=True):
                    if name in done:
                        continue
                    facts = {"clip": name, "mode": mode, "terms": terms, "records": records_digest(case)}
                    entry = _entry(verdict, profile, state, **facts)
                    file.write(entry.to_json() + "\n")
                    file.flush()
                    if advance is not None:
                        advance(entry)
                if stop and state.ended:
                    break
    except EarmarkError:
        raise  # a missing clip is an OSError too
    except OSError as error:
        raise OutputError(f"{log} cannot be written: {error}") from error
    return state


def check_reexecute(share: float, seed: str) -> None:
    """Refuse a share of the clips to decode again that is none, or that a provider could foresee.

    Raises:
        UsageError: The share is outside 0 to 1, or the seed that draws it too short.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"a share of {share:g} to decode again; expected 0 to 1")
    if 0 < share < 1:
        check_seed(seed, f"a share of {share:g} to decode again")


def check_level(level: str, policy: Policy, profile: Profile | None = None) -> Level:
    """Return the level of an audit; none by which honest providers would be blamed, or what they owe not looked at.

    Raises:
        UsageError: There is no such level, the policy does not accept it, or the profile cannot judge it.

    Example:
        >>> check_level("sketch", Policy())
        'sketch'
        >>> check_level("compact", Policy())
        Traceback (most recent call last):
        ...
        earmark.errors.UsageError: an audit of the level compact; expected one that its policy accepts
    """
    known: tuple[Level, ...] = get_args(Level)
    asked = next((own for own in known if own == level), None)
    if asked is None:
        raise UsageError(f"level {level!r}; known: {', '.join(known)}")
    if not policy.accepts(asked):
        raise UsageError(f"an audit of the level {level}; expected one that its policy accepts")
    if profile is not None and not covers(profile.header.level, level):
        found = f"the profile is of the level {profile.header.level}, and the audit of the level {level}"
        raise UsageError(f"{found}; expected a profile of that level, or --level {profile.header.level}")
    return asked


def _rules(policy: Policy, level: str | None, profile: Profile) -> Policy:
    return policy if level is None else policy.at_level(check_level(level, policy, profile))


def _of_clips(budget: Budget) -> Budget:
    """Refuse a budget by which short clips count more often than long ones, as in no calibration."""
    if budget.share < 1 and not budget.whole:
        expected = "one of whole clips, whose draw is the same for short and long: whole=True, or budget.from_seed"
        raise UsageError(f"a budget of {budget.share:g} that draws segments, in an audit; expected {expected}")
    return budget


def _resume(path: Path, state: Watch, terms: str) -> dict[str, str]:
    """Bet on the clips of the log again; return their names in order, each with the digest of its records."""
    done = {}
    for number, entry in read_log(path, terms):
        _bet(state, entry.score)
        if not (_same(entry.log_e, state.log_e) and _same(entry.log_r, state.log_r)):
            found = f"log e-value {entry.log_e:.4f}, log R {entry.log_r:.4f}"
            found += f"; its scores give {state.log_e:.4f}, {state.log_r:.4f}"
            raise RecordError(f"{path}, line {number}: {found}: the log was changed; give another log")
        done[entry.clip] = entry.records
    return done


def _same(found: float, expected: float) -> bool:
    return found == expected or abs(found - expected) <= 1e-6


def _rounds(cases: Iterable[tuple[str, Case]], done: Mapping[str, str]) -> Iterator[list[tuple[str, Case]]]:
    """Yield the clips that are left in rounds; where the log holds the first ones, from where its last round began."""
    stream = _distinct(cases, done)
    first = list(islice(stream, len(done)))
    if [name for name, _ in first] == [*done]:
        stream = chain(first[len(first) - len(first) % ROUND :], stream)
    else:
        stream = ((name, case) for name, case in chain(first, stream) if name not in done)
    while clips := list(islice(stream, ROUND)):
        if any(name not in done for name, _ in clips):
            yield clips


def _distinct(cases: Iterable[tuple[str, Case]], done: Mapping[str, str]) -> Iterator[tuple[str, Case]]:
    seen: set[str] = set()
    for name, case in cases:
        if name in seen:
            raise UsageError(f"clip {name!r} stands twice in the audit; each counts once")
        if name in done and records_digest(case) != done[name]:
            expected = "the evidence, request and receipt that the log's verdict is of; give another log"
            raise UsageError(f"clip {name!r} was handed in with other records; expected {expected}")
        seen.add(name)
        yield name, case


def _group(clips: Sequence[tuple[str, Case]], seed: str, reexecute: float) -> Group:
    names, cases = zip(*clips, strict=True)
    modes: list[Mode] = ["reexecute" if _drawn(seed, name, reexecute) else "replay" for name in names]
    return Group(names=names, cases=cases, modes=tuple(modes))


def _drawn(seed: str, name: str, share: float) -> bool:
    """Say whether a clip is drawn for decoding again: a fair coin that only the verifier can foresee."""
    secret = f"earmark/reexecute\0{seed}\0{name}".encode("utf-8", "surrogatepass")  # names of files may hold any bytes
    digest = hashlib.sha256(secret).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _entry(verdict: Verdict, profile: Profile, state: Watch, **facts: Any) -> Entry:
    score = score_of(verdict, profile)
    _bet(state, score)
    return Entry(
        **facts,
        outcome=verdict.outcome,
        score=score,
        p_value=verdict.p_value,
        findings=tuple(finding.code for finding in verdict.findings if finding.severity != "note"),
        log_e=state.log_e,
        log_r=state.log_r,
        decision=state.outcome,
        uncounted=None if score is not None else _why_not(verdict),
        left_out=next((finding.found for finding in verdict.findings if finding.code in LEFT_OUT), None),
    )


def _bet(state: Watch, score: float | None) -> None:
    if score is not None:
        state.update(score)


def _why_not(verdict: Verdict) -> str:
    """Return why a clip does not count, in one word."""
    codes = {finding.code for finding in verdict.findings}
    if codes & {*LEFT_OUT}:
        return "budget"
    return "length" if LENGTH in codes else verdict.fault or "input"


def score_of(verdict: Verdict, profile: Profile) -> float | None:
    """Return what an audit bets on.

    Args:
        verdict: Of one clip, judged by the profile.
        profile: The profile.

    Returns:
        The clip's score S; infinity where a rule was broken, or where the clip stays INCONCLUSIVE by the provider's
        fault; 0 for a recording that is equal bit for bit; None where it is the verifier's or the input's fault, or
        where a budget did not draw the clip, or the profile promises nothing for its length: whether a clip counts must
        not depend on what the provider made of it. The length is only looked at once the rules hold that need no
        replay, so these count for clips of every length, and what a replay shows for none of another length. A clip
        with faint segments counts by the others, whatever stands in these.
    """
    codes = {finding.code for finding in verdict.findings}
    if codes & {*LEFT_OUT, LENGTH}:
        return None
    deciding = [finding for finding in verdict.findings if finding.severity != "note"]
    if any(finding.severity == "fail" and not finding.code.startswith("statistics.") for finding in deciding):
        return math.inf
    if any(finding.fault == "provider" and finding.severity == "inconclusive" for finding in deciding):
        return math.inf
    judged = {"audio.faint"} if verdict.fingerprint is not None else set()  # by the segments that are not faint
    if any(finding.severity == "inconclusive" and finding.code not in judged for finding in deciding):
        return None
    if verdict.fingerprint is None:
        return 0.0
    score = profile.judge(verdict.fingerprint).score
    return None if math.isnan(score) else score
