"""The autoregressive family: encoder-decoders and audio-LLMs that write one token after the other.

Recording takes the scores from the decoding itself; replay forces the provider's tokens through the reference in one
parallel pass (teacher forcing), so that verification needs no token-by-token decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.sequence import (
    STATISTICS,
    Listed,
    Replay,
    Scores,
)
from earmark.fingerprint.types import Statistic
from earmark.limits import DEFAULT_K
from earmark.protocols import (
    Advance,
    AutoregressiveModel,
    Comparison,
    Curve,
    Reported,
    SegmentInput,
    SegmentOutput,
    TextScores,
)
from earmark.records.evidence import Level, Precision, Segment
from earmark.records.policy import Policy
from earmark.records.request import Request
from earmark.records.verdict import Finding
from earmark.taps import Place, Taps
from earmark.verifiers._autoregressive_bounds import PROVISIONAL
from earmark.verifiers._autoregressive_compact import read_compact
from earmark.verifiers._autoregressive_compare import compare, confidences, curve
from earmark.verifiers._autoregressive_decode import choose_prompts, decode, write
from earmark.verifiers._autoregressive_listed import (
    is_listed,
    read_listed,
    report_of,
    reported_scores,
    unshown,
    write_listed,
)
from earmark.verifiers._autoregressive_pass import forced_pass, said
from earmark.verifiers._autoregressive_replay import outputs_of, replay_of, rerun_of
from earmark.verifiers._autoregressive_sketch import encoder_places, sketches_of
from earmark.verifiers._autoregressive_text import score_texts
from earmark.verifiers._autoregressive_trace import Written, read_trace
from earmark.verifiers._common_batches import batched
from earmark.verifiers._common_choice import Rerun
from earmark.verifiers._common_probe import probe
from earmark.verifiers._common_trace import check_k, review_lists

CHANNELS = (
    "logprob_l1", "logprob_l1_max", "prob_l1", "loglik_distance", "margin_max", "stop_distance", "entropy_rmse",
    "confidence_distance", "language_distance", "no_speech_distance", "sketch_distance",
)  # fmt: skip
"""Statistics that take part in the score of a calibrated profile; those that count or rank are left out."""

PROBED = ("sketch", "compact")
"""Levels that hold hidden states."""


class AutoregressiveFamily:
    """Teacher-forced comparison of log-probabilities, margins and entropy, token by token."""

    name: ClassVar[str] = "autoregressive"
    summary: ClassVar[str] = "teacher-forced log-probabilities, argmax margins, entropy curve"
    statistics: ClassVar[tuple[Statistic, ...]] = STATISTICS
    levels: ClassVar[tuple[Level, ...]] = ("listed", "scores", "sketch", "compact")
    channels: ClassVar[tuple[str, ...]] = CHANNELS

    def record(
        self,
        model: AutoregressiveModel,
        inputs: Sequence[SegmentInput],
        *,
        k: int,
        level: Level,
        batch_size: int,
        advance: Advance,
    ) -> list[SegmentOutput]:
        """Transcribe each piece of audio and write its trace."""
        check_k(k, model)
        probed = level in PROBED

        def run(encoded: Any, rows: list[int], taps: Taps) -> list[SegmentOutput]:
            batch = [inputs[i] for i in rows]
            prompts = choose_prompts(model, encoded, batch)
            written = write(model, encoded, prompts, batch, k=k, states=probed)
            return outputs_of(model, batch, prompts, written, taps=taps, level=level)

        return batched(model, inputs, batch_size, advance, run, places=_places(model) if probed else None)

    def score(
        self,
        model: AutoregressiveModel,
        inputs: Sequence[SegmentInput],
        outputs: Sequence[SegmentOutput],
        *,
        k: int,
        level: Level,
        batch_size: int,
        advance: Advance,
    ) -> list[SegmentOutput]:
        """Write the traces of given outputs as `model` sees them."""
        check_k(k, model)
        probed = level in PROBED

        def run(encoded: Any, rows: list[int], taps: Taps) -> list[SegmentOutput]:
            batch, emitted = [inputs[i] for i in rows], [outputs[i].ids for i in rows]
            prompts = choose_prompts(model, encoded, batch)
            forced = zip(emitted, forced_pass(model, encoded, prompts, emitted), strict=True)
            written = [(ids, said(piece, ids, k)) for ids, piece in forced]
            return outputs_of(model, batch, prompts, written, taps=taps, level=level)

        return batched(model, inputs, batch_size, advance, run, places=_places(model) if probed else None)

    def read(self, segment: Segment, request: Request, model: AutoregressiveModel, level: Level) -> Written:
        """Decode one trace and check every rule that needs no replay."""
        if level == "listed":
            return read_listed(segment, request, model)
        return (
            read_compact(segment, request, model) if level == "compact" else read_trace(segment, request, model, level)
        )

    def reported(self, model: AutoregressiveModel, item: SegmentInput, report: Reported) -> SegmentOutput:
        """Write the trace of what an API reported; whether it can be true, `read` says."""
        del item
        ids, scores = reported_scores(report, model)
        known = [i for i in ids if i < model.info.vocab_size]
        return SegmentOutput(ids=ids, text=model.detokenise(known), trace=write_listed(scores))

    def report(self, trace: Written) -> Reported:
        """Return what an API would report of a trace."""
        return report_of(trace)

    def listed(self, trace: Written) -> int:
        """Return the listed tokens per position; behind a compact trace there are always 8."""
        return trace.listed.shape[1] or DEFAULT_K

    def review(self, traces: Sequence[Written], policy: Policy) -> list[Finding]:
        """Say whether the traces hold as much as the policy asks."""
        full = [trace.scores for trace in traces if isinstance(trace.scores, Scores)]
        findings = review_lists([s.logprobs[: len(s.chosen) - unshown(s)] for s in full], policy) if full else []
        # an API that lists fewer tokens than it could is no proof of a cheat
        return [replace(f, severity="inconclusive") for f in findings] if any(map(is_listed, full)) else findings

    def replay(
        self,
        model: AutoregressiveModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[Written],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[Replay]:
        """Force the emitted tokens of each trace through the reference, one parallel pass per batch."""

        def run(encoded: Any, rows: list[int], taps: Taps) -> list[Replay]:
            claimed, batch = [traces[i] for i in rows], [inputs[i] for i in rows]
            logits = forced_pass(model, encoded, [t.prompt for t in claimed], [t.emitted for t in claimed])
            pieces = list(logits)
            sketches = sketches_of(model, batch, [forced.states for forced in pieces], taps)
            return [
                replay_of(model, trace, item, forced, sketch)
                for trace, item, forced, sketch in zip(claimed, batch, pieces, sketches, strict=True)
            ]

        probed = any(len(trace.scores.sketch) for trace in traces)
        return batched(model, inputs, batch_size, advance, run, places=_places(model) if probed else None)

    def probe(
        self,
        model: AutoregressiveModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[Written],
        *,
        depth: int,
        batch_size: int,
        advance: Advance,
    ) -> list[NDArray[np.float64]]:
        """Return the distances of the probes in the first layers of the encoder, which alone are run."""
        sketches = [trace.scores.sketch for trace in traces]
        return probe(model, inputs, sketches, depth=depth, batch_size=batch_size, advance=advance)

    def rerun(
        self,
        model: AutoregressiveModel,
        inputs: Sequence[SegmentInput],
        traces: Sequence[Written],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[Rerun]:
        """Decode each piece again behind the trace's prompt."""

        def run(encoded: Any, rows: list[int], _: Taps) -> list[Rerun]:
            prompts = [traces[i].prompt for i in rows]
            emitted = decode(model, encoded, prompts, [inputs[i] for i in rows])
            forced = forced_pass(model, encoded, prompts, emitted)
            return [rerun_of(ids, logits) for ids, logits in zip(emitted, forced, strict=True)]

        return batched(model, inputs, batch_size, advance, run)

    def text_scores(
        self,
        model: AutoregressiveModel,
        inputs: Sequence[SegmentInput],
        texts: Sequence[str],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[TextScores]:
        """Turn each text into tokens again, and force them through the reference."""

        def run(encoded: Any, rows: list[int], _: Taps) -> list[TextScores]:
            return score_texts(model, encoded, [inputs[i] for i in rows], [texts[i] for i in rows])

        return batched(model, inputs, batch_size, advance, run)

    def confidences(self, trace: Written, replay: Replay, model: AutoregressiveModel) -> NDArray[np.float64]:
        """Return each word's confidence, the provider's and the reference's, (2, words)."""
        return confidences(trace, replay, model)

    def curve(self, trace: Written, replay: Replay, model: AutoregressiveModel) -> Curve:
        """Return the entropy curves of one piece with its words, token by token."""
        return curve(trace, replay, model)

    def needs_rerun(self, request: Request) -> bool:
        """Tell whether the request asks for a beam search, whose choice no single path shows."""
        return request.decoding.strategy == "beam"

    def compare(
        self,
        traces: Sequence[Written],
        replays: Sequence[Replay],
        *,
        model: AutoregressiveModel,
        request: Request,
        reruns: Sequence[Rerun] | None = None,
    ) -> Comparison:
        """Compare all segments of one clip; statistics are over all positions of the clip.

        Raises:
            ModelError: The reference itself gave numbers that are not finite.
        """
        return compare(traces, replays, reruns, model=model, family=self.name, request=request)

    def coordinates(self, trace: Written, replay: Replay) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the listed log-probabilities; nothing of compact evidence."""
        if not isinstance(trace.scores, Listed):
            return np.empty(0), np.empty(0)
        return trace.scores.logprobs, replay.at_listed

    def provisional_bounds(self, precision: Precision) -> Mapping[str, float]:
        """Return the documented bounds of a precision."""
        return PROVISIONAL[precision]


def _places(model: AutoregressiveModel) -> Callable[[Sequence[SegmentInput]], list[Place]]:
    return lambda batch: encoder_places(model, batch)
