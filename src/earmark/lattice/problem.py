"""Lattices of a batch, solved for their costs and then asked for gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from earmark.lattice.arcs import Rule, build_arcs
from earmark.lattice.checks import Batch, OnError, check_batch, check_blank, check_sigma
from earmark.lattice.engine import gather_arcs, gather_ctc_item, refuse_short, run_all, spans
from earmark.lattice.gradients import grad_ctc, grad_transducer
from earmark.lattice.results import Results
from earmark.lattice.solve import ctc_posteriors, transducer_posteriors
from earmark.lattice.sources import ChunkedJoint, as_block, shape_of


class Problem(Protocol):
    """What the autograd function needs of a lattice.

    Attributes:
        source: The logits or the joint.
    """

    source: Tensor | ChunkedJoint

    def costs(self) -> Tensor:
        """Return -log P of every item, (B,)."""

    def clear_padding(self, gradient: Tensor) -> None:
        """Write 0 where no item has rows."""

    def write_gradient(self, logits: Tensor, start: int, /, weights: Sequence[float], out: Tensor) -> None:
        """Write the gradient of the weighted costs into `out`, shaped as `logits`, which begin at frame `start`."""


class _Solved:
    """What CTC and transducer problems share."""

    _batch: Batch
    _rule: str

    def __init__(self, source: Any, shape: tuple[int, ...], threads: int | None) -> None:
        self.source = source
        self._shape, self._threads = shape, threads

    def clear_padding(self, gradient: Tensor) -> None:
        """Write 0 into the gradient of whole logits where no item has rows."""
        for b, error in enumerate(self._batch.errors):
            frames = self._batch.frames[b] if error is None else 0
            gradient[b, frames:] = 0.0
            if gradient.dim() == 4:  # rows past the tokens
                gradient[b, :frames, len(self._batch.labels[b]) + 1 :] = 0.0

    def _costs_of(self, log_likelihoods: NDArray[np.float64]) -> Tensor:
        """Return -log P where the logits are, inf for the refused; refuse the items without a possible path."""
        for item in self._batch.good():
            if log_likelihoods[item] == -np.inf:
                self._batch.refuse_impossible(item, self._rule)
        refused = [error is not None for error in self._batch.errors]
        log_likelihoods = np.where(refused, -np.inf, log_likelihoods)
        tensors = self.source.tensors if isinstance(self.source, ChunkedJoint) else (self.source,)
        double = any(t.dtype == torch.float64 for t in tensors)
        costs = torch.from_numpy(-log_likelihoods).to(torch.float64 if double else torch.float32)
        return costs.to(tensors[0].device) if tensors else costs

    def _write(self, rows: NDArray[Any], out: Tensor, kernel: Any) -> None:
        """Run a kernel into `out` directly where it is contiguous and of the dtype of `rows`, else through a copy."""
        if out.device.type == "cpu" and out.dtype in (torch.float32, torch.float64):
            kernel(out.numpy())
            return
        block = np.zeros(rows.shape, rows.dtype)
        kernel(block)
        out.copy_(torch.from_numpy(block))


class CtcProblem(_Solved):
    """CTC lattices of a batch."""

    def __init__(
        self,
        logits: Tensor,
        *,
        targets: Any,
        logit_lengths: Any,
        target_lengths: Any,
        blank: int,
        on_error: OnError,
        threads: int | None,
    ) -> None:
        """Check the batch."""
        super().__init__(logits, shape_of(logits, 3), threads)
        self._rule, vocabulary = "ctc", self._shape[2]
        self._blank = check_blank(blank, vocabulary)
        self._batch = check_batch(
            self._shape, targets, logit_lengths, target_lengths,
            blanks={self._blank}, vocabulary=vocabulary, on_error=on_error,
        )  # fmt: skip
        refuse_short(self._batch)

    def costs(self) -> Tensor:
        """Return -log P of every item, (B,)."""
        batch = self._batch
        self._results = Results(batch, self._shape, (), rule="ctc", keep_norms=True)
        found = np.full(len(batch.labels), -np.inf)

        def solve(b: int) -> None:
            scores = gather_ctc_item(self.source, batch, b, self._blank, self._results)
            if scores is not None:
                tokens, blanks = self._results.token_occupancy[b], self._results.blank_occupancy[b]
                found[b], _ = ctc_posteriors(scores, batch.labels[b], tokens, blanks)

        run_all(solve, ((b,) for b in batch.good()), self._threads)
        return self._costs_of(found)

    def write_gradient(self, logits: Tensor, _start: int, /, weights: Sequence[float], out: Tensor) -> None:
        """Write probability minus occupancy, weighted."""
        batch, results = self._batch, self._results

        def write(b: int, first: int, last: int) -> None:
            rows = as_block(logits[b, first:last])
            tokens, blanks = results.token_occupancy[b, first:last], results.blank_occupancy[b, first:last]
            norms, labels = results.row_outputs(b, first, last)[0], batch.labels[b]
            self._write(
                rows, out[b, first:last],
                lambda o: grad_ctc(rows, labels, self._blank, tokens, blanks, norms, weights[b], o),
            )  # fmt: skip

        run_all(write, spans(batch, 0, self._shape[1], self._shape[2]), self._threads)


class TransducerProblem(_Solved):
    """Transducer lattices of a batch."""

    def __init__(
        self,
        logits: Tensor | ChunkedJoint,
        *,
        targets: Any,
        logit_lengths: Any,
        target_lengths: Any,
        blank: int,
        on_error: OnError,
        threads: int | None,
        durations: Sequence[int] | None,
        big_blanks: Mapping[int, int] | None,
        sigma: float,
        rule: Rule,
    ) -> None:
        """Check the batch."""
        super().__init__(logits, shape_of(logits, 4), threads)
        self._arcs = build_arcs(self._shape[3], blank, durations, big_blanks, rule)
        self._sigma, self._rule = check_sigma(sigma), rule
        self._batch = check_batch(
            self._shape, targets, logit_lengths, target_lengths,
            blanks=self._arcs.blank_ids(), vocabulary=self._arcs.vocabulary, on_error=on_error,
        )  # fmt: skip

    def costs(self) -> Tensor:
        """Return -log P of every item, (B,)."""
        batch, arcs = self._batch, self._arcs
        self._results = Results(batch, self._shape, (), rule=self._rule, keep_norms=True)
        self._posteriors = gather_arcs(
            self.source, batch, arcs, self._sigma, results=self._results, threads=self._threads
        )
        found = np.full(len(self._posteriors), -np.inf)

        def solve(b: int) -> None:
            found[b], _ = transducer_posteriors(self._posteriors[b], arcs, self._rule == "open_end")

        run_all(solve, ((b,) for b in batch.good()), self._threads)
        return self._costs_of(found)

    def write_gradient(self, logits: Tensor, start: int, /, weights: Sequence[float], out: Tensor) -> None:
        """Write probability times node posterior minus arc posterior, weighted."""
        batch, arcs = self._batch, self._arcs

        def write(b: int, first: int, last: int) -> None:
            rows = as_block(logits[b, first - start : last - start])
            posteriors, labels = self._posteriors[b][first:last], batch.labels[b]
            norms = self._results.row_outputs(b, first, last)[0]
            self._write(
                rows, out[b, first - start : last - start],
                lambda o: grad_transducer(
                    rows, labels, arcs.vocabulary, arcs.symbols, arcs.classes, posteriors, norms, weights[b], o
                ),
            )  # fmt: skip

        stop = start + logits.shape[1]
        run_all(write, spans(batch, start, stop, self._shape[2] * self._shape[3]), self._threads)
