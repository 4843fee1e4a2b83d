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

from earmark.errors import ModelError, UsageError
from earmark.fingerprint.confidence import word_confidence
from earmark.fingerprint.margins import TIE_NATS
from earmark.fingerprint.sequence import (
    STATISTICS,
    Listed,
    Replay,
    Scores,
    sequence_statistics,
)
from earmark.fingerprint.shape import clip_shape
from earmark.fingerprint.summary import Summary, summary_statistics
from earmark.fingerprint.types import Fingerprint, Statistic
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
from earmark.verifiers._autoregressive_choice import choice_findings, choice_margins
from earmark.verifiers._autoregressive_compact import read_compact, write_compact
from earmark.verifiers._autoregressive_decode import choose_prompts, decode, write
from earmark.verifiers._autoregressive_listed import (
    is_listed,
    read_listed,
    report_of,
    reported_scores,
    shown_part,
    unshown,
    write_listed,
)
from earmark.verifiers._autoregressive_pass import Forced, Said, forced_pass, numbered, said
from earmark.verifiers._autoregressive_sketch import encoder_places, sketches_of
from earmark.verifiers._autoregressive_text import score_texts
from earmark.verifiers._autoregressive_trace import Written, read_trace, write_trace
from earmark.verifiers._common_batches import batched, columns, score_logprobs
from earmark.verifiers._common_choice import Rerun
from earmark.verifiers._common_curve import words_at
from earmark.verifiers._common_trace import check_k, review_lists

CHANNELS = (
    "logprob_l1", "logprob_l1_max", "prob_l1", "loglik_distance", "margin_max", "stop_distance", "entropy_rmse",
    "confidence_distance", "language_distance", "no_speech_distance", "sketch_distance",
)  # fmt: skip
"""Statistics that take part in the score of a calibrated profile; those that count or rank are left out."""

PROVISIONAL: dict[Precision, dict[str, float]] = {
    "fp32": {
        "logprob_l1": 1e-3,
        "logprob_l1_max": 1e-2,
        "loglik_distance": 1e-3,
        "entropy_rmse": 1e-3,
        "language_distance": 1e-2,
        "language_margin": 1e-2,
        "no_speech_distance": 1e-2,
        "sketch_distance": 2e-3,
    },
    "fp16": {
        "logprob_l1": 2e-2,
        "logprob_l1_max": 0.3,
        "loglik_distance": 2e-2,
        "entropy_rmse": 2e-2,
        "language_distance": 0.2,
        "language_margin": 0.2,
        "no_speech_distance": 0.05,
        "sketch_distance": 2e-2,
    },
    "bf16": {
        "logprob_l1": 0.15,
        "logprob_l1_max": 1.5,
        "loglik_distance": 0.15,
        "entropy_rmse": 0.15,
        "language_distance": 0.8,
        "language_margin": 0.8,
        "no_speech_distance": 0.2,
        "sketch_distance": 0.15,
    },
}
"""Bounds until a profile is calibrated; measured on whisper-nano alone (docs/explanation/statistics.md)."""


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
            return _outputs(model, batch, prompts, written, taps=taps, level=level)

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
            return _outputs(model, batch, prompts, written, taps=taps, level=level)

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
                _replay(model, trace, item, forced, sketch)
                for trace, item, forced, sketch in zip(claimed, batch, pieces, sketches, strict=True)
            ]

        probed = any(len(trace.scores.sketch) for trace in traces)
        return batched(model, inputs, batch_size, advance, run, places=_places(model) if probed else None)

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
            return [_rerun(ids, logits) for ids, logits in zip(emitted, forced, strict=True)]

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
        if isinstance(trace.scores, Summary):
            raise UsageError("compact evidence holds no word confidences; record the level scores or sketch")
        words = model.word_index(trace.emitted)
        return np.stack([word_confidence(scores.chosen, words) for scores in (trace.scores, replay.scores)])

    def curve(self, trace: Written, replay: Replay, model: AutoregressiveModel) -> Curve:
        """Return the entropy curves of one piece with its words, token by token."""
        if not isinstance(trace.scores, Scores) or is_listed(trace.scores):
            raise UsageError("this evidence holds no entropy; record the level scores or sketch")
        places = np.arange(len(trace.emitted), dtype=np.float64)
        return Curve(
            unit="tokens",
            places=places,
            provider=trace.scores.entropy,
            reference=replay.scores.entropy,
            words=words_at(places, trace.emitted, model),
        )

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
        if not all(
            np.isfinite(replay.at_listed).all() and np.isfinite(replay.scores.entropy).all() for replay in replays
        ):
            raise ModelError(f"the reference {model.info.name} gives numbers that are not finite")
        values = _statistics(traces, replays, model)
        names = tuple(statistic.name for statistic in STATISTICS)
        return Comparison(
            fingerprint=Fingerprint(
                self.name, names, tuple(values[name] for name in names), shape=_shape(traces, replays)
            ),
            findings=choice_findings(traces, replays, reruns, model.info.precision, request.decoding),
            positions=sum(len(trace.emitted) for trace in traces),
        )

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


