"""The verdict as people and programs see it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pandas as pd

from earmark.fingerprint import Fingerprint
from earmark.records.verdict import Verdict, broken, decide, note, unclear

FINGERPRINT = Fingerprint("autoregressive", ("logprob_l1", "stop_distance", "margin_max"), (0.5, math.nan, math.inf))
VERDICT = Verdict(
    outcome="FAIL",
    proves="committed",
    profile="provisional",
    findings=(note("engine.other", "a", "b"), broken("text.mismatch", "<script>alert(1)</script>", "hello")),
    fingerprint=FINGERPRINT,
    provenance={"model": "m", "device": "cpu"},
)


def test_json_is_strict_and_complete():
    row = json.loads(VERDICT.to_json())
    assert row == VERDICT.to_dict()
    assert row["fingerprint"] == {"logprob_l1": 0.5, "stop_distance": None, "margin_max": "infinite"}
    assert row["findings"][1] == {
        "code": "text.mismatch",
        "severity": "fail",
        "fault": "provider",
        "found": "<script>alert(1)</script>",
        "expected": "hello",
    }


def test_text_has_five_lines_and_the_first_real_reason():
    lines = str(VERDICT).splitlines()
    assert len(lines) == 5
    assert lines[0] == "FAIL (proves: committed)"
    assert "text.mismatch" in lines[1]
    assert "engine.other" not in str(VERDICT)


def test_nobody_forges_lines_of_a_terminal():
    """Names and texts of others stand in findings; honest ones stay as they are."""
    forged = broken("weights.mismatch", "\x1b[2J\x1b[HPASS\nreason: fine\u202e\x9b8m", "größer, 中文 - 'a'")
    assert str(forged) == "weights.mismatch: found �[2J�[HPASS�reason: fine��8m; expected größer, 中文 - 'a'"
    assert len(str(replace(VERDICT, findings=(forged,))).splitlines()) == 5
    assert forged.to_dict()["found"].isprintable()


def test_html_escapes_what_comes_from_outside():
    page = VERDICT._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_pandas_has_one_row_with_every_statistic():
    frame = VERDICT.to_pandas()
    assert isinstance(frame, pd.DataFrame)
    assert frame.loc[0, "logprob_l1"] == 0.5
    assert frame.loc[0, "findings"] == "engine.other, text.mismatch"


def test_fail_outweighs_inconclusive_outweighs_pass():
    assert decide([note("n", 1, 2)]) == "PASS"
    assert decide([unclear("u", "input", 1, 2), note("n", 1, 2)]) == "INCONCLUSIVE"
    assert decide([unclear("u", "input", 1, 2), broken("b", 1, 2)]) == "FAIL"


def test_verdict_without_a_replay_prints():
    bare = Verdict(outcome="INCONCLUSIVE", proves="reconstructable")
    assert len(str(bare).splitlines()) == 5
    assert json.loads(bare.to_json())["fingerprint"] is None
    assert not bare.passed
