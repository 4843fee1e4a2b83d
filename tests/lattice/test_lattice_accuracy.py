"""Accuracy at full size, corner cases without NaN, half precision, chunked joints, gradients by differences."""

from __future__ import annotations

from dataclasses import fields

import lattice_reference as reference
import numpy as np
import pytest
import torch

from earmark import lattice


def rnnt_at_size(k_blank: np.ndarray, k_label: np.ndarray) -> float:
    """Return log P in float64 over anti-diagonals; arrays are (T, U + 1) and (T, U)."""
    frames, nodes = k_blank.shape
    alpha = np.full((frames, nodes), -np.inf)
    alpha[0, 0] = 0.0
    for n in range(1, frames + nodes - 1):
        u = np.arange(max(0, n - frames + 1), min(nodes - 1, n) + 1)
        t = n - u
        by_blank, by_label = np.full(len(u), -np.inf), np.full(len(u), -np.inf)
        i, j = t > 0, u > 0
        by_blank[i] = alpha[t[i] - 1, u[i]] + k_blank[t[i] - 1, u[i]]
        by_label[j] = alpha[t[j], u[j] - 1] + k_label[t[j], u[j] - 1]
        alpha[t, u] = np.logaddexp(by_blank, by_label)
    return float(alpha[-1, -1] + k_blank[-1, -1])


def tdt_at_size(k_blank: np.ndarray, k_label: np.ndarray, k_span: np.ndarray, durations: tuple[int, ...]) -> float:
    """Return log P in float64; durations without 0, so that frames follow one another."""
    frames, nodes = k_blank.shape
    alpha = np.full((frames + 1, nodes), -np.inf)
    alpha[0, 0] = 0.0
    for t in range(frames):
        for i, d in enumerate(durations):
            if t + d <= frames:
                alpha[t + d] = np.logaddexp(alpha[t + d], alpha[t] + k_blank[t] + k_span[t, :, i])
            if t + d < frames:
                by_label = alpha[t, :-1] + k_label[t] + k_span[t, :-1, i]
                alpha[t + d, 1:] = np.logaddexp(alpha[t + d, 1:], by_label)
    return float(alpha[-1, -1])


def ctc_at_size(k: np.ndarray, labels: np.ndarray, blank: int) -> float:
    """Return log P in float64, one frame at a time."""
    z = np.full(2 * len(labels) + 1, blank)
    z[1::2] = labels
    skip = np.zeros(len(z), bool)
    skip[3::2] = labels[1:] != labels[:-1]
    alpha = np.full(len(z), -np.inf)
    alpha[:2] = k[0, z[:2]]
    for t in range(1, len(k)):
        after = alpha.copy()
        after[1:] = np.logaddexp(after[1:], alpha[:-1])
        after[2:] = np.where(skip[2:], np.logaddexp(after[2:], alpha[:-2]), after[2:])
        alpha = after + k[t, z]
    return float(np.logaddexp(alpha[-1], alpha[-2]))


SIZES = [(3000, 1200, 0.0), (3000, 1200, 18.0), (750, 100, 0.0)]
"""Frames, tokens and how far a chosen alignment stands out; at 18 nats log P of 4200 steps is about -1e-4."""


def favour(logits: np.ndarray, labels: np.ndarray, blank: int, strength: float) -> None:
    """Raise the logits of one alignment spread evenly over the audio."""
    frames, tokens = len(logits), len(labels)
    starts = (np.arange(tokens) * frames) // max(tokens, 1)
    for t in range(frames):
        if logits.ndim == 2:
            here = np.flatnonzero(starts == t)
            logits[t, labels[here[0]] if len(here) else blank] += strength
        else:
            for u in range(tokens + 1):
                symbol = labels[u] if u < tokens and starts[u] <= t else blank
                logits[t, u, symbol] += strength


@pytest.mark.parametrize(("frames", "tokens", "strength"), SIZES)
def test_rnnt_holds_float64_accuracy(frames, tokens, strength):
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((frames, tokens + 1, 4), np.float32)
    labels = rng.integers(1, 4, tokens)
    favour(logits, labels, 0, strength)
    k = reference.log_softmax(logits)
    expected = rnnt_at_size(k[..., 0], k[:, np.arange(tokens), labels])
    found = lattice.transducer(logits[None], labels[None], [frames], [tokens], 0)
    assert found.log_likelihood[0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("frames", "tokens", "strength"), SIZES)
def test_ctc_holds_float64_accuracy(frames, tokens, strength):
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((frames, 33), np.float32)
    labels = rng.permutation(np.resize(np.arange(1, 33), tokens))
    favour(logits, labels, 0, strength)
    expected = ctc_at_size(reference.log_softmax(logits), labels, 0)
    found = lattice.ctc(logits[None], labels[None], [frames], [tokens], 0)
    assert found.log_likelihood[0] == pytest.approx(expected, rel=1e-6)
    occupied = found.token_occupancy.sum(-1) + found.blank_occupancy.sum(-1)
    np.testing.assert_allclose(occupied, 1.0, atol=1e-9)


