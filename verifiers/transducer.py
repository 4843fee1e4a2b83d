"""The transducer family: RNN-T, multi-blank, TDT and HAINAN.

The replay is one pass of the encoder and of the prediction network, forced along the provider's path of frames, symbols
and durations; every step has a margin for its symbol and its duration. The exact lattice says how probable the
transcript is over all alignments, and where its tokens lie; the joint's (frames, tokens, vocabulary) never exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from earmark.fingerprint.frames import TRANSDUCER_STATISTICS, FrameReplay, FrameScores
from earmark.fingerprint.types import Statistic
from earmark.protocols import SegmentInput, SegmentOutput, TransducerModel
from earmark.records.evidence import Level, Segment
from earmark.records.request import Request
from earmark.taps import Taps
from earmark.verifiers._common_choice import Rerun
from earmark.verifiers._common_trace import Ints
from earmark.verifiers._frames_family import FrameFamily
from earmark.verifiers._frames_sketch import sketch_of
from earmark.verifiers._transducer_pass import Pass
from earmark.verifiers._transducer_path import as_path
from earmark.verifiers._transducer_trace import read_path, read_trace, write_trace

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

    def read(self, segment: Segment, request: Request, model: TransducerModel, level: Level) -> FrameScores:
        """Decode one trace and check every rule that needs no replay."""
        return read_trace(segment, request, model, level)

    def path_of(self, trace: bytes) -> Ints:
        """Return frame, symbol and duration of each step."""
        return read_path(trace)

    def write_batch(
        self,
        model: TransducerModel,
        encoded: Any,
        batch: Sequence[SegmentInput],
        paths: Sequence[Ints] | None,
        *,
        k: int,
        taps: Taps,
    ) -> list[SegmentOutput]:
        """Write one trace per row along given paths, or those of greedy decoding."""
        forced = Pass(model, encoded, paths or _decode(model, encoded, batch))
        likelihoods = forced.lattice().log_likelihood
        return [
            _output(
                model,
                forced.scores(
                    row, k=k, sketch=sketch_of(model, item, row, taps), log_likelihood=float(likelihoods[row])
                ),
            )
            for row, item in enumerate(batch)
        ]

    def replay_batch(
        self,
        model: TransducerModel,
        encoded: Any,
        batch: Sequence[SegmentInput],
        traces: Sequence[FrameScores],
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


def _decode(model: TransducerModel, encoded: Any, batch: Sequence[SegmentInput]) -> list[Ints]:
    steps = model.greedy(encoded)
    return [as_path(own, len(item.samples), model) for own, item in zip(steps, batch, strict=True)]


def _output(model: TransducerModel, scores: FrameScores) -> SegmentOutput:
    text = model.detokenise(scores.emitted)
    return SegmentOutput(ids=scores.emitted, text=text, trace=write_trace(scores, model.strategy))


def _rerun(forced: Pass, row: int) -> Rerun:
    tokens, _ = forced.logits(row)
    best = tokens.log_softmax(dim=-1).max(dim=-1).values
    return Rerun(forced.emitted[row], float(best.mean()))
