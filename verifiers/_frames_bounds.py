"""Bounds of the frame-synchronous families until a profile is calibrated (docs/explanation/frame-synchronous.md).

Each is at least three times what honest batches, padding, kernels and threads gave on the small embedded models; no
error rate is guaranteed. The likelihood is bounded per frame or token, of what is more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from earmark.fingerprint.types import Statistic
from earmark.records.evidence import Precision

PROVISIONAL: dict[Precision, dict[str, float]] = {
    "fp32": {
        "logprob_l1": 1e-3,
        "logprob_l1_max": 1e-2,
        "blank_distance": 1e-3,
        "duration_l1": 1e-3,
        "loglik_distance_frame": 3e-4,
        "entropy_rmse": 1e-3,
        "tsallis_rmse": 3e-3,
        "sketch_distance": 2e-3,
    },
    "fp16": {
        "logprob_l1": 1.5e-2,
        "logprob_l1_max": 0.1,
        "blank_distance": 1.6e-2,
        "duration_l1": 1.8e-2,
        "loglik_distance_frame": 4e-3,
        "entropy_rmse": 1.2e-2,
        "tsallis_rmse": 6e-2,
        "sketch_distance": 1.2e-2,
    },
    "bf16": {
        "logprob_l1": 0.15,
        "logprob_l1_max": 0.8,
        "blank_distance": 0.12,
        "duration_l1": 0.13,
        "loglik_distance_frame": 2e-2,
        "entropy_rmse": 0.12,
        "tsallis_rmse": 0.5,
        "sketch_distance": 0.09,
    },
}


def bounds(statistics: Sequence[Statistic], precision: Precision) -> Mapping[str, float]:
    """Return the bounds of those statistics that a family has."""
    names = {statistic.name for statistic in statistics}
    return {name: bound for name, bound in PROVISIONAL[precision].items() if name in names}
