"""From evidence to verdict: the rules that need no model, the replay, the decision."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from itertools import islice
from typing import Any, Literal

from earmark.attribution import Attribution, attribute
from earmark.budget import Budget, spend
from earmark.errors import UsageError
from earmark.judging import Judge, Judgement, ProfileLike
from earmark.loading import family_of
from earmark.probing import check_depth, look
from earmark.protocols import Advance, Model
from earmark.recording import AudioLike
from earmark.records.evidence import Evidence
from earmark.records.policy import Policy
from earmark.records.receipt import Receipt
from earmark.records.request import Request
from earmark.records.verdict import Verdict, decide, note, unclear
from earmark.replaying import Mode, replay
from earmark.rules import Case, Path, Work, prepare
from earmark.scenarios.core import Scenario

WhenToAttribute = Literal["never", "on_fail", "always"]

CASES_AT_ONCE = 4
"""Cases prepared per batch, as a multiple of the batch size: enough to fill batches, few enough to stream."""


def verify(
    evidence: Evidence | bytes | Path,
    request: Request | bytes | Path | None,
    audio: AudioLike,
    reference: Model,
    *,
    receipt: Receipt | bytes | Path | None = None,
    delivered: str | None = None,
    policy: Policy | None = None,
    profile: ProfileLike = None,
    mode: Mode = "replay",
    attribution: WhenToAttribute = "on_fail",
    recipes: Sequence[Scenario] | None = None,
    budget: float | Budget = 1.0,
    batch_size: int = 8,
) -> Verdict:
    """Say whether the claimed model can have produced this evidence (the verifier's side).

    Args:
        evidence: What the provider opened: a record, its bytes, or a file.
        request: The customer's own request; None takes the one inside the evidence, which then proves less.
        audio: The clip.
        reference: The verifier's own copy of the claimed model.
        receipt: The stored receipt that came with the text; never the one made from this evidence.
        delivered: The text that the customer received; the evidence's must be the same, but for white space around it
            and Unicode's NFC. None compares nothing.
        policy: What is accepted; by default `Policy()`.
        profile: A calibrated profile or its folder; `provisional` for documented bounds; `rules` for rules alone, by
            which nothing can PASS; None looks for the calibrated profile of the model.
        mode: `replay` forces the provider's output; `reexecute` records again in the claimed arithmetic, which decides
            alone where the bits are equal, and else replays and decodes again.
        attribution: Whether to say which known cheat the evidence looks like: `never`, `on_fail`, `always`; one replay
            for each of them.
        recipes: Scenarios to attribute to; by default `earmark.attribution.library()`.
        budget: Share of the segments that is replayed, at least one, chosen so that nobody can foresee it; the
            verdict says which.
        batch_size: Segments at once.

    Returns:
        The verdict; evidence of any content gives one.

    Raises:
        AudioError: The audio cannot be used.
        UsageError: A file is missing, an option has no such value, or the profile is of another model.
    """
    case = Case(evidence=evidence, request=request, audio=audio, receipt=receipt, delivered=delivered)
    limit = budget if isinstance(budget, Budget) else Budget(share=budget, least=1)
    options: dict[str, Any] = {"mode": mode, "attribution": attribution, "recipes": recipes, "batch_size": batch_size}
    return next(verify_many([case], reference, policy=policy, profile=profile, budget=limit, **options))


def verify_many(
    cases: Iterable[Case],
    reference: Model,
    *,
    policy: Policy | None = None,
    profile: ProfileLike = None,
    mode: Mode = "replay",
    attribution: WhenToAttribute = "never",
    recipes: Sequence[Scenario] | None = None,
    budget: float | Budget = 1.0,
    batch_size: int = 8,
    advance: Advance | None = None,
) -> Iterator[Verdict]:
    """Verify many clips; segments of different clips share a batch. Yields verdicts in order.

    Args:
        cases: The clips, in any number.
        reference: The verifier's own copy of the claimed model.
        policy: What is accepted.
        profile: See `verify`.
        mode: `replay` forces the provider's output; `reexecute` records again in the claimed arithmetic, which decides
            alone where the bits are equal, and else replays and decodes again.
        attribution: Whether to say which known cheat the evidence looks like: `never`, `on_fail`, `always`; one replay
            for each of them.
        recipes: Scenarios to attribute to; by default `earmark.attribution.library()`.
        budget: Expected share of the segments that is replayed, of all clips together; a clip of which none is stays
            INCONCLUSIVE. See `earmark.budget.Budget`.
        batch_size: Segments at once.
        advance: Called with the number of finished clips.

    Yields:
        One verdict per case.

    Raises:
        AudioFileNotFoundError: A clip does not exist.
        UsageError: A file is missing, an option has no such value, or the profile is of another model.
    """
    if mode not in ("replay", "reexecute"):
        raise UsageError(f"mode {mode!r}; known: replay, reexecute")
    if attribution not in ("never", "on_fail", "always"):
        raise UsageError(f"attribution {attribution!r}; known: never, on_fail, always")
    rules, stream = policy or Policy(), iter(cases)
    judge = Judge(profile, reference, rules)
    limit = budget if isinstance(budget, Budget) else Budget(share=budget)
    check_depth(reference, limit.depth)
    while group := list(islice(stream, CASES_AT_ONCE * batch_size)):
        works = [prepare(case, reference, rules) for case in group]
        spend(works, limit)
        replay([work for work in works if work.open], reference, judge, batch_size, mode)
        look(works, reference, judge, limit.depth, batch_size)
        verdicts = [_judge(work, reference, judge) for work in works]
        for verdict in _attributed(verdicts, works, reference, attribution, recipes, batch_size=batch_size):
            yield verdict
            if advance is not None:
                advance(1)


# Decision


def _judge(work: Work, model: Model, judge: Judge) -> Verdict:
    fingerprint, judgement = None, Judgement(findings=())
    if work.comparison is not None and work.request is not None and work.evidence is not None:
        fingerprint = work.comparison.fingerprint
        strategy, level = work.request.decoding.strategy, work.evidence.level
        k = min(map(family_of(model).listed, work.traces))
        judgement = judge.judge(
            work.comparison,
            strategy=strategy,
            level=level,
            k=k,
            seconds=work.seconds,
            part=work.part,
            chose=work.request_inside,
        )
        work.findings += (*work.comparison.findings, *judgement.findings)
    elif work.exact:
        found = "the same tokens and numbers, bit for bit, as the reference's own recording"
        work.findings.append(note("exact.match", found, "the same, or near enough for the statistics"))
        if work.request is not None and work.evidence is not None:
            asked = {"strategy": work.request.decoding.strategy, "level": work.evidence.level}
            work.findings += judge.length(**asked, seconds=work.seconds)
    elif decide(work.findings) == "PASS":
        work.findings.append(unclear("replay.missing", "verifier", "no replay", "a replay behind every PASS"))
    return Verdict(
        outcome=decide(work.findings),
        proves=work.proves,
        profile=judgement.profile,
        p_value=judgement.p_value,
        findings=tuple(work.findings),
        fingerprint=fingerprint,
        transcript=None if work.evidence is None else work.evidence.text,
        provenance=provenance(model),
    )


def _attributed(
    verdicts: Sequence[Verdict],
    works: Sequence[Work],
    reference: Model,
    when: WhenToAttribute,
    recipes: Sequence[Scenario] | None,
    *,
    batch_size: int,
) -> list[Verdict]:
    """Add to each verdict which known cheat its evidence looks like; a fault in doing so changes no verdict."""
    wanted = [i for i, v in enumerate(verdicts) if when == "always" or (when == "on_fail" and v.outcome == "FAIL")]
    wanted = [i for i in wanted if works[i].replays]
    if not wanted:
        return list(verdicts)
    try:
        found = attribute([works[i] for i in wanted], reference.in_float32(), recipes, batch_size=batch_size)
    except Exception:  # noqa: BLE001 - the plugin border: the verdict stands without a name for the cheat
        return list(verdicts)
    known = {i: own for i, own in zip(wanted, found, strict=True) if own is not None}
    return [_named(verdict, known[i]) if i in known else verdict for i, verdict in enumerate(verdicts)]


def _named(verdict: Verdict, found: Attribution) -> Verdict:
    fingerprint = verdict.fingerprint
    if fingerprint is not None:
        fingerprint = replace(fingerprint, shape={**fingerprint.shape, **found.shape()}).extended(found.statistics())
    return replace(verdict, attribution=str(found), fingerprint=fingerprint)


def provenance(model: Model) -> dict[str, Any]:
    """Return what a verdict was made with: model, digests, versions, device."""
    info = model.info
    return {
        "model": info.name,
        "weights": info.weights,
        "precision": info.precision,
        "device": info.device,
        "attention": info.attention,
        "engine": info.engine,
        **_versions(),
    }


@cache
def _versions() -> dict[str, str]:
    """Return what is installed; looking it up takes longer than a replay."""
    return {"earmark": version("earmark"), "torch": version("torch"), "python": platform.python_version()}
