"""The shape of a deviation: size apart, without a sign of its own, defined for evidence of any content."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earmark.classify import table, without_replay
from earmark.fingerprint import distances
from earmark.fingerprint.sequence import Replay, Scores
from earmark.fingerprint.shape import TOKEN_BUCKETS, clip_shape, own_shape, token_buckets, token_signature
from earmark.rules import Case
from earmark.runs import Row
from earmark.scenarios.honest import honest
from earmark.scenarios.weights import quantise
from earmark.study import Sample, study

CLIPS = Path(str(files("earmark.data"))) / "clips"


def made(positions: int = 40, k: int = 8, size: float = 0.1, seed: int = 0) -> tuple[Scores, Replay]:
    """One segment that deviates at random."""
    rng = np.random.default_rng(seed)
    expected = np.sort(rng.normal(-4.0, 2.0, (positions, k)))[:, ::-1]
    ids = rng.permuted(np.tile(np.arange(300), (positions, 1)), axis=1)[:, :k]
    deviation = size * np.random.default_rng(seed + 1).standard_normal((positions, k))
    entropy = rng.exponential(0.3, positions)

    def scores(logprobs: np.ndarray) -> Scores:
        return Scores(
            ids=ids,
            logprobs=logprobs,
            chosen=logprobs[:, 0],
            entropy=entropy,
            ended=True,
            language=np.empty(0),
            no_speech=math.nan,
            sketch=np.empty((0, 32)),
        )

    return scores(expected + deviation), Replay(
        scores=scores(expected), at_listed=expected, margins=np.zeros(positions)
    )


def test_all_but_the_size_is_free_of_size():
    small, large = (clip_shape([made(size=size)]) for size in (1e-3, 1e-1))
    assert large["shape_rms"] == pytest.approx(100 * small["shape_rms"], rel=1e-6)
    for name, value in small.items():
        if name.startswith("shape_") and name != "shape_rms":
            assert large[name] == pytest.approx(value, rel=1e-6, abs=2e-5), name


def test_blocks_of_rows_give_the_same_numbers(monkeypatch):
    """What is compared at once bounds the memory, and changes no number."""
    (scores, replay) = made()
    other, _ = made(seed=2)
    whole = clip_shape([(scores, replay)]), distances.topk_distance(scores.ids, other.ids)
    monkeypatch.setattr(distances, "PAIRS_AT_ONCE", 100)
    assert clip_shape([(scores, replay)]) == whole[0]
    assert (distances.topk_distance(scores.ids, other.ids) == whole[1]).all()
    assert len(distances.row_blocks(40, 64)) == 40


def test_a_signature_is_that_of_its_tokens_wherever_they_stand():
    ids, deviations = np.array([[5, 9], [7, 5]]), np.array([[1.0, -2.0], [0.5, 1.0]])
    there = token_signature(ids, deviations)
    assert np.allclose(there, token_signature(ids[::-1], deviations[::-1]))
    assert np.allclose(there, -token_signature(ids, -deviations))
    buckets = token_buckets(np.array([5, 9, 7]))
    assert np.allclose(there[buckets], np.array([2.0, -2.0, 0.5]) / np.sqrt(6.25), atol=1e-5)
    assert np.count_nonzero(there) == len(set(buckets.tolist()))


@given(st.integers(0, 2**31 - 1))
def test_every_token_has_a_bucket(token):
    assert 0 <= token_buckets(np.array([token]))[0] < TOKEN_BUCKETS


def test_independent_noise_fills_a_signature_evenly():
    signatures = [token_signature(*noise(seed)) for seed in range(200)]
    assert np.abs(np.mean(signatures, axis=0)).max() < 0.03
    assert np.sum(np.square(signatures), axis=1).mean() == pytest.approx(1.0, abs=0.05)


def noise(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 300, (50, 8)), rng.standard_normal((50, 8))


def test_numbers_of_any_content_have_a_shape():
    provider, replay = made(3)
    odd = np.array([[np.nan] * 8, [-np.inf] * 8, [-1.0] * 8])
    strange = Scores(**{name: getattr(provider, name) for name in provider.__dataclass_fields__} | {"logprobs": odd})
    found = clip_shape([(strange, replay)])
    assert set(found) == set(clip_shape([made()]))
    equal = clip_shape([(replay.scores, replay)])
    assert equal["shape_rms"] < 1e-9
    assert not any(math.isinf(value) for value in equal.values())


def test_half_precision_numbers_are_seen_by_their_bits():
    provider, _ = made()
    whole = own_shape([provider])
    halved = Scores(
        **{name: getattr(provider, name) for name in provider.__dataclass_fields__}
        | {"logprobs": provider.logprobs.astype(np.float16).astype(np.float64)}
    )
    assert whole["own_float16_share"] < 0.1
    assert own_shape([halved])["own_float16_share"] > 0.9


def test_a_study_keeps_shapes_and_matches(nano, tmp_path):
    samples = [Sample(name=f"{i:02}", audio=CLIPS / f"{i:02}.flac") for i in range(4)]
    int8 = quantise(bits=8)
    run = study(nano, [honest(batch_size=1), int8], samples, tmp_path / "run.jsonl", recipes=[int8])
    matched = table(run, "matched")
    column = matched.names.index("match_int8_projection")
    for label, value in zip(matched.labels, matched.values[:, column], strict=True):
        assert value == pytest.approx(1.0 if label == "int8" else 0.0, abs=0.01)
    again = Row.from_json(run[0].to_json())
    assert again.shape == pytest.approx(dict(run[0].shape), nan_ok=True)
    alone = table(run, "alone")
    assert all(name.startswith("own_") for name in alone.names)
    clip = samples[0].clip()
    evidence = honest(batch_size=1).record(nano, [clip])[0]
    found = without_replay(Case(evidence=evidence, audio=clip.audio, request=clip.request), nano)
    assert [found.shape[name] for name in alone.names] == pytest.approx(alone.values[0].tolist(), rel=1e-4, nan_ok=True)
