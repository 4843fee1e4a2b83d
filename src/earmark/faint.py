"""Audio on which honest machines differ: bands that hardly vary, magnified by a model's normalisation of features."""

from __future__ import annotations

import math
from collections.abc import Iterable

from earmark.protocols import BandModel, Model, SegmentInput

FAINT = 0.003
"""Least deviation of a band's log energy; below it honest batches of one machine already differ by 3e-4 and more."""

FAINT_MARGIN = 3.0
"""Nats below the best token at which no rounding explains a token of such a segment: it was made up."""


def least_deviation(model: Model, inputs: Iterable[SegmentInput]) -> float:
    """Return the least deviation of any band of these segments; infinite for models that normalise no bands."""
    if not isinstance(model, BandModel):
        return math.inf
    return min((model.least_deviation(item.samples) for item in inputs), default=math.inf)


def is_faint(model: Model, item: SegmentInput) -> bool:
    """Say whether no statistic can judge a segment."""
    return least_deviation(model, [item]) < FAINT
