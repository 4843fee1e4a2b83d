"""Properties of the engine: agreement with enumeration, sums of posteriors, invariances, outside implementations."""

from __future__ import annotations

import lattice_reference as reference
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.loss.loss_tdt import tdt_loss

from earmark import lattice

seeds = st.integers(0, 2**32 - 1)
small = settings(max_examples=40, deadline=None, derandomize=True)

DURATIONS = [None, (0, 1), (0, 1, 2), (1, 2), (0, 2), (0, 1, 2, 3, 4), (1,), (2, 3), (0, 3)]


def transducer_item(seed: int, durations: tuple[int, ...] | None, big: dict[int, int] | None = None):
    """Return logits (T, U + 1, V + D), labels and options of a small random item."""
    rng = np.random.default_rng(seed)
    frames, tokens, vocabulary = rng.integers(1, 6), rng.integers(0, 4), 4 + len(big or {})
    logits = rng.normal(0, 2, (frames, tokens + 1, vocabulary + len(durations or ())))
    labels = rng.integers(0, 3, tokens)
    return logits, labels, {"blank": 3, "durations": durations, "big_blanks": big, "sigma": 0.05 * (seed % 2)}


def score_one(logits, labels, **options):
    blank = options.pop("blank")
    labels = np.asarray(labels, np.int64)[None]
    call = lattice.ctc if logits.ndim == 2 else lattice.transducer
    return call(logits[None], labels, [len(logits)], [labels.shape[1]], blank, **options)


def path_score(logits, path, durations, sigma):
    """Return the score of a path read from its rows."""
    vocabulary = logits.shape[-1] - len(durations or ())
    tokens = reference.log_softmax(logits[..., :vocabulary])
    total = 0.0
    for t, u, symbol, duration in path.tolist():
        total += tokens[t, u, symbol] - sigma
        if durations is not None:
            spans = reference.log_softmax(logits[..., vocabulary:])
            total += spans[t, u, list(durations).index(duration)]
    return total


@small
@given(seeds)
def test_ctc_equals_enumeration(seed):
    rng = np.random.default_rng(seed)
    frames, tokens = int(rng.integers(1, 7)), int(rng.integers(0, 4))
    logits, labels = rng.normal(0, 2, (frames, 4)), rng.integers(0, 3, tokens)
    paths = list(reference.ctc_paths(frames, labels.tolist(), 3))
    if not paths:
        with pytest.raises(lattice.LatticeError, match="need"):
            score_one(logits, labels, blank=3)
        return
    k = reference.log_softmax(logits)
    scored = [(sum(k[t, s] for t, s in enumerate(path)), path) for path in paths]
    total, best, entropy = reference.alignment_statistics(scored)
    found = score_one(logits, labels, blank=3)
    assert found.log_likelihood[0] == pytest.approx(total, abs=1e-12)
    assert reference.ctc_log_likelihood(logits, labels, 3) == pytest.approx(total, abs=1e-12)
    assert found.viterbi_score[0] == pytest.approx(best, abs=1e-12)
    assert found.alignment_entropy[0] == pytest.approx(entropy, abs=1e-10)
    assert tuple(found.paths[0][:, 2]) in paths
    blank_posterior = np.zeros(frames)
    for score, path in scored:
        blank_posterior += np.exp(score - total) * (np.array(path) == 3)
    np.testing.assert_allclose(found.blank_occupancy[0].sum(-1), blank_posterior, atol=1e-12)


@small
@given(seeds, st.sampled_from(DURATIONS), st.sampled_from(["strict", "open_end"]))
def test_transducer_equals_enumeration(seed, durations, rule):
    logits, labels, options = transducer_item(seed, durations)
    check_against_enumeration(logits, labels, {**options, "rule": rule})


@small
@given(seeds, st.sampled_from(["strict", "open_end"]))
def test_multi_blank_equals_enumeration(seed, rule):
    logits, labels, options = transducer_item(seed, None, {4: 4, 5: 2})
    check_against_enumeration(logits, labels, {**options, "rule": rule})


