"""Decoding as a request says: prompts, the model's rules, the noise of sampling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark.noise import gumbel_noise
from earmark.protocols import AutoregressiveModel, SegmentInput
from earmark.records.request import Decoding
from earmark.verifiers._autoregressive_pass import forced_pass
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
            processor=StepRules(model, begin, decoding, [batch[row].index for row in rows]),
        )
        for row, ids, limit in zip(rows, decoded, limits, strict=True):
            emitted[row] = ids[:limit]
    return emitted


class StepRules:
    """Applies the model's rules, and the noise of sampling, to the scores of one decoding step."""

    def __init__(self, model: AutoregressiveModel, begin: int, decoding: Decoding, segments: Sequence[int]) -> None:
        self.rules = model.step_rules(begin, timestamps=decoding.timestamps)
        self.begin, self.decoding, self.segments = begin, decoding, segments

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
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
