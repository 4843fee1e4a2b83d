"""The ctc family: encoders with one distribution per frame.

The replay is one pass of the encoder. It is forced along the provider's path: every frame has a margin, and the exact
lattice says how probable the transcript is over all alignments, and where its tokens lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from earmark import lattice
from earmark.fingerprint.frames import CTC_STATISTICS, FrameReplay, FrameScores
from earmark.fingerprint.types import Statistic
from earmark.protocols import Advance, Comparison, CtcModel, SegmentInput, SegmentOutput
from earmark.records.evidence import Level, Precision, Segment
from earmark.records.policy import Policy
from earmark.records.request import Request
from earmark.records.verdict import Finding
from earmark.taps import Taps
from earmark.verifiers._common_batches import batched
from earmark.verifiers._common_choice import Rerun
from earmark.verifiers._common_trace import Floats, Ints, check_k, review_lists
from earmark.verifiers._ctc_trace import collapse, path_of, read_path, read_trace, write_trace
from earmark.verifiers._frames_bounds import bounds
from earmark.verifiers._frames_compare import compare, confidences
from earmark.verifiers._frames_pass import alignment, at_listed, margins, row_scores, targets_of
from earmark.verifiers._frames_rules import check_request
from earmark.verifiers._frames_sketch import places, sketch_of

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


class CtcFamily:
    """Comparison frame by frame, and of the exact likelihood of the transcript."""

    name: ClassVar[str] = "ctc"
    summary: ClassVar[str] = "frame log-probabilities, margins along the path, exact likelihood and alignment"
    statistics: ClassVar[tuple[Statistic, ...]] = CTC_STATISTICS
    levels: ClassVar[tuple[Level, ...]] = ("scores", "sketch")
    channels: ClassVar[tuple[str, ...]] = CHANNELS

    def record(
        self,
        model: CtcModel,
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
        model: CtcModel,
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
        model: CtcModel,
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
            logits = _logits(model, encoded)
            given = None if paths is None else [paths[i] for i in rows]
            scores = _own_scores(model, logits, given, [inputs[i] for i in rows], k=k, taps=taps)
            return [_output(model, own) for own in scores]

        probed = places(model) if level == "sketch" else None
        return batched(model, inputs, batch_size, advance, run, places=probed)

    def read(self, segment: Segment, request: Request, model: CtcModel, level: Level) -> FrameScores:
        """Decode one trace and check every rule that needs no replay."""
        return read_trace(segment, request, model, level)

    def listed(self, trace: FrameScores) -> int:
        """Return the listed tokens per frame."""
        return int(trace.ids.shape[1])

    def review(self, traces: Sequence[FrameScores], policy: Policy) -> list[Finding]:
        """Say whether the traces hold as much as the policy asks."""
        return review_lists([trace.logprobs for trace in traces], policy)

    def replay(
        self,
        model: CtcModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[FrameScores],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[FrameReplay]:
        """Force the path of each trace through the reference: one pass of the encoder per batch."""

        def run(encoded: Any, rows: list[int], taps: Taps) -> list[FrameReplay]:
            logits = _logits(model, encoded)
            return _replays(model, logits, [traces[i] for i in rows], [inputs[i] for i in rows], taps=taps)

        probed = any(len(trace.sketch) for trace in traces)
        return batched(model, inputs, batch_size, advance, run, places=places(model) if probed else None)

    def rerun(
        self,
        model: CtcModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[FrameScores],  # noqa: ARG002 - a CTC model decodes without anything from the provider
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[Rerun]:
        """Decode each piece again."""

        def run(encoded: Any, rows: list[int], _: Taps) -> list[Rerun]:
            return [_rerun(model, own) for own in _logits(model, encoded)[: len(rows)]]

        return batched(model, inputs, batch_size, advance, run)

    def confidences(self, trace: FrameScores, replay: FrameReplay, model: CtcModel) -> Floats:
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
        model: CtcModel,
        request: Request,  # noqa: ARG002 - only greedy decoding gets this far
        reruns: Sequence[Rerun] | None = None,
    ) -> Comparison:
        """Compare all segments of one clip; statistics are over all frames of the clip."""
        return compare(traces, replays, reruns, model=model, family=self.name, statistics=self.statistics)

    def coordinates(self, trace: FrameScores, replay: FrameReplay) -> tuple[Floats, Floats]:
        """Return the listed log-probabilities."""
        return trace.logprobs, replay.at_listed

    def provisional_bounds(self, precision: Precision) -> Mapping[str, float]:
        """Return the documented bounds of a precision."""
        return bounds(self.statistics, precision)


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
