"""The autoregressive family: encoder-decoders and audio-LLMs that write one token after the other.

Recording decodes and then scores the output in one parallel pass; replay forces the provider's tokens through the
reference in the same way (teacher forcing), so that verification needs no token-by-token decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError, UsageError
from earmark.fingerprint.margins import TIE_NATS, argmax_margins
from earmark.fingerprint.sequence import STATISTICS, Replay, Scores, sequence_statistics
from earmark.fingerprint.types import Fingerprint, Statistic
from earmark.protocols import Advance, AutoregressiveModel, Comparison, SegmentInput, SegmentOutput
from earmark.records.evidence import Level, Precision, Segment
from earmark.records.policy import Policy
from earmark.records.request import Decoding, Request
from earmark.records.verdict import Finding, broken, unclear
from earmark.taps import Taps
from earmark.verifiers._autoregressive_choice import Rerun, choice_findings
from earmark.verifiers._autoregressive_decode import choose_prompts, decode, noisy
from earmark.verifiers._autoregressive_pass import Forced, columns, forced_pass, numbered, score
from earmark.verifiers._autoregressive_sketch import encoder_places, sketch_of
from earmark.verifiers._autoregressive_trace import MAX_K, Written, read_trace, write_trace

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PROVISIONAL: dict[Precision, dict[str, float]] = {
    "fp32": {
        "logprob_l1": 1e-3,
        "logprob_l1_max": 1e-2,
        "loglik_distance": 1e-3,
        "entropy_rmse": 1e-3,
        "language_distance": 1e-2,
        "no_speech_distance": 1e-2,
        "sketch_distance": 2e-3,
    },
    "fp16": {
        "logprob_l1": 2e-2,
        "logprob_l1_max": 0.3,
        "loglik_distance": 2e-2,
        "entropy_rmse": 2e-2,
        "language_distance": 0.2,
        "no_speech_distance": 0.05,
        "sketch_distance": 2e-2,
    },
    "bf16": {
        "logprob_l1": 0.15,
        "logprob_l1_max": 1.5,
        "loglik_distance": 0.15,
        "entropy_rmse": 0.15,
        "language_distance": 0.8,
        "no_speech_distance": 0.2,
        "sketch_distance": 0.15,
    },
}
"""Bounds until a profile is calibrated; measured on whisper-nano alone (docs/explanation/statistics.md)."""


class AutoregressiveFamily:
    """Teacher-forced comparison of log-probabilities, margins and entropy, token by token."""

    name: ClassVar[str] = "autoregressive"
    summary: ClassVar[str] = "teacher-forced log-probabilities, argmax margins, entropy curve"
    statistics: ClassVar[tuple[Statistic, ...]] = STATISTICS

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
        _check_k(k, model)

        def run(encoded: Any, rows: list[int], taps: Taps) -> list[SegmentOutput]:
            batch = [inputs[i] for i in rows]
            prompts = choose_prompts(model, encoded, batch)
            return _outputs(model, encoded, prompts, decode(model, encoded, prompts, batch), batch, k=k, taps=taps)

        return _batched(model, inputs, batch_size, advance, run, probed=level == "sketch")

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
        _check_k(k, model)

        def run(encoded: Any, rows: list[int], taps: Taps) -> list[SegmentOutput]:
            batch = [inputs[i] for i in rows]
            prompts = choose_prompts(model, encoded, batch)
            return _outputs(model, encoded, prompts, [outputs[i].ids for i in rows], batch, k=k, taps=taps)

        return _batched(model, inputs, batch_size, advance, run, probed=level == "sketch")

    def read(self, segment: Segment, request: Request, model: AutoregressiveModel, level: Level) -> Written:
        """Decode one trace and check every rule that needs no replay."""
        return read_trace(segment, request, model, level)

    def review(self, traces: Sequence[Written], policy: Policy) -> list[Finding]:
        """Say whether the traces hold as much as the policy asks."""
        k = min(trace.scores.ids.shape[1] for trace in traces)
        censored = float(np.mean(np.concatenate([np.isnan(t.scores.logprobs).ravel() for t in traces])))
        findings = []
        if k < policy.least_k:
            findings.append(unclear("k.low", "provider", f"k = {k}", f"at least {policy.least_k}"))
        if censored > policy.max_censored_share:
            expected = f"at most {policy.max_censored_share:.1%}"
            findings.append(broken("trace.censored", f"{censored:.1%} of the values left out", expected))
        return findings

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
            return [
                _replay(model, trace, item, forced, row=row, taps=taps)
                for row, (trace, item, forced) in enumerate(zip(claimed, batch, logits, strict=True))
            ]

        probed = any(len(trace.scores.sketch) for trace in traces)
        return _batched(model, inputs, batch_size, advance, run, probed=probed)

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

        return _batched(model, inputs, batch_size, advance, run)

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
        pairs = [(trace.scores, replay) for trace, replay in zip(traces, replays, strict=True)]
        words = [model.word_index(trace.emitted) for trace in traces]
        values = sequence_statistics(pairs, words, TIE_NATS[model.info.precision])
        names = tuple(statistic.name for statistic in STATISTICS)
        return Comparison(
            fingerprint=Fingerprint(self.name, names, tuple(values[name] for name in names)),
            findings=choice_findings(traces, replays, reruns, model.info.precision, request.decoding),
            positions=sum(len(trace.emitted) for trace in traces),
        )

    def provisional_bounds(self, precision: Precision) -> Mapping[str, float]:
        """Return the documented bounds of a precision."""
        return PROVISIONAL[precision]


def _check_k(k: int, model: AutoregressiveModel) -> None:
    largest = min(MAX_K, model.info.vocab_size)
    if not 1 <= k <= largest:
        raise UsageError(f"k = {k}; {model.info.name} lists between 1 and {largest} tokens per position")


def _batched(
    model: AutoregressiveModel,
    inputs: Sequence[SegmentInput],
    batch_size: int,
    advance: Advance,
    run: Callable[[Any, list[int], Taps], list[T]],
    *,
    probed: bool = False,
) -> list[T]:
    """Encode the pieces batch by batch, those of like length together, and return the results in order."""
    import torch

    order = sorted(range(len(inputs)), key=lambda i: len(inputs[i].samples))
    results: dict[int, T] = {}
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            batch = [inputs[i] for i in rows]
            with Taps(model.encoder_layers(), encoder_places(model, batch) if probed else []) as taps:
                encoded = model.encode([item.samples for item in batch])
            results.update(zip(rows, run(encoded, rows, taps), strict=True))
            advance(len(rows))
    return [results[i] for i in range(len(inputs))]


def _outputs(
    model: AutoregressiveModel,
    encoded: Any,
    prompts: Sequence[tuple[int, ...]],
    emitted: Sequence[Sequence[int]],
    batch: Sequence[SegmentInput],
    *,
    k: int,
    taps: Taps,
) -> list[SegmentOutput]:
    outputs = []
    for row, forced in enumerate(forced_pass(model, encoded, prompts, emitted)):
        ids = emitted[row]
        parts = [score(chunk, ids[at : at + len(chunk)], k) for at, chunk in numbered(forced.chunks)]
        sketch = sketch_of(model, batch[row], row, forced.states, taps)
        scores = _scores(model, columns(parts), ids, forced.start, sketch)
        written = Written(prompt=prompts[row], emitted=tuple(ids), scores=scores)
        outputs.append(SegmentOutput(ids=written.emitted, text=model.detokenise(ids), trace=write_trace(written)))
    return outputs


def _replay(
    model: AutoregressiveModel, claimed: Written, item: SegmentInput, forced: Forced, *, row: int, taps: Taps
) -> Replay:
    """Score the provider's tokens, and add the values of its listed tokens and the margins."""
    import torch

    ids, decoding, listed = claimed.emitted, item.request.decoding, claimed.scores.ids
    parts, extra = [], []
    for at, chunk in numbered(forced.chunks):
        end = at + len(chunk)
        wanted = torch.as_tensor(listed[at:end], device=chunk.device)
        ruled = model.apply_rules(chunk, claimed.prompt, ids[:end], timestamps=decoding.timestamps)
        parts.append(score(chunk, ids[at:end], listed.shape[1]))
        places = [(item.index, step) for step in range(at, end)]
        logprobs = torch.log_softmax(chunk, dim=-1).gather(1, wanted)
        extra.append((logprobs, _margins(ruled, ids[at:end], decoding, places)))
    at_listed, margins = columns(extra)
    sketch = sketch_of(model, item, row, forced.states, taps)[: len(claimed.scores.sketch)]
    scores = _scores(model, columns(parts), ids, forced.start, sketch)
    return Replay(scores=scores, at_listed=at_listed, margins=margins)


