"""The autoregressive family: encoder-decoders and audio-LLMs that write one token after the other.

Recording decodes and then scores the output in one parallel pass; replay forces the provider's tokens through the
reference in the same way (teacher forcing), so that verification needs no token-by-token decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from earmark.errors import ModelError, UsageError
from earmark.fingerprint.margins import TIE_NATS, argmax_margins
from earmark.fingerprint.sequence import STATISTICS, Replay, Scores, sequence_statistics
from earmark.fingerprint.types import Fingerprint, Statistic
from earmark.noise import gumbel_noise
from earmark.protocols import Advance, AutoregressiveModel, Comparison, SegmentInput, SegmentOutput
from earmark.records.evidence import Level, Precision, Segment
from earmark.records.policy import Policy
from earmark.records.request import Decoding, Request
from earmark.records.verdict import Finding, broken, unclear
from earmark.taps import Taps
from earmark.verifiers._autoregressive_choice import Rerun, choice_findings
from earmark.verifiers._autoregressive_sketch import encoder_places, sketch_of
from earmark.verifiers._autoregressive_trace import MAX_K, Written, read_trace, token_limit, write_trace

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

ROWS_AT_ONCE = 128
"""Positions projected to the vocabulary at once: bounds the memory of the logits."""

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
            prompts = _prompts(model, encoded, batch)
            return _outputs(model, encoded, prompts, _decode(model, encoded, prompts, batch), batch, k=k, taps=taps)

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
            prompts = _prompts(model, encoded, batch)
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
            logits = _forced(model, encoded, [t.prompt for t in claimed], [t.emitted for t in claimed])
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
            emitted = _decode(model, encoded, prompts, [inputs[i] for i in rows])
            forced = _forced(model, encoded, prompts, emitted)
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


# Decoding


def _prompts(model: AutoregressiveModel, encoded: Any, batch: Sequence[SegmentInput]) -> list[tuple[int, ...]]:
    """Return the prompt of each piece; the language is detected where the request leaves it open."""
    languages = list(model.languages)
    first = languages[0] if languages else None
    prompts = [model.prompt_ids(item.request, item.request.language or first) for item in batch]
    unknown = [item.request.language is None for item in batch]
    if not languages or not any(unknown):
        return prompts
    ids = list(model.languages.values())
    for row, forced in enumerate(_forced(model, encoded, prompts, [()] * len(batch))):
        if unknown[row] and forced.start is not None:
            language = languages[int(forced.start[ids].argmax())]
            prompts[row] = model.prompt_ids(batch[row].request, language)
    return prompts


def _decode(
    model: AutoregressiveModel,
    encoded: Any,
    prompts: Sequence[tuple[int, ...]],
    batch: Sequence[SegmentInput],
) -> list[list[int]]:
    """Decode as the requests say; rows with prompts of one length and one decoding go together."""
    groups: dict[Any, list[int]] = {}
    for row, item in enumerate(batch):
        decoding = item.request.decoding
        # a beam's limit of length changes its choice, so beams do not share one
        alone = row if decoding.strategy == "beam" else None
        groups.setdefault((len(prompts[row]), decoding, alone), []).append(row)
    emitted: list[list[int]] = [[] for _ in batch]
    for (begin, decoding, _), rows in groups.items():
        limits = [token_limit(model, prompts[row], len(batch[row].samples)) for row in rows]
        decoded = model.generate(
            encoded,
            rows,
            [prompts[row] for row in rows],
            max_new_tokens=max(limits),
            beams=decoding.beams,
            processor=_StepRules(model, begin, decoding, [batch[row].index for row in rows]),
        )
        for row, ids, limit in zip(rows, decoded, limits, strict=True):
            emitted[row] = ids[:limit]
    return emitted


class _StepRules:
    """Applies the model's rules, and the noise of sampling, to the scores of one decoding step."""

    def __init__(self, model: AutoregressiveModel, begin: int, decoding: Decoding, segments: Sequence[int]) -> None:
        self.rules = model.step_rules(begin, timestamps=decoding.timestamps)
        self.begin, self.decoding, self.segments = begin, decoding, segments

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = self.rules(input_ids, scores)
        if self.decoding.strategy != "sample":
            return scores
        step = input_ids.shape[1] - self.begin
        return _noisy(scores, self.decoding, [(segment, step) for segment in self.segments])


