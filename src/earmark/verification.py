"""From evidence to verdict: the rules that need no model, the replay, the decision."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import islice
from typing import Any, Literal

from earmark.audio import CanonicalAudio
from earmark.errors import AudioError, AudioFileNotFoundError, RecordError, UsageError
from earmark.features import differences
from earmark.fingerprint.types import Fingerprint
from earmark.loading import family_of
from earmark.protocols import Advance, Comparison, Model
from earmark.recording import AudioLike, Clip, boundaries, load_audio, segment_inputs
from earmark.records import codec
from earmark.records.evidence import Evidence, join_texts
from earmark.records.policy import LEVELS, Policy
from earmark.records.receipt import Receipt
from earmark.records.request import Request
from earmark.records.verdict import Finding, Proves, Verdict, broken, decide, note, unclear

Path = str | os.PathLike[str]

Mode = Literal["replay", "reexecute"]

PROVISIONAL = "provisional"
CASES_AT_ONCE = 4
"""Cases prepared per batch, as a multiple of the batch size: enough to fill batches, few enough to stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One clip to verify; each record may be given as object, bytes or file.

    Attributes:
        evidence: What the provider opened.
        audio: The clip.
        request: The customer's own request, or None.
        receipt: The stored receipt, or None.
    """

    evidence: Evidence | bytes | Path
    audio: AudioLike
    request: Request | bytes | Path | None = None
    receipt: Receipt | bytes | Path | None = None


@dataclass(slots=True, kw_only=True)
class _Work:
    """A case on its way: findings so far, and what the replay needs once the rules hold."""

    findings: list[Finding] = field(default_factory=list)
    evidence: Evidence | None = None
    request: Request | None = None
    audio: CanonicalAudio | None = None
    traces: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    comparison: Comparison | None = None
    proves: Proves = "reconstructable"

    @property
    def open(self) -> bool:
        """Whether nothing stands against a replay yet."""
        return decide(self.findings) == "PASS"


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
        works = [_prepare(case, reference, rules) for case in group]
        _replay([work for work in works if work.open], reference, batch_size, mode)
        for work in works:
            yield _judge(work, reference, rules, profile)
            if advance is not None:
                advance(1)


def check_rules(case: Case, reference: Model, policy: Policy | None = None) -> tuple[Finding, ...]:
    """Return what the rules that need no replay find; nothing found means that a replay would follow.

    Args:
        case: The clip.
        reference: The verifier's own copy of the claimed model; it is not run.
        policy: What is accepted.

    Returns:
        The findings.
    """
    return tuple(_prepare(case, reference, policy or Policy()).findings)


# Rules that need no replay


def _prepare(case: Case, model: Model, policy: Policy) -> _Work:
    work = _Work()
    try:
        evidence = work.evidence = _read(case.evidence, Evidence)
    except RecordError as error:
        work.findings.append(broken(error.code, error, "a well-formed evidence record"))
        return work
    work.findings += _check_receipt(case, evidence, policy, work)
    work.request = _bind_request(case, evidence, policy, work)
    if work.request is None:
        return work
    work.audio = _bind_audio(case, work.request, work)
    work.findings += _check_claim(evidence, work.request, model, policy)
    if work.open and work.audio is not None:
        _read_traces(work, evidence, work.audio, work.request, model=model, policy=policy)
    return work


def _read(source: Any, kind: type[Any]) -> Any:
    return source if isinstance(source, kind) else codec.load(source, kind)


def _check_receipt(case: Case, evidence: Evidence, policy: Policy, work: _Work) -> list[Finding]:
    if case.receipt is None:
        if policy.require_receipt:
            return [unclear("receipt.missing", "provider", "no receipt", "the receipt that came with the text")]
        return []
    try:
        receipt = _read(case.receipt, Receipt)
    except RecordError as error:
        return [unclear("receipt.malformed", "input", error, "the stored receipt")]
    if not receipt.holds():
        found = "a path that does not lead to the root of its batch"
        return [unclear("receipt.unproven", "provider", found, "a receipt with its proof")]
    if receipt.commitment != evidence.digest():
        found = f"evidence {evidence.digest()[:12]}..."
        return [broken("receipt.mismatch", found, f"the committed evidence {receipt.commitment[:12]}...")]
    work.proves = "committed" if case.request is not None else "reconstructable"
    return []


def _bind_request(case: Case, evidence: Evidence, policy: Policy, work: _Work) -> Request | None:
    """Return the request that binds the evidence: the verifier's own, else the one inside."""
    inside = evidence.request
    if inside is not None and inside.digest() != evidence.request_digest:
        work.findings.append(broken("request.contradiction", inside.digest()[:12], evidence.request_digest[:12]))
        return None
    if case.request is None:
        if inside is None:
            work.findings.append(unclear("request.missing", "input", "no request", "the customer's request"))
        elif inside.prompt and not policy.accept_prompts:
            expected = "the customer's request, since a prompt can hold the transcript"
            work.findings.append(unclear("prompt.unbound", "provider", "a prompt", expected))
        return inside
    try:
        asked: Request = _read(case.request, Request)
    except RecordError as error:
        work.findings.append(unclear("request.malformed", "input", error, "the customer's request"))
        return None
    if asked.digest() != evidence.request_digest:
        found, expected = f"{evidence.request_digest[:12]}...", f"{asked.digest()[:12]}..."
        work.findings.append(broken("request.mismatch", found, expected))
        return None
    return asked


