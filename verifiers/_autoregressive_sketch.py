"""Which hidden states of an encoder-decoder are probed, and their sketch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.sketch import VALUES, choose_probes, fold_all
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


def sketches_of(
    model: AutoregressiveModel, batch: Sequence[SegmentInput], states: Sequence[torch.Tensor | None], taps: Taps
) -> list[NDArray[np.float64]]:
    """Return the sketch of each piece, (probes, values), or (0, values) where nothing was probed.

    Args:
        model: The model that ran.
        batch: The pieces.
        states: Last hidden states of the decoder of each, one row per emitted token, (tokens, width), or None.
        taps: The encoder states that were kept.
    """
    if not taps.states:
        return [np.empty((0, VALUES))] * len(batch)
    found, keys = [], []
    for row, (item, own) in enumerate(zip(batch, states, strict=True)):
        if own is None:
            raise ValueError("a sketch needs the decoder's states")
        nonce, segment = item.request.nonce, item.index
        for i, probe in enumerate(choose_probes(nonce, segment, **_sizes(model, item), tokens=len(own))):
            if probe.layer is None:
                state = own[probe.position].float().cpu()
            else:
                state = taps.states[probe.layer, row, probe.position]
            found.append(state.numpy())
            keys.append((nonce, segment, i))
    folded = fold_all(found, keys)
    return list(folded.reshape(len(batch), -1, VALUES))
