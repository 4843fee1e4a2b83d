"""The sketch: it follows the nonce, honest settings agree on it, and cached or cheaper states do not."""

from __future__ import annotations

import hashlib

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import earmark
from earmark import Case, Clip, record_many
from earmark.errors import UsageError
from earmark.fingerprint.sketch import (
    PROBES,
    VALUES,
    choose_probes,
    fold,
    projection,
    robust,
    sketch_distances,
)
from earmark.scenarios import scenario
from earmark.taps import Taps
from earmark.verifiers._autoregressive_trace import Trace

nonces = st.binary(min_size=16, max_size=16).map(bytes.hex)


@given(nonces, st.integers(0, 1000), st.integers(1, 40), st.integers(1, 1500), st.integers(1, 448))
def test_probes_are_within_bounds_and_repeatable(nonce, segment, layers, positions, tokens):
    sizes = {"layers": layers, "positions": positions, "tokens": tokens}
    probes = choose_probes(nonce, segment, **sizes)
    assert probes == choose_probes(nonce, segment, **sizes)
    assert len(probes) == PROBES
    assert all(p.layer is not None and p.layer < layers and p.position < positions for p in probes[:-1])
    assert probes[-1].layer is None
    assert probes[-1].position < tokens


def test_probes_follow_the_written_rule():
    """Computed by hand from the specification, so that another engine can be checked against it."""
    stream = hashlib.shake_256(b"earmark/sketch/1\0" + bytes(16) + (3).to_bytes(4, "little")).digest(32)
    words = [int.from_bytes(stream[i : i + 4], "little") for i in range(0, 32, 4)]
    probes = choose_probes("00" * 16, 3, layers=7, positions=50, tokens=11)
    assert [(p.layer, p.position) for p in probes[:3]] == [(words[i] % 7, words[i + 1] % 50) for i in (0, 2, 4)]
    assert probes[3].position == words[7] % 11


def test_probes_cover_all_layers_and_positions():
    chosen = {
        (p.layer, p.position)
        for i in range(400)
        for p in choose_probes(f"{i:032x}", 0, layers=3, positions=10, tokens=1)[:-1]
    }
    assert len(chosen) == 30


def test_projection_is_balanced_and_differs_between_probes():
    matrix = projection("ab" * 16, 0, 0, 999)
    assert abs(matrix.mean()) < 0.05
    assert (matrix != projection("ab" * 16, 0, 1, 999)).mean() == pytest.approx(0.5, abs=0.05)


def test_massive_activations_do_not_hide_the_rest():
    rng = np.random.default_rng(0)
    state = rng.normal(size=256)
    massive = state.copy()
    massive[7] = 1e4
    changed = massive + rng.normal(size=256) * 0.5
    plain = np.linalg.norm(changed - massive) / np.linalg.norm(massive)
    ours = np.linalg.norm(robust(changed) - robust(massive)) / np.linalg.norm(robust(massive))
    assert plain < 1e-3
    assert ours > 0.2


@given(st.floats(1e-3, 1e3), st.floats(-100, 100))
def test_sketch_ignores_scale_and_offset(scale, offset):
    state = np.random.default_rng(1).normal(size=64)
    one, other = fold(state, "00" * 16, 0, 0), fold(state * scale + offset, "00" * 16, 0, 0)
    assert sketch_distances(other[None], one[None])[0] < 0.01


def test_taps_keep_only_what_was_asked_for():
    layers = [torch.nn.Linear(4, 4) for _ in range(3)]
    with Taps(layers, [(1, 0, 2), (1, 1, 0)]) as taps:
        state = torch.randn(2, 5, 4)
        for layer in layers:
            state = layer(state)
    assert set(taps.states) == {(1, 0, 2), (1, 1, 0)}
    assert sum(row.numel() for row in taps.states.values()) == 8
    assert not layers[1]._forward_hooks


@pytest.fixture(scope="module")
def sketched(nano, clips):
    """Return honest evidence with sketches."""
    return list(record_many(nano, clips[:10], level="sketch", batch_size=4))


def _verdicts(clips, evidence, model, **options):
    cases = [Case(evidence=e, audio=c.audio, request=c.request) for e, c in zip(evidence, clips, strict=True)]
    return list(earmark.verify_many(cases, model, profile="provisional", **options))


def test_honest_sketches_pass_in_other_settings(clips, sketched):
    other = earmark.load("embedded:whisper-nano", device="cpu", attention="eager")
    verdicts = _verdicts(clips[:10], sketched, other, batch_size=1)
    assert {v.outcome for v in verdicts} == {"PASS"}
    assert max(v.fingerprint["sketch_distance_max"] for v in verdicts) < 2e-3


def test_scores_alone_have_no_sketch(nano, clips, honest):
    verdict = _verdicts(clips[:1], honest[:1], nano)[0]
    assert np.isnan(verdict.fingerprint["sketch_distance"])


@pytest.mark.parametrize("bits", [8, 4])
def test_quantised_states_fail_by_the_sketch_alone(nano, clips, bits):
    evidence = scenario("quantise", bits=bits).record(nano, clips[:6], level="sketch")
    verdicts = _verdicts(clips[:6], evidence, nano)
    assert all("statistics.sketch_distance" in [f.code for f in v.findings] for v in verdicts)


def test_malformed_sketches_are_refused(nano, clips, sketched):
    segment = sketched[0].segments[0]
    trace = msgspec.msgpack.decode(segment.trace, type=Trace)
    values = np.frombuffer(trace.sketch, "<f2").copy()
    values[0] = np.nan
    for sketch, code in (
        (b"", "trace.malformed"),
        (trace.sketch + b"\0\0", "trace.malformed"),
        (values.tobytes(), "trace.value"),
    ):
        changed = msgspec.msgpack.encode(msgspec.structs.replace(trace, sketch=sketch))
        bad = msgspec.structs.replace(sketched[0], segments=(msgspec.structs.replace(segment, trace=changed),))
        verdict = _verdicts(clips[:1], [bad], nano)[0]
        assert (verdict.outcome, verdict.findings[0].code) == ("FAIL", code)
    assert len(values) == PROBES * VALUES


def test_a_sketch_asked_for_and_not_given_is_inconclusive(nano, clips, honest):
    verdict = _verdicts(clips[:1], honest[:1], nano, policy=earmark.Policy(least_level="sketch"))[0]
    assert (verdict.outcome, verdict.findings[0].code) == ("INCONCLUSIVE", "level.low")


def test_unknown_level_is_refused(nano, clips):
    with pytest.raises(UsageError, match="level 'everything'"):
        earmark.record(nano, clips[0].request, clips[0].audio, level="everything")


def test_long_audio_is_sketched_in_every_segment(nano, clips):
    audio = earmark.audio.from_samples(np.concatenate([c.audio.samples for c in clips[:6]]), 16_000)
    clip = Clip(audio=audio, request=earmark.request(audio, language="en"))
    evidence = next(record_many(nano, [clip], level="sketch"))
    assert len(evidence.segments) > 1
    assert _verdicts([clip], [evidence], nano)[0].outcome == "PASS"