def _noisy(scores: torch.Tensor, decoding: Decoding, places: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return scores / temperature with the noise of each row's (segment, step) added, in float64."""
    import torch

    noise = np.stack([gumbel_noise(decoding.seed, *place, scores.shape[1]) for place in places])
    return scores.double() / decoding.temperature + torch.as_tensor(noise, device=scores.device)


# One parallel pass


@dataclass(frozen=True, slots=True)
class _Forced:
    """One piece: logits in chunks with a row per emitted token, the row at the start token, the hidden states."""

    chunks: Iterator[torch.Tensor]
    start: torch.Tensor | None
    states: torch.Tensor


def _forced(
    model: AutoregressiveModel,
    encoded: Any,
    prompts: Sequence[Sequence[int]],
    emitted: Sequence[Sequence[int]],
) -> Iterator[_Forced]:
    """Force a padded batch through the decoder in one pass and yield the logits of each piece in float32."""
    import torch

    # the last token predicts nothing, so it is not fed; attention is causal, so padding on the right is inert
    fed = [[*prompt, *ids[:-1]] for prompt, ids in zip(prompts, emitted, strict=True)]
    ids = torch.full((len(fed), max(map(len, fed))), model.end_id)
    for row, sequence in enumerate(fed):
        ids[row, : len(sequence)] = torch.as_tensor(sequence)
    states = model.forced_states(encoded, ids.to(model.info.device))
    for row, prompt in enumerate(prompts):
        first, at = len(prompt) - 1, model.start_position(prompt)
        start = None if at is None else model.project(states[row, at : at + 1])[0].float()
        own = states[row, first : first + len(emitted[row])]
        yield _Forced((model.project(chunk).float() for chunk in torch.split(own, ROWS_AT_ONCE)), start, own)


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
    for row, forced in enumerate(_forced(model, encoded, prompts, emitted)):
        ids = emitted[row]
        parts = [_score(chunk, ids[at : at + len(chunk)], k) for at, chunk in _numbered(forced.chunks)]
        sketch = sketch_of(model, batch[row], row, forced.states, taps)
        scores = _scores(model, _columns(parts), ids, forced.start, sketch)
        written = Written(prompt=prompts[row], emitted=tuple(ids), scores=scores)
        outputs.append(SegmentOutput(ids=written.emitted, text=model.detokenise(ids), trace=write_trace(written)))
    return outputs


def _replay(
    model: AutoregressiveModel, claimed: Written, item: SegmentInput, forced: _Forced, *, row: int, taps: Taps
) -> Replay:
    """Score the provider's tokens, and add the values of its listed tokens and the margins."""
    import torch

    ids, decoding, listed = claimed.emitted, item.request.decoding, claimed.scores.ids
    parts, extra = [], []
    for at, chunk in _numbered(forced.chunks):
        end = at + len(chunk)
        wanted = torch.as_tensor(listed[at:end], device=chunk.device)
        ruled = model.apply_rules(chunk, claimed.prompt, ids[:end], timestamps=decoding.timestamps)
        parts.append(_score(chunk, ids[at:end], listed.shape[1]))
        places = [(item.index, step) for step in range(at, end)]
        logprobs = torch.log_softmax(chunk, dim=-1).gather(1, wanted)
        extra.append((logprobs, _margins(ruled, ids[at:end], decoding, places)))
    at_listed, margins = _columns(extra)
    sketch = sketch_of(model, item, row, forced.states, taps)[: len(claimed.scores.sketch)]
    scores = _scores(model, _columns(parts), ids, forced.start, sketch)
    return Replay(scores=scores, at_listed=at_listed, margins=margins)


def _numbered(chunks: Iterator[torch.Tensor]) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield each chunk with the position of its first row."""
    at = 0
    for chunk in chunks:
        yield at, chunk
        at += len(chunk)


def _score(logits: torch.Tensor, emitted: Sequence[int], k: int) -> tuple[torch.Tensor, ...]:
    """Return ids and log-probabilities of the k best, that of the emitted token, and the entropy of each row."""
    import torch

    logprobs = torch.log_softmax(logits, dim=-1)
    top = logprobs.topk(k, dim=-1)
    ids = torch.as_tensor(emitted, device=logits.device)
    entropy = -(logprobs.exp() * logprobs).sum(dim=-1)
    return top.indices, top.values, logprobs.gather(1, ids[:, None])[:, 0], entropy


def _columns(parts: Sequence[tuple[torch.Tensor, ...]]) -> list[NDArray[np.float64]]:
    """Join the chunks of each quantity."""
    import torch

    return [torch.cat(column).cpu().double().numpy() for column in zip(*parts, strict=True)]


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


def _rerun(ids: Sequence[int], forced: _Forced) -> Rerun:
    parts = [_score(chunk, ids[at : at + len(chunk)], 1) for at, chunk in _numbered(forced.chunks)]
    return Rerun(tuple(ids), float(_columns(parts)[2].mean()))


# What was chosen


def _margins(
    ruled: torch.Tensor, emitted: Sequence[int], decoding: Decoding, places: Sequence[tuple[int, int]]
) -> torch.Tensor:
    """Return margins in nats of the untempered logits; the noise of sampling is replayed."""
    import torch

    sampled = decoding.strategy == "sample"
    scores = _noisy(ruled, decoding, places) if sampled else ruled.double()
    ids = torch.as_tensor(emitted, device=scores.device)
    best = scores.max(dim=-1).values.cpu().numpy()
    own = scores.gather(1, ids[:, None])[:, 0].cpu().numpy()
    return torch.as_tensor(argmax_margins(best, own) * (decoding.temperature if sampled else 1.0))
