"""Bounds of the autoregressive family until a profile is calibrated; measured on whisper-nano alone.

See docs/explanation/statistics.md; no error rate is guaranteed.
"""

from __future__ import annotations

from earmark.records.evidence import Precision

PROVISIONAL: dict[Precision, dict[str, float]] = {
    "fp32": {
        "logprob_l1": 1e-3,
        "logprob_l1_max": 1e-2,
        "loglik_distance": 1e-3,
        "entropy_rmse": 1e-3,
        "language_distance": 1e-2,
        "language_margin": 1e-2,
        "no_speech_distance": 1e-2,
        "sketch_distance": 2e-3,
    },
    "fp16": {
        "logprob_l1": 2e-2,
        "logprob_l1_max": 0.3,
        "loglik_distance": 2e-2,
        "entropy_rmse": 2e-2,
        "language_distance": 0.2,
        "language_margin": 0.2,
        "no_speech_distance": 0.05,
        "sketch_distance": 2e-2,
    },
    "bf16": {
        "logprob_l1": 0.15,
        "logprob_l1_max": 1.5,
        "loglik_distance": 0.15,
        "entropy_rmse": 0.15,
        "language_distance": 0.8,
        "language_margin": 0.8,
        "no_speech_distance": 0.2,
        "sketch_distance": 0.15,
    },
}
