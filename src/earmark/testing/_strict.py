"""What a family owes to malformed evidence: it is refused, and never a crash."""

from __future__ import annotations

from itertools import islice

import msgspec

from earmark.errors import TraceError
from earmark.records import codec
from earmark.records.evidence import Evidence, Segment
from earmark.rules import Case, check_rules
from earmark.testing._forgeries import with_segment
from earmark.testing.bench import LENIENT, Bench, ours, require, told
from earmark.testing.damage import mutated_evidence, mutated_traces

BYTES_PER_SECOND = 64 * 1024
"""More than a trace may take per second of audio, beyond as much for the segment: 100 frames of 80 candidates."""
DAMAGES = 300
"""Damaged traces and records that each family is fed."""
JUNK = (b"", bytes(258), b"\xff" * 64, b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\x80", b"{}", b"null")
"""Bytes that are no trace of anything: nothing, zeros, deep nesting, a length without content, empty maps."""


def bounded(bench: Bench) -> None:
    """Traces grow with the duration and no faster."""
    for evidence in bench.honest:
        for segment in evidence.segments:
            limit = BYTES_PER_SECOND * (1 + (segment.end - segment.start) / 16_000)
            size = len(segment.trace)
            require(size <= limit, f"a trace of {size} bytes", f"at most {limit:.0f}", "store less per position")


def _read(bench: Bench, evidence: Evidence, trace: bytes) -> str | None:
    """Return how the family refuses a trace, None where it reads it, and complain about any other error."""
    segment: Segment = msgspec.structs.replace(evidence.segments[0], trace=trace)
    try:
        bench.family.read(segment, bench.clips[0].request, bench.model, evidence.level)
    except TraceError as error:
        return error.code
    except Exception as error:  # noqa: BLE001 - whatever a family throws is the finding
        found = f"{type(error).__name__}: {error} from `read` on a damaged trace of {len(trace)} bytes"
        require(holds=False, found=found, expected="TraceError", advice="check before use")
    return None


def reads_strictly(bench: Bench) -> None:
    """Damaged traces are refused by `TraceError`, or replay without a crash."""
    for level in bench.levels:
        _reads_strictly(bench, bench.record(clips=bench.clips[:1], level=level)[0])


def _reads_strictly(bench: Bench, evidence: Evidence) -> None:
    trace = evidence.segments[0].trace
    require(
        _read(bench, evidence, trace) is None,
        "an honest trace refused",
        "it to be read",
        "let `read` take what was written",
    )
    cuts = [trace[: len(trace) * part // 16] for part in range(16)]
    for bad in (*JUNK, *cuts, trace + b"\0", trace + trace):
        found = f"{len(bad)} bytes {bad[:12]!r}... read as a trace of level {evidence.level}"
        require(
            _read(bench, evidence, bad) is not None,
            found,
            "TraceError",
            "refuse what is cut, padded or of another type",
        )
    survivors = [
        bad for bad in islice(mutated_traces(trace, bench.seed), DAMAGES) if _read(bench, evidence, bad) is None
    ]
    changed = [with_segment(evidence, trace=bad) for bad in survivors[:20]]
    for verdict in bench.verify(changed, [bench.clips[0]] * len(changed)):
        found = f"{told(verdict)} for a damaged trace that `read` let through"
        require(not ours(verdict), found, "a verdict without a crash", "refuse in `read` what `replay` cannot take")


def survives_damage(bench: Bench) -> None:
    """Damaged records never crash, and never pass with another transcript."""
    honest, clip = bench.honest[0], bench.clips[0]
    survivors = []
    for data in islice(mutated_evidence(honest, bench.seed), DAMAGES):
        case = Case(evidence=data, audio=clip.audio, request=clip.request)
        if not check_rules(case, bench.model, LENIENT):
            survivors.append(data)
    for data, verdict in zip(survivors, bench.verify(survivors, [clip] * len(survivors)), strict=True):
        other = codec.decode(data, Evidence)
        same = [(s.start, s.end, s.text, s.ids) for s in other.segments] == [
            (s.start, s.end, s.text, s.ids) for s in honest.segments
        ]
        require(not ours(verdict), told(verdict), "a verdict without a crash", "refuse it before the replay")
        require(same or not verdict.passed, "PASS with another transcript", "FAIL", "bind ids, text and segments")
