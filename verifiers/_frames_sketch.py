"""Which hidden states of a frame-synchronous model are probed, and their sketch.

All probes look at the encoder, where nearly all cost lies; the last one at the output of its last layer, which the
head or the joint sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.fingerprint.sketch import VALUES, choose_probes, fold_all
from earmark.protocols import FrameModel, SegmentInput
from earmark.taps import Place, Taps


def places(model: FrameModel) -> Callable[[Sequence[SegmentInput]], list[Place]]:
    """Return the function that says what to keep of a batch: (layer, row of the batch, position) of every probe.

    Raises:
        UsageError: The model shows none of its layers.
    """
    if not model.encoder_layers():
        raise UsageError(f"{model.info.name} shows no hidden states; record the level scores")
    return lambda batch: [place for row, item in enumerate(batch) for place in _of_piece(model, item, row)]


def _of_piece(model: FrameModel, item: SegmentInput, row: int) -> list[Place]:
    layers, frames = len(model.encoder_layers()), model.encoder_positions(len(item.samples))
    probes = choose_probes(item.request.nonce, item.index, layers=layers, positions=frames, tokens=frames)
    return [(layers - 1 if probe.layer is None else probe.layer, row, probe.position) for probe in probes]


def sketch_of(model: FrameModel, item: SegmentInput, row: int, taps: Taps) -> NDArray[np.float64]:
    """Return the sketch of one piece, (probes, values), or (0, values) where nothing was probed.

    Args:
        model: The model that ran.
        item: The piece.
        row: Its row in the batch.
        taps: The states that were kept.
    """
    if not taps.states:
        return np.empty((0, VALUES))
    nonce, segment = item.request.nonce, item.index
    states = [taps.states[place] for place in _of_piece(model, item, row)]
    return fold_all([state.numpy() for state in states], [(nonce, segment, i) for i in range(len(states))])
