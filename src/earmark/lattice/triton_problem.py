"""Lattices of a batch on a CUDA device, solved for their costs and then asked for gradients.

Logits, posteriors and gradients stay on the device; the host reads which rows are faulty and log P of each item.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from earmark.lattice.problem import CtcProblem, TransducerProblem
from earmark.lattice.triton_engine import Solved, on_device, solve_ctc, solve_transducer
from earmark.lattice.triton_gradients import grad_rows


class TritonCtcProblem(CtcProblem):
    """CTC lattices of a batch on a CUDA device."""

    def costs(self) -> Tensor:
        """Return -log P of every item, (B,)."""
        self._solved = solve_ctc(self.source, self._batch, self._blank, (), paths=False)
        return self._costs_of(_totals(self._solved))

    def clear_padding(self, gradient: Tensor) -> None:
        """Do nothing: `write_gradient` covers the padding."""

    def write_gradient(self, logits: Tensor, _start: int, /, weights: Sequence[float], out: Tensor) -> None:
        """Write probability minus occupancy, weighted."""
        states = self._solved.posteriors
        labels, *lengths = on_device(self._batch, logits.device)
        posteriors = torch.cat([states[..., ::2].sum(-1, keepdim=True), states[..., 1::2]], -1)
        picks = torch.nn.functional.pad(labels, (1, 0), value=self._blank).int()
        grad_rows(
            logits.contiguous()[:, :, None], (lengths[0], torch.zeros_like(lengths[1])), (0, self._shape[2]),
            self._solved.norms, picks[:, None], posteriors=posteriors[:, :, None],
            weights=torch.tensor(weights, dtype=torch.float64, device=logits.device), out=out[:, :, None],
        )  # fmt: skip


class TritonTransducerProblem(TransducerProblem):
    """Transducer lattices of a batch on a CUDA device."""

    def costs(self) -> Tensor:
        """Return -log P of every item, (B,)."""
        self._solved = solve_transducer(
            self.source, self._batch, self._arcs, self._sigma, (), open_end=self._rule == "open_end", paths=False
        )
        return self._costs_of(_totals(self._solved))

    def clear_padding(self, gradient: Tensor) -> None:
        """Do nothing: `write_gradient` covers the padding."""

    def write_gradient(self, logits: Tensor, start: int, /, weights: Sequence[float], out: Tensor) -> None:
        """Write probability times node posterior minus arc posterior, weighted."""
        arcs, device = self._arcs, logits.device
        labels, frames, tokens = on_device(self._batch, device)
        part = slice(start, start + logits.shape[1])
        norms = self._solved.norms[:, part]
        posteriors = self._solved.posteriors[:, part].transpose(2, 3)
        following = torch.nn.functional.pad(labels, (0, 1))[..., None]
        symbols, classes = (torch.from_numpy(x).to(device) for x in (arcs.symbols, arcs.classes))
        blocks = [(0, arcs.vocabulary, torch.where(symbols < 0, following, symbols))]
        if arcs.width > arcs.vocabulary:
            blocks.append((arcs.vocabulary, arcs.width, classes.expand(*following.shape[:2], -1)))
        for k, (first, last, picks) in enumerate(blocks):
            grad_rows(
                logits.contiguous(), ((frames - start).clamp_min(0), tokens), (first, last),
                norms[..., 2 * k : 2 * k + 2], picks.int(), posteriors=posteriors,
                weights=torch.tensor(weights, dtype=torch.float64, device=device), out=out,
            )  # fmt: skip


def _totals(solved: Solved) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return log P of every item on the host."""
    return solved.found["total"].cpu().numpy()
