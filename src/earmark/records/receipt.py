"""The receipt: the short commitment that goes out with every transcript."""

from __future__ import annotations

from typing import ClassVar, Literal

from earmark.records.codec import Digest, Record


class Receipt(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Commits a provider to one evidence before it knows whether anyone will ask for it.

    Attributes:
        commitment: Digest of the whole evidence, which holds request digest, claim, ids and traces.

    Example:
        >>> Receipt(commitment="ab" * 32).format
        'earmark.receipt/1'
    """

    FORMAT: ClassVar[str] = "earmark.receipt/1"

    format: Literal["earmark.receipt/1"] = "earmark.receipt/1"
    commitment: Digest
