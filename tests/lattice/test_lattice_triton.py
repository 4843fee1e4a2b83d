"""The Triton kernels against the compiled engine: in Triton's interpreter on CPU tensors, and on CUDA (`-m gpu`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lattice_known as known
import numpy as np
import pytest
import torch

from earmark import lattice

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")  # numpy, of the interpreter

DEVICES = [
    pytest.param("cpu", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels run on the GPU")),
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
    ),
]
on_devices = pytest.mark.parametrize("device", DEVICES)


@on_devices
@pytest.mark.parametrize("case", known.CASES, ids=[c["id"] for c in known.CASES])
def test_known_answers(case, device):
    found = known.scores_of(case, device=device, backend="triton")
    if "expected_cost" in case:
        atol = max(case["atol"], 2e-6)
        np.testing.assert_allclose(-found.log_likelihood, case["expected_cost"], rtol=0, atol=atol)
    if "ref_viterbi_logprob" in case:
        np.testing.assert_allclose(found.viterbi_score, case["ref_viterbi_logprob"], rtol=0, atol=2e-6)
    if "expected_path" in case:
        assert [path[:, 2].tolist() for path in found.paths] == case["expected_path"]


def assert_same(found: lattice.LatticeScores, expected: lattice.LatticeScores, atol: float) -> None:
    for name in (
        "log_likelihood", "viterbi_score", "token_occupancy", "blank_occupancy", "alignment_entropy",
        "token_time_mean", "row_entropy", "log_power_sums",
    ):  # fmt: skip
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=atol, err_msg=name)
    assert found.errors == expected.errors
    for mine, theirs in zip(found.paths, expected.paths, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(found.token_frame, expected.token_frame)
    np.testing.assert_array_equal(found.token_duration, expected.token_duration)


@on_devices
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [{}, {"durations": (0, 1, 2)}, {"durations": (0, 2), "rule": "open_end"}, {"big_blanks": {7: 3}, "sigma": 0.1}],
    ids=["rnnt", "tdt", "open_end", "multiblank"],
)
def test_transducers_agree_with_the_compiled_engine(options, dtype, device):
    generator = torch.Generator().manual_seed(0)
    width = 11 + len(options.get("durations", ()))
    logits = torch.randn(3, 9, 6, width, generator=generator).to(dtype)
    labels = [[1, 2, 3, 3], [4, 4, 0, 0], [5, 99, 1, 1]]  # the last item is refused
    common = (labels, [9, 7, 9], [4, 2, 2], -1)
    more = {**options, "orders": (0.33,), "on_error": "keep"}
    expected = lattice.transducer(logits, *common, **more)
    found = lattice.transducer(logits.to(device), *common, backend="triton", **more)
    assert_same(found, expected, 1e-10 if dtype == torch.float64 else 1e-5)


@on_devices
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_ctc_agrees_with_the_compiled_engine(dtype, device):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(4, 12, 17, generator=generator).to(dtype)
    logits[2, 3, 4] = float("nan")  # refused
    labels = [[1, 1, 2, 3], [4, 0, 0, 0], [5, 5, 1, 1], [6, 6, 6, 6]]
    common = (labels, [12, 9, 9, 4], [4, 0, 2, 3], 0)
    more = {"orders": (0.33, 2.0), "on_error": "keep"}
    expected = lattice.ctc(logits, *common, **more)
    found = lattice.ctc(logits.to(device), *common, backend="triton", **more)
    assert [error is None for error in found.errors] == [True, True, False, False]
    assert_same(found, expected, 1e-10 if dtype == torch.float64 else 1e-5)


@on_devices
def test_a_chunked_joint(device):
    logits = torch.randn(2, 7, 4, 8, generator=torch.Generator().manual_seed(2))
    on_device = logits.to(device)
    joint = lattice.ChunkedJoint(
        function=lambda start, stop: on_device[:, start:stop], shape=(2, 7, 4, 8), chunk_frames=3
    )
    common = ([[1, 2, 3], [1, 0, 0]], [7, 5], [3, 1], 4)
    found = lattice.transducer(joint, *common, durations=(0, 1, 2), backend="triton")
    assert_same(found, lattice.transducer(logits, *common, durations=(0, 1, 2)), 1e-5)


@on_devices
@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize("durations", [None, (0, 1, 2)])
def test_the_fused_joint(activation, durations, device):
    generator = torch.Generator().manual_seed(4)
    sizes = [(2, 7, 37), (2, 5, 37), (80, 37), (80,)]
    parts = [torch.randn(size, generator=generator) for size in sizes]
    names = ("encoder", "predictor", "weight", "bias")
    for bias in (True, False):
        used = dict(list(zip(names, parts, strict=True))[: 4 if bias else 3])
        plain = lattice.AdditiveJoint(**used, activation=activation)
        moved = {name: part.to(device) for name, part in used.items()}
        fused = lattice.AdditiveJoint(**moved, activation=activation)
        common = ([[1, 70, 3], [1, 2, 0]], [7, 5], [3, 2], 0)
        more = {"durations": durations, "orders": (0.33, 2.0)}
        expected = lattice.transducer(plain, *common, **more)
        assert_same(lattice.transducer(fused, *common, backend="triton", **more), expected, 2e-4)


@on_devices
def test_bad_rows_and_impossible_items_are_named(device):
    logits = torch.zeros(2, 6, 3, 4)
    logits[1, 3, 1, 2] = float("inf")
    common = ([[1, 2], [2, 1]], [6, 5], [2, 1], 0)
    with pytest.raises(lattice.LatticeError, match="item 1: the logits at frame 3 after 1 tokens hold NaN"):
        lattice.transducer(logits.to(device), *common, backend="triton")
    logits[1, 3, 1, 2] = 0.0
    logits[0, ..., 1] = float("-inf")
    with pytest.raises(lattice.LatticeError, match="item 0: no alignment of 2 tokens to 6 frames"):
        lattice.transducer(logits.to(device), *common, backend="triton")


def gradients(make, backend: str, device: str, *common, **options):
    """Return costs and gradients of the tensors of a joint or of logits."""
    logits_or_joint, tensors = make(device)
    costs = lattice.loss(logits_or_joint, *common, backend=backend, reduction="none", **options)
    weights = torch.linspace(0.5, 2.0, len(costs)).to(costs)
    found = torch.autograd.grad((torch.where(torch.isfinite(costs), costs, 0.0) * weights).sum(), tensors)
    return costs.detach().cpu(), [g.cpu() for g in found]


def assert_same_gradients(make, device: str, atol: float, *common, **options) -> None:
    expected = gradients(make, "compiled", "cpu", *common, **options)
    costs, found = gradients(make, "triton", device, *common, **options)
    torch.testing.assert_close(costs, expected[0], rtol=1e-6, atol=atol)
    for mine, theirs in zip(found, expected[1], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=atol)


def leaf(*size: int, seed: int, dtype=torch.float32, faulty: tuple[int, ...] | None = None):
    """Return a maker of random logits with NaN at one place."""

    def make(device: str):
        logits = torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
        if faulty:
            logits[faulty] = float("nan")
        logits = logits.to(device).requires_grad_()
        return logits, [logits]

    return make


TOLERANCES = {torch.float64: 1e-10, torch.bfloat16: 2e-2}


@on_devices
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize(
    "options",
    [{}, {"durations": (0, 1, 2)}, {"durations": (0, 2), "rule": "open_end"}, {"big_blanks": {7: 3}, "sigma": 0.1}],
    ids=["rnnt", "tdt", "open_end", "multiblank"],
)
def test_transducer_gradients_agree_with_the_compiled_engine(options, dtype, device):
    make = leaf(4, 9, 6, 11 + len(options.get("durations", ())), seed=0, dtype=dtype, faulty=(3, 4, 1, 2))
    labels = [[1, 2, 3, 3], [4, 4, 0, 0], [5, 99, 1, 1], [1, 2, 1, 1]]  # the last two are refused
    common = (labels, [9, 7, 9, 9], [4, 2, 2, 2], -1)
    assert_same_gradients(make, device, TOLERANCES[dtype], *common, on_error="keep", **options)


@on_devices
@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_ctc_gradients_agree_with_the_compiled_engine(dtype, device):
    make = leaf(4, 12, 17, seed=1, dtype=dtype, faulty=(2, 3, 4))
    labels = [[1, 1, 2, 3], [4, 0, 0, 0], [5, 5, 1, 1], [6, 6, 6, 6]]  # the last two are refused
    common = (labels, [12, 9, 9, 4], [4, 0, 2, 3], 0)
    assert_same_gradients(make, device, TOLERANCES[dtype], *common, on_error="keep")


@on_devices
@pytest.mark.parametrize("durations", [None, (0, 1, 2)])
def test_gradients_flow_through_joints(durations, device):
    def additive(device: str):
        generator = torch.Generator().manual_seed(4)
        sizes = [(2, 7, 5), (2, 4, 5), (8, 5), (8,)]
        parts = [torch.randn(s, generator=generator, dtype=torch.float64).to(device).requires_grad_() for s in sizes]
        names = ("encoder", "predictor", "weight", "bias")
        return lattice.AdditiveJoint(**dict(zip(names, parts, strict=True))), parts

    def chunked(device: str):
        logits, tensors = leaf(2, 7, 4, 8, seed=2, dtype=torch.float64)(device)
        joint = lattice.ChunkedJoint(
            function=lambda start, stop: 1.0 * logits[:, start:stop],
            shape=(2, 7, 4, 8),
            tensors=tensors,
            chunk_frames=3,
        )
        return joint, tensors

    for make in (additive, chunked):
        assert_same_gradients(make, device, 1e-10, [[1, 2, 3], [1, 0, 0]], [7, 5], [3, 1], 4, durations=durations)


@on_devices
def test_an_impossible_item_has_no_gradient(device):
    logits = torch.zeros(2, 6, 3, 4)
    logits[0, ..., 1] = float("-inf")
    common = ([[1, 2], [2, 1]], [6, 5], [2, 1], 0)

    def make(device: str):
        tensor = logits.to(device).requires_grad_()
        return tensor, [tensor]

    assert_same_gradients(make, device, 1e-6, *common, on_error="keep")
    with pytest.raises(lattice.LatticeError, match="item 0: no alignment of 2 tokens to 6 frames"):
        lattice.loss(logits.to(device), *common, backend="triton")


def test_every_kernel_compiles_for_a_gpu():
    """Through ptxas to a Hopper binary; needs no GPU."""
    script = Path(__file__).with_name("compile_kernels.py")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 19


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_tensors_choose_triton_and_hold_at_size():
    logits = torch.randn(2, 3000, 1201, 33, device="cuda")
    labels = torch.randint(1, 33, (2, 1200))
    common = (labels, [3000, 2500], [1200, 1100], 0)
    found = lattice.transducer(logits, *common)
    expected = lattice.transducer(logits.cpu(), *common)
    np.testing.assert_allclose(found.log_likelihood, expected.log_likelihood, rtol=1e-6)
    cost = lattice.loss(logits.requires_grad_(), *common, reduction="none")
    assert cost.is_cuda
    np.testing.assert_allclose(-cost.detach().cpu(), expected.log_likelihood, rtol=1e-5)
    (gradient,) = torch.autograd.grad(cost.sum(), logits)
    assert gradient.is_cuda
    assert gradient.sum(-1).abs().max().item() < 1e-4
