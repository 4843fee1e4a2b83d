"""What a frame-synchronous model says of plain text: it is turned into tokens again and forced through the lattice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from earmark.errors import ModelError, UsageError
from earmark.fingerprint.text import common_words
from earmark.limits import max_tokens
from earmark.protocols import SegmentInput, TextScores
from earmark.verifiers._common_trace import Floats
from earmark.verifiers._frames_pass import coverage

if TYPE_CHECKING:
    from earmark.lattice import LatticeScores, MarginPath

Ids = tuple[int, ...]


def check_tokeniser(model: Any) -> None:
    """Refuse a model that cannot turn text into tokens.

    Raises:
        UsageError: It has no `tokenise`.
    """
    if not hasattr(model, "tokenise"):
        raise UsageError(
            f"{model.info.name} comes without a tokenizer, so plain text cannot be scored; ask for evidence"
        )


@dataclass(frozen=True, slots=True)
class Cut:
    """A text as tokens, and the letters that no token stands for."""

    ids: Ids
    unknown: str = ""


def cut_text(text: str, own: Ids, model: Any) -> Cut:
    """Turn a text into tokens: words that the reference writes too as it writes them, others by the tokenizer.

    Args:
        text: The text of one piece.
        own: The reference's own transcript of it.
        model: The reference.
    """
    words = text.split()
    if words == model.detokenise(own).split():
        return Cut(own)
    letters = "".join(words)
    unknown = sorted(set(letters) - set(model.detokenise(model.tokenise(" ".join(words)))))
    known = [word.translate({ord(letter): None for letter in unknown}) for word in words]
    return Cut(_ids([word for word in known if word], own, model), "".join(unknown))


def _ids(words: Sequence[str], own: Ids, model: Any) -> Ids:
    index = model.word_index(own)
    if min(index, default=-1) < 0:  # tokens between words, as in models of letters: only the tokenizer places them
        return tuple(model.tokenise(" ".join(words)))
    groups = [tuple(i for i, word in zip(own, index, strict=True) if word == n) for n in range(max(index) + 1)]
    same = dict(common_words(words, [model.detokenise(group).strip() for group in groups]))
    parts = [groups[same[i]] if i in same else model.tokenise(word) for i, word in enumerate(words)]
    return tuple(i for part in parts for i in part)


def score_texts(
    model: Any,
    batch: Sequence[SegmentInput],
    texts: Sequence[str],
    own: Sequence[Ids],
    *,
    solve: Callable[[Sequence[Ids]], LatticeScores],
    margins: Callable[[int, Ids], MarginPath],
    blanks: Collection[int],
) -> list[TextScores]:
    """Force one text per piece through the reference, and its own transcript as well.

    Args:
        model: The reference.
        batch: The pieces.
        texts: A text for each.
        own: The reference's own transcript of each.
        solve: The lattice of one transcript per piece.
        margins: The path of least margin of a transcript, from the number of its piece.
        blanks: Ids that no transcript holds.

    Raises:
        ModelError: The reference cannot score its own transcript.
    """
    cuts = [cut_text(text, ids, model) for text, ids in zip(texts, own, strict=True)]
    limits = [max_tokens(len(item.samples)) for item in batch]
    given, mine = solve([cut.ids[:limit] for cut, limit in zip(cuts, limits, strict=True)]), solve(own)
    results = []
    for row, (item, cut) in enumerate(zip(batch, cuts, strict=True)):
        if mine.errors[row] is not None:
            raise ModelError(f"the reference {model.info.name} cannot score its own transcript: {mine.errors[row]}")
        fits = given.errors[row] is None and len(cut.ids) <= limits[row]
        count = max(1, len(cut.ids))
        spans = [_bare(scores, row, item, blanks) for scores in (given, mine)]
        results.append(
            TextScores(
                own_text=model.detokenise(own[row]),
                likelihood=float(given.log_likelihood[row]) if fits else -np.inf,
                own_likelihood=float(mine.log_likelihood[row]),
                positions=len(cut.ids),
                margins=tuple(_margins(margins, row, cut.ids, own[row], fits=fits).tolist()),
                stop_margin=float("nan"),
                mean_logprobs=(float(given.log_likelihood[row]) / count, float(given.viterbi_score[row]) / count),
                uncovered_gap=max(0.0, spans[0] - spans[1]) if fits else float("nan"),
                unknown=cut.unknown,
            )
        )
    return results


def _margins(find: Callable[[int, Ids], MarginPath], row: int, ids: Ids, own: Ids, *, fits: bool) -> Floats:
    """Return the larger margin, of symbol or duration, of every step; the reference's own choices have none."""
    if not fits:
        return np.array([np.inf])
    if ids == own:
        return np.zeros(max(1, len(ids)))
    path = find(row, ids)
    return np.maximum(path.margins, path.duration_margins) if path.duration_margins.size else path.margins


def _bare(scores: LatticeScores, row: int, item: SegmentInput, blanks: Collection[int]) -> float:
    """Return the longest stretch of loud audio without a token on the best alignment, in seconds."""
    path = scores.paths[row]
    spoken = path[~np.isin(path[:, 2], list(blanks))].astype(np.int64)
    return coverage(item, scores.token_occupancy.shape[1], spoken[:, 0], spoken[:, 3])[1]
