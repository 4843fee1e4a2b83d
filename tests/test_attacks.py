"""Attacks that must never PASS, each beside its honest twin that does (THREATS A20, A24 to A33)."""

from __future__ import annotations

import builtins
import io
import socket
import tempfile
import time
import tracemalloc
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tiny_models import parakeet

import earmark
from earmark import Case, Clip, Policy
from earmark.checkpoint import embedded_names
from earmark.limits import max_tokens
from earmark.loading import family_of
from earmark.records.codec import MAX_RECORD_BYTES
from earmark.records.policy import STRICT
from earmark.records.receipt import batch
from earmark.records.request import Decoding, Segmentation
from earmark.testing._forgeries import blanked, with_segment
from earmark.testing.bench import default_clips, restamp

#: Reference and a cheaper model with the same tokens; random ones of the real classes beside those that ship.
PAIRS = {
    "autoregressive": ("whisper-nano", "whisper-nano-early"),
    "ctc": ("parakeet-ctc-nano", "parakeet-ctc-nano-student"),
    "random-ctc": ("random-ctc-0", "random-ctc-1"),
    "transducer": ("parakeet-tdt-nano", "parakeet-tdt-nano-student"),
    "random-tdt": ("random-tdt-0", "random-tdt-1"),
    "random-rnnt": ("random-rnnt-0", "random-rnnt-1"),
}


@dataclass(frozen=True, kw_only=True)
class World:
    """A reference, a cheaper model that shares its tokens, and a clip that they transcribe differently."""

    reference: object
    cheap: object
    clip: Clip
    cheap_evidence: object
    real_evidence: object

    def verify(self, evidence, *, request="the customer's", receipt=None, policy=None):
        asked = self.clip.request if request == "the customer's" else request
        case = Case(evidence=evidence, audio=self.clip.audio, request=asked, receipt=receipt)
        return next(earmark.verify_many([case], self.reference, policy=policy, profile="provisional"))

    def record(self, model=None, request=None, **options):
        return earmark.record(model or self.reference, request or self.clip.request, self.clip.audio, **options)


def _ships(pair: str) -> bool:
    return pair.startswith("random") or set(PAIRS[pair]) <= set(embedded_names())


@cache
def _load(name: str):
    if not name.startswith("random-"):
        return earmark.load(f"embedded:{name}", device="cpu")
    _, kind, seed = name.split("-")
    folder = parakeet(Path(tempfile.mkdtemp(prefix="earmark-")) / name, kind, int(seed))
    return earmark.load(folder, device="cpu")


@cache
def _world(pair: str) -> World:
    if not _ships(pair):
        pytest.skip(f"{PAIRS[pair]} do not ship yet")
    reference, cheap = map(_load, PAIRS[pair])
    for clip in default_clips(24):
        real, other = (earmark.record(m, clip.request, clip.audio, level="sketch") for m in (reference, cheap))
        if real.text != other.text:
            return World(reference=reference, cheap=cheap, clip=clip, cheap_evidence=other, real_evidence=real)
    raise AssertionError("the cheap model writes what the real one writes; no clip to test on")


@pytest.fixture(params=PAIRS)
def world(request) -> World:
    return _world(request.param)


@pytest.fixture
def whisper() -> World:
    """Return the world of the family that has prompts, beams and sampling."""
    return _world("autoregressive")


def _codes(verdict) -> set[str]:
    return {finding.code for finding in verdict.findings if finding.severity != "note"}


def _reasons(verdict) -> str:
    return "; ".join(map(str, verdict.findings))


# The seven that must never pass


def test_lazy_evidence_fails_by_its_receipt(world):
    """A24: the cheap model served and its receipt went out; the real model ran only when evidence was asked for."""
    lazy = world.verify(world.real_evidence, receipt=world.cheap_evidence.receipt)
    assert (lazy.outcome, _codes(lazy)) == ("FAIL", {"receipt.mismatch"})
    twin = world.verify(world.real_evidence, receipt=world.real_evidence.receipt)
    assert (twin.outcome, twin.proves) == ("PASS", "committed"), _reasons(twin)


def test_lazy_evidence_without_a_receipt_is_held_against_the_provider(world):
    """A24 under the strict policy: no receipt, no PASS; without the policy a PASS proves less and says so."""
    held = world.verify(world.real_evidence, policy=STRICT)
    assert (held.outcome, held.fault, _codes(held)) == ("INCONCLUSIVE", "provider", {"receipt.missing"})
    assert world.verify(world.real_evidence).proves == "reconstructable"