def test_tdt_holds_float64_accuracy():
    rng = np.random.default_rng(3)
    frames, tokens, durations = 3000, 400, (1, 2, 4)
    logits = rng.standard_normal((frames, tokens + 1, 4 + 3), np.float32) * 3
    labels = rng.integers(1, 4, tokens)
    k, spans = reference.log_softmax(logits[..., :4]), reference.log_softmax(logits[..., 4:])
    expected = tdt_at_size(k[..., 0], k[:, np.arange(tokens), labels], spans, durations)
    found = lattice.transducer(logits[None], labels[None], [frames], [tokens], 0, durations=durations)
    assert found.log_likelihood[0] == pytest.approx(expected, rel=1e-6)


def test_a_wrong_transcript_does_not_underflow():
    logits = np.zeros((1, 3000, 6), np.float32)
    logits[..., 0] = 500.0
    found = lattice.ctc(logits, np.resize([1, 2, 3], (1, 1200)), [3000], [1200], 0)
    assert found.log_likelihood[0] == pytest.approx(-1200 * 500, rel=5e-3)
    np.testing.assert_allclose(found.token_occupancy.sum(-1) + found.blank_occupancy.sum(-1), 1.0, atol=1e-9)


def assert_finite(scores: lattice.LatticeScores) -> None:
    for field in fields(scores):
        value = getattr(scores, field.name)
        if isinstance(value, np.ndarray):
            assert np.isfinite(value).all(), field.name


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1e4, -1e4, 0.0])
@pytest.mark.parametrize(
    ("frames", "labels"),
    [(1, []), (1, [1]), (4, []), (4, [1, 2, 1, 2]), (7, [1, 1, 1, 1]), (5, [2])],
    ids=["T1 U0", "T1 U1", "U0", "T=U", "T=U+repeats", "all but blank"],
)
def test_corners_hold_no_nan(dtype, size, frames, labels):
    rng = np.random.default_rng(0)
    targets = np.array([labels], np.int64).reshape(1, len(labels))
    common = (targets, [frames], [len(labels)], 0)
    orders = (0.33, 2.0)
    logits = (rng.choice([-size, 0.0, size], (1, frames, 3)) + rng.normal(size=(1, frames, 3))).astype(dtype)
    assert_finite(lattice.ctc(logits, *common, orders=orders))
    nodes = rng.choice([-size, 0.0, size], (1, frames, len(labels) + 1, 3))
    nodes = (nodes + rng.normal(size=nodes.shape)).astype(dtype)
    assert_finite(lattice.transducer(nodes, *common, orders=orders))
    for durations in [(0, 1), (0, 1, 2), (1, 2), (0, 2, 3), (1,)]:
        wide = np.concatenate([nodes, nodes[..., [0] * len(durations)]], -1)
        kept = lattice.transducer(wide, *common, durations=durations, orders=orders, on_error="keep")
        opened = lattice.transducer(wide, *common, durations=durations, rule="open_end")
        if kept.errors[0] is None:
            assert_finite(kept)
        else:  # durations that cannot land on T
            assert kept.log_likelihood[0] == -np.inf
            assert "no alignment" in kept.errors[0]
        assert_finite(opened)
    tensor = torch.tensor(nodes, requires_grad=True)
    lattice.loss(tensor, *common).backward()
    assert torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("call", [lattice.ctc, lattice.transducer])
def test_a_vocabulary_of_the_blank_alone(call):
    shape = (1, 4, 1) if call is lattice.ctc else (1, 4, 1, 1)
    scores = call(np.full(shape, -7.0), np.zeros((1, 0), int), [4], [0], 0, orders=(0.33,))
    assert_finite(scores)
    assert scores.log_likelihood[0] == scores.alignment_entropy[0] == 0.0
    assert scores.tsallis_entropy(0.33).max() == scores.row_entropy.max() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("durations", [None, (0, 1, 2)])
def test_half_precision_is_read_as_it_stands(dtype, durations):
    generator = torch.Generator().manual_seed(0)
    width = 300 + len(durations or ())
    logits = torch.randn(2, 20, 6, width, generator=generator).to(dtype)
    common = ([[1, 2, 3, 4, 5], [6, 7, 8, 0, 0]], [20, 15], [5, 3], -1)
    half = lattice.transducer(logits, *common, durations=durations)
    full = lattice.transducer(logits.float(), *common, durations=durations)
    np.testing.assert_array_equal(half.log_likelihood, full.log_likelihood)
    tensor = logits.clone().requires_grad_()
    wide = logits.float().requires_grad_()
    for x in (tensor, wide):
        lattice.loss(x, *common, durations=durations, reduction="sum").backward()
    assert tensor.grad.dtype == dtype
    torch.testing.assert_close(tensor.grad, wide.grad.to(dtype), rtol=0, atol=0)


