"""Gonka's rules are reproduced to the last digit.

The cases are facts (inputs and expected outputs) from Gonka's public repositories, named case by case in
`golden/gonka/cases.json`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from earmark.fingerprint import gonka
from earmark.fingerprint.gonka import Position

CASES = json.loads((Path(__file__).parent / "golden" / "gonka" / "cases.json").read_text(encoding="utf-8"))
RULES = {
    "expected_legacy": ("legacy", {}),
    "expected_current": ("current", {}),
    "expected_policy_processed_enforced": ("policy", {"processed": True}),
    "expected_policy_raw_enforced": ("policy", {"processed": False}),
}


def _of_level(level):
    found = [case for case in CASES["cases"] if case["level"] == level]
    assert found
    return pytest.mark.parametrize("case", found, ids=lambda case: case["id"])


def _entries(pairs):
    return [(token, float(value)) for token, value in pairs]


def _positions(case, side):
    rows = [Position(token, float(value), _entries(top)) for token, value, top in case[side]]
    return rows * case[f"repeat_{side}"]


@_of_level("position")
def test_positions(case):
    lists = _entries(case["original_top"]), _entries(case["validation_top"])
    one = [Position("t", -1.0, top) for top in lists]
    if case["expected_legacy_sum"] == "error":
        with pytest.raises(ValueError, match="empty list"):
            gonka.position_terms(*lists)
        assert all(gonka.compare(one[:1], one[1:], rule).similarity == 0 for rule in ("legacy", "current", "policy"))
        return
    legacy = sum(t for t in gonka.position_terms(*lists) if t == t)  # noqa: PLR0124 - NaN differs from itself
    assert legacy == pytest.approx(case["expected_legacy_sum"], abs=1e-12)
    assert gonka.position_distances(one[:1], one[1:]) == pytest.approx([case["expected_current_mean"]], abs=1e-12)


@_of_level("compare")
@pytest.mark.parametrize("key", RULES)
def test_comparisons(case, key):
    rule, options = RULES[key]
    outcome = gonka.compare(_positions(case, "original"), _positions(case, "validation"), rule, **options)
    assert outcome.result == case[key]["result"]
    assert outcome.similarity == pytest.approx(case[key]["similarity"], abs=1e-12)


@_of_level("compare-described")
def test_widths_that_differ(case):
    """100 positions, widths alternate 5 and 7, executor -3, validator -1 everywhere."""
    made = {
        value: [Position("0", value, [(str(t), value) for t in range(5 + 2 * (i % 2))]) for i in range(100)]
        for value in (-3.0, -1.0)
    }
    distances = [1 - gonka.compare(made[-3.0], made[-1.0], rule).similarity for rule in ("current", "legacy")]
    assert distances == pytest.approx([case["expected_current_distance"], case["expected_legacy_distance"]], abs=1e-12)


@pytest.mark.parametrize("row", CASES["threshold_rule"])
def test_a_threshold_must_be_exceeded(row):
    assert gonka.Outcome("Similarity", row["similarity"]).passes(row["threshold"]) == row["valid"]


@pytest.mark.parametrize("row", CASES["policy_budgets"], ids=lambda row: row["N"])
def test_budgets(row):
    count = row["N"]
    assert gonka.support_budget(count, narrow=False) == row["support_default"]
    assert gonka.support_budget(count, narrow=True) == row["support_narrow"]
    assert gonka.ceiling_budget(count, processed=False) == row["ceiling_raw"]
    assert gonka.ceiling_budget(count, processed=True) == row["ceiling_processed"]


@pytest.mark.parametrize("row", CASES["policy_narrow_sampler"], ids=lambda row: str(row["request"]))
def test_narrow_samplers(row):
    assert gonka.Sampler(**row["request"]).narrow == row["narrow"]


@pytest.mark.parametrize("row", CASES["sprt_log_ratio"], ids=str)
def test_increments_of_the_sequential_test(row):
    found = gonka.log_ratio(row["p1"], row["p0"], failed=row["fail"])
    assert found == pytest.approx(float(row["expected"]), abs=1e-11)


@pytest.mark.parametrize("row", CASES["sprt_status"], ids=lambda row: row["expected"])
def test_status_of_the_sequential_test(row):
    options = {"p0": row["p0"]}
    options |= {"p1": row["p1"], "bound": row["H"]} if "H" in row else {"quick_cut": row["quick_cut"]}
    consecutive = row.get("consecutive_failures", 0)
    found = gonka.sprt_status(row.get("passes", 0), row.get("failures", 0), consecutive=consecutive, **options)
    assert found == row["expected"]


@pytest.mark.parametrize("row", CASES["mae_distance"], ids=lambda row: str(row["expected"]))
def test_mean_absolute_difference(row):
    def rows(side):
        if f"{side}_positions" in row:
            return [Position("5", -1.0, [("5", -1.0)])] * row[f"{side}_positions"]
        return [Position("5", -0.5, list(top.items())) for top in row[side]]

    assert gonka.mae_distance(rows("executor"), rows("validator")) == pytest.approx(row["expected"], abs=1e-12)


@pytest.mark.parametrize("row", CASES["older_distance2_plus1"], ids=lambda row: str(row["expected"]))
def test_older_distance(row):
    one = Position("0", -1.0, [(str(t), -1.0 - t) for t in range(row.get("k", 2))])
    executor = [one] * row.get("positions", 2)
    validator = executor[1:] if row.get("length_mismatch") else executor
    assert gonka.older_distance(executor, validator) == pytest.approx(row["expected"], abs=1e-15)


def test_the_shared_cases_are_the_copied_ones():
    shared = Path(__file__).resolve().parents[2] / "shared" / "cases" / "gonka.json"
    if not shared.is_file():
        pytest.skip(f"no known answers at {shared}")
    theirs = json.loads(shared.read_text(encoding="utf-8"))
    for case in theirs["cases"]:
        for side in ("original", "validation"):
            if side in case:
                case[side] = [[p["token"], p["logprob"], p["top"]] for p in case[side]]
    lacking = {"policy_cases", "fixtures_whole_file"}  # these state outcomes without the inputs
    assert {name: value for name, value in theirs.items() if name not in lacking} == CASES