def _statistics(traces: Sequence[Written], replays: Sequence[Replay], model: AutoregressiveModel) -> dict[str, float]:
    tie = TIE_NATS[model.info.precision]
    full = _full(traces, replays)
    short = [(t.scores, r) for t, r in zip(traces, replays, strict=True) if isinstance(t.scores, Summary)]
    if short:
        return summary_statistics(short, tie)
    words = [model.word_index(t.emitted)[: len(s.chosen)] for t, (s, _) in zip(traces, full, strict=True)]
    return sequence_statistics(full, words, tie)


def _full(traces: Sequence[Written], replays: Sequence[Replay]) -> list[tuple[Scores, Replay]]:
    """Return the pairs that hold lists, as far as an API shows them."""
    full = [(t.scores, r) for t, r in zip(traces, replays, strict=True) if isinstance(t.scores, Scores)]
    return [shown_part(*pair) if is_listed(pair[0]) else pair for pair in full]


def _shape(traces: Sequence[Written], replays: Sequence[Replay]) -> dict[str, float]:
    full = _full(traces, replays)
    return clip_shape(full) if full else {}


def _outputs(
    model: AutoregressiveModel,
    batch: Sequence[SegmentInput],
    prompts: Sequence[tuple[int, ...]],
    written: Sequence[tuple[Sequence[int], Said]],
    *,
    taps: Taps,
    level: Level,
) -> list[SegmentOutput]:
    sketches = sketches_of(model, batch, [spoken.states for _, spoken in written], taps)
    outputs = []
    for item, prompt, (ids, spoken), sketch in zip(batch, prompts, written, sketches, strict=True):
        own = tuple(ids)
        scores = _scores(model, spoken, own, sketch)
        compact = level == "compact"
        trace = write_compact(item, prompt, own, scores, model) if compact else write_trace(prompt, scores)
        outputs.append(SegmentOutput(ids=own, text=model.detokenise(own), trace=trace))
    return outputs


def _replay(
    model: AutoregressiveModel, claimed: Written, item: SegmentInput, forced: Forced, sketch: NDArray[np.float64]
) -> Replay:
    """Score the provider's tokens, and add the values of its listed tokens and the margins."""
    import torch

    ids, decoding, listed = claimed.emitted, item.request.decoding, claimed.listed
    parts, extra = [], []
    for at, chunk in numbered(forced.chunks):
        end = at + len(chunk)
        wanted = torch.as_tensor(listed[at:end], device=chunk.device)
        logprobs = torch.log_softmax(chunk, dim=-1)
        parts.append(score_logprobs(logprobs, ids[at:end], max(1, listed.shape[1])))
        places = [(item.index, step) for step in range(at, end)]
        ruled = model.apply_rules(chunk, claimed.prompt, ids[:end], timestamps=decoding.timestamps)
        extra.append((logprobs.gather(1, wanted), choice_margins(ruled, ids[at:end], decoding, places)))
    at_listed, margins = columns(extra)
    own = sketch[: len(claimed.scores.sketch)]
    scores = _scores(model, Said(columns(parts), forced.start_logprobs, forced.states), ids, own)
    return Replay(scores=scores, at_listed=at_listed, margins=margins)


def _scores(model: AutoregressiveModel, said: Said, emitted: Sequence[int], sketch: NDArray[np.float64]) -> Scores:
    ids, logprobs, chosen, entropy = said.columns
    languages, no_speech = _start_scores(model, said.start)
    return Scores(
        ids=ids.astype(np.int64),
        logprobs=logprobs,
        chosen=chosen,
        entropy=entropy,
        ended=emitted[-1] in model.stop_ids,
        language=languages,
        no_speech=no_speech,
        sketch=sketch,
    )


def _start_scores(
    model: AutoregressiveModel, logprobs: NDArray[np.float64] | None
) -> tuple[NDArray[np.float64], float]:
    if logprobs is None:
        return np.empty(0), float("nan")
    no_speech = float("nan") if model.no_speech_id is None else float(np.exp(logprobs[model.no_speech_id]))
    return logprobs[list(model.languages.values())], no_speech


def _rerun(ids: Sequence[int], forced: Forced) -> Rerun:
    return Rerun(tuple(ids), float(said(forced, ids, 1).columns[2].mean()))
