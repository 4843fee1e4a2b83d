"""The rules that evidence must keep before any replay: records, receipt, request, audio, claim, segments, text."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from earmark.audio import CanonicalAudio
from earmark.errors import AudioError, AudioFileNotFoundError, RecordError, UsageError
from earmark.features import differences
from earmark.loading import family_of
from earmark.protocols import Comparison, Model
from earmark.recording import AudioLike, Clip, boundaries, load_audio, segment_inputs
from earmark.records import codec
from earmark.records.evidence import Compact, Evidence, Level, join_texts, load_evidence
from earmark.records.policy import Policy
from earmark.records.receipt import Receipt
from earmark.records.request import Request
from earmark.records.unanswered import Unanswered
from earmark.records.verdict import Fault, Finding, Proves, broken, decide, note, unclear

Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One clip to verify; each record may be given as object, bytes or file.

    Attributes:
        evidence: What the provider opened, or None where it opened nothing for a drawn receipt; the verifier's own
            note where a server that was asked gave none, or a finding that says why none can be judged. A note that
            comes as bytes or file is no evidence.
        audio: The clip.
        request: The customer's own request, or None.
        receipt: The stored receipt, or None.
        delivered: The text that the customer received, or None where nobody kept it.
    """

    evidence: Evidence | Unanswered | Finding | bytes | Path | None
    audio: AudioLike
    request: Request | bytes | Path | None = None
    receipt: Receipt | bytes | Path | None = None
    delivered: str | None = None


@dataclass(slots=True, kw_only=True)
class Work:
    """A case on its way: findings so far, and what the replay needs once the rules hold.

    `exact` says that the bits are equal, `part` that a budget left segments out; `left` holds input and trace of
    each of these.
    """

    findings: list[Finding] = field(default_factory=list)
    evidence: Evidence | None = None
    request: Request | None = None
    audio: CanonicalAudio | None = None
    traces: list[Any] = field(default_factory=list)
    inputs: list[Any] = field(default_factory=list)
    replays: list[Any] = field(default_factory=list)
    comparison: Comparison | None = None
    exact: bool = False
    part: bool = False
    left: list[tuple[Any, Any]] = field(default_factory=list)
    proves: Proves = "reconstructable"
    request_inside: bool = False

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return self.audio.seconds if self.audio is not None else 0.0

    @property
    def open(self) -> bool:
        """Whether nothing stands against a replay yet."""
        return decide(self.findings) == "PASS"


def check_rules(case: Case, reference: Model, policy: Policy | None = None) -> tuple[Finding, ...]:
    """Return what the rules that need no replay find; nothing found means that a replay would follow.

    Args:
        case: The clip.
        reference: The verifier's own copy of the claimed model; it is not run.
        policy: What is accepted.

    Returns:
        The findings.
    """
    return tuple(prepare(case, reference, policy or Policy()).findings)


def prepare(case: Case, model: Model, policy: Policy) -> Work:
    """Read one case, check it against every rule, and gather what its replay needs."""
    work = Work(request_inside=case.request is None)
    if case.evidence is None:
        work.findings.append(broken("opening.missing", "no evidence", "the evidence behind the drawn receipt"))
        return work
    if isinstance(case.evidence, Unanswered | Finding):
        work.findings.append(case.evidence.finding if isinstance(case.evidence, Unanswered) else case.evidence)
        return work
    try:
        record = case.evidence if isinstance(case.evidence, Evidence) else load_evidence(case.evidence)
    except RecordError as error:
        work.findings.append(broken(error.code, error, "a well-formed evidence record"))
        return work
    work.findings += _check_receipt(case, record, policy, work)
    work.request = _bind_request(case, record, policy, work)
    if work.request is None:
        return work
    work.audio = _bind_audio(case, work.request, work)
    try:
        work.evidence = _whole(record, work.audio, work.request, model)
    except RecordError as error:
        work.findings.append(broken(error.code, error, "compact evidence of this request and of the reference's kind"))
    except UsageError as error:
        work.findings.append(unclear("request.unusable", "input", error, "a request that the model can answer"))
    if work.evidence is None:
        return work
    work.findings += _check_claim(work.evidence, work.request, model, policy)
    work.findings += _check_delivered(case.delivered, work.evidence.text)
    if work.open and work.audio is not None:
        _read_traces(work, work.evidence, work.audio, work.request, model=model, policy=policy)
    return work


def _read(source: Any, kind: type[Any]) -> Any:
    return source if isinstance(source, kind) else codec.load(source, kind)


