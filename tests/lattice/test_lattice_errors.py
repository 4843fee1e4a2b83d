"""Bad input is refused with the batch index and the numbers; with `keep`, the other items go on."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from earmark import lattice
from earmark.errors import UsageError
from earmark.lattice.engine import use_triton

GOOD = {"targets": [[1, 2], [2, 1]], "logit_lengths": [6, 5], "target_lengths": [2, 1], "blank": 0}


def call(shape=(2, 6, 4), logits=None, **changes):
    x = np.zeros(shape) if logits is None else logits
    options = {**GOOD, **changes}
    return (lattice.ctc if x.ndim == 3 else lattice.transducer)(x, **options)


CTC, NODES = (2, 6, 4), (2, 6, 3, 4)
BOTH = [CTC, NODES]


@pytest.mark.parametrize("shape", BOTH)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logit_lengths": [6, 7]}, r"item 1: logit_length is 7, but the logits hold 6 frames"),
        ({"logit_lengths": [0, 6]}, r"item 0: logit_length is 0"),
        ({"target_lengths": [3, 1]}, r"item 0: target_length is 3, but targets hold 2 tokens"),
        ({"target_lengths": [1, -1]}, r"item 1: target_length is -1"),
        ({"targets": [[1, 2], [0, 1]]}, r"item 1: token 0 is 0, which is a blank"),
        ({"targets": [[1, 4], [1, 1]]}, r"item 0: token 1 is 4, outside the vocabulary 0\.\.3"),
        ({"targets": [[1, -2], [1, 1]]}, r"item 0: token 1 is -2, outside"),
        ({"targets": [[1, 2]]}, r"2 item\(s\) of logits, 1 of targets"),
        ({"logit_lengths": [6]}, r"2 item\(s\) of logits, 2 of targets, 1 of logit_lengths"),
        ({"targets": [[0.5, 2], [1, 1]]}, r"targets is 2-dimensional float64; give integers"),
        ({"targets": [1, 2]}, r"targets is 1-dimensional"),
        ({"targets": [[1, 2], [1]]}, r"targets has rows of different lengths"),
        ({"blank": 0.5}, r"blank is 0\.5; give an integer"),
        ({"threads": 0}, r"threads is 0; give at least 1"),
        ({"blank": 4}, r"blank is 4"),
        ({"blank": -5}, r"blank is -5"),
        ({"on_error": "ignore"}, r"on_error is 'ignore'"),
        ({"orders": (1.0,)}, r"entropy order 1\.0"),
        ({"orders": (-1.0,)}, r"entropy order -1\.0"),
    ],
)
def test_bad_input_is_refused(shape, changes, message):
    with pytest.raises(lattice.LatticeError, match=message):
        call(shape, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"durations": (0, 2, 1)}, r"durations are \[0, 2, 1\]; give rising"),
        ({"durations": (-1, 2)}, r"durations are \[-1, 2\]"),
        ({"durations": (1, 1)}, r"durations are \[1, 1\]"),
        ({"durations": (0,)}, r"durations are \[0\]; a lattice needs one that advances"),
        ({"durations": ()}, r"durations are \[\]"),
        ({"durations": (0, 1, 2, 3)}, r"rows of 4 logits hold 0 tokens"),
        ({"big_blanks": {3: 1}}, r"big blank 3 lasts 1"),
        ({"big_blanks": {0: 2}}, r"big blank 0 lasts 2"),
        ({"big_blanks": {9: 2}}, r"big blank 9"),
        ({"big_blanks": {3: 2}, "durations": (0, 1)}, r"exclude each other"),
        ({"big_blanks": {2: 2}}, r"item 0: token 1 is 2, which is a blank"),
        ({"rule": "loose"}, r"rule is 'loose'"),
        ({"durations": (0, 1.5)}, r"a duration is 1\.5; give an integer"),
        ({"big_blanks": {3: 2.5}}, r"its duration is 2\.5; give an integer"),
        ({"sigma": float("nan")}, r"sigma is nan; give a finite number"),
        ({"targets": [[1, 2, 1], [1, 2, 1]], "target_lengths": [3, 3]}, r"item 0: .* rows for 2 tokens"),
    ],
)
def test_bad_transducers_are_refused(changes, message):
    with pytest.raises(lattice.LatticeError, match=message):
        call(NODES, **changes)


@pytest.mark.parametrize("shape", [(2, 6), (0, 6, 4), (2, 0, 4), (1, 2, 3, 4, 5)])
def test_shapes_are_checked(shape):
    with pytest.raises(lattice.LatticeError, match="logits have shape"):
        lattice.ctc(np.zeros(shape), **GOOD)


def test_the_error_is_a_usage_error_and_knows_its_item():
    with pytest.raises(ValueError, match="item 1") as caught:
        call(logit_lengths=[6, 7])
    assert isinstance(caught.value, UsageError)
    assert caught.value.item == 1


@pytest.mark.parametrize("shape", BOTH)
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_rows_that_are_not_finite_are_refused(shape, value, dtype, sign):
    logits = np.zeros(shape, dtype)
    logits[1, 3, ..., 2] = np.copysign(value, sign) if np.isnan(value) else value
    with pytest.raises(lattice.LatticeError, match=r"item 1: the logits at frame 3.* hold NaN or \+inf"):
        call(logits=logits)


@pytest.mark.parametrize("shape", BOTH)
def test_impossible_symbols_are_allowed_until_they_are_needed(shape):
    logits = np.zeros(shape, np.float32)
    logits[..., 3] = -np.inf
    assert np.isfinite(call(logits=logits).log_likelihood).all()
    logits[..., 1] = -np.inf
    kept = call(logits=logits, targets=[[2, 2], [1, 1]], on_error="keep")
    assert kept.errors[0] is None
    assert kept.errors[1].startswith("item 1: no alignment of 1 tokens to 5 frames has a probability above 0")
    assert kept.log_likelihood[1] == kept.viterbi_score[1] == -np.inf
    with pytest.raises(lattice.LatticeError, match="item 1: no alignment"):
        call(logits=logits, targets=[[2, 2], [1, 1]])


def test_infeasible_transcripts_are_refused():
    with pytest.raises(lattice.LatticeError, match="item 0: 2 tokens with 1 repeats need 3 frames, there are 2"):
        call(targets=[[1, 1], [1, 1]], logit_lengths=[2, 2])
    with pytest.raises(lattice.LatticeError, match=r"item 0: no alignment of 2 tokens to 1 frames .*strict"):
        call((2, 6, 3, 6), logit_lengths=[1, 5], durations=(1, 2))


@pytest.mark.parametrize("shape", BOTH)
def test_kept_items_do_not_touch_the_others(shape):
    logits = np.random.default_rng(0).normal(size=(4, *shape[1:])).astype(np.float32)
    logits[2, 1] = np.nan
    labels = [[1, 2], [9, 9], [1, 2], [2, 1]]
    frames, tokens = [6, 6, 6, 9], [2, 2, 2, 1]
    kept = call(logits=logits, targets=labels, logit_lengths=frames, target_lengths=tokens, on_error="keep", threads=2)
    assert [error is None for error in kept.errors] == [True, False, False, False]
    alone = call(logits=logits[:1], targets=labels[:1], logit_lengths=[6], target_lengths=[2])
    assert kept.log_likelihood[0] == alone.log_likelihood[0]
    assert kept.log_likelihood[1:].tolist() == [-np.inf] * 3
    assert not kept.token_occupancy[1:].any()
    assert not np.isnan(kept.row_entropy).any()
    assert "failed=3" in repr(kept)
    tensor = torch.tensor(logits, requires_grad=True)
    costs = lattice.loss(tensor, labels, frames, tokens, 0, reduction="none", on_error="keep")
    assert torch.isinf(costs).tolist() == [False, True, True, True]
    for reduction in ("sum", "mean"):
        total = lattice.loss(tensor, labels, frames, tokens, 0, reduction=reduction, on_error="keep")
        assert total.item() == pytest.approx(-alone.log_likelihood[0], rel=1e-6)
    (gradient,) = torch.autograd.grad(total, tensor)
    assert torch.isfinite(gradient).all()
    assert gradient[0].abs().sum() > 0
    assert gradient[1:].abs().sum() == 0


@pytest.mark.parametrize("shape", BOTH)
@pytest.mark.parametrize("size", [-3, 10**12])
def test_absurd_lengths_are_kept_too(shape, size):
    for name in ("logit_lengths", "target_lengths"):
        kept = call(shape, on_error="keep", **{name: [GOOD[name][0], size]})
        assert kept.errors[0] is None
        assert f"is {size}, but" in kept.errors[1]
        assert np.isfinite(kept.log_likelihood[0])


def test_loss_options_are_checked():
    logits = torch.zeros(2, 6, 4)
    with pytest.raises(lattice.LatticeError, match="reduction is 'median'"):
        lattice.loss(logits, reduction="median", **GOOD)
    with pytest.raises(lattice.LatticeError, match="belong to 4-dimensional logits"):
        lattice.loss(logits, durations=(0, 1), **GOOD)


def test_arrays_have_no_loss():
    with pytest.raises(lattice.LatticeError, match="loss needs a torch tensor or a joint"):
        lattice.loss(np.zeros(CTC), **GOOD)


def test_the_first_bad_row_is_named_from_any_number_of_threads(monkeypatch):
    monkeypatch.setattr("earmark.lattice.engine.BLOCK_VALUES", 12)
    logits = np.zeros((2, 40, 3, 4), np.float32)
    logits[1, 7:, 1] = np.nan
    for threads in (1, 2, 8):
        with pytest.raises(lattice.LatticeError, match="item 1: the logits at frame 7 after 1 tokens"):
            call(logits=logits, logit_lengths=[40, 40], threads=threads)


def test_huge_durations_need_no_room():
    scores = call((2, 6, 3, 6), durations=(1, 10**12))
    assert scores.log_likelihood[0] == pytest.approx(call((2, 6, 3, 6), durations=(1, 7)).log_likelihood[0])


def test_a_chunk_has_frames():
    with pytest.raises(lattice.LatticeError, match="chunk_frames is 0; give at least 1"):
        lattice.ChunkedJoint(function=torch.zeros, shape=(2, 6, 3, 4), chunk_frames=0)


def test_a_joint_of_the_wrong_shape_is_refused():
    joint = lattice.ChunkedJoint(
        function=lambda _start, _stop: torch.zeros(2, 1, 3, 4), shape=(2, 6, 3, 4), chunk_frames=2
    )
    with pytest.raises(lattice.LatticeError, match=r"the joint gave \(2, 1, 3, 4\) for frames 0 to 2"):
        lattice.transducer(joint, **GOOD)


def test_unasked_orders_are_refused():
    scores = call(orders=(0.33,))
    assert scores.tsallis_entropy(0.33).shape == (2, 6)
    np.testing.assert_array_equal(scores.renyi_entropy(1.0), scores.row_entropy)
    with pytest.raises(lattice.LatticeError, match=r"order 2\.0 was not asked for; this result has \[0\.33\]"):
        scores.renyi_entropy(2.0)


def test_results_are_the_same_from_any_number_of_threads():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 40, 9, 30)).astype(np.float32)
    labels = rng.integers(1, 30, (6, 8))

    def run(threads):
        return lattice.transducer(logits, labels, [40] * 6, [8] * 6, 0, threads=threads)

    one = run(1)
    with ThreadPoolExecutor(4) as pool:
        for other in pool.map(run, [1, 2, 3, 8] * 3):
            np.testing.assert_array_equal(other.log_likelihood, one.log_likelihood)
            np.testing.assert_array_equal(other.token_occupancy, one.token_occupancy)
            np.testing.assert_array_equal(other.row_entropy, one.row_entropy)


def test_importing_the_package_imports_neither_numba_nor_torch():
    code = "import earmark.lattice, sys; print('numba' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_the_backend_is_checked(monkeypatch):
    with pytest.raises(lattice.LatticeError, match="backend is 'cuda'; use"):
        call(backend="cuda")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.warns(UserWarning, match="triton is not installed: logits on a CUDA device are scored on the CPU"):
        assert not use_triton("auto", SimpleNamespace(is_cuda=True))
    with pytest.raises(lattice.LatticeError, match="backend 'triton' needs the package triton"):
        call(backend="triton")
