"""The encoder replayed up to a depth: the probes of a sketch that lie there, and nothing behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.sketch import choose_probes, fold_all, sketch_distances
from earmark.protocols import Advance, SegmentInput
from earmark.taps import Place, Taps
from earmark.verifiers._common_batches import Encoder, batched

Floats = NDArray[np.float64]


class ProbedEncoder(Encoder, Protocol):
    """What a model needs so that its encoder can be probed."""

    def encoder_positions(self, samples: int) -> int:
        """Return how many positions carry audio in a piece of that many samples."""


def probe(
    model: ProbedEncoder,
    inputs: Sequence[SegmentInput],
    sketches: Sequence[Floats],
    *,
    depth: int,
    batch_size: int,
    advance: Advance,
) -> list[Floats]:
    """Return the distances of the probes that lie in the first layers of the encoder; the others are not computed.

    Args:
        model: The reference.
        inputs: The pieces.
        sketches: The provider's sketch of each, (probes, values); compact ones hold fewer values.
        depth: Layers of the encoder that are run.
        batch_size: Most pieces at once.
        advance: Called with the number of finished pieces.

    Returns:
        Distances of the probes of each piece, (checked,); none lie there by chance, or up to three.
    """

    def places(batch: Sequence[SegmentInput]) -> list[Place]:
        return [place for row, item in enumerate(batch) for _, place in _within(model, item, row, depth)]

    def run(_: Any, rows: list[int], taps: Taps) -> list[Floats]:
        within = [_within(model, inputs[i], row, depth) for row, i in enumerate(rows)]
        return [_distances(inputs[i], own, sketches[i], taps) for i, own in zip(rows, within, strict=True)]

    return batched(model, inputs, batch_size, advance, run, places=places, depth=depth)


def _within(model: ProbedEncoder, item: SegmentInput, row: int, depth: int) -> list[tuple[int, Place]]:
    """Return number and place of each probe of a piece in the first layers."""
    sizes = {"layers": len(model.encoder_layers()), "positions": model.encoder_positions(len(item.samples))}
    chosen = choose_probes(item.request.nonce, item.index, **sizes, tokens=1)
    return [
        (number, (probe.layer, row, probe.position))
        for number, probe in enumerate(chosen)
        if probe.layer is not None and probe.layer < depth
    ]


def _distances(item: SegmentInput, found: Sequence[tuple[int, Place]], sketch: Floats, taps: Taps) -> Floats:
    if not found:
        return np.empty(0)
    keys = [(item.request.nonce, item.index, number) for number, _ in found]
    own = fold_all([taps.states[place].numpy() for _, place in found], keys)
    return sketch_distances(sketch[[number for number, _ in found]], own[:, : sketch.shape[1]])
