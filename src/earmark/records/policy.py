"""The policy: what a verifier accepts."""

from __future__ import annotations

import os
import tomllib
from typing import Annotated, ClassVar, Literal

import msgspec

from earmark.errors import RecordError
from earmark.limits import MOST_K
from earmark.records import codec
from earmark.records.codec import Digest, Record
from earmark.records.evidence import Level, Precision

LEVELS: tuple[Level, ...] = ("text", "listed", "scores", "sketch")
"""Levels of evidence from the least to the most (`listed` is what an API shows); `compact` stands beside them, as it
shows less of the scores and more of the hidden states than `scores`."""


class Policy(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a verifier accepts; everything a provider could choose to its advantage is decided here.

    Attributes:
        weights: Accepted digests of weights; empty means the reference's own alone.
        precisions: Accepted precisions; empty means the reference's own alone.
        least_level: The least level of evidence that is not compact.
        accept_compact: Whether compact evidence is accepted.
        least_k: The least number of candidates per position.
        require_receipt: Whether evidence without a receipt is INCONCLUSIVE.
        accept_prompts: Whether a prompt may come from the evidence when the verifier holds no request.
        max_censored_share: Largest share of entries whose value the provider may leave out.
        min_positions: Least number of compared positions in a clip.

    Example:
        >>> Policy().least_k
        5
    """

    FORMAT: ClassVar[str] = "earmark.policy/2"

    format: Literal["earmark.policy/2"] = "earmark.policy/2"
    weights: tuple[Digest, ...] = ()
    precisions: tuple[Precision, ...] = ()
    least_level: Literal["text", "listed", "scores", "sketch"] = "scores"
    accept_compact: bool = False
    least_k: Annotated[int, msgspec.Meta(ge=1, le=MOST_K)] = 5
    require_receipt: bool = False
    accept_prompts: bool = False
    max_censored_share: Annotated[float, msgspec.Meta(ge=0.0, le=0.5)] = 0.02
    min_positions: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 2

    def accepts(self, level: Level) -> bool:
        """Say whether evidence of a level is accepted.

        Example:
            >>> [level for level in ("listed", "scores", "sketch", "compact") if Policy().accepts(level)]
            ['scores', 'sketch']
        """
        return self.accept_compact if level == "compact" else LEVELS.index(level) >= LEVELS.index(self.least_level)

    def at_level(self, level: Level) -> Policy:
        """Return the policy of an audit of one level: less is not accepted, nor compact evidence beside another level.

        Example:
            >>> policy = Policy(accept_compact=True).at_level("sketch")
            >>> policy.accepts("scores"), policy.accepts("sketch"), policy.accepts("compact")
            (False, True, False)
        """
        if level == "compact":
            return self
        least = level if self.accepts(level) else self.least_level
        return msgspec.structs.replace(self, least_level=least, accept_compact=False)


STRICT = Policy(require_receipt=True, least_k=8, max_censored_share=0.0, min_positions=4)
"""For auditing strangers: a receipt with every transcript, full lists, nothing left out."""

LISTED = Policy(least_level="listed")
"""For providers of an API, who give no evidence of ours: their own lists do (`earmark.interop`)."""


def load_policy(path: str | os.PathLike[str]) -> Policy:
    """Read a policy: `strict`, `listed`, or a file as TOML (by its suffix), JSON or MessagePack.

    Args:
        path: The file, or the word `strict` or `listed`.

    Returns:
        The policy, checked as strictly as every record.

    Raises:
        RecordError: The file is not well formed.
        UsageError: There is no such file.

    Example:
        >>> load_policy("strict").require_receipt
        True
    """
    named = {"strict": STRICT, "listed": LISTED}.get(os.fspath(path))
    if named is not None:
        return named
    data = codec.read_bytes(path)
    if not os.fspath(path).endswith(".toml"):
        return codec.decode(data, Policy)
    try:
        return msgspec.convert(tomllib.loads(data.decode()), Policy)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is no policy: {' '.join(str(error).split())[:300]}") from error
