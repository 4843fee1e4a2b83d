"""Attacks on the protocol that must never PASS, each beside its honest twin that does (THREATS A24 to A30, A33)."""

from __future__ import annotations

import builtins
import io
import socket
from pathlib import Path

import msgspec
import pytest
from worlds import codes, reasons

import earmark
from earmark.records.policy import STRICT
from earmark.records.request import Decoding
from earmark.testing._forgeries import blanked, with_segment
from earmark.testing.bench import restamp

# The seven that must never pass


def test_lazy_evidence_fails_by_its_receipt(world):
    """A24: the cheap model served and its receipt went out; the real model ran only when evidence was asked for."""
    lazy = world.verify(world.real_evidence, receipt=world.cheap_evidence.receipt)
    assert (lazy.outcome, codes(lazy)) == ("FAIL", {"receipt.mismatch"})
    twin = world.verify(world.real_evidence, receipt=world.real_evidence.receipt)
    assert (twin.outcome, twin.proves) == ("PASS", "committed"), reasons(twin)


def test_lazy_evidence_without_a_receipt_is_held_against_the_provider(world):
    """A24 under the strict policy: no receipt, no PASS; without the policy a PASS proves less and says so."""
    held = world.verify(world.real_evidence, policy=STRICT)
    assert (held.outcome, held.fault, codes(held)) == ("INCONCLUSIVE", "provider", {"receipt.missing"})
    assert world.verify(world.real_evidence).proves == "reconstructable"


def test_restamped_evidence_fails(world):
    """A25: evidence kept from an earlier request for the same audio, under the new nonce with every digest right."""
    again = msgspec.structs.replace(world.clip.request, nonce="f" * 32)
    stale = world.verify(restamp(world.real_evidence, again), request=again)
    assert stale.outcome == "FAIL"
    assert any("sketch" in code for code in codes(stale))
    fresh = world.record(request=again, level="sketch")
    twin = world.verify(fresh, request=again, receipt=fresh.receipt)
    assert twin.outcome == "PASS", reasons(twin)


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
    assert (honestly_named.outcome, codes(honestly_named)) == ("FAIL", {"request.mismatch"})
    digests_right = whisper.verify(restamp(evidence, whisper.clip.request))
    assert (digests_right.outcome, codes(digests_right)) == ("FAIL", {"prompt.mismatch"})
    unbound = whisper.verify(evidence, request=None)
    assert (unbound.outcome, unbound.fault, codes(unbound)) == ("INCONCLUSIVE", "provider", {"prompt.unbound"})
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
        assert (run_again.outcome, codes(run_again)) == ("FAIL", {"rerun.worse"})
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
    assert (caught.outcome, codes(caught)) == ("FAIL", {"margin.exceeded"})


def test_k_of_one_is_held_against_the_provider(world):
    """A28: one candidate per position hides everything but the emitted token."""
    short = world.verify(world.record(k=1))
    assert (short.outcome, short.fault, codes(short)) == ("INCONCLUSIVE", "provider", {"k.low"})
    assert world.verify(world.record(k=8)).outcome == "PASS"
    assert world.verify(world.record(k=5), policy=STRICT).outcome != "PASS"


def test_nothing_can_be_censored_away(world):
    """A29: everything missing or -9999, field by field."""
    honest = world.real_evidence
    forged = [with_segment(honest, trace=trace) for _, trace in blanked(honest.segments[0].trace)]
    assert len(forged) > 10
    for evidence in forged:
        verdict = world.verify(evidence)
        assert verdict.outcome == "FAIL", reasons(verdict)
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
        assert (lying.outcome, codes(lying)) == ("FAIL", {"weights.mismatch"})
    other = world.verify(_claiming(world.real_evidence, family=str(poison)[:200]))
    assert (other.outcome, codes(other)) == ("FAIL", {"family.mismatch"})
