"""What a model said of one batch: as outputs with their traces, and as the replay of what a provider says."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from earmark.fingerprint.sequence import Replay, Scores
from earmark.protocols import AutoregressiveModel, SegmentInput, SegmentOutput
from earmark.records.evidence import Level
from earmark.taps import Taps
from earmark.verifiers._autoregressive_choice import choice_margins
from earmark.verifiers._autoregressive_compact import write_compact
from earmark.verifiers._autoregressive_pass import Forced, Said, numbered, said
from earmark.verifiers._autoregressive_sketch import sketches_of
from earmark.verifiers._autoregressive_trace import Written, write_trace
from earmark.verifiers._common_batches import columns, score_logprobs
from earmark.verifiers._common_choice import Rerun


def outputs_of(
    model: AutoregressiveModel,
    batch: Sequence[SegmentInput],
    prompts: Sequence[tuple[int, ...]],
    written: Sequence[tuple[Sequence[int], Said]],
    *,
    taps: Taps,
    level: Level,
) -> list[SegmentOutput]:
    """Return ids, text and trace of each piece as it was written."""
    sketches = sketches_of(model, batch, [spoken.states for _, spoken in written], taps)
    outputs = []
    for item, prompt, (ids, spoken), sketch in zip(batch, prompts, written, sketches, strict=True):
        own = tuple(ids)
        scores = _scores(model, spoken, own, sketch)
        compact = level == "compact"
        trace = write_compact(item, prompt, own, scores, model) if compact else write_trace(prompt, scores)
        outputs.append(SegmentOutput(ids=own, text=model.detokenise(own), trace=trace))
    return outputs


def replay_of(
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


def rerun_of(ids: Sequence[int], forced: Forced) -> Rerun:
    """Return what the reference writes itself, with its mean log-probability."""
    return Rerun(tuple(ids), float(said(forced, ids, 1).columns[2].mean()))


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
