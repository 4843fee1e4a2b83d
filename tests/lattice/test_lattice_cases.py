"""Known answers of public suites (shared/cases/lattice.json) on the reference and on the compiled engine."""

from __future__ import annotations

import lattice_reference as reference
import numpy as np
import pytest
import torch
from lattice_known import CASES, KINDS, options, padded, scores_of
from lattice_reference import cases_path

from earmark import lattice

every_case = pytest.mark.parametrize("case", CASES, ids=[c["id"] for c in CASES])


def test_every_kind_is_there():
    if not cases_path().is_file():
        pytest.skip(f"no known answers at {cases_path()}: set EARMARK_CASES to their folder")
    assert {c["kind"] for c in CASES} == set(KINDS)
    assert len(CASES) == 20


@every_case
def test_reference_agrees(case):
    for b, labels in enumerate(case["labels"]):
        t, u = case["T"][b], case["U"][b]
        logits = np.array(case["logits"][b])
        blank = case["blank"] % (logits.shape[-1])
        if case["kind"].startswith("ctc"):
            cost = -reference.ctc_log_likelihood(logits[:t], labels[:u], blank)
        else:
            nodes = logits[:t, : u + 1]
            cost = -reference.transducer_log_likelihood(nodes, labels[:u], blank, **options(case))
        # rows of from_logprobs cases are rounded: normalising them shifts the cost
        assert cost == pytest.approx(case["ref_cost_float64"][b], abs=3e-6 if case.get("from_logprobs") else 1e-9)
        if "expected_cost" in case:
            assert cost == pytest.approx(case["expected_cost"][b], abs=case["atol"])


@every_case
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_compiled_cost(case, dtype):
    cost = -scores_of(case, dtype).log_likelihood
    tolerance = 3e-6 if case.get("from_logprobs") else 1e-12
    if dtype == np.float64:
        np.testing.assert_allclose(cost, case["ref_cost_float64"], rtol=0, atol=tolerance)
    if "expected_cost" in case:
        np.testing.assert_allclose(cost, case["expected_cost"], rtol=0, atol=max(case["atol"], 2e-6))


@every_case
def test_compiled_best_path(case):
    scores = scores_of(case)
    if "ref_viterbi_logprob" in case:
        np.testing.assert_allclose(scores.viterbi_score, case["ref_viterbi_logprob"], rtol=0, atol=1e-9)
    for b, path in enumerate(scores.paths):
        symbols = path[:, 2].tolist()
        if case["kind"] == "ctc_align":
            assert symbols == case["expected_path"][b]
        elif case["kind"] == "ctc":
            assert symbols == case["ref_viterbi_path"][b]
        elif case["id"] != "tdt_fixed_nemo":  # two best paths; scores are compared above
            assert [list(map(int, row[1:])) for row in case["ref_viterbi_path"][b]] == [
                row[: len(case["ref_viterbi_path"][b][0]) - 1].tolist() for row in path
            ]


@pytest.mark.parametrize("case", [c for c in CASES if "expected_grad_logits" in c], ids=lambda c: c["id"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_gradient_of_logits(case, dtype):
    logits = torch.tensor(case["logits"], dtype=dtype, requires_grad=True)
    cost = lattice.loss(
        logits, padded(case["labels"]), case["T"], case["U"], case["blank"], reduction="sum", **options(case)
    )
    cost.backward()
    tolerance = max(case["grad_atol"], 2e-6)
    np.testing.assert_allclose(logits.grad, np.array(case["expected_grad_logits"]), rtol=0, atol=tolerance)


@pytest.mark.parametrize("case", [c for c in CASES if "expected_grad_logprobs" in c], ids=lambda c: c["id"])
def test_occupancies_are_minus_the_gradient_of_log_probabilities(case):
    scores = scores_of(case)
    expected = -np.array(case["expected_grad_logprobs"])
    for b, labels in enumerate(case["labels"]):
        found = np.zeros_like(expected[b])
        found[:, :, case["blank"]] = scores.blank_occupancy[b]
        for u, label in enumerate(labels):
            found[:, u, label] += scores.token_occupancy[b, :, u]
        np.testing.assert_allclose(found, expected[b], rtol=0, atol=max(case["grad_atol"], 2e-6))


def test_infeasible_alignment_is_refused(lattice_cases):
    case = lattice_cases["ctc_align_torchaudio_infeasible"]
    with pytest.raises(lattice.LatticeError, match=r"item 0: 6 tokens with 1 repeats need 7 frames, there are 5"):
        scores_of(case)
