"""Fuzzing of evidence: damaged records through parsing and rules, survivors through the whole verification.

Run `python benchmarks/fuzz.py [--records 1000000] [--survivors 10000] [--models MODEL...] [--levels sketch compact]
[--seed 0] [--json FILE]`; one model per family, and every level that its family records, by default. It fails if
anything raises, if a record takes longer than a second, or if a survivor passes that must not: with the original
receipt none may, without it none whose ids, text, digests or segments changed.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections import Counter
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

import earmark
from earmark import Case, Clip
from earmark.protocols import Model
from earmark.records.evidence import Compact, Evidence, Level, load_evidence
from earmark.rules import check_rules
from earmark.testing import mutated_evidence

SLOWEST_S = 1.0
MODELS = ("embedded:whisper-nano", "embedded:parakeet-ctc-nano", "embedded:parakeet-tdt-nano")
LEVELS: tuple[Level, ...] = ("scores", "sketch", "compact")
POLICY = earmark.Policy(accept_compact=True)


def fuzz_rules(
    clip: Clip, evidence: Evidence, model: Model, *, records: int, seed: int, keep: int
) -> tuple[dict[str, Any], list[bytes]]:
    """Send damaged records through parsing and rules; return figures and the first survivors, at most `keep`."""
    codes: Counter[str] = Counter()
    survivors: list[bytes] = []
    survived, slowest = 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    stream = islice(mutated_evidence(evidence, seed), records)
    for data in track(stream, description="rules", total=records, console=Console(stderr=True), transient=True):
        start = time.perf_counter()
        findings = check_rules(Case(evidence=data, audio=clip.audio, request=clip.request), model, POLICY)
        slowest = max(slowest, time.perf_counter() - start)
        codes.update({finding.code for finding in findings})
        survived += not findings
        if not findings and len(survivors) < keep:
            survivors.append(data)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    figures = {
        "records": records,
        "survivors": survived,
        "slowest_ms": 1e3 * slowest,
        "grown_mb": grown,
        "findings": dict(codes.most_common()),
    }
    return figures, survivors


def fuzz_verdicts(clip: Clip, evidence: Evidence, model: Model, survivors: list[bytes]) -> dict[str, Any]:
    """Send survivors through the whole verification; return how they end, and which passed that must not."""
    receipt = evidence.receipt
    outcomes: dict[str, Counter[str]] = {"with receipt": Counter(), "without": Counter()}
    wrong = []
    for kind, given in (("with receipt", receipt), ("without", None)):
        cases = [Case(evidence=d, audio=clip.audio, request=clip.request, receipt=given) for d in survivors]
        verdicts = earmark.verify_many(cases, model, profile="provisional", policy=POLICY, batch_size=16)
        total = len(survivors)
        shown = track(verdicts, description=kind, total=total, console=Console(stderr=True), transient=True)
        for data, verdict in zip(survivors, shown, strict=True):
            outcomes[kind][verdict.outcome] += 1
            record, sent = load_evidence(data), evidence.compact() if evidence.level == "compact" else evidence
            if verdict.passed and record != sent and (given is not None or _changed(record, sent)):
                wrong.append(data.hex())
    return {**{kind: dict(counts) for kind, counts in outcomes.items()}, "wrong": wrong}


def _changed(record: Evidence | Compact, original: Evidence | Compact) -> bool:
    """Tell whether ids, text, digests or segments differ; a compact record holds ids and digests alone."""

    def facts(e: Evidence | Compact) -> Any:
        if isinstance(e, Compact):
            return e.request_digest, e.weights, e.features, [piece.ids for piece in e.segments]
        pieces = [(s.start, s.end, s.text, s.ids) for s in e.segments]
        return e.text, e.request_digest, e.claim.weights, pieces

    return bool(facts(record) != facts(original))


def fuzz(source: str, level: Level, *, records: int, keep: int, seed: int) -> dict[str, Any]:
    """Fuzz the evidence of one clip, of one model at one level, and return the figures."""
    model = earmark.load(source)
    audio = earmark.load_audio(Path(str(files("earmark.data"))) / "clips" / "00.flac")
    language = "en" if model.info.family == "autoregressive" else None
    clip = Clip(audio=audio, request=earmark.request(audio, language=language, nonce="00" * 16))
    evidence = earmark.record(model, clip.request, audio, level=level)
    figures, survivors = fuzz_rules(clip, evidence, model, records=records, seed=seed, keep=keep)
    verdicts = fuzz_verdicts(clip, evidence, model, survivors)
    return {"model": source, "level": level, **figures, "verdicts": verdicts}


def main() -> int:
    """Fuzz every model at every level and print the figures; return 1 if anything must not have been."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--survivors", type=int, default=10_000)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--levels", nargs="+", choices=LEVELS, default=LEVELS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes = {"records": arguments.records, "keep": arguments.survivors, "seed": arguments.seed}
    found = []
    for source in arguments.models:
        for level in arguments.levels:
            found.append(fuzz(source, level, **sizes))
            print(json.dumps(found[-1], indent=1), flush=True)
            if arguments.json:
                arguments.json.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return int(any(row["verdicts"]["wrong"] or row["slowest_ms"] > 1e3 * SLOWEST_S for row in found))


if __name__ == "__main__":
    sys.exit(main())
