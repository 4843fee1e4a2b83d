"""What an autoregressive model says of plain text: the text is turned into tokens again and forced through it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.protocols import AutoregressiveModel, SegmentInput, TextScores
from earmark.verifiers._autoregressive_choice import choice_margins
from earmark.verifiers._autoregressive_decode import choose_prompts, decode
from earmark.verifiers._autoregressive_pass import Forced, forced_pass, numbered
from earmark.verifiers._autoregressive_trace import token_limit

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Token:
    """Log-probability of each token as the model says it and after its rules, and margins, (positions,) each."""

    raw: Floats
    ruled: Floats
    margins: Floats


def score_texts(
    model: AutoregressiveModel, encoded: Any, batch: Sequence[SegmentInput], texts: Sequence[str]
) -> list[TextScores]:
    """Force one text per piece through the model, and its own transcript as well."""
    prompts = choose_prompts(model, encoded, batch)
    own = [tuple(ids) for ids in decode(model, encoded, prompts, batch)]
    written = [model.detokenise(ids) for ids in own]
    limits = [token_limit(model, prompt, len(item.samples)) for prompt, item in zip(prompts, batch, strict=True)]
    # the same text is the same tokens: cutting it again might find other ones
    given = [
        ids if text.strip() == mine.strip() else (*model.tokenise(text), model.end_id)
        for text, ids, mine in zip(texts, own, written, strict=True)
    ]
    cut = [ids[:limit] for ids, limit in zip(given, limits, strict=True)]
    scored, mine = (_tokens(model, encoded, batch, prompts, ids) for ids in (cut, own))
    results = []
    for row, item in enumerate(batch):
        searched, too_long = item.request.decoding.strategy == "beam", len(given[row]) > limits[row]
        margins = np.append(scored[row].margins, np.inf) if too_long else scored[row].margins
        results.append(
            TextScores(
                own_text=written[row],
                likelihood=-np.inf if too_long else float(scored[row].raw.sum()),
                own_likelihood=float(mine[row].raw.sum()),
                positions=len(given[row]),
                margins=() if searched else tuple(margins.tolist()),
                stop_margin=float(margins[-1]),
                mean_logprobs=(float(scored[row].raw.mean()), float(scored[row].ruled.mean())),
            )
        )
    return results


def _tokens(
    model: AutoregressiveModel,
    encoded: Any,
    batch: Sequence[SegmentInput],
    prompts: Sequence[tuple[int, ...]],
    emitted: Sequence[tuple[int, ...]],
) -> list[_Token]:
    forced = forced_pass(model, encoded, prompts, emitted)
    return [
        _piece(model, item, prompt, ids, piece)
        for item, prompt, ids, piece in zip(batch, prompts, emitted, forced, strict=True)
    ]


def _piece(
    model: AutoregressiveModel, item: SegmentInput, prompt: tuple[int, ...], ids: tuple[int, ...], forced: Forced
) -> _Token:
    import torch

    decoding, parts = item.request.decoding, []
    for at, chunk in numbered(forced.chunks):
        end = at + len(chunk)
        ruled = model.apply_rules(chunk, prompt, ids[:end], timestamps=decoding.timestamps)
        places = [(item.index, step) for step in range(at, end)]
        margins = choice_margins(ruled, ids[at:end], decoding, places)
        parts.append((_of(chunk, ids[at:end]), _of(ruled, ids[at:end]), margins))
    columns = [torch.cat(column).cpu().double().numpy() for column in zip(*parts, strict=True)]
    return _Token(*columns)


def _of(logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    import torch

    chosen = torch.as_tensor(ids, device=logits.device)[:, None]
    return torch.log_softmax(logits, dim=-1).gather(1, chosen)[:, 0]
