"""Made-up profiles and rows, for tests that need no calibration."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np

from earmark.calibrate import calibrate
from earmark.profiles import Profile
from earmark.protocols import Model
from earmark.runs import Row, Run
from earmark.splits import Shares

CHANNELS = ("distance", "margin")
FEW = Shares(development=0.2, conformal=0.4)


def row(base: str, name: str, values: tuple[float, float], **changes: Any) -> Row:
    """One row of a made-up honest run."""
    made = Row(
        clip=base,
        base=base,
        scenario=name,
        honest=True,
        model="m",
        weights="0" * 64,
        family="ctc",
        precision="fp32",
        level="scores",
        outcome="PASS",
        positions=10,
        statistics=dict(zip(CHANNELS, values, strict=True)),
    )
    return dataclasses.replace(made, **changes)


def calibrated(reference: Model, **changes: Any) -> Profile:
    """A made-up profile of a real model: its only channel is logprob_l1, about 1e-6 on honest clips."""
    rng = np.random.default_rng(0)
    rows = [
        row(f"c{i}", "a", (0.0, 0.0), statistics={"logprob_l1": float(1e-6 * np.exp(0.5 * rng.standard_normal()))})
        for i in range(700)
    ]
    made = calibrate(Run(rows), ("logprob_l1",))
    info = reference.info
    header = {"model": info.name, "weights": info.weights, "family": info.family, "precision": info.precision}
    return dataclasses.replace(made, header=msgspec.structs.replace(made.header, **header | changes))


def honest_run(clips: int, seed: int = 0) -> Run:
    """Lognormal distances under two honest scenarios; margins that are nearly always 0."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(clips):
        level = rng.standard_normal()
        for name in ("a", "b"):
            margin = 1e-5 if rng.random() < 0.01 else 0.0
            rows.append(row(f"clip{i}", name, (float(np.exp(0.3 * level + 0.1 * rng.standard_normal())), margin)))
    return Run(rows)
