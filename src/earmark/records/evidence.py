"""The evidence: what a provider says its model did, in numbers that only that model would have produced."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec

from earmark.features import FeatureParameters
from earmark.records.codec import Count, Digest, Name, Record, Text
from earmark.records.receipt import Receipt
from earmark.records.request import Decoding, Request

Level = Literal["text", "scores", "sketch", "compact"]
Precision = Literal["fp32", "fp16", "bf16"]

TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]


class Claim(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which model the provider says it ran.

    Attributes:
        model: Name of the model; for people, never used to load anything.
        family: Architecture family, which decodes the traces.
        weights: Digest of the checkpoint's tensors (`earmark.models`).
        precision: Arithmetic of the weights and activations.
        decoding: How tokens were chosen; must be what the request asked.
        features: Parameters of the acoustic features.
        engine: Software that ran the model, for instance `transformers 5.23.0`.
    """

    model: Name
    family: Name
    weights: Digest
    precision: Precision
    decoding: Decoding
    features: FeatureParameters
    engine: Name


class Segment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One piece of the audio and what was made of it.

    Attributes:
        start: First sample at 16 kHz.
        end: One past the last sample.
        text: Detokenised `ids`.
        ids: Token ids that the model emitted, the end token included where it was reached.
        trace: The family's own record of what the model said meanwhile, as raw bytes.
    """

    start: Count
    end: Count
    text: Text
    ids: Annotated[tuple[TokenId, ...], msgspec.Meta(max_length=100_000)]
    trace: Annotated[bytes, msgspec.Meta(max_length=32 * 1024 * 1024)]


class Evidence(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A transcript with the numbers behind it.

    Attributes:
        level: How much the traces hold.
        request_digest: Digest of the request that is answered.
        request: The request itself, or None where the verifier has it anyway.
        claim: What the provider says it ran.
        text: Texts of all segments, joined by one space where both sides have text.
        segments: In order, without gap or overlap.
    """

    FORMAT: ClassVar[str] = "earmark.evidence/1"

    format: Literal["earmark.evidence/1"] = "earmark.evidence/1"
    level: Level
    request_digest: Digest
    request: Request | None = None
    claim: Claim
    text: Text
    segments: Annotated[tuple[Segment, ...], msgspec.Meta(min_length=1, max_length=100_000)]

    @property
    def receipt(self) -> Receipt:
        """The receipt that a provider hands out with the transcript."""
        return Receipt(commitment=self.digest())


def join_texts(texts: list[str]) -> str:
    """Join the texts of the segments into the transcript.

    Example:
        >>> join_texts([" one two", "", "three"])
        'one two three'
    """
    return " ".join(text.strip() for text in texts if text.strip())