def _scores(
    model: AutoregressiveModel,
    columns: Sequence[NDArray[np.float64]],
    emitted: Sequence[int],
    start: torch.Tensor | None,
    sketch: NDArray[np.float64],
) -> Scores:
    ids, logprobs, chosen, entropy = columns
    languages, no_speech = _start_scores(model, start)
    return Scores(
        ids=ids.astype(np.int64),
        logprobs=logprobs,
        chosen=chosen,
        entropy=entropy,
        ended=emitted[-1] == model.end_id,
        language=languages,
        no_speech=no_speech,
        sketch=sketch,
    )


def _start_scores(model: AutoregressiveModel, logits: torch.Tensor | None) -> tuple[NDArray[np.float64], float]:
    import torch

    if logits is None:
        return np.empty(0), float("nan")
    logprobs = torch.log_softmax(logits, dim=-1).cpu().double().numpy()
    no_speech = float("nan") if model.no_speech_id is None else float(np.exp(logprobs[model.no_speech_id]))
    return logprobs[list(model.languages.values())], no_speech


def _rerun(ids: Sequence[int], forced: Forced) -> Rerun:
    parts = [score(chunk, ids[at : at + len(chunk)], 1) for at, chunk in numbered(forced.chunks)]
    return Rerun(tuple(ids), float(columns(parts)[2].mean()))


# What was chosen


def _margins(
    ruled: torch.Tensor, emitted: Sequence[int], decoding: Decoding, places: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """Return margins in nats of the untempered logits; the noise of sampling is replayed."""
    import torch

    sampled = decoding.strategy == "sample"
    scores = noisy(ruled, decoding, places) if sampled else ruled.double()
    ids = torch.as_tensor(emitted, device=scores.device)
    best = scores.max(dim=-1).values.cpu().numpy()
    own = scores.gather(1, ids[:, None])[:, 0].cpu().numpy()
    return torch.as_tensor(argmax_margins(best, own) * (decoding.temperature if sampled else 1.0))
