"""What the ctc and transducer families share: everything but what happens to one encoded batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from earmark.errors import UsageError
from earmark.fingerprint.frame_summary import FrameSummary
from earmark.fingerprint.frames import FrameReplay, FrameScores
from earmark.fingerprint.types import Statistic
from earmark.limits import DEFAULT_K
from earmark.protocols import Advance, Comparison, Curve, FrameModel, SegmentInput, SegmentOutput, TextScores
from earmark.records.evidence import Level, Precision
from earmark.records.policy import Policy
from earmark.records.request import Request
from earmark.records.verdict import Finding
from earmark.taps import Taps
from earmark.verifiers._common_batches import batched
from earmark.verifiers._common_choice import Rerun
from earmark.verifiers._common_probe import probe
from earmark.verifiers._common_trace import Floats, check_k, review_lists
from earmark.verifiers._frames_bounds import bounds
from earmark.verifiers._frames_compare import compare, confidences, curve
from earmark.verifiers._frames_rules import check_request
from earmark.verifiers._frames_sketch import places
from earmark.verifiers._frames_text import check_tokeniser

Frames = FrameScores | FrameSummary
"""What was read of one segment: everything, or of compact evidence a summary."""
PROBED = ("sketch", "compact")
"""Levels that hold hidden states."""


class FrameFamily:
    """The base of both families; a family adds its names, `read` and the four methods that raise here."""

    name: ClassVar[str]
    summary: ClassVar[str]
    statistics: ClassVar[tuple[Statistic, ...]]
    channels: ClassVar[tuple[str, ...]]
    levels: ClassVar[tuple[Level, ...]] = ("scores", "sketch", "compact")

    # what a family adds

    def write_batch(
        self,
        model: Any,
        encoded: Any,
        batch: Sequence[SegmentInput],
        given: Sequence[SegmentOutput] | None,
        *,
        k: int,
        level: Level,
        taps: Taps,
    ) -> list[SegmentOutput]:
        """Write one trace per row along the paths of given outputs, or the model's own."""
        raise NotImplementedError

    def replay_batch(
        self, model: Any, encoded: Any, batch: Sequence[SegmentInput], traces: Sequence[Frames], *, taps: Taps
    ) -> list[FrameReplay]:
        """Return what the model says along the path of each trace."""
        raise NotImplementedError

    def rerun_batch(self, model: Any, encoded: Any, batch: Sequence[SegmentInput]) -> list[Rerun]:
        """Return the model's own decoding of each row."""
        raise NotImplementedError

    def text_batch(
        self, model: Any, encoded: Any, batch: Sequence[SegmentInput], texts: Sequence[str]
    ) -> list[TextScores]:
        """Return what the model says of one text per row."""
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
        return self._write(model, inputs, outputs, k=k, level=level, batch_size=batch_size, advance=advance)

    def _write(
        self,
        model: FrameModel,
        inputs: Sequence[SegmentInput],
        outputs: Sequence[SegmentOutput] | None,
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
            given = None if outputs is None else [outputs[i] for i in rows]
            return self.write_batch(model, encoded, [inputs[i] for i in rows], given, k=k, level=level, taps=taps)

        probed = places(model) if level in PROBED else None
        return batched(model, inputs, batch_size, advance, run, places=probed)

    def replay(
        self,
        model: FrameModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[Frames],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[FrameReplay]:
        """Force the path of each trace through the reference: one pass of the encoder per batch, no decoding."""

        def run(encoded: Any, rows: list[int], taps: Taps) -> list[FrameReplay]:
            return self.replay_batch(model, encoded, [inputs[i] for i in rows], [traces[i] for i in rows], taps=taps)

        probed = any(len(trace.sketch) for trace in traces)
        return batched(model, inputs, batch_size, advance, run, places=places(model) if probed else None)

    def probe(
        self,
        model: FrameModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[Frames],
        *,
        depth: int,
        batch_size: int,
        advance: Advance,
    ) -> list[Floats]:
        """Return the distances of the probes in the first layers of the encoder, which alone are run."""
        sketches = [trace.sketch for trace in traces]
        return probe(model, inputs, sketches, depth=depth, batch_size=batch_size, advance=advance)

    def rerun(
        self,
        model: FrameModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[Frames],  # noqa: ARG002 - greedy decoding needs nothing from the provider
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[Rerun]:
        """Decode each piece again."""

        def run(encoded: Any, rows: list[int], _: Taps) -> list[Rerun]:
            return self.rerun_batch(model, encoded, [inputs[i] for i in rows])

        return batched(model, inputs, batch_size, advance, run)

    def text_scores(
        self,
        model: FrameModel,
        inputs: Sequence[SegmentInput],
        texts: Sequence[str],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[TextScores]:
        """Turn each text into tokens again, and force them through the lattice of the reference.

        Raises:
            UsageError: The model has no tokenizer, or the request asks what it cannot do.
        """
        check_tokeniser(model)
        for item in inputs:
            check_request(item.request, model)

        def run(encoded: Any, rows: list[int], _: Taps) -> list[TextScores]:
            return self.text_batch(model, encoded, [inputs[i] for i in rows], [texts[i] for i in rows])

        return batched(model, inputs, batch_size, advance, run)

    def listed(self, trace: Frames) -> int:
        """Return the listed tokens per position; behind a compact trace there are always 8."""
        return int(trace.ids.shape[1]) if isinstance(trace, FrameScores) else DEFAULT_K

    def review(self, traces: Sequence[Frames], policy: Policy) -> list[Finding]:
        """Say whether the traces hold as much as the policy asks."""
        lists = [trace.logprobs for trace in traces if isinstance(trace, FrameScores)]
        return review_lists(lists, policy) if lists else []

    def needs_rerun(self, request: Request) -> bool:  # noqa: ARG002 - every decoding that is accepted has margins
        """Tell that forcing alone checks how symbols are chosen."""
        return False

    def compare(
        self,
        traces: Sequence[Frames],
        replays: Sequence[FrameReplay],
        *,
        model: FrameModel,
        request: Request,  # noqa: ARG002 - only greedy decoding gets this far
        reruns: Sequence[Rerun] | None = None,
    ) -> Comparison:
        """Compare all segments of one clip; statistics are over all positions of the clip."""
        return compare(traces, replays, reruns, model=model, family=self.name, statistics=self.statistics)

    def coordinates(self, trace: Frames, replay: FrameReplay) -> tuple[Floats, Floats]:
        """Return the listed log-probabilities; nothing of compact evidence."""
        return (trace.logprobs, replay.at_listed) if isinstance(trace, FrameScores) else (np.empty(0), np.empty(0))

    def confidences(self, trace: Frames, replay: FrameReplay, model: FrameModel) -> Floats:
        """Return each word's confidence, the provider's and the reference's, (2, words).

        Raises:
            UsageError: The evidence is compact.
        """
        return confidences(_whole(trace), replay, model)

    def curve(self, trace: Frames, replay: FrameReplay, model: FrameModel) -> Curve:
        """Return the entropy curves of one piece with its words, over time.

        Raises:
            UsageError: The evidence is compact.
        """
        return curve(_whole(trace), replay, model)

    def provisional_bounds(self, precision: Precision) -> Mapping[str, float]:
        """Return the documented bounds of a precision."""
        return bounds(self.statistics, precision)


def _whole(trace: Frames) -> FrameScores:
    if not isinstance(trace, FrameScores):
        raise UsageError(
            "compact evidence does not hold the numbers of every position; record the level scores or sketch"
        )
    return trace