def check_against_enumeration(logits, labels, options):
    scored = list(reference.transducer_paths(logits, labels, **options))
    if not scored:
        with pytest.raises(lattice.LatticeError, match="no alignment"):
            score_one(logits, labels, **options)
        return
    total, best, entropy = reference.alignment_statistics(scored)
    found = score_one(logits, labels, **options)
    assert found.log_likelihood[0] == pytest.approx(total, abs=1e-11)
    assert reference.transducer_log_likelihood(logits, labels, **options) == pytest.approx(total, abs=1e-11)
    assert found.viterbi_score[0] == pytest.approx(best, abs=1e-11)
    assert found.alignment_entropy[0] == pytest.approx(entropy, abs=1e-9)
    path = found.paths[0]
    own = path_score(logits, path, options["durations"], options["sigma"])
    assert own == pytest.approx(best, abs=1e-11)
    times = np.zeros((len(logits), len(labels)))
    for score, steps in scored:
        u = 0
        for t, node, symbol, _ in steps:
            if u < len(labels) and node == u and symbol == labels[u] and symbol < 3:
                times[t, u] += np.exp(score - total)
                u += 1
    np.testing.assert_allclose(found.token_occupancy[0], times, atol=1e-11)
    frames = np.arange(len(logits))
    mean = frames @ times
    np.testing.assert_allclose(found.token_time_mean[0], mean, atol=1e-9)
    spread = np.sqrt(np.maximum((frames[:, None] - mean) ** 2 * times, 0).sum(0))
    np.testing.assert_allclose(found.token_time_spread[0], spread, atol=1e-6)


@small
@given(seeds)
def test_posteriors_sum_to_one_and_viterbi_is_below(seed):
    rng = np.random.default_rng(seed)
    frames, tokens = 12, 5
    labels = rng.integers(1, 6, tokens)
    ctc = score_one(rng.normal(0, 3, (frames, 6)), labels, blank=0)
    occupied = ctc.token_occupancy.sum(-1) + ctc.blank_occupancy.sum(-1)
    np.testing.assert_allclose(occupied, 1.0, atol=1e-12)
    rnnt = score_one(rng.normal(0, 3, (frames, tokens + 1, 6)), labels, blank=0)
    np.testing.assert_allclose(rnnt.blank_occupancy.sum(-1), 1.0, atol=1e-12)
    tdt = score_one(rng.normal(0, 3, (frames, tokens + 1, 9)), labels, blank=0, durations=(0, 1, 2))
    for scores in (rnnt, tdt):
        np.testing.assert_allclose(scores.token_occupancy.sum(1), 1.0, atol=1e-12)
    for scores in (ctc, rnnt, tdt):
        assert scores.viterbi_score[0] <= scores.log_likelihood[0] + 1e-12
        assert scores.alignment_entropy[0] >= 0.0


def batch_of(seed: int, kind: str):
    """Return a padded batch of unequal items with garbage in the padding, and its options."""
    rng = np.random.default_rng(seed)
    frames, tokens = rng.integers(6, 10, 5), rng.integers(0, 4, 5)
    width = 5 + (3 if kind == "tdt" else 0)
    shape = (5, 11, 5) if kind == "ctc" else (5, 11, 5, width)
    logits = rng.normal(0, 2, shape)
    labels = rng.integers(0, 4, (5, 4))
    for b in range(5):
        labels[b, tokens[b] :] = -77
        logits[b, frames[b] :] = np.nan
        if kind != "ctc":
            logits[b, :, tokens[b] + 1 :] = np.nan
    call = lattice.ctc if kind == "ctc" else lattice.transducer
    return call, logits, labels, frames, tokens, {"durations": (0, 1, 2)} if kind == "tdt" else {}


