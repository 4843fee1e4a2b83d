"""What `earmark verify` works on: opened evidence, and drawn receipts that nobody opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from earmark.cli import files
from earmark.cli.files import Named
from earmark.errors import AudioError, AudioFileNotFoundError, EarmarkError, RecordError, UsageError
from earmark.probing import LEVELS
from earmark.profiles import Profile
from earmark.records import codec, lines
from earmark.records.evidence import Evidence, Level, load_evidence
from earmark.records.policy import Policy
from earmark.records.receipt import Receipt
from earmark.records.unanswered import Unanswered
from earmark.records.verdict import Finding, unclear
from earmark.rules import Case

_UNREADABLE = unclear("opening.unreadable", "provider", "a folder, a pipe or a broken link", "a file with evidence")
"""What stands in place of evidence where a folder holds something else by its name."""


def cases_of(
    evidence: Sequence[str],
    audio: Path | None,
    request: Path | None,
    receipt: Path | None,
    drawn: Path | None,
    unanswered: Path | None = None,
) -> tuple[list[Named], list[Case]]:
    """Return names and cases of opened evidence; with `drawn` of every receipt in it, opened or not.

    With `unanswered` also of what the verifier noted in that folder, all in the order of their names.

    Raises:
        UsageError: A file or folder is missing.
        RecordError: The list of drawn receipts is damaged.
    """
    if unanswered is not None:
        if drawn is not None:
            raise UsageError("a server that was asked gives no receipts to draw from; leave out --drawn")
        return _with_notes(evidence, unanswered, audio, request, receipt)
    if drawn is None:
        found = files.find_evidence([Path(place) for place in evidence])
        return found, _with_some(receipt, _cases(found, audio, request, receipt))
    if receipt is not None:
        raise UsageError("--drawn holds the receipts; leave out --receipt")
    found = [item for place in evidence for item in _opened(Path(place))]
    receipts = drawn_receipts(drawn)
    opened = _openings(receipts, found)
    made = iter(_cases([item for item in opened if item], audio, request, None, alone=len(receipts) == 1))
    cases = [
        Case(evidence=None, audio="", receipt=own) if item is None else replace(next(made), receipt=own)
        for (own, _), item in zip(receipts, opened, strict=True)
    ]
    return [item or Named(Path(name), name) for (_, name), item in zip(receipts, opened, strict=True)], cases


def _with_notes(
    evidence: Sequence[str], notes: Path, audio: Path | None, request: Path | None, receipt: Path | None
) -> tuple[list[Named], list[Case]]:
    """Return evidence and notes together; no provider writes into the folder of the notes."""
    found = [item for place in evidence for item in _opened(Path(place))]
    cases = _with_some(receipt, _cases(found, audio, request, receipt, alone=False))
    pairs = list(zip(found, cases, strict=True))
    for item in files.find_notes([notes]):
        note = codec.load(item.path, Unanswered)
        pairs.append((item, Case(evidence=note, audio="", request=note.request)))
    if not pairs:
        raise UsageError(f"neither evidence in {', '.join(evidence)} nor notes in {notes}; nothing to verify")
    pairs.sort(key=lambda pair: pair[0].name)
    return [item for item, _ in pairs], [case for _, case in pairs]


def _with_some(receipts: Path | None, cases: list[Case]) -> list[Case]:
    """Refuse a folder without any of the receipts; which clips have none there is for the policy to judge.

    Raises:
        UsageError: It is a wrong folder.
    """
    if receipts is not None and cases and all(case.receipt is None for case in cases):
        raise UsageError(f"{receipts} holds no receipt of these clips (NAME.receipt.json); give the stored ones")
    return cases


def _cases(
    found: Sequence[Named],
    audio: Path | None,
    request: Path | None,
    receipt: Path | None,
    *,
    alone: bool | None = None,
) -> list[Case]:
    """Return the case of each evidence; one that belongs to no clip, among others that do, is a finding.

    Raises:
        UsageError: No evidence has its records.
        AudioFileNotFoundError: No evidence has its clip.
    """
    made: list[Case] = []
    errors: list[EarmarkError] = []
    single = len(found) == 1 if alone is None else alone
    for item in found:
        try:
            made.append(_case(item, audio, request, receipt, alone=single))
        except (UsageError, AudioFileNotFoundError) as error:
            errors.append(error)
            if not item.inside:
                raise
            surplus = unclear("opening.surplus", "input", error, "evidence of a clip that was asked for")
            made.append(Case(evidence=surplus, audio=""))
    if errors and len(errors) == len(found):
        raise errors[0]
    return made


def _case(item: Named, audio: Path | None, request: Path | None, receipt: Path | None, *, alone: bool) -> Case:
    return Case(
        evidence=_UNREADABLE if item.inside and not item.path.is_file() else item.path,
        audio=files.audio_of(item, audio, alone),
        request=files.request_of(item, request, alone),
        receipt=files.receipt_of(item, receipt, alone),
    )


def with_transcripts(found: Sequence[Named], cases: Sequence[Case], given: Path | None) -> list[Case]:
    """Return the cases with the texts that the customer received; each was kept, where any was.

    Raises:
        UsageError: There is no text for an evidence.
        RecordError: A text is no UTF-8.
    """
    if given is None:
        return list(cases)
    return [
        replace(case, delivered=files.text_of(item, given, alone=len(cases) == 1)) if _is_opened(case) else case
        for item, case in zip(found, cases, strict=True)
    ]


def _opened(place: Path) -> list[Named]:
    """Return the evidence in a place; a folder without any holds no opening, which is for the verdict to say."""
    return files.evidence_in(place) if place.is_dir() else files.find_evidence([place])


def check_depth(depth: int | None, budget: float, cases: Sequence[Case]) -> None:
    """Refuse a look at what a budget leaves out where it leaves nothing out, or no evidence holds hidden states.

    Raises:
        UsageError: There would be nothing to look at.
    """
    if depth is None:
        return
    if budget >= 1:
        found = f"--depth {depth} with a budget of {budget:g}, which leaves nothing out"
        raise UsageError(f"{found}; give --budget below 1, or leave out --depth")
    levels: set[str] = set()
    for case in cases:
        if (level := _level(case)) in LEVELS:
            return
        levels |= {level} if level else set()
    if levels:
        found = f"--depth {depth} with evidence of the level {', '.join(sorted(levels))}, without hidden states"
        raise UsageError(f"{found}; expected {' or '.join(LEVELS)}: record with --level, or leave out --depth")


def level_of(cases: Sequence[Case], policy: Policy, profile: Profile | None = None) -> Level:
    """Return the level of an audit that asks for none: of the first evidence that the policy accepts.

    Where nothing was opened that could be read, it is that of the given profile, or the least of the policy.

    A level that the policy does not accept would leave nobody to judge the clips that a provider chose it for.
    """
    levels = (_level(case) for case in cases)
    otherwise = profile.header.level if profile is not None else policy.least_level
    return next((level for level in levels if level and policy.accepts(level)), otherwise)


def check_requests(level: str, cases: Sequence[Case]) -> None:
    """Refuse to audit compact evidence without requests, as it has no place for them.

    Raises:
        UsageError: A clip has none.
    """
    if level == "compact" and any(case.request is None and _is_opened(case) for case in cases):
        raise UsageError("compact evidence holds no request; give the folder of the customers' with --request")


def check_receipts(policy: Policy, cases: Sequence[Case]) -> None:
    """Refuse a policy that asks for receipts where the verifier brings none: no provider could keep it.

    Raises:
        UsageError: None of the clips has a receipt.
    """
    opened = [case for case in cases if _is_opened(case)]
    if policy.require_receipt and opened and all(case.receipt is None for case in opened):
        raise UsageError("the policy asks for receipts, and none was given; give the stored ones: --receipt or --drawn")


def _is_opened(case: Case) -> bool:
    return case.evidence is not None and not isinstance(case.evidence, Unanswered | Finding)


def _level(case: Case) -> Level | None:
    """Return the level of what was opened; None where nothing can be read, which is for the verdict to say."""
    if case.evidence is None or isinstance(case.evidence, Evidence | Unanswered | Finding):
        return case.evidence.level if isinstance(case.evidence, Evidence) else None
    try:
        record = load_evidence(case.evidence)
    except EarmarkError:
        return None
    return record.level if isinstance(record, Evidence) else "compact"


def drawn_receipts(path: Path) -> list[tuple[Receipt, str]]:
    """Read what `earmark draw` printed, plain or with --json: each receipt and its name, or its line without one.

    Raises:
        UsageError: There is no such file, it is empty, or a name stands twice.
        RecordError: A line holds no receipt.
    """
    rows = [(receipt, name or f"{path.name}:{number}") for number, (receipt, name) in lines.read(path, _drawn)]
    if not rows:
        raise UsageError(f"{path} names no receipts; give what `earmark draw` printed")
    seen: set[str] = set()
    for _, name in rows:
        if name in seen:
            raise UsageError(f"{path} has the name {name!r} twice; draw from one folder, with --json")
        seen.add(name)
    return rows


def _drawn(line: str) -> tuple[Receipt, str]:
    try:
        if line.lstrip().startswith("{"):
            row = lines.from_line(line)
            return Receipt.from_token(str(row["token"])), str(row["receipt"])
        token, _, name = line.strip().partition(" ")
        return Receipt.from_token(token), name.strip()
    except (RecordError, KeyError) as error:
        raise RecordError("expected a line that `earmark draw` printed") from error


def _openings(drawn: Sequence[tuple[Receipt, str]], found: Sequence[Named]) -> list[Named | None]:
    """Return what was opened for each drawn receipt, None where nothing was.

    `NAME.evidence.*` opens `NAME.receipt.*` and no other, as audio and request go by that name. Short receipts of a
    list have no name: evidence of their digest opens them, one each, since a commitment holds the nonce of one request.
    """
    by_name = {lines.plain(item.name).lstrip(): item for item in reversed(found)}  # as a plain list shows it
    by_name |= {item.name: item for item in reversed(found)}
    stems = [_stem(name) for _, name in drawn]
    taken = {by_name[stem].path for stem in stems if stem in by_name}
    left = [item for item in reversed(found) if item.path not in taken] if None in stems else []
    by_digest = {_digest(item.path): item for item in left}
    return [
        by_digest.pop(receipt.commitment, None) if stem is None else by_name.get(stem)
        for (receipt, _), stem in zip(drawn, stems, strict=True)
    ]


def _stem(name: str) -> str | None:
    """Return the name of the clip of a receipt; None where it stands in a list."""
    return next((name.removesuffix(end) for end in (".receipt.json", ".receipt.msgpack") if name.endswith(end)), None)


def _digest(path: Path) -> str | None:
    try:
        return load_evidence(path).digest() if path.is_file() else None
    except (EarmarkError, AudioError):
        return None
