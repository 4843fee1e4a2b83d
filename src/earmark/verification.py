"""From evidence to verdict: the rules that need no model, the replay, the decision."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from itertools import islice
from typing import Any, Literal

from earmark.errors import UsageError
from earmark.fingerprint.types import Fingerprint
from earmark.loading import family_of
from earmark.protocols import Advance, Comparison, Model
from earmark.recording import AudioLike
from earmark.records.evidence import Evidence
from earmark.records.policy import Policy
from earmark.records.receipt import Receipt
from earmark.records.request import Request
from earmark.records.verdict import Finding, Verdict, broken, decide, unclear
from earmark.rules import Case, Path, Work, prepare

Mode = Literal["replay", "reexecute"]

PROVISIONAL = "provisional"
CASES_AT_ONCE = 4
"""Cases prepared per batch, as a multiple of the batch size: enough to fill batches, few enough to stream."""


def verify(
    evidence: Evidence | bytes | Path,
    request: Request | bytes | Path | None,
    audio: AudioLike,
    reference: Model,
    *,
    receipt: Receipt | bytes | Path | None = None,
    policy: Policy | None = None,
    profile: str | None = None,
    mode: Mode = "replay",
    batch_size: int = 8,
) -> Verdict:
    """Say whether the claimed model can have produced this evidence (the verifier's side).

    Args:
        evidence: What the provider opened: a record, its bytes, or a file.
        request: The customer's own request; None takes the one inside the evidence, which then proves less.
        audio: The clip.
        reference: The verifier's own copy of the claimed model.
        receipt: The stored receipt that came with the text; never the one made from this evidence.
        policy: What is accepted; by default `Policy()`.
        profile: `provisional` for documented bounds; None judges by rules alone and cannot PASS.
        mode: `replay` forces the provider's output; `reexecute` also decodes again, in the claimed arithmetic.
        batch_size: Segments at once.

    Returns:
        The verdict; evidence of any content gives one.

    Raises:
        AudioError: The audio cannot be used.
        UsageError: A file is missing or an option has no such value.
    """
    case = Case(evidence=evidence, request=request, audio=audio, receipt=receipt)
    return next(verify_many([case], reference, policy=policy, profile=profile, mode=mode, batch_size=batch_size))


def verify_many(
    cases: Iterable[Case],
    reference: Model,
    *,
    policy: Policy | None = None,
    profile: str | None = None,
    mode: Mode = "replay",
    batch_size: int = 8,
    advance: Advance | None = None,
) -> Iterator[Verdict]:
    """Verify many clips; segments of different clips share a batch. Yields verdicts in order.

    Args:
        cases: The clips, in any number.
        reference: The verifier's own copy of the claimed model.
        policy: What is accepted.
        profile: `provisional`, or None.
        mode: `replay` forces the provider's output; `reexecute` also decodes again, in the claimed arithmetic.
        batch_size: Segments at once.
        advance: Called with the number of finished clips.

    Yields:
        One verdict per case.

    Raises:
        AudioFileNotFoundError: A clip does not exist.
        UsageError: A file is missing or an option has no such value.
    """
    if mode not in ("replay", "reexecute"):
        raise UsageError(f"mode {mode!r}; known: replay, reexecute")
    if profile not in (None, PROVISIONAL):
        raise UsageError(f"profile {profile!r}; this version knows {PROVISIONAL!r} alone")
    rules, stream = policy or Policy(), iter(cases)
    while group := list(islice(stream, CASES_AT_ONCE * batch_size)):
        works = [prepare(case, reference, rules) for case in group]
        _replay([work for work in works if work.open], reference, batch_size, mode)
        for work in works:
            yield _judge(work, reference, rules, profile)
            if advance is not None:
                advance(1)


# Replay and decision


def _replay(works: Sequence[Work], model: Model, batch_size: int, mode: Mode) -> None:
    """Replay all open cases together; where that breaks, one by one, so that no case shelters its neighbours."""
    if not works:
        return
    try:
        _compare(works, model, batch_size, mode)
    except Exception as error:  # noqa: BLE001 - the plugin border: a fault of ours is INCONCLUSIVE, never a verdict
        if len(works) > 1:
            for work in works:
                _replay([work], model, batch_size, mode)
            return
        found = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        works[0].comparison = None
        works[0].findings.append(unclear("replay.failed", "verifier", found, "a replay"))


def _compare(works: Sequence[Work], model: Model, batch_size: int, mode: Mode) -> None:
    """Force all outputs through the reference, decode those again that ask for it, and compare."""
    family, reference = family_of(model), model.in_float32()
    again = [w for w in works if w.request and (mode == "reexecute" or family.needs_rerun(w.request))]
    replays = _in_turn(family.replay, reference, works, batch_size)
    reruns = _in_turn(family.rerun, model if mode == "reexecute" else reference, again, batch_size)
    for work in works:
        if work.request is not None:
            own, redone = replays[id(work)], reruns.get(id(work))
            work.comparison = family.compare(work.traces, own, model=reference, request=work.request, reruns=redone)


def _in_turn(
    run: Callable[..., list[Any]], model: Model, works: Sequence[Work], batch_size: int
) -> dict[int, list[Any]]:
    """Run one pass over the segments of all cases and return the results of each case."""
    inputs = [item for work in works for item in work.inputs]
    traces = [trace for work in works for trace in work.traces]
    if not inputs:
        return {}
    results = iter(run(model, inputs, traces, batch_size=batch_size, advance=lambda _: None))
    return {id(work): [next(results) for _ in work.inputs] for work in works}


def _judge(work: Work, model: Model, policy: Policy, profile: str | None) -> Verdict:
    fingerprint = None
    if work.comparison is not None:
        fingerprint = work.comparison.fingerprint
        work.findings += work.comparison.findings
        work.findings += _judge_statistics(work.comparison, model, policy, profile)
    elif decide(work.findings) == "PASS":
        work.findings.append(unclear("replay.missing", "verifier", "no replay", "a replay behind every PASS"))
    return Verdict(
        outcome=decide(work.findings),
        proves=work.proves,
        profile=profile,
        findings=tuple(work.findings),
        fingerprint=fingerprint,
        provenance=provenance(model),
    )


def _judge_statistics(comparison: Comparison, model: Model, policy: Policy, profile: str | None) -> list[Finding]:
    if profile is None:
        expected = "a profile of this model; profile='provisional' uses documented bounds"
        return [unclear("profile.missing", "verifier", "no profile", expected)]
    findings = _beyond(comparison.fingerprint, family_of(model).provisional_bounds(model.info.precision))
    if comparison.positions < policy.min_positions:
        expected = f"at least {policy.min_positions}"
        findings.append(unclear("positions.few", "input", f"{comparison.positions} positions", expected))
    return findings


def _beyond(fingerprint: Fingerprint, bounds: Any) -> list[Finding]:
    findings = []
    for name, bound in bounds.items():
        value = fingerprint[name]
        if value > bound:
            findings.append(broken(f"statistics.{name}", f"{value:.3g}", f"at most {bound:g}"))
    return findings


def provenance(model: Model) -> dict[str, Any]:
    """Return what a verdict was made with: model, digests, versions, device."""
    info = model.info
    return {
        "model": info.name,
        "weights": info.weights,
        "precision": info.precision,
        "device": info.device,
        "attention": info.attention,
        "earmark": version("earmark"),
        "engine": info.engine,
        "torch": version("torch"),
        "python": platform.python_version(),
    }
