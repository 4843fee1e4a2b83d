"""The ctc family: encoders with one distribution per frame.

The replay is one pass of the encoder. It is forced along the provider's path: every frame has a margin, and the exact
lattice says how probable the transcript is over all alignments, and where its tokens lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from earmark import lattice
from earmark.fingerprint.frames import CTC_STATISTICS, FrameReplay, FrameScores
from earmark.fingerprint.types import Statistic
from earmark.protocols import CtcModel, SegmentInput, SegmentOutput
from earmark.records.evidence import Level, Segment
from earmark.records.request import Request
from earmark.taps import Taps
from earmark.verifiers._common_choice import Rerun
from earmark.verifiers._common_trace import Ints
from earmark.verifiers._ctc_trace import collapse, path_of, read_path, read_trace, write_trace
from earmark.verifiers._frames_family import FrameFamily
from earmark.verifiers._frames_pass import alignment, at_listed, margins, row_scores, targets_of
from earmark.verifiers._frames_sketch import sketch_of

if TYPE_CHECKING:
    import torch

    from earmark.lattice import LatticeScores

CHANNELS = (
    "logprob_l1", "logprob_l1_max", "logprob_l1_informative", "prob_l1", "blank_distance", "loglik_distance_frame",
    "path_distance", "margin_max", "entropy_rmse", "renyi_rmse", "confidence_distance", "sketch_distance",
)  # fmt: skip
"""Statistics that take part in the score of a calibrated profile.

Those of the alignment are left out: they compare a greedy path with the best one, honest or not.
"""


class CtcFamily(FrameFamily):
    """Comparison frame by frame, and of the exact likelihood of the transcript."""

    name: ClassVar[str] = "ctc"
    summary: ClassVar[str] = "frame log-probabilities, margins along the path, exact likelihood and alignment"
    statistics: ClassVar[tuple[Statistic, ...]] = CTC_STATISTICS
    channels: ClassVar[tuple[str, ...]] = CHANNELS

    def read(self, segment: Segment, request: Request, model: CtcModel, level: Level) -> FrameScores:
        """Decode one trace and check every rule that needs no replay."""
        return read_trace(segment, request, model, level)

    def path_of(self, trace: bytes) -> Ints:
        """Return the symbol of each frame."""
        return read_path(trace)

    def write_batch(
        self,
        model: CtcModel,
        encoded: Any,
        batch: Sequence[SegmentInput],
        paths: Sequence[Ints] | None,
        *,
        k: int,
        taps: Taps,
    ) -> list[SegmentOutput]:
        """Write one trace per row along given paths, or the best symbol of each frame."""
        scores = _own_scores(model, _logits(model, encoded), paths, batch, k=k, taps=taps)
        return [_output(model, own) for own in scores]

    def replay_batch(
        self,
        model: CtcModel,
        encoded: Any,
        batch: Sequence[SegmentInput],
        traces: Sequence[FrameScores],
        *,
        taps: Taps,
    ) -> list[FrameReplay]:
        """Return what the reference says along the path of each trace."""
        return _replays(model, _logits(model, encoded), traces, batch, taps=taps)

    def rerun_batch(self, model: CtcModel, encoded: Any, batch: Sequence[SegmentInput]) -> list[Rerun]:
        """Return the reference's own decoding of each row."""
        return [_rerun(model, own) for own in _logits(model, encoded)[: len(batch)]]


def _logits(model: CtcModel, encoded: Any) -> list[torch.Tensor]:
    """Return float32 logits (frames, vocab) of each row, padding left out."""
    logits = model.logits(encoded).float()
    return [row[:length] for row, length in zip(logits, model.lengths(encoded), strict=True)]


def _own_scores(
    model: CtcModel,
    logits: Sequence[torch.Tensor],
    paths: Sequence[Ints] | None,
    batch: Sequence[SegmentInput],
    *,
    k: int,
    taps: Taps,
) -> list[FrameScores]:
    """Return what the model says along given paths, or its own."""
    symbols = paths or [row.argmax(dim=-1).cpu().numpy() for row in logits]
    likelihoods = _lattice(model, logits, [collapse(path, model.blank_id)[0] for path in symbols]).log_likelihood
    return [
        _scores(model, row, path, k=k, sketch=sketch_of(model, item, i, taps), log_likelihood=float(likelihoods[i]))
        for i, (row, path, item) in enumerate(zip(logits, symbols, batch, strict=True))
    ]


def _scores(model: CtcModel, logits: torch.Tensor, symbols: Ints, *, k: int, **others: Any) -> FrameScores:
    emitted, tokens = collapse(symbols, model.blank_id)
    return FrameScores(
        emitted=emitted,
        frames=len(symbols),
        path=path_of(symbols),
        tokens=tokens,
        durations=np.empty((len(symbols), 0)),
        **row_scores(logits, symbols, k, model.blank_id),
        **others,
    )


def _lattice(model: CtcModel, logits: Sequence[torch.Tensor], transcripts: Sequence[Sequence[int]]) -> LatticeScores:
    import torch

    padded = torch.nn.utils.rnn.pad_sequence(list(logits), batch_first=True)
    targets, counts = targets_of(transcripts)
    frames = [len(row) for row in logits]
    return lattice.ctc(padded, targets, frames, counts, model.blank_id, on_error="keep")


def _replays(
    model: CtcModel,
    logits: Sequence[torch.Tensor],
    traces: Sequence[FrameScores],
    batch: Sequence[SegmentInput],
    *,
    taps: Taps,
) -> list[FrameReplay]:
    solved = _lattice(model, logits, [trace.emitted for trace in traces])
    replays = []
    for row, (own, trace, item) in enumerate(zip(logits, traces, batch, strict=True)):
        symbols = trace.path[:, 1]
        sketch = sketch_of(model, item, row, taps)[: len(trace.sketch)]
        likelihood = float(solved.log_likelihood[row])
        replays.append(
            FrameReplay(
                scores=_scores(model, own, symbols, k=trace.ids.shape[1], sketch=sketch, log_likelihood=likelihood),
                at_listed=at_listed(own, trace.ids),
                margins=margins(own, symbols),
                duration_margins=np.empty(0),
                alignment=alignment(solved, row, trace, item, {model.blank_id}),
            )
        )
    return replays


def _output(model: CtcModel, scores: FrameScores) -> SegmentOutput:
    text = model.detokenise(scores.emitted)
    return SegmentOutput(ids=scores.emitted, text=text, trace=write_trace(scores))


def _rerun(model: CtcModel, logits: torch.Tensor) -> Rerun:
    best = logits.log_softmax(dim=-1).max(dim=-1)
    emitted, _ = collapse(best.indices.cpu().numpy(), model.blank_id)
    return Rerun(emitted, float(best.values.mean()))