def test_restamped_evidence_fails(world):
    """A25: evidence kept from an earlier request for the same audio, under the new nonce with every digest right."""
    again = msgspec.structs.replace(world.clip.request, nonce="f" * 32)
    stale = world.verify(restamp(world.real_evidence, again), request=again)
    assert stale.outcome == "FAIL"
    assert any("sketch" in code for code in _codes(stale))
    fresh = world.record(request=again, level="sketch")
    twin = world.verify(fresh, request=again, receipt=fresh.receipt)
    assert twin.outcome == "PASS", _reasons(twin)


def test_restamped_scores_fail_by_the_receipt(world):
    """A25 below the sketch: numbers do not depend on the nonce, so only the commitment shows it."""
    again = msgspec.structs.replace(world.clip.request, nonce="e" * 32)
    kept = world.record(level="scores")
    stamped = restamp(kept, again)
    assert world.verify(stamped, request=again, receipt=kept.receipt).outcome == "FAIL"
    assert world.verify(kept).outcome == "PASS"


def test_a_stuffed_prompt_fails(whisper):
    """A26: the cheap transcript is put into the prompt, and the real model repeats it."""
    stuffed = msgspec.structs.replace(whisper.clip.request, prompt=whisper.cheap_evidence.text)
    evidence = whisper.record(request=stuffed)
    honestly_named = whisper.verify(evidence)
    assert (honestly_named.outcome, _codes(honestly_named)) == ("FAIL", {"request.mismatch"})
    digests_right = whisper.verify(restamp(evidence, whisper.clip.request))
    assert (digests_right.outcome, _codes(digests_right)) == ("FAIL", {"prompt.mismatch"})
    unbound = whisper.verify(evidence, request=None)
    assert (unbound.outcome, unbound.fault, _codes(unbound)) == ("INCONCLUSIVE", "provider", {"prompt.unbound"})
    twin = whisper.verify(evidence, request=stuffed)
    assert twin.outcome == "PASS", "a prompt that the customer asked for is honest"


def test_a_claimed_beam_hides_no_cheap_writer(whisper):
    """A27: the cheap model writes, the real one scores, and a beam is claimed so that no argmax rule applies."""
    asked = msgspec.structs.replace(whisper.clip.request, decoding=Decoding(strategy="beam", beams=3))
    cheap = whisper.record(whisper.cheap, asked)
    real = whisper.record(request=asked)
    assert cheap.text != real.text
    rescored = earmark.score(whisper.reference, cheap, whisper.clip.audio)
    refused = whisper.verify(rescored)
    assert refused.outcome == "FAIL", "the customer asked for no beam"
    for request in (asked, None):
        run_again = whisper.verify(rescored, request=request)
        assert (run_again.outcome, _codes(run_again)) == ("FAIL", {"rerun.worse"})
        assert whisper.verify(real, request=request).outcome == "PASS"


def test_a_claimed_temperature_hides_no_cheap_writer(whisper):
    """A27: sampling is no escape either, because its noise is replayed."""
    for seed in range(20):
        decoding = Decoding(strategy="sample", temperature=0.7, seed=seed)
        asked = msgspec.structs.replace(whisper.clip.request, decoding=decoding)
        cheap, real = whisper.record(whisper.cheap, asked), whisper.record(request=asked)
        assert whisper.verify(real, request=asked).outcome == "PASS"
        if cheap.text != real.text:
            break
    rescored = earmark.score(whisper.reference, cheap, whisper.clip.audio)
    caught = whisper.verify(rescored, request=asked)
    assert (caught.outcome, _codes(caught)) == ("FAIL", {"margin.exceeded"})


def test_k_of_one_is_held_against_the_provider(world):
    """A28: one candidate per position hides everything but the emitted token."""
    short = world.verify(world.record(k=1))
    assert (short.outcome, short.fault, _codes(short)) == ("INCONCLUSIVE", "provider", {"k.low"})
    assert world.verify(world.record(k=8)).outcome == "PASS"
    assert world.verify(world.record(k=5), policy=STRICT).outcome != "PASS"


def test_nothing_can_be_censored_away(world):
    """A29: everything missing or -9999, field by field."""
    honest = world.real_evidence
    forged = [with_segment(honest, trace=trace) for _, trace in blanked(honest.segments[0].trace)]
    assert len(forged) > 10
    for evidence in forged:
        verdict = world.verify(evidence)
        assert verdict.outcome == "FAIL", _reasons(verdict)
    assert world.verify(honest).outcome == "PASS"