@pytest.mark.parametrize("kind", ["ctc", "rnnt", "tdt"])
@pytest.mark.parametrize("seed", range(3))
def test_padding_and_order_change_nothing(kind, seed):
    call, logits, labels, frames, tokens, options = batch_of(seed, kind)
    whole = call(logits, labels, frames, tokens, 4, orders=(0.33,), **options)
    order = np.random.default_rng(seed).permutation(5)
    mixed = call(logits[order], labels[order], frames[order], tokens[order], 4, threads=2, **options)
    np.testing.assert_array_equal(mixed.log_likelihood, whole.log_likelihood[order])
    for b in range(5):
        t, u = frames[b], tokens[b]
        own = logits[b, :t] if kind == "ctc" else logits[b, :t, : u + 1]
        alone = score_one(own, labels[b, :u], blank=4, **options)
        assert alone.log_likelihood[0] == whole.log_likelihood[b]
        np.testing.assert_array_equal(alone.paths[0], whole.paths[b])
        np.testing.assert_array_equal(alone.token_occupancy[0], whole.token_occupancy[b, :t, :u])
        assert not whole.token_occupancy[b, t:].any()
        assert not whole.token_occupancy[b, :, u:].any()
    assert all(np.isfinite(getattr(whole, name)).all() for name in ("row_entropy", "log_power_sums"))


@small
@given(seeds, st.floats(-50, 50))
def test_a_constant_on_the_logits_changes_nothing(seed, shift):
    call, logits, labels, frames, tokens, _ = batch_of(seed % 1000, "rnnt")
    shifts = np.random.default_rng(seed).normal(shift, 5, (*logits.shape[:-1], 1))
    plain, moved = (call(x, labels, frames, tokens, 4) for x in (logits, logits + shifts))
    np.testing.assert_allclose(moved.log_likelihood, plain.log_likelihood, rtol=0, atol=1e-10)


@small
@given(seeds)
def test_ctc_agrees_with_torch(seed):
    rng = np.random.default_rng(seed)
    logits = torch.tensor(rng.normal(0, 3, (3, 14, 7)), requires_grad=True)
    labels = torch.tensor(rng.integers(1, 7, (3, 5)))
    frames, tokens = torch.tensor([14, 12, 11]), torch.tensor([5, 4, 1])
    log_probs = logits.log_softmax(-1).transpose(0, 1)
    theirs = torch.nn.functional.ctc_loss(log_probs, labels, frames, tokens, blank=0, reduction="none")
    ours = lattice.loss(logits, labels, frames, tokens, 0, reduction="none")
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    weights = torch.tensor([1.0, 0.5, -2.0], dtype=torch.float64)
    (expected,) = torch.autograd.grad((theirs * weights).sum(), logits)
    (found,) = torch.autograd.grad((ours * weights).sum(), logits)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("seed", range(5))
def test_tdt_agrees_with_transformers(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 9, 5, 6 + 5, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, 5, (3, 4), generator=generator)
    frames, tokens = torch.tensor([9, 8, 7]), torch.tensor([4, 3, 0])
    durations = [0, 1, 2, 3, 4]
    theirs = tdt_loss(
        logits[..., :6], logits[..., 6:], labels, frames, tokens, blank_token_id=5, durations=durations,
        sigma=0.02, reduction="none",
    )  # fmt: skip
    ours = lattice.loss(logits, labels, frames, tokens, 5, durations=durations, sigma=0.02, reduction="none")
    torch.testing.assert_close(ours.float(), theirs.float(), rtol=0, atol=2e-5)
    (expected,) = torch.autograd.grad(theirs.sum(), logits)
    (found,) = torch.autograd.grad(ours.sum(), logits)
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=0, atol=2e-5)


@pytest.mark.parametrize("order", [0.33, 0.5, 2.0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_row_entropies(order, dtype):
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 4, (2, 6, 37)).astype(dtype)
    scores = lattice.ctc(logits, [[1], [2]], [6, 6], [1, 1], 0, orders=(order,))
    p = np.exp(reference.log_softmax(logits))
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(scores.row_entropy, -(p * np.log(p)).sum(-1), atol=tolerance)
    power = (p**order).sum(-1)
    np.testing.assert_allclose(scores.tsallis_entropy(order), (1 - power) / (order - 1), rtol=2e-6)
    np.testing.assert_allclose(scores.renyi_entropy(order), np.log(power) / (1 - order), rtol=2e-6, atol=1e-6)
