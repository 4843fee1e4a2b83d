"""The ctc family: encoders with one distribution per frame.

The replay is one pass of the encoder. It is forced along the provider's path: every frame has a margin, and the exact
lattice says how probable the transcript is over all alignments, and where its tokens lie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from earmark import lattice
from earmark.fingerprint.frames import CTC_STATISTICS, FrameReplay, FrameScores
from earmark.fingerprint.margins import TIE_NATS
from earmark.fingerprint.types import Statistic
from earmark.protocols import CtcModel, SegmentInput, SegmentOutput, TextScores
from earmark.records.codec import is_array
from earmark.records.evidence import Level, Segment
from earmark.records.request import Request
from earmark.taps import Taps
from earmark.verifiers._common_choice import Rerun
from earmark.verifiers._common_trace import Ints
from earmark.verifiers._ctc_trace import collapse, path_of, read_compact, read_path, read_trace, write_trace
from earmark.verifiers._frames_compact import write_compact
from earmark.verifiers._frames_family import FrameFamily, Frames
from earmark.verifiers._frames_pass import alignment, at_listed, listed_by, margins, row_scores, targets_of
from earmark.verifiers._frames_sketch import sketch_of
from earmark.verifiers._frames_text import score_texts

if TYPE_CHECKING:
    import torch

    from earmark.lattice import LatticeScores, MarginPath

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

    def read(self, segment: Segment, request: Request, model: CtcModel, level: Level) -> Frames:
        """Decode one trace and check every rule that needs no replay."""
        compact = level == "compact"
        return read_compact(segment, request, model) if compact else read_trace(segment, request, model, level)

    def write_batch(
        self,
        model: CtcModel,
        encoded: Any,
        batch: Sequence[SegmentInput],
        given: Sequence[SegmentOutput] | None,
        *,
        k: int,
        level: Level,
        taps: Taps,
    ) -> list[SegmentOutput]:
        """Write one trace per row along the paths of given outputs, or the best symbol of each frame."""
        logits = _logits(model, encoded)
        paths = None if given is None else [_given(model, *pair) for pair in zip(logits, given, strict=True)]
        scores = _own_scores(model, logits, paths, batch, k=k, taps=taps)
        return [_output(model, own, item, level) for own, item in zip(scores, batch, strict=True)]

    def replay_batch(
        self,
        model: CtcModel,
        encoded: Any,
        batch: Sequence[SegmentInput],
        traces: Sequence[Frames],
        *,
        taps: Taps,
    ) -> list[FrameReplay]:
        """Return what the reference says along the path of each trace."""
        return _replays(model, _logits(model, encoded), traces, batch, taps=taps)

    def rerun_batch(self, model: CtcModel, encoded: Any, batch: Sequence[SegmentInput]) -> list[Rerun]:
        """Return the reference's own decoding of each row."""
        return [_rerun(model, own) for own in _logits(model, encoded)[: len(batch)]]

    def text_batch(
        self, model: CtcModel, encoded: Any, batch: Sequence[SegmentInput], texts: Sequence[str]
    ) -> list[TextScores]:
        """Return what the reference says of one text per row."""
        logits = _logits(model, encoded)
        return score_texts(
            model,
            batch,
            texts,
            [_rerun(model, own).ids for own in logits],
            solve=lambda transcripts: _lattice(model, logits, transcripts),
            margins=lambda row, ids: _least_margin(model, logits[row], ids),
            blanks={model.blank_id},
        )


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


def _least_margin(model: CtcModel, logits: torch.Tensor, ids: Sequence[int]) -> MarginPath:
    return lattice.ctc_margins(logits, ids, model.blank_id, tie=TIE_NATS[model.info.precision])


def _given(model: CtcModel, logits: torch.Tensor, output: SegmentOutput) -> Ints:
    """Return the path of an output; of a compact one the path of least margin."""
    return _least_margin(model, logits, output.ids).symbols if is_array(output.trace) else read_path(output.trace)


def _with_path(model: CtcModel, logits: torch.Tensor, trace: Frames) -> Frames:
    """Return a trace with its path; of a compact one the path of least margin."""
    if isinstance(trace, FrameScores):
        return trace
    symbols = _least_margin(model, logits, trace.emitted).symbols
    return replace(trace, path=path_of(symbols), tokens=collapse(symbols, model.blank_id)[1])


def _replays(
    model: CtcModel,
    logits: Sequence[torch.Tensor],
    traces: Sequence[Frames],
    batch: Sequence[SegmentInput],
    *,
    taps: Taps,
) -> list[FrameReplay]:
    solved = _lattice(model, logits, [trace.emitted for trace in traces])
    replays = []
    for row, (own, claimed, item) in enumerate(zip(logits, traces, batch, strict=True)):
        trace = _with_path(model, own, claimed)
        listed, symbols = listed_by(trace), trace.path[:, 1]
        sketch = sketch_of(model, item, row, taps)[: len(trace.sketch)]
        likelihood = float(solved.log_likelihood[row])
        replays.append(
            FrameReplay(
                scores=_scores(
                    model, own, symbols, k=max(1, listed.shape[1]), sketch=sketch, log_likelihood=likelihood
                ),
                at_listed=at_listed(own, listed),
                margins=margins(own, symbols),
                duration_margins=np.empty(0),
                alignment=alignment(solved, row, trace, item, {model.blank_id}),
            )
        )
    return replays


def _output(model: CtcModel, scores: FrameScores, item: SegmentInput, level: Level) -> SegmentOutput:
    trace = write_trace(scores)
    if level == "compact":
        trace = write_compact(item, scores, b"", trace)
    return SegmentOutput(ids=scores.emitted, text=model.detokenise(scores.emitted), trace=trace)


def _rerun(model: CtcModel, logits: torch.Tensor) -> Rerun:
    best = logits.log_softmax(dim=-1).max(dim=-1)
    emitted, _ = collapse(best.indices.cpu().numpy(), model.blank_id)
    return Rerun(emitted, float(best.values.mean()))