def _rows_kept(trace: bytes, keep: float) -> bytes:
    """Return a trace whose arrays hold only their first part."""
    opened = msgspec.msgpack.decode(trace)
    rows = opened.items() if isinstance(opened, dict) else enumerate(opened)
    for name, value in list(rows):
        if isinstance(value, bytes):
            opened[name] = value[: int(len(value) * keep) // 8 * 8]
    return msgspec.msgpack.encode(opened)


def test_positions_cannot_be_picked(world):
    """A30: only positions that agree are shown, with the transcript as it was or cut to match."""
    honest = world.real_evidence
    for keep in (0.0, 0.25, 0.5, 0.9):
        picked = with_segment(honest, trace=_rows_kept(honest.segments[0].trace, keep))
        assert world.verify(picked).outcome == "FAIL"
    ids = honest.segments[0].ids
    shorter = with_segment(honest, ids=ids[1:], text=world.reference.detokenise(ids[1:]))
    shorter = msgspec.structs.replace(shorter, text=shorter.segments[0].text.strip())
    rescored = earmark.score(world.reference, shorter, world.clip.audio)
    if rescored.text != honest.text:  # frame-synchronous families write what follows from the path
        assert world.verify(rescored).outcome == "FAIL"
    assert world.verify(shorter).outcome == "FAIL"
    assert world.verify(honest).outcome == "PASS"


# A20: malformed evidence

NUMBERS = {
    "zero": 0.0, "NaN": np.nan, "Inf": np.inf, "-Inf": -np.inf, "denormal": -1e-42,
    "huge": 3e38, "huge negative": -3e38,
}  # fmt: skip


def _fields(world) -> dict:
    opened = msgspec.msgpack.decode(world.real_evidence.segments[0].trace)
    assert isinstance(opened, dict)
    return opened


def _fails(world, opened, why) -> None:
    forged = with_segment(world.real_evidence, trace=msgspec.msgpack.encode(opened))
    verdict = world.verify(forged)
    assert verdict.outcome == "FAIL", f"{why}: {_reasons(verdict)}"
    assert verdict.findings[0].fault == "provider"


def test_malformed_arrays_fail_with_a_finding(world):
    """A20: short, extra, empty, doubled, of another type, nested, missing."""
    for name, value in _fields(world).items():
        if not isinstance(value, bytes) or not value:
            continue
        for bad in (b"", value[:-1], value[4:], value + b"\0", value + value, bytes(258), None, 7, [], [[[[]]]], "x"):
            if bad != value:
                _fails(world, {**_fields(world), name: bad}, f"{name} = {str(bad)[:30]}")
        _fails(world, {n: v for n, v in _fields(world).items() if n != name}, f"no {name}")
        _fails(world, {**_fields(world), f"{name}_": value}, f"{name} twice")


@pytest.mark.parametrize("number", NUMBERS)
def test_impossible_numbers_fail_with_a_finding(world, number):
    """A20: every array of numbers filled with one that no model gives there."""
    for name, value in _fields(world).items():
        if not isinstance(value, bytes) or not value:
            continue
        with np.errstate(over="ignore"):
            kind = "<f2" if name == "sketch" else "<f4"
            filled = np.full(len(value) // np.dtype(kind).itemsize, NUMBERS[number], kind).tobytes()
        _fails(world, {**_fields(world), name: filled}, f"{name} full of {number}")


@pytest.mark.parametrize("k", [0, -1, 2, 1025, 2**31, 2**63, "8", None, 8.5])
def test_impossible_k_fails_with_a_finding(world, k):
    """A20: k > V among them."""
    _fails(world, {**_fields(world), "k": k}, f"k = {k}")


def test_lists_out_of_order_or_with_duplicates_fail(whisper):
    """A20: the same numbers in another order, a token twice."""
    opened = _fields(whisper)
    ids = np.frombuffer(opened["ids"], "<i4").reshape(-1, opened["k"])
    values = np.frombuffer(opened["logprobs"], "<f4").reshape(-1, opened["k"])
    turned = {"ids": ids[:, ::-1].tobytes(), "logprobs": values[:, ::-1].tobytes()}
    _fails(whisper, {**opened, **turned}, "worst first")
    _fails(whisper, {**opened, "ids": np.roll(ids, 1, axis=1).tobytes()}, "ids of other ranks")
    _fails(whisper, {**opened, "ids": np.repeat(ids[:, :1], opened["k"], axis=1).tobytes()}, "one token k times")


BOMBS = {
    "deep nesting": b"\x91" * 1_000_000,
    "deep nesting in JSON": b"[" * 1_000_000,
    "deep nesting in a field": b'{"format":"earmark.evidence/1","claim":' + b'{"a":' * 100_000,
    "an array of 4 billion": b"\xdd\xff\xff\xff\xff",
    "a map of 4 billion": b"\xdf\xff\xff\xff\xff",
    "bytes of 4 GB": b"\xc6\xff\xff\xff\xff",
    "text of 4 GB": b"\xdb\xff\xff\xff\xff",
    "zero bytes": bytes(258),
    "nothing": b"",
    "a number": b"\x07",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_fail_without_taking_memory(whisper, name):
    """A20: sizes are checked before anything is allocated, in the record and in a trace."""
    tracemalloc.start()
    try:
        for evidence in (BOMBS[name], with_segment(whisper.real_evidence, trace=BOMBS[name])):
            verdict = whisper.verify(evidence)
            assert (verdict.outcome, verdict.fault) == ("FAIL", "provider")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 2**20


def test_records_beyond_the_limit_are_not_parsed(whisper):
    verdict = whisper.verify(b"{" + b" " * MAX_RECORD_BYTES)
    assert (verdict.outcome, _codes(verdict)) == ("FAIL", {"record.too_large"})
    assert whisper.verify(whisper.real_evidence.to_json().encode()).outcome == "PASS"


# A31: shelter


def _own_request(world, **changes):
    """Return evidence that brings its own request, which the verifier does not hold."""
    return restamp(world.record(), msgspec.structs.replace(world.clip.request, **changes))


SHELTERS = {
    "k of one": lambda w: w.verify(w.record(k=1)),
    "text alone": lambda w: w.verify(msgspec.structs.replace(w.record(), level="text")),
    "no sketch": lambda w: w.verify(w.record(level="scores"), policy=Policy(least_level="sketch")),
    "no receipt": lambda w: w.verify(w.record(), policy=STRICT),
    "a receipt of no batch": lambda w: w.verify(
        w.record(),
        receipt=msgspec.structs.replace(
            batch([w.record().digest(), "0" * 64])[0], inclusion=batch(["1" * 64, "0" * 64, "2" * 64])[2].inclusion
        ),
    ),
    "a prompt of its own": lambda w: w.verify(_own_request(w, prompt="one two"), request=None),
    "a segmentation rule of its own": lambda w: w.verify(
        _own_request(w, segmentation=Segmentation(rule="at-random")), request=None
    ),
    "boundaries that make no sense": lambda w: w.verify(
        _own_request(w, segmentation=Segmentation(boundaries=(10,))), request=None
    ),
    "a language that the model has not": lambda w: w.verify(_own_request(w, language="tlh"), request=None),
}


@pytest.mark.parametrize("name", SHELTERS)
def test_exotic_settings_count_against_the_provider(whisper, name):
    """A31: what a provider chooses may end INCONCLUSIVE, but never by anybody else's fault."""
    verdict = SHELTERS[name](whisper)
    assert verdict.outcome != "PASS"
    assert verdict.fault == "provider", _reasons(verdict)
    assert verdict.to_dict()["fault"] == "provider"


def test_faults_of_others_do_not_count_against_the_provider(whisper, monkeypatch):
    """The twins: an honest provider is charged neither with the verifier's faults nor with the customer's."""
    honest = whisper.record()
    passed = whisper.verify(honest)
    assert (passed.outcome, passed.fault) == ("PASS", None)
    unusable = msgspec.structs.replace(whisper.clip.request, segmentation=Segmentation(rule="at-random"))
    customer = whisper.verify(restamp(honest, unusable), request=unusable)
    assert (customer.outcome, customer.fault) == ("INCONCLUSIVE", "input")
    case = Case(evidence=honest, audio=whisper.clip.audio, request=whisper.clip.request)
    bare = next(earmark.verify_many([case], whisper.reference, profile="rules"))
    assert (bare.outcome, bare.fault) == ("INCONCLUSIVE", "verifier")

    def fail(*_, **__):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(type(family_of(whisper.reference)), "replay", fail)
    broken = whisper.verify(honest)
    assert (broken.outcome, broken.fault) == ("INCONCLUSIVE", "verifier")


# A32: cost


def _silence(seconds: int) -> Clip:
    audio = earmark.audio.from_samples(np.zeros(seconds * 16_000, np.int16), 16_000)
    return Clip(audio=audio, request=earmark.request(audio, nonce="a" * 32))


def _many(evidence, count):
    first = evidence.segments[0]
    return msgspec.structs.replace(evidence, segments=(first,) * count)


COSTS = {
    "tokens without end": lambda e: with_segment(e, ids=(e.segments[0].ids[0],) * 100_000),
    "one token more than the duration allows": lambda e: with_segment(
        e, ids=(e.segments[0].ids[0],) * (max_tokens(e.segments[0].end) + 1)
    ),
    "segments without end": lambda e: _many(e, 20_000),
    "a segment of days": lambda e: with_segment(e, end=2**39),
    "a trace of 30 MB": lambda e: with_segment(e, trace=bytes(30 * 2**20)),
    "a text of a million letters": lambda e: msgspec.structs.replace(e, text="x" * 1_000_000),
}


@pytest.fixture
def no_replay(monkeypatch):
    """Fail the test if the network runs."""

    def refuse(*_, **__):
        raise AssertionError("the network ran")

    for pair in filter(_ships, PAIRS):
        monkeypatch.setattr(type(_world(pair).reference), "encode", refuse)


@pytest.mark.usefixtures("no_replay")
@pytest.mark.parametrize("name", COSTS)
def test_costly_evidence_is_refused_before_any_replay(world, name):
    """A32: limits follow from the duration of the audio that the verifier holds."""
    start = time.perf_counter()
    verdict = world.verify(COSTS[name](world.real_evidence))
    assert (verdict.outcome, verdict.fault, verdict.fingerprint) == ("FAIL", "provider", None)
    assert "replay.failed" not in _codes(verdict)
    assert time.perf_counter() - start < 10


@pytest.mark.usefixtures("no_replay")
def test_an_hour_of_silence_cut_into_seconds_is_refused_before_any_replay(world):
    """A32: the boundaries follow from the audio, so a provider cannot choose how often the network runs."""
    clip, first = _silence(3600), world.real_evidence.segments[0]
    segments = tuple(msgspec.structs.replace(first, start=i * 16_000, end=(i + 1) * 16_000) for i in range(3600))
    evidence = msgspec.structs.replace(restamp(world.real_evidence, clip.request), segments=segments)
    start = time.perf_counter()
    verdict = earmark.verify(evidence, clip.request, clip.audio, world.reference, profile="provisional")
    assert (verdict.outcome, _codes(verdict)) == ("FAIL", {"segments.mismatch"})
    assert time.perf_counter() - start < 20


def test_minutes_of_silence_are_no_fault(world):
    """The twin: honest evidence of three minutes of silence."""
    clip = _silence(180)
    evidence = earmark.record(world.reference, clip.request, clip.audio)
    verdict = earmark.verify(evidence, clip.request, clip.audio, world.reference, profile="provisional")
    assert verdict.outcome != "FAIL", _reasons(verdict)
    assert verdict.fault != "provider"


# A33: poisoned reference


@pytest.fixture
def poison(tmp_path, monkeypatch) -> Path:
    """Return a folder whose opening, and any connection to a network, fails the test."""
    folder = tmp_path / "poisoned-model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "whisper"}', encoding="utf-8")
    real = builtins.open

    def guarded(file, *arguments, **options):
        assert "poisoned-model" not in str(file), f"{file} was opened"
        return real(file, *arguments, **options)

    def refuse(source, *_):
        raise AssertionError(f"{source} was looked up")

    for module in (builtins, io):
        monkeypatch.setattr(module, "open", guarded)
    monkeypatch.setattr(socket.socket, "connect", lambda _self, address: refuse(address))
    monkeypatch.setattr(earmark.checkpoint, "resolve", refuse)
    monkeypatch.setattr(earmark.loading, "resolve", refuse)
    return folder


def _claiming(evidence, **changes):
    return msgspec.structs.replace(evidence, claim=msgspec.structs.replace(evidence.claim, **changes))


def test_nothing_named_in_a_claim_is_ever_opened(world, poison):
    """A33: a path, a hub id or an address in the claim is a name for people; the reference is the verifier's own."""
    names = (
        str(poison),
        f"file://{poison}",
        "some-owner/poisoned-model",
        "https://example.org/poisoned-model",
        "../..",
    )
    for name in names:
        verdict = world.verify(_claiming(world.real_evidence, model=name, engine=name))
        assert verdict.outcome == "PASS", "the twin: a name alone is no offence"
        assert verdict.provenance["model"] == world.reference.info.name
        lying = world.verify(_claiming(world.real_evidence, model=name, weights="ab" * 32))
        assert (lying.outcome, _codes(lying)) == ("FAIL", {"weights.mismatch"})
    other = world.verify(_claiming(world.real_evidence, family=str(poison)[:200]))
    assert (other.outcome, _codes(other)) == ("FAIL", {"family.mismatch"})
