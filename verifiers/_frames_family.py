"""What the ctc and transducer families share: everything but what happens to one encoded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from earmark.fingerprint.frames import FrameReplay, FrameScores
from earmark.fingerprint.types import Statistic
from earmark.protocols import Advance, Comparison, FrameModel, SegmentInput, SegmentOutput
from earmark.records.evidence import Level, Precision
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
from earmark.verifiers._frames_sketch import places


class FrameFamily:
    """The base of both families; a family adds its names, `read` and the four methods that raise here."""

    name: ClassVar[str]
    summary: ClassVar[str]
    statistics: ClassVar[tuple[Statistic, ...]]
    channels: ClassVar[tuple[str, ...]]
    levels: ClassVar[tuple[Level, ...]] = ("scores", "sketch")

    # what a family adds

    def path_of(self, trace: bytes) -> Ints:
        """Return the path inside a trace."""
        raise NotImplementedError

    def write_batch(
        self,
        model: Any,
        encoded: Any,
        batch: Sequence[SegmentInput],
        paths: Sequence[Ints] | None,
        *,
        k: int,
        taps: Taps,
    ) -> list[SegmentOutput]:
        """Write one trace per row along given paths, or the model's own."""
        raise NotImplementedError

    def replay_batch(
        self, model: Any, encoded: Any, batch: Sequence[SegmentInput], traces: Sequence[FrameScores], *, taps: Taps
    ) -> list[FrameReplay]:
        """Return what the model says along the path of each trace."""
        raise NotImplementedError

    def rerun_batch(self, model: Any, encoded: Any, batch: Sequence[SegmentInput]) -> list[Rerun]:
        """Return the model's own decoding of each row."""
        raise NotImplementedError

    # what both share

    def record(
        self,
        model: FrameModel,
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
        model: FrameModel,
        inputs: Sequence[SegmentInput],
        outputs: Sequence[SegmentOutput],
        *,
        k: int,
        level: Level,
        batch_size: int,
        advance: Advance,
    ) -> list[SegmentOutput]:
        """Write the traces along the paths of given outputs as `model` sees them."""
        paths = [self.path_of(output.trace) for output in outputs]
        return self._write(model, inputs, paths, k=k, level=level, batch_size=batch_size, advance=advance)

    def _write(
        self,
        model: FrameModel,
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
            given = None if paths is None else [paths[i] for i in rows]
            return self.write_batch(model, encoded, [inputs[i] for i in rows], given, k=k, taps=taps)

        probed = places(model) if level == "sketch" else None
        return batched(model, inputs, batch_size, advance, run, places=probed)

    def replay(
        self,
        model: FrameModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[FrameScores],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[FrameReplay]:
        """Force the path of each trace through the reference: one pass of the encoder per batch, no decoding."""

        def run(encoded: Any, rows: list[int], taps: Taps) -> list[FrameReplay]:
            return self.replay_batch(model, encoded, [inputs[i] for i in rows], [traces[i] for i in rows], taps=taps)

        probed = any(len(trace.sketch) for trace in traces)
        return batched(model, inputs, batch_size, advance, run, places=places(model) if probed else None)

    def rerun(
        self,
        model: FrameModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[FrameScores],  # noqa: ARG002 - greedy decoding needs nothing from the provider
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[Rerun]:
        """Decode each piece again."""

        def run(encoded: Any, rows: list[int], _: Taps) -> list[Rerun]:
            return self.rerun_batch(model, encoded, [inputs[i] for i in rows])

        return batched(model, inputs, batch_size, advance, run)

    def listed(self, trace: FrameScores) -> int:
        """Return the listed tokens per position."""
        return int(trace.ids.shape[1])

    def review(self, traces: Sequence[FrameScores], policy: Policy) -> list[Finding]:
        """Say whether the traces hold as much as the policy asks."""
        return review_lists([trace.logprobs for trace in traces], policy)

    def needs_rerun(self, request: Request) -> bool:  # noqa: ARG002 - every decoding that is accepted has margins
        """Tell that forcing alone checks how symbols are chosen."""
        return False

    def compare(
        self,
        traces: Sequence[FrameScores],
        replays: Sequence[FrameReplay],
        *,
        model: FrameModel,
        request: Request,  # noqa: ARG002 - only greedy decoding gets this far
        reruns: Sequence[Rerun] | None = None,
    ) -> Comparison:
        """Compare all segments of one clip; statistics are over all positions of the clip."""
        return compare(traces, replays, reruns, model=model, family=self.name, statistics=self.statistics)

    def coordinates(self, trace: FrameScores, replay: FrameReplay) -> tuple[Floats, Floats]:
        """Return the listed log-probabilities."""
        return trace.logprobs, replay.at_listed

    def confidences(self, trace: FrameScores, replay: FrameReplay, model: FrameModel) -> Floats:
        """Return each word's confidence, the provider's and the reference's, (2, words)."""
        return confidences(trace, replay, model)

    def provisional_bounds(self, precision: Precision) -> Mapping[str, float]:
        """Return the documented bounds of a precision."""
        return bounds(self.statistics, precision)
