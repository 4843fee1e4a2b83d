"""Made-up runs, for tests that need no model."""

from __future__ import annotations

import numpy as np

from earmark.examples import (
    Attributed,
    Calibration,
    Cost,
    Diagram,
    EntropyCurve,
    Examples,
    WordConfidence,
)
from earmark.runs import Row, Run

PROVIDERS = {
    "honest-batch-1": (True, 1e-6),
    "honest-batch-8": (True, 1.2e-6),
    "int8": (False, 3e-2),
    "mild": (False, 2e-6),
}
"""Name, whether it is honest, and about how large its distances are."""
WEIGHTS = "0" * 64


def made_run(
    clips: int = 40,
    *,
    seed: int = 0,
    text: str = "turn off the light",
    model: str = "m",
    expected: str | None = "turn it",
) -> Run:
    """Lognormal distances of four providers; beyond 1e-3 a clip FAILs, and every fourth clip has no transcript."""
    rng, rows = np.random.default_rng(seed), []
    for name, (honest, size) in PROVIDERS.items():
        for i in range(clips):
            value = float(size * np.exp(0.4 * rng.standard_normal()))
            failed = value > 1e-3
            rows.append(
                Row(
                    clip=f"clip{i}",
                    base=f"clip{i}",
                    scenario=name,
                    honest=honest,
                    model=model,
                    weights=WEIGHTS,
                    family="ctc",
                    precision="fp32",
                    level="scores",
                    outcome="FAIL" if failed else "PASS",
                    findings=("statistics.logprob_l1",) if failed else (),
                    positions=20,
                    statistics={"logprob_l1": value, "margin_max": 0.0, "entropy_rmse": float("nan")},
                    text=text if honest else f"{text} now",
                    expected=expected if i % 4 else None,
                    seconds=2.5,
                )
            )
    return Run(rows)


def made_examples(word: str = "light", model: str = "m") -> Examples:
    """Examples of two providers of `made_run`; `word` is one of the words that were written."""
    words = ("turn", "off", word)
    diagram = Diagram(confidence=(0.3, 0.9), accuracy=(0.5, 1.0), counts=(2, 4), ece=0.13, nce=None, brier=0.1)
    names = ("honest-batch-1", "int8")
    return Examples(
        model=model,
        weights=WEIGHTS,
        precision="fp32",
        level="scores",
        device="cpu",
        engine="made 1.0",
        curves=tuple(
            EntropyCurve(
                scenario=name,
                clip="clip0",
                unit="s",
                places=(0.0, 0.5, 1.0),
                provider=(0.1, 0.5, 0.2),
                reference=(0.1, 0.4, 0.2),
                words=tuple((0.5 * i, own) for i, own in enumerate(words)),
            )
            for name in names
        ),
        confidences=tuple(
            WordConfidence(scenario=n, clip="clip0", words=words, provider=(0.9, 0.8, 1.0), reference=(0.9, 0.7, 1.0))
            for n in names
        ),
        calibrations=tuple(Calibration(scenario=name, words=6, provider=diagram, reference=diagram) for name in names),
        attributions=(Attributed(scenario="int8", names={"int8": 3, "none of the known": 1}),),
        costs=tuple(
            Cost(scenario=name, clips=4, audio_s=10.0, record_s=2.0, verify_s=0.5, evidence_bytes=4000)
            for name in names
        ),
        provenance={"command": "earmark study m"},
    )
