"""Decoding as a request says: prompts, the model's rules, the noise of sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark.noise import gumbel_noise
from earmark.protocols import AutoregressiveModel, SegmentInput
from earmark.records.request import Decoding
from earmark.verifiers._autoregressive_pass import Said, forced_pass, said
from earmark.verifiers._autoregressive_steps import Watch
from earmark.verifiers._autoregressive_trace import token_limit

if TYPE_CHECKING:
    import torch


def choose_prompts(model: AutoregressiveModel, encoded: Any, batch: Sequence[SegmentInput]) -> list[tuple[int, ...]]:
    """Return the prompt of each piece; the language is detected where the request leaves it open."""
    languages = list(model.languages)
    first = languages[0] if languages else None
    prompts = [model.prompt_ids(item.request, item.request.language or first) for item in batch]
    unknown = [item.request.language is None for item in batch]
    if not languages or not any(unknown):
        return prompts
    ids = list(model.languages.values())
    for row, forced in enumerate(forced_pass(model, encoded, prompts, [()] * len(batch))):
        if unknown[row] and forced.start is not None:
            language = languages[int(forced.start[ids].argmax())]
            prompts[row] = model.prompt_ids(batch[row].request, language)
    return prompts


def decode(
    model: AutoregressiveModel,
    encoded: Any,
    prompts: Sequence[tuple[int, ...]],
    batch: Sequence[SegmentInput],
) -> list[list[int]]:
    """Decode as the requests say."""
    emitted: list[list[int]] = [[] for _ in batch]
    for rows in _groups(prompts, batch):
        for row, ids in zip(rows, _generate(model, encoded, prompts, batch, rows=rows), strict=True):
            emitted[row] = ids
    return emitted


def write(
    model: AutoregressiveModel,
    encoded: Any,
    prompts: Sequence[tuple[int, ...]],
    batch: Sequence[SegmentInput],
    *,
    k: int,
    states: bool,
) -> list[tuple[list[int], Said]]:
    """Decode as the requests say, and return with the ids what the model said meanwhile.

    A beam changes its mind, so that what was said about the tokens it settles on is computed in a forced pass.
    """
    emitted: list[list[int]] = [[] for _ in batch]
    results: dict[int, Said] = {}
    for rows in _groups(prompts, batch):
        with Watch(model, [prompts[row] for row in rows], k=k, states=states) as watch:
            searched = batch[rows[0]].request.decoding.strategy == "beam"
            decoded = _generate(model, encoded, prompts, batch, rows=rows, watch=None if searched else watch)
        for row, ids in zip(rows, decoded, strict=True):
            emitted[row] = ids
        if not searched:
            results.update(zip(rows, watch.said(decoded), strict=True))
    if len(results) < len(batch):
        for row, forced in enumerate(forced_pass(model, encoded, prompts, emitted)):
            results.setdefault(row, said(forced, emitted[row], k))
    return [(ids, results[row]) for row, ids in enumerate(emitted)]


def _groups(prompts: Sequence[tuple[int, ...]], batch: Sequence[SegmentInput]) -> list[list[int]]:
    """Return the rows that are decoded together: those with prompts of one length and one decoding."""
    groups: dict[Any, list[int]] = {}
    for row, item in enumerate(batch):
        decoding = item.request.decoding
        # a beam's limit of length changes its choice, so beams do not share one
        alone = row if decoding.strategy == "beam" else None
        groups.setdefault((len(prompts[row]), decoding, alone), []).append(row)
    return list(groups.values())


def _generate(
    model: AutoregressiveModel,
    encoded: Any,
    prompts: Sequence[tuple[int, ...]],
    batch: Sequence[SegmentInput],
    *,
    rows: Sequence[int],
    watch: Watch | None = None,
) -> list[list[int]]:
    """Decode the rows of one group."""
    own, decoding = [prompts[row] for row in rows], batch[rows[0]].request.decoding
    limits = [token_limit(model, prompts[row], len(batch[row].samples)) for row in rows]
    decoded = model.generate(
        encoded,
        rows,
        own,
        max_new_tokens=max(limits),
        beams=decoding.beams,
        processor=StepRules(model, len(own[0]), decoding, [batch[row].index for row in rows], watch),
    )
    return [ids[:limit] for ids, limit in zip(decoded, limits, strict=True)]


class StepRules:
    """Applies the model's rules, and the noise of sampling, to the scores of one decoding step."""

    def __init__(
        self,
        model: AutoregressiveModel,
        begin: int,
        decoding: Decoding,
        segments: Sequence[int],
        watch: Watch | None = None,
    ) -> None:
        self.watch = watch
        self.rules = model.step_rules(begin, timestamps=decoding.timestamps)
        self.begin, self.decoding, self.segments = begin, decoding, segments

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if self.watch is not None:
            self.watch.step(input_ids, scores)
        scores = self.rules(input_ids, scores)
        if self.decoding.strategy != "sample":
            return scores
        step = input_ids.shape[1] - self.begin
        return noisy(scores, self.decoding, [(segment, step) for segment in self.segments])


def noisy(scores: torch.Tensor, decoding: Decoding, places: Sequence[tuple[int, int]]) -> torch.Tensor:
    """Return scores / temperature with the noise of each row's (segment, step) added, in float64."""
    import torch

    noise = np.stack([gumbel_noise(decoding.seed, *place, scores.shape[1]) for place in places])
    return scores.double() / decoding.temperature + torch.as_tensor(noise, device=scores.device)