def _whole(record: Evidence | Compact, audio: CanonicalAudio | None, request: Request, model: Model) -> Evidence | None:
    """Return the evidence with what its compact form leaves out; None where only the audio would tell."""
    if isinstance(record, Evidence):
        return record
    if audio is None:
        return None
    pieces, vocab = boundaries(audio, request, model.info.window_samples), model.info.vocab_size

    def text_of(ids: Sequence[int]) -> str:
        return model.detokenise([i for i in ids if i < vocab])  # the family refuses the others by name

    return record.expand(request, model.info.features, pieces, text_of)


def _check_receipt(case: Case, evidence: Evidence | Compact, policy: Policy, work: Work) -> list[Finding]:
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


def _bind_request(case: Case, evidence: Evidence | Compact, policy: Policy, work: Work) -> Request | None:
    """Return the request that binds the evidence: the verifier's own, else the one inside."""
    if isinstance(evidence, Compact):
        inside, digest = None, evidence.request_digest.hex()
    else:
        inside, digest = evidence.request, evidence.request_digest
    if inside is not None and inside.digest() != digest:
        work.findings.append(broken("request.contradiction", inside.digest()[:12], digest[:12]))
        return None
    if case.request is None:
        if inside is None:
            work.findings += _no_request(evidence, policy)
        elif inside.prompt and not policy.accept_prompts:
            expected = "the customer's request, since a prompt can hold the transcript"
            work.findings.append(unclear("prompt.unbound", "provider", "a prompt", expected))
        return inside
    try:
        asked: Request = _read(case.request, Request)
    except RecordError as error:
        work.findings.append(unclear("request.malformed", "input", error, "the customer's request"))
        return None
    if asked.digest() != digest:
        found, expected = f"{digest[:12]}...", f"{asked.digest()[:12]}..."
        work.findings.append(broken("request.mismatch", found, expected))
        return None
    return asked


def _no_request(evidence: Evidence | Compact, policy: Policy) -> list[Finding]:
    """Say whose fault it is that nobody gave the request: compact evidence has no place for it, any other has."""
    if isinstance(evidence, Evidence):
        expected = "the request inside the evidence, or the customer's (--request)"
        return [unclear("request.missing", "provider", "no request", expected)]
    missing = unclear("request.missing", "input", "no request", "the customer's request (--request)")
    return [missing] if policy.accept_compact else [missing, _unaccepted("compact", policy)]


def _bind_audio(case: Case, request: Request, work: Work) -> CanonicalAudio | None:
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
    findings += _check_level(evidence.level, model, policy)
    if claim.engine != info.engine:
        findings.append(note("engine.other", claim.engine, info.engine))
    return findings


def _check_level(level: Level, model: Model, policy: Policy) -> list[Finding]:
    """Say whether the policy takes evidence of this level; compact evidence only where it says so."""
    if not policy.accepts(level):
        return [_unaccepted(level, policy)]
    if level not in family_of(model).levels:
        return [unclear("level.unknown", "provider", level, " or ".join(family_of(model).levels))]
    return []


def _unaccepted(level: Level, policy: Policy) -> Finding:
    if level == "compact":
        expected = f"level {policy.least_level}, or a policy that accepts compact evidence (accept_compact)"
        return unclear("level.compact", "provider", level, expected)
    return unclear("level.low", "provider", level, f"at least {policy.least_level}")


def _read_traces(
    work: Work, evidence: Evidence, audio: CanonicalAudio, request: Request, *, model: Model, policy: Policy
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
        # a request that came with the evidence is the provider's choice, and no shelter
        fault: Fault = "provider" if work.request_inside else "input"
        work.findings.append(unclear("request.unusable", fault, error, "a request that the model can answer"))
        return
    work.findings += _check_text(evidence, model)
    work.findings += family.review(work.traces, policy)
    work.inputs = segment_inputs(Clip(audio=audio, request=request), model)


def _some(pieces: Sequence[tuple[int, int]]) -> str:
    return f"{len(pieces)} segments {list(pieces[:4])}{'...' if len(pieces) > 4 else ''}"


def _check_delivered(delivered: str | None, text: str) -> list[Finding]:
    """Say whether the customer received the text of the evidence, but for white space around it and Unicode's NFC."""
    if delivered is None or _composed(delivered) == _composed(text):
        return []
    return [broken("text.delivered", repr(delivered.strip()[:60]), f"{text.strip()[:60]!r}, the evidence's text")]


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _check_text(evidence: Evidence, model: Model) -> list[Finding]:
    for number, segment in enumerate(evidence.segments):
        expected = model.detokenise(segment.ids)
        if segment.text != expected:
            return [broken("text.mismatch", f"{segment.text[:60]!r} in segment {number}", repr(expected[:60]))]
    joined = join_texts([segment.text for segment in evidence.segments])
    if evidence.text != joined:
        return [broken("text.mismatch", repr(evidence.text[:60]), repr(joined[:60]))]
    return []
