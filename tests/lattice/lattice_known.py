"""The known answers of shared/cases/lattice.json, and the engine called on them."""

from __future__ import annotations

import json

import numpy as np
import torch
from lattice_reference import cases_path

from earmark import lattice

KINDS = ("rnnt", "ctc", "ctc_align", "tdt", "multiblank")
CASES = (
    [c for c in json.loads(cases_path().read_text(encoding="utf-8"))["cases"] if c["kind"] in KINDS]
    if cases_path().is_file()
    else []
)


def padded(labels: list[list[int]]) -> np.ndarray:
    width = max(map(len, labels))
    return np.array([row + [0] * (width - len(row)) for row in labels], np.int64).reshape(len(labels), width)


def options(case: dict) -> dict:
    """Return the transducer options of a case."""
    blank = case["blank"] % len(case["logits"][0][0][0])
    big = {blank - 1 - i: d for i, d in enumerate(case.get("big_blank_durations", []))}
    found = {"big_blanks": big or None, "sigma": case.get("sigma", 0.0), "durations": case.get("durations")}
    return {name: value for name, value in found.items() if value is not None}


def scores_of(case: dict, dtype: type = np.float64, **more: object) -> lattice.LatticeScores:
    """Return the scores of a case; `device` in `more` moves its logits there."""
    logits = np.array(case["logits"], dtype)
    if "device" in more:
        logits = torch.from_numpy(logits).to(more.pop("device"))
    common = (padded(case["labels"]), case["T"], case["U"], case["blank"])
    if case["kind"].startswith("ctc"):
        return lattice.ctc(logits, *common, **more)
    return lattice.transducer(logits, *common, **options(case), **more)
