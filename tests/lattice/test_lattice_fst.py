"""The text forms of lattices: read back here, and by kaldifst, pynini and k2 where those are installed."""

from __future__ import annotations

import math

import lattice_reference as reference
import numpy as np
import pytest

from earmark import lattice
from earmark.lattice.fst import Fsa, ctc_fsa, transducer_fsa
from earmark.lattice.k2_check import k2_scores

KINDS = ["ctc", "rnnt", "tdt", "open_end", "multiblank"]


def item(kind: str):
    """Return the acceptor and the scores of one random item."""
    rng = np.random.default_rng(len(kind))
    options = {
        "tdt": {"durations": (0, 1, 2)},
        "open_end": {"durations": (0, 2), "rule": "open_end"},
        "multiblank": {"big_blanks": {4: 2}, "sigma": 0.05},
    }.get(kind, {})
    labels = [1, 1, 3]
    if kind == "ctc":
        logits = rng.normal(size=(7, 5))
        return ctc_fsa(logits, labels, 0), lattice.ctc(logits[None], [labels], [7], [3], 0)
    logits = rng.normal(size=(7, 4, 5 + len(options.get("durations", ()))))
    scores = lattice.transducer(logits[None], [labels], [7], [3], 0, **options)
    return transducer_fsa(logits, labels, 0, **options), scores


def totals(arcs, final: int) -> tuple[float, float]:
    """Return total and best score of an acyclic acceptor whose arcs are sorted by their source."""
    arriving: dict[int, list[tuple[float, float]]] = {0: [(0.0, 0.0)]}
    for a, b, _, score in sorted(arcs):
        if a not in arriving:
            continue
        total, best = reference.logsumexp([t for t, _ in arriving[a]]), max(x for _, x in arriving[a])
        arriving.setdefault(b, []).append((total + score, best + score))
    return reference.logsumexp([t for t, _ in arriving[final]]), max(x for _, x in arriving[final])


@pytest.mark.parametrize("kind", KINDS)
def test_both_texts_hold_the_lattice(kind):
    fsa, scores = item(kind)
    for text, sign in ((fsa.openfst(), -1.0), (fsa.k2(), 1.0)):
        *lines, final = text.strip().split("\n")
        arcs = [(int(a), int(b), int(s), sign * float(w)) for a, b, s, w in map(str.split, lines)]
        total, best = totals(arcs, int(final))
        assert total == pytest.approx(scores.log_likelihood[0], abs=1e-10)
        assert best == pytest.approx(scores.viterbi_score[0], abs=1e-10)
    entering = [arc for arc in fsa.arcs if arc[1] == fsa.states - 1]
    assert {arc[2] for arc in entering} == {-1}


def dag(case: dict) -> Fsa:
    arcs = tuple(sorted((a, b, s, w) for a, b, s, w in case["arcs"]))
    return Fsa(arcs=arcs, states=1 + max(arc[1] for arc in arcs))


DAGS = ["dag_tropical_k2_a", "dag_tropical_k2_b", "dag_tropical_k2_c", "dag_log_k2_a"]


def openfst_log64_total(pywrapfst, text: str) -> float:
    """Return log P by OpenFst in the log64 semiring; the reverse distance of the start is the total cost."""
    compiler = pywrapfst.Compiler(arc_type="log64", acceptor=True)
    compiler.write(text)
    return -float(str(pywrapfst.shortestdistance(compiler.compile(), reverse=True)[0]))


@pytest.mark.parametrize("name", DAGS)
def test_dag_cases(lattice_cases, name):
    case = lattice_cases[name]
    fsa = dag(case)
    total, best = totals(fsa.arcs, fsa.states - 1)
    found = total if case["kind"] == "dag_log" else best
    assert found == pytest.approx(case["expected_score"], abs=case["atol"])


@pytest.mark.parametrize("name", DAGS)
def test_dag_cases_in_openfst(lattice_cases, name):
    pywrapfst = pytest.importorskip("pywrapfst", reason="pynini is not installed")
    case = lattice_cases[name]
    text = dag(case).openfst(shift=0)
    if case["kind"] == "dag_log":
        assert openfst_log64_total(pywrapfst, text) == pytest.approx(case["expected_score"], abs=case["atol"])
        return
    compiler = pywrapfst.Compiler(arc_type="standard", acceptor=True)
    compiler.write(text)
    found = -float(str(pywrapfst.shortestdistance(compiler.compile(), reverse=True)[0]))
    assert found == pytest.approx(case["expected_score"], abs=case["atol"])


@pytest.mark.parametrize("kind", KINDS)
def test_openfst_agrees_on_totals(kind):
    pywrapfst = pytest.importorskip("pywrapfst", reason="pynini is not installed")
    fsa, scores = item(kind)
    # the printed weights of OpenFst carry about nine digits
    assert openfst_log64_total(pywrapfst, fsa.openfst()) == pytest.approx(scores.log_likelihood[0], abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_kaldifst_agrees_on_the_best_path(kind):
    kaldifst = pytest.importorskip("kaldifst", reason="kaldifst is not installed")
    fsa, scores = item(kind)
    best = kaldifst.shortest_path(kaldifst.compile(fsa.openfst(), acceptor=True))
    found, symbols, _, cost = kaldifst.get_linear_symbol_sequence(best)
    assert found
    assert -(cost.value if hasattr(cost, "value") else float(cost)) == pytest.approx(scores.viterbi_score[0], rel=1e-6)
    assert [s - 1 for s in symbols if s] == scores.paths[0][:, 2].tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_k2_agrees(kind):
    pytest.importorskip("k2", reason="k2 is not installed: no wheel for this Python and torch")
    fsa, scores = item(kind)
    total, best = k2_scores(fsa)
    assert total == pytest.approx(scores.log_likelihood[0], abs=1e-5)
    assert best == pytest.approx(scores.viterbi_score[0], abs=1e-5)


def test_without_k2_the_error_says_so(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "k2", None)
    with pytest.raises(lattice.LatticeError, match="k2 is not installed"):
        k2_scores(item("ctc")[0])


def test_faults_are_refused():
    with pytest.raises(lattice.LatticeError, match="2 tokens need 3 frames, there are 2"):
        ctc_fsa(np.zeros((2, 3)), [1, 1], 0)
    with pytest.raises(lattice.LatticeError, match="row 1 of the logits holds NaN"):
        ctc_fsa(np.array([[0.0, 0.0], [np.nan, 0.0]]), [1], 0)
    with pytest.raises(lattice.LatticeError, match="token 0 is 0, which is a blank"):
        transducer_fsa(np.zeros((2, 2, 3)), [0], 0)


def test_impossible_arcs_are_left_out():
    logits = np.zeros((2, 3))
    logits[0, 1] = -np.inf
    assert all(math.isfinite(arc[3]) for arc in ctc_fsa(logits, [1], 0).arcs)
