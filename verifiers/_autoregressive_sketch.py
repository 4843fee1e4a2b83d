"""Which hidden states of an encoder-decoder are probed, and their sketch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.sketch import VALUES, choose_probes, fold
from earmark.protocols import AutoregressiveModel, SegmentInput
from earmark.taps import Place, Taps

if TYPE_CHECKING:
    import torch


def encoder_places(model: AutoregressiveModel, batch: Sequence[SegmentInput]) -> list[Place]:
    """Return what to keep of the encoder: (layer, row of the batch, position) of every encoder probe."""
    return [
        (probe.layer, row, probe.position)
        for row, item in enumerate(batch)
        for probe in choose_probes(item.request.nonce, item.index, **_sizes(model, item), tokens=1)
        if probe.layer is not None
    ]


def _sizes(model: AutoregressiveModel, item: SegmentInput) -> dict[str, int]:
    return {"layers": len(model.encoder_layers()), "positions": model.encoder_positions(len(item.samples))}


def sketch_of(
    model: AutoregressiveModel, item: SegmentInput, row: int, states: torch.Tensor, taps: Taps
) -> NDArray[np.float64]:
    """Return the sketch of one piece, (probes, values), or (0, values) where nothing was probed.

    Args:
        model: The model that ran.
        item: The piece.
        row: Its row in the batch.
        states: Last hidden states of the decoder, one row per emitted token, (tokens, width).
        taps: The encoder states that were kept.
    """
    if not taps.states:
        return np.empty((0, VALUES))
    nonce, segment = item.request.nonce, item.index
    probes = choose_probes(nonce, segment, **_sizes(model, item), tokens=len(states))
    rows = [
        states[p.position].float().cpu() if p.layer is None else taps.states[p.layer, row, p.position] for p in probes
    ]
    return np.stack([fold(state.numpy(), nonce, segment, i) for i, state in enumerate(rows)])