def test_strided_and_read_only_logits():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 9, 2, 5))
    plain = lattice.transducer(logits, [[1]] * 3, [9] * 3, [1] * 3, 0)
    strided = torch.tensor(logits).permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    frozen = logits.copy()
    frozen.setflags(write=False)
    for other in (strided, frozen, np.asfortranarray(logits)):
        scores = lattice.transducer(other, [[1]] * 3, [9] * 3, [1] * 3, 0)
        np.testing.assert_array_equal(scores.log_likelihood, plain.log_likelihood)


def small_joint(dtype=torch.float64):
    """Return a joint with encoder, predictor and weights, and the whole tensor it stands for."""
    generator = torch.Generator().manual_seed(3)
    encoder = torch.randn(2, 11, 1, 6, generator=generator, dtype=dtype, requires_grad=True)
    predictor = torch.randn(2, 1, 4, 6, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(6, 5 + 3, generator=generator, dtype=dtype, requires_grad=True)

    def function(start: int, stop: int) -> torch.Tensor:
        return torch.tanh(encoder[:, start:stop] + predictor) @ weight

    return function, (encoder, predictor, weight)


@pytest.mark.parametrize("chunk_frames", [1, 4, 11, None])
def test_a_chunked_joint_equals_the_tensor(chunk_frames):
    function, tensors = small_joint()
    joint = lattice.ChunkedJoint(function=function, shape=(2, 11, 4, 8), tensors=tensors, chunk_frames=chunk_frames)
    common = ([[0, 1, 2], [3, 0, 0]], [11, 9], [3, 2], 4)
    options = {"durations": (0, 1, 2), "sigma": 0.05}
    chunked = lattice.transducer(joint, *common, **options)
    whole = lattice.transducer(function(0, 11), *common, **options)
    np.testing.assert_array_equal(chunked.log_likelihood, whole.log_likelihood)
    np.testing.assert_array_equal(chunked.token_occupancy, whole.token_occupancy)
    np.testing.assert_array_equal(chunked.row_entropy, whole.row_entropy)
    expected = torch.autograd.grad(lattice.loss(function(0, 11), *common, **options), tensors)
    found = torch.autograd.grad(lattice.loss(joint, *common, **options), tensors)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_an_additive_joint_equals_its_logits(activation):
    generator = torch.Generator().manual_seed(6)
    sizes = [(2, 9, 6), (2, 4, 6), (5, 6), (5,)]
    parts = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in sizes]
    encoder, predictor, weight, bias = parts
    joint = lattice.AdditiveJoint(encoder=encoder, predictor=predictor, weight=weight, bias=bias, activation=activation)
    hidden = getattr(torch, activation)(encoder[:, :, None] + predictor[:, None])
    logits = hidden @ weight.T + bias
    common = ([[0, 1, 2], [3, 0, 0]], [9, 7], [3, 2], 4)
    scores, whole = lattice.transducer(joint, *common), lattice.transducer(logits, *common)
    np.testing.assert_allclose(scores.log_likelihood, whole.log_likelihood, rtol=0, atol=1e-12)
    expected = torch.autograd.grad(lattice.loss(logits, *common), parts)
    for found, wanted in zip(torch.autograd.grad(lattice.loss(joint, *common), parts), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_an_additive_joint_checks_its_parts():
    with pytest.raises(lattice.LatticeError, match=r"encoder \(1, 5, 4\), predictor \(1, 3, 9\)"):
        lattice.AdditiveJoint(encoder=torch.zeros(1, 5, 4), predictor=torch.zeros(1, 3, 9), weight=torch.zeros(6, 4))
    with pytest.raises(lattice.LatticeError, match="activation is 'gelu'"):
        lattice.AdditiveJoint(
            encoder=torch.zeros(1, 5, 4), predictor=torch.zeros(1, 3, 4), weight=torch.zeros(6, 4), activation="gelu"
        )


@pytest.mark.parametrize("kind", ["ctc", "rnnt", "tdt", "open_end", "multiblank"])
def test_gradient_by_finite_differences(kind):
    options = {
        "tdt": {"durations": (0, 1, 3), "sigma": 0.05},
        "open_end": {"durations": (0, 2), "rule": "open_end"},
        "multiblank": {"big_blanks": {3: 2}},
    }.get(kind, {})
    generator = torch.Generator().manual_seed(5)
    shape = (2, 6, 5) if kind == "ctc" else (2, 6, 4, 5 + len(options.get("durations", ())))
    logits = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)

    def cost(x: torch.Tensor) -> torch.Tensor:
        return lattice.loss(x, [[1, 1, 2], [0, 2, 0]], [6, 5], [3, 2], 4, reduction="none", **options)

    assert torch.autograd.gradcheck(cost, (logits,), eps=1e-6, atol=1e-7)
