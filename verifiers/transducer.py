"""The transducer family: RNN-T, multi-blank, TDT and HAINAN.

The replay is one pass of the encoder and of the prediction network, forced along the provider's path of frames, symbols
and durations; every step has a margin for its symbol and its duration. The exact lattice says how probable the
transcript is over all alignments, and where its tokens lie; the joint's (frames, tokens, vocabulary) never exists.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from earmark.fingerprint.frames import TRANSDUCER_STATISTICS, FrameReplay, FrameScores
from earmark.fingerprint.types import Statistic
from earmark.protocols import Advance, Comparison, SegmentInput, SegmentOutput, TransducerModel
from earmark.records.evidence import Level, Precision, Segment
from earmark.records.policy import Policy
from earmark.records.request import Request
from earmark.records.verdict import Finding
from earmark.taps import Taps
from earmark.verifiers._common_batches import batched
from earmark.verifiers._common_choice import Rerun
from earmark.verifiers._common_trace import Floats, Ints, check_k, review_lists
from earmark.verifiers._frames_bounds import bounds
from earmark.verifiers._frames_compare import compare, confidences
from earmark.verifiers._frames_rules import check_request
from earmark.verifiers._frames_sketch import places, sketch_of
from earmark.verifiers._transducer_pass import Pass
from earmark.verifiers._transducer_path import as_path
from earmark.verifiers._transducer_trace import read_path, read_trace, write_trace

CHANNELS = (
    "logprob_l1", "logprob_l1_max", "logprob_l1_informative", "prob_l1", "blank_distance", "duration_l1",
    "loglik_distance_frame", "path_distance", "margin_max", "duration_margin_max", "entropy_rmse", "renyi_rmse",
    "confidence_distance", "sketch_distance",
)  # fmt: skip
"""Statistics that take part in the score of a calibrated profile; those of the alignment are left out, as in ctc."""


class TransducerFamily:
    """Comparison step by step along the path, and of the exact likelihood of the transcript."""

    name: ClassVar[str] = "transducer"
    summary: ClassVar[str] = "token and duration log-probabilities along the path, exact likelihood and alignment"
    statistics: ClassVar[tuple[Statistic, ...]] = TRANSDUCER_STATISTICS
    levels: ClassVar[tuple[Level, ...]] = ("scores", "sketch")
    channels: ClassVar[tuple[str, ...]] = CHANNELS

    def record(
        self,
        model: TransducerModel,
        inputs: Sequence[SegmentInput],
        *,
        k: int,
        level: Level,
        batch_size: int,
        advance: Advance,
    ) -> list[SegmentOutput]:
        """Transcribe each piece of audio and write its trace."""
        return self._write(model, inputs, None, k=k, level=level, batch_size=batch_size, advance=advance)

    def score(
        self,
        model: TransducerModel,
        inputs: Sequence[SegmentInput],
        outputs: Sequence[SegmentOutput],
        *,
        k: int,
        level: Level,
        batch_size: int,
        advance: Advance,
    ) -> list[SegmentOutput]:
        """Write the traces along the paths of given outputs as `model` sees them."""
        paths = [read_path(output.trace) for output in outputs]
        return self._write(model, inputs, paths, k=k, level=level, batch_size=batch_size, advance=advance)

    def _write(
        self,
        model: TransducerModel,
        inputs: Sequence[SegmentInput],
        paths: Sequence[Ints] | None,
        *,
        k: int,
        level: Level,
        batch_size: int,
        advance: Advance,
    ) -> list[SegmentOutput]:
        check_k(k, model)
        for item in inputs:
            check_request(item.request, model)

        def run(encoded: Any, rows: list[int], taps: Taps) -> list[SegmentOutput]:
            given = _decode(model, encoded, [inputs[i] for i in rows]) if paths is None else [paths[i] for i in rows]
            forced = Pass(model, encoded, given)
            likelihoods = forced.lattice().log_likelihood
            scores = [
                forced.scores(
                    row,
                    k=k,
                    sketch=sketch_of(model, inputs[i], row, taps),
                    log_likelihood=float(likelihoods[row]),
                )
                for row, i in enumerate(rows)
            ]
            return [_output(model, own) for own in scores]

        probed = places(model) if level == "sketch" else None
        return batched(model, inputs, batch_size, advance, run, places=probed)

    def read(self, segment: Segment, request: Request, model: TransducerModel, level: Level) -> FrameScores:
        """Decode one trace and check every rule that needs no replay."""
        return read_trace(segment, request, model, level)

    def listed(self, trace: FrameScores) -> int:
        """Return the listed tokens per step."""
        return int(trace.ids.shape[1])

    def review(self, traces: Sequence[FrameScores], policy: Policy) -> list[Finding]:
        """Say whether the traces hold as much as the policy asks."""
        return review_lists([trace.logprobs for trace in traces], policy)

    def replay(
        self,
        model: TransducerModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[FrameScores],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[FrameReplay]:
        """Force the path of each trace through the reference: one pass of the encoder per batch, no decoding."""

        def run(encoded: Any, rows: list[int], taps: Taps) -> list[FrameReplay]:
            forced = Pass(model, encoded, [traces[i].path for i in rows])
            solved = forced.lattice()
            return [forced.replay(row, traces[i], inputs[i], solved=solved, taps=taps) for row, i in enumerate(rows)]

        probed = any(len(trace.sketch) for trace in traces)
        return batched(model, inputs, batch_size, advance, run, places=places(model) if probed else None)

    def rerun(
        self,
        model: TransducerModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[FrameScores],  # noqa: ARG002 - greedy decoding needs nothing from the provider
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[Rerun]:
        """Decode each piece again."""

        def run(encoded: Any, rows: list[int], _: Taps) -> list[Rerun]:
            forced = Pass(model, encoded, _decode(model, encoded, [inputs[i] for i in rows]))
            return [_rerun(forced, row) for row in range(len(rows))]

        return batched(model, inputs, batch_size, advance, run)

    def confidences(self, trace: FrameScores, replay: FrameReplay, model: TransducerModel) -> Floats:
        """Return each word's confidence, the provider's and the reference's, (2, words)."""
        return confidences(trace, replay, model)

    def needs_rerun(self, request: Request) -> bool:  # noqa: ARG002 - every decoding that is accepted has margins
        """Tell that forcing alone checks how symbols are chosen."""
        return False

    def compare(
        self,
        traces: Sequence[FrameScores],
        replays: Sequence[FrameReplay],
        *,
        model: TransducerModel,
        request: Request,  # noqa: ARG002 - only greedy decoding gets this far
        reruns: Sequence[Rerun] | None = None,
    ) -> Comparison:
        """Compare all segments of one clip; statistics are over all steps of the clip."""
        return compare(traces, replays, reruns, model=model, family=self.name, statistics=self.statistics)

    def coordinates(self, trace: FrameScores, replay: FrameReplay) -> tuple[Floats, Floats]:
        """Return the listed log-probabilities."""
        return trace.logprobs, replay.at_listed

    def provisional_bounds(self, precision: Precision) -> Mapping[str, float]:
        """Return the documented bounds of a precision."""
        return bounds(self.statistics, precision)


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
