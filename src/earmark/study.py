"""Measuring providers: record with each scenario, verify against the reference, keep a `Run`; resumable."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from earmark.errors import OutputError, UsageError
from earmark.fingerprint.matched import matched_names
from earmark.judging import RULES, ProfileLike
from earmark.limits import DEFAULT_K
from earmark.loading import family_of
from earmark.protocols import Model
from earmark.recording import AudioLike, Clip, check_level, load_audio, request
from earmark.records import lines
from earmark.records.evidence import Evidence, Level
from earmark.records.policy import LISTED, Policy
from earmark.records.verdict import Verdict
from earmark.rules import Case
from earmark.runs import Row, Run
from earmark.scenarios.core import Scenario
from earmark.verification import verify_many

GROUP = 64
"""Clips that are recorded, verified and written at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One clip to measure on.

    Attributes:
        name: Its name.
        audio: File or canonical audio; files are loaded when they are needed.
        base: The clip it was made from; by default its own name.
        language: Language that is requested; None lets the model detect it.
        expected: The true transcript, where it is known.
    """

    name: str
    audio: AudioLike
    base: str = ""
    language: str | None = "en"
    expected: str | None = None

    @property
    def nonce(self) -> str:
        """The nonce of its request, which follows from the name, so that a study can be repeated."""
        import hashlib

        return hashlib.sha256(self.name.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def clip(self) -> Clip:
        """Return audio and request."""
        audio = load_audio(self.audio)
        return Clip(audio=audio, request=request(audio, language=self.language, nonce=self.nonce))


def measure(
    reference: Model,
    scenario: Scenario,
    samples: Iterable[Sample],
    *,
    k: int = DEFAULT_K,
    level: Level = "scores",
    batch_size: int = 8,
    profile: ProfileLike = RULES,
    recipes: Sequence[Scenario] = (),
) -> Iterator[Row]:
    """Record clips as a provider would and compare them with the reference.

    Args:
        reference: The model that is claimed.
        scenario: The provider.
        samples: Clips, in any number.
        k: Listed tokens per position.
        level: Level of the evidence.
        batch_size: Segments at once.
        profile: As for `verify`; by default the outcome is that of the rules alone.
        recipes: Scenarios that every clip is matched with, one more replay for each; see `Row.shape`.

    Yields:
        One row per clip, in order.
    """
    stream, policy = iter(samples), LISTED if level == "listed" else Policy(accept_compact=level == "compact")
    while group := list(islice(stream, GROUP)):
        given = [sample.clip() for sample in group]
        clips = [scenario.ask(clip) for clip in given]
        evidence = scenario.record(reference, clips, k=k, level=level, batch_size=batch_size)
        cases = [
            Case(evidence=e, request=c.request, audio=c.audio, receipt=e.receipt)
            for e, c in zip(evidence, clips, strict=True)
        ]
        named: dict[str, Any] = {"attribution": "always", "recipes": recipes} if recipes else {}
        verdicts = verify_many(cases, reference, profile=profile, policy=policy, batch_size=batch_size, **named)
        for sample, asked, own, verdict in zip(group, given, evidence, verdicts, strict=True):
            yield replace(_row(reference, scenario, sample, own, verdict), request=asked.request.digest())


def study(
    reference: Model,
    scenarios: Sequence[Scenario],
    samples: Sequence[Sample],
    out: str | os.PathLike[str],
    *,
    k: int = DEFAULT_K,
    level: Level = "scores",
    batch_size: int = 8,
    profile: ProfileLike = RULES,
    recipes: Sequence[Scenario] = (),
    wanted: Callable[[Scenario, Sample], bool] | None = None,
    advance: Callable[[int], None] | None = None,
    failed: Callable[[Scenario, Exception], None] | None = None,
) -> Run:
    """Measure every scenario on every clip, one flushed JSON line per row; a second call goes on where one stopped.

    Args:
        reference: The model that is claimed.
        scenarios: The providers.
        samples: The clips.
        out: The file of the run; rows that it already holds of these requests are not measured again.
        k: Listed tokens per position.
        level: Level of the evidence.
        batch_size: Segments at once.
        profile: As for `verify`; by default the outcome is that of the rules alone.
        recipes: Scenarios that every clip is matched with, one more replay for each; see `Row.shape`.
        wanted: Which scenario is measured on which sample; all by default.
        advance: Called with the number of finished rows.
        failed: Called with a scenario that raised and what it raised; the next one goes on. By default it is raised.

    Returns:
        The whole run, without rows of these samples that are of another request (other audio, another language); the
        file keeps them, and what was measured anew stands after them.

    Raises:
        OutputError: The file cannot be written.
        RecordError: The file holds something else; a last line cut short by a kill is dropped.
        UsageError: The file holds rows of another model, precision or level, or without the matches that are asked for;
            or the family does not record the level.
    """
    path, step = Path(out), advance or (lambda _: None)
    check_level(level, family_of(reference), played=True)
    lines.drop_torn_line(path)
    held = _measured(path, reference, level, recipes)
    asked = _requests(held, samples)
    done = {(row.scenario, row.clip) for row in held if _answers(row, asked)}
    _append(path, (), step)  # what cannot be written is told before anything is measured
    options = {"k": k, "level": level, "batch_size": batch_size, "profile": profile, "recipes": recipes}
    for scenario in scenarios:
        chosen = [sample for sample in samples if wanted is None or wanted(scenario, sample)]
        missing = [sample for sample in chosen if (scenario.name, sample.name) not in done]
        step(len(chosen) - len(missing))
        rows = measure(reference, scenario, missing, **options)  # type: ignore[arg-type]  # one type per name
        try:
            _append(path, rows, step)
        except OutputError:
            raise
        except Exception as error:
            if failed is None:
                raise
            failed(scenario, error)
    return Run.read(path).where(lambda row: _answers(row, asked))


def _requests(run: Run, samples: Sequence[Sample]) -> dict[str, str]:
    """Return the digests of the requests of those samples of which a run holds rows that name theirs."""
    named = {row.clip for row in run if row.request}
    return {sample.name: sample.clip().request.digest() for sample in samples if sample.name in named}


def _answers(row: Row, asked: Mapping[str, str]) -> bool:
    """Say whether a row is of the request for its clip, as far as is known."""
    return not row.request or row.request == asked.get(row.clip, row.request)


def _append(path: Path, rows: Iterable[Row], step: Callable[[int], None]) -> None:
    with _writing(path):
        file = path.open("a", encoding="utf-8")
    with file:
        for row in rows:
            with _writing(path):
                file.write(row.to_json() + "\n")
                file.flush()
            step(1)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error}") from error


def _measured(path: Path, reference: Model, level: Level, recipes: Sequence[Scenario]) -> Run:
    """Return the rows that a file holds already; all of them are of this reference at this level, matched if asked."""
    run, info = Run.read(path) if path.exists() else Run(), reference.info
    for row in run:
        if (row.weights, row.precision, row.level) != (info.weights, info.precision, level):
            found = _kind(row.model, row.weights, row.precision, row.level)
            expected = _kind(info.name, info.weights, info.precision, level)
            raise UsageError(f"{path} holds rows of {found}; expected {expected}: give another file")
    for recipe in recipes:
        names = matched_names([recipe.name])
        if any(row.statistics and not row.statistics.keys() >= {*names} for row in run):
            found = f"{path} holds rows that were not matched with {recipe.name}"
            raise UsageError(f"{found}; expected all matched: give another file")
    return run


def _kind(model: str, weights: str, precision: str, level: str) -> str:
    return f"{model} ({precision}, level {level}, weights {weights[:12]})"


def _row(reference: Model, scenario: Scenario, sample: Sample, evidence: Evidence, verdict: Verdict) -> Row:
    deciding = [finding for finding in verdict.findings if finding.code != "profile.missing"]
    severities = {finding.severity for finding in deciding}
    by_rules = "FAIL" if "fail" in severities else "INCONCLUSIVE" if "inconclusive" in severities else "PASS"
    return Row(
        clip=sample.name,
        base=sample.base or sample.name,
        scenario=scenario.name,
        honest=scenario.honest,
        model=reference.info.name,
        weights=reference.info.weights,
        family=reference.info.family,
        precision=reference.info.precision,
        level=evidence.level,
        outcome=by_rules,
        findings=tuple(finding.code for finding in deciding if finding.severity != "note"),
        positions=sum(len(segment.ids) for segment in evidence.segments),
        statistics=dict(verdict.fingerprint) if verdict.fingerprint else {},
        shape=dict(verdict.fingerprint.shape) if verdict.fingerprint else {},
        text=evidence.text,
        expected=sample.expected,
        seconds=evidence.segments[-1].end / 16_000,
    )
