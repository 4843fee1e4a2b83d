"""The transducer family: RNN-T, multi-blank, TDT and HAINAN.

The replay is one pass of the encoder and of the prediction network, forced along the provider's path of frames, symbols
and durations; every step has a margin for its symbol and its duration. The exact lattice says how probable the
transcript is over all alignments, and where its tokens lie; the joint's (frames, tokens, vocabulary) never exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from earmark import lattice
from earmark.fingerprint.frames import TRANSDUCER_STATISTICS, FrameReplay, FrameScores
from earmark.fingerprint.margins import TIE_NATS
from earmark.fingerprint.types import Statistic
from earmark.protocols import SegmentInput, SegmentOutput, TextScores, TransducerModel
from earmark.records.codec import is_array
from earmark.records.evidence import Level, Segment
from earmark.records.request import Request
from earmark.taps import Taps
from earmark.verifiers._common_choice import Rerun
from earmark.verifiers._common_trace import Ints
from earmark.verifiers._frames_compact import write_compact
from earmark.verifiers._frames_family import FrameFamily, Frames
from earmark.verifiers._frames_sketch import sketch_of
from earmark.verifiers._frames_text import score_texts
from earmark.verifiers._transducer_pack import pack_path
from earmark.verifiers._transducer_pass import Pass, solve
from earmark.verifiers._transducer_path import as_path, blanks_of
from earmark.verifiers._transducer_trace import read_compact, read_compact_path, read_path, read_trace, write_trace

if TYPE_CHECKING:
    import torch

    from earmark.lattice import MarginPath

CHANNELS = (
    "logprob_l1", "logprob_l1_max", "logprob_l1_informative", "prob_l1", "blank_distance", "duration_l1",
    "loglik_distance_frame", "path_distance", "margin_max", "duration_margin_max", "entropy_rmse", "renyi_rmse",
    "confidence_distance", "sketch_distance",
)  # fmt: skip
"""Statistics that take part in the score of a calibrated profile; those of the alignment are left out, as in ctc."""


class TransducerFamily(FrameFamily):
    """Comparison step by step along the path, and of the exact likelihood of the transcript."""

    name: ClassVar[str] = "transducer"
    summary: ClassVar[str] = "token and duration log-probabilities along the path, exact likelihood and alignment"
    statistics: ClassVar[tuple[Statistic, ...]] = TRANSDUCER_STATISTICS
    channels: ClassVar[tuple[str, ...]] = CHANNELS

    def read(self, segment: Segment, request: Request, model: TransducerModel, level: Level) -> Frames:
        """Decode one trace and check every rule that needs no replay."""
        compact = level == "compact"
        return read_compact(segment, request, model) if compact else read_trace(segment, request, model, level)

    def write_batch(
        self,
        model: TransducerModel,
        encoded: Any,
        batch: Sequence[SegmentInput],
        given: Sequence[SegmentOutput] | None,
        *,
        k: int,
        level: Level,
        taps: Taps,
    ) -> list[SegmentOutput]:
        """Write one trace per row along the paths of given outputs, or those of greedy decoding."""
        paths = _decode(model, encoded, batch) if given is None else [_given(model, output) for output in given]
        forced = Pass(model, encoded, paths)
        likelihoods = forced.lattice().log_likelihood.tolist()
        outputs = []
        for row, (item, likelihood) in enumerate(zip(batch, likelihoods, strict=True)):
            sketch = sketch_of(model, item, row, taps)
            scores = forced.scores(row, k=k, sketch=sketch, log_likelihood=likelihood)
            outputs.append(_output(model, scores, item, level))
        return outputs

    def replay_batch(
        self,
        model: TransducerModel,
        encoded: Any,
        batch: Sequence[SegmentInput],
        traces: Sequence[Frames],
        *,
        taps: Taps,
    ) -> list[FrameReplay]:
        """Return what the reference says along the path of each trace."""
        forced = Pass(model, encoded, [trace.path for trace in traces])
        solved = forced.lattice()
        pairs = zip(traces, batch, strict=True)
        return [forced.replay(row, trace, item, solved=solved, taps=taps) for row, (trace, item) in enumerate(pairs)]

    def rerun_batch(self, model: TransducerModel, encoded: Any, batch: Sequence[SegmentInput]) -> list[Rerun]:
        """Return the reference's own decoding of each row."""
        forced = Pass(model, encoded, _decode(model, encoded, batch))
        return [_rerun(forced, row) for row in range(len(batch))]

    def text_batch(
        self, model: TransducerModel, encoded: Any, batch: Sequence[SegmentInput], texts: Sequence[str]
    ) -> list[TextScores]:
        """Return what the reference says of one text per row."""
        frames = [model.frames(encoded, row) for row in range(len(batch))]
        return score_texts(
            model,
            batch,
            texts,
            Pass(model, encoded, _decode(model, encoded, batch)).emitted,
            solve=lambda transcripts: solve(model, frames, model.predict(transcripts), transcripts),
            margins=lambda row, ids: _least_margin(model, frames[row], ids),
            blanks=blanks_of(model).keys(),
        )


def _decode(model: TransducerModel, encoded: Any, batch: Sequence[SegmentInput]) -> list[Ints]:
    steps = model.greedy(encoded)
    return [as_path(own, len(item.samples), model) for own, item in zip(steps, batch, strict=True)]


def _given(model: TransducerModel, output: SegmentOutput) -> Ints:
    return read_compact_path(output, model) if is_array(output.trace) else read_path(output.trace)


def _least_margin(model: TransducerModel, frames: torch.Tensor, ids: Sequence[int]) -> MarginPath:
    return lattice.transducer_margins(
        model.lattice_joint(frames[None], model.predict([ids])),
        ids,
        model.blank_id,
        durations=model.durations or None,
        big_blanks=dict(model.big_blanks) or None,
        max_symbols=model.max_symbols,
        tie=TIE_NATS[model.info.precision],
    )


def _output(model: TransducerModel, scores: FrameScores, item: SegmentInput, level: Level) -> SegmentOutput:
    trace = write_trace(scores, model.strategy)
    if level == "compact":
        trace = write_compact(item, scores, pack_path(scores.path, scores.tokens, model), trace)
    return SegmentOutput(ids=scores.emitted, text=model.detokenise(scores.emitted), trace=trace)


def _rerun(forced: Pass, row: int) -> Rerun:
    tokens, _ = forced.logits(row)
    best = tokens.log_softmax(dim=-1).max(dim=-1).values
    return Rerun(forced.emitted[row], float(best.mean()))