def _bind_audio(case: Case, request: Request, work: _Work) -> CanonicalAudio | None:
    try:
        audio = load_audio(case.audio)
    except AudioFileNotFoundError:
        raise
    except AudioError as error:
        work.findings.append(unclear("audio.unusable", "input", error, "audio that can be decoded"))
        return None
    if audio.digest == request.audio_digest:
        return audio
    found, expected = f"{request.audio_digest[:12]}... in the request", f"{audio.digest[:12]}... of the audio"
    if case.request is not None or not (audio.lossless and request.lossless):
        expected += "; give the clip of the request, as canonical audio where the source is lossy"
        work.findings.append(unclear("audio.mismatch", "input", found, expected))
    else:
        work.findings.append(broken("audio.mismatch", found, expected))
    return None


def _check_claim(evidence: Evidence, request: Request, model: Model, policy: Policy) -> list[Finding]:
    claim, info = evidence.claim, model.info
    findings = []
    if claim.family != info.family:
        findings.append(broken("family.mismatch", claim.family, info.family))
    accepted = set(policy.weights) or {info.weights}
    if claim.weights not in accepted or claim.weights != info.weights:
        expected = f"{info.weights[:12]}... of {info.name}"
        findings.append(broken("weights.mismatch", f"{claim.weights[:12]}... of {claim.model}", expected))
    precisions = set(policy.precisions) or {info.precision}
    if claim.precision not in precisions or claim.precision != info.precision:
        expected = f"{info.precision}, the precision of the reference (--dtype)"
        findings.append(broken("precision.mismatch", claim.precision, expected))
    if claim.decoding != request.decoding:
        findings.append(broken("decoding.mismatch", claim.decoding, request.decoding))
    findings += [
        broken(f"features.{name}", found, expected)
        for name, (found, expected) in differences(claim.features, info.features).items()
    ]
    if LEVELS.index(evidence.level) < LEVELS.index(policy.least_level):
        findings.append(unclear("level.low", "provider", evidence.level, f"at least {policy.least_level}"))
    elif evidence.level not in ("scores", "sketch"):
        findings.append(unclear("level.unknown", "verifier", evidence.level, "scores or sketch"))
    if claim.engine != info.engine:
        findings.append(note("engine.other", claim.engine, info.engine))
    return findings


def _read_traces(
    work: _Work, evidence: Evidence, audio: CanonicalAudio, request: Request, *, model: Model, policy: Policy
) -> None:
    """Check segments, texts and traces; leave in `work` what the replay needs."""
    family = family_of(model)
    try:
        pieces = boundaries(audio, request, model.info.window_samples)
        given = tuple((segment.start, segment.end) for segment in evidence.segments)
        if given != pieces:
            work.findings.append(broken("segments.mismatch", _some(given), _some(pieces)))
            return
        work.traces = [family.read(segment, request, model, evidence.level) for segment in evidence.segments]
    except RecordError as error:
        work.findings.append(broken(error.code, error, "a trace that follows the rules of its family"))
        return
    except UsageError as error:
        work.findings.append(unclear("request.unusable", "input", error, "a request that the model can answer"))
        return
    work.findings += _check_text(evidence, model)
    work.findings += family.review(work.traces, policy)
    work.inputs = segment_inputs(Clip(audio=audio, request=request), model)


def _some(pieces: Sequence[tuple[int, int]]) -> str:
    return f"{len(pieces)} segments {list(pieces[:4])}{'...' if len(pieces) > 4 else ''}"


def _check_text(evidence: Evidence, model: Model) -> list[Finding]:
    for number, segment in enumerate(evidence.segments):
        expected = model.detokenise(segment.ids)
        if segment.text != expected:
            return [broken("text.mismatch", f"{segment.text[:60]!r} in segment {number}", repr(expected[:60]))]
    joined = join_texts([segment.text for segment in evidence.segments])
    if evidence.text != joined:
        return [broken("text.mismatch", repr(evidence.text[:60]), repr(joined[:60]))]
    return []


# Replay and decision


def _replay(works: Sequence[_Work], model: Model, batch_size: int, mode: Mode) -> None:
    """Replay all open cases together; where that breaks, one by one, so that no case shelters its neighbours."""
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


def _compare(works: Sequence[_Work], model: Model, batch_size: int, mode: Mode) -> None:
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
    run: Callable[..., list[Any]], model: Model, works: Sequence[_Work], batch_size: int
) -> dict[int, list[Any]]:
    """Run one pass over the segments of all cases and return the results of each case."""
    inputs = [item for work in works for item in work.inputs]
    traces = [trace for work in works for trace in work.traces]
    if not inputs:
        return {}
    results = iter(run(model, inputs, traces, batch_size=batch_size, advance=lambda _: None))
    return {id(work): [next(results) for _ in work.inputs] for work in works}


def _judge(work: _Work, model: Model, policy: Policy, profile: str | None) -> Verdict:
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
