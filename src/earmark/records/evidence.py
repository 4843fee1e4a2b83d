"""The evidence: what a provider says its model did, in numbers that only that model would have produced."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Annotated, ClassVar, Literal

import msgspec

from earmark.errors import RecordError
from earmark.features import FeatureParameters
from earmark.records import codec, varint
from earmark.records.codec import Count, Digest, Name, Record, Text
from earmark.records.receipt import Receipt
from earmark.records.request import Decoding, Request

Level = Literal["text", "listed", "scores", "sketch", "compact"]
Precision = Literal["fp32", "fp16", "bf16"]

TokenId = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
RawDigest = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]


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

    At the level `compact` it is written, sent and committed to in the form of `Compact`.

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

    def compact(self) -> Compact:
        """Return the compact form: what follows from the request and the verifier's reference is left out."""
        claim = self.claim
        return Compact(
            request_digest=bytes.fromhex(self.request_digest),
            model=claim.model,
            family=claim.family,
            weights=bytes.fromhex(claim.weights),
            precision=claim.precision,
            features=features_digest(claim.features),
            engine=claim.engine,
            segments=tuple(Piece(ids=varint.pack(s.ids), trace=s.trace) for s in self.segments),
        )

    def to_msgpack(self) -> bytes:
        """Return the record as MessagePack; in the compact form at that level."""
        return self.compact().to_msgpack() if self.level == "compact" else super().to_msgpack()

    def to_json(self) -> str:
        """Return the record as indented JSON; in the compact form at that level."""
        return self.compact().to_json() if self.level == "compact" else super().to_json()

    def digest(self) -> str:
        """Return the SHA-256 (64 hex digits) of the form that is sent."""
        return self.compact().digest() if self.level == "compact" else super().digest()


class Piece(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """One segment in the compact form: token ids as LEB128, and the trace."""

    ids: Annotated[bytes, msgspec.Meta(max_length=65_536)]
    trace: Annotated[bytes, msgspec.Meta(max_length=65_536)]


class Compact(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, array_like=True):
    """Evidence without anything that the verifier knows anyway: an array in place of a map, digests as raw bytes.

    Text, boundaries, feature parameters and decoding follow from the request and the reference; the digests of the
    request and of the parameters bind them.

    Attributes:
        request_digest: Digest of the request, 32 bytes.
        model: Name of the model; for people.
        family: Architecture family.
        weights: Digest of the checkpoint's tensors, 32 bytes.
        precision: Arithmetic of the weights and activations.
        features: Digest of the feature parameters, 32 bytes.
        engine: Software that ran the model.
        segments: In order.
    """

    FORMAT: ClassVar[str] = "earmark.compact/1"

    format: Literal["earmark.compact/1"] = "earmark.compact/1"
    request_digest: RawDigest
    model: Name
    family: Name
    weights: RawDigest
    precision: Precision
    features: RawDigest
    engine: Name
    segments: Annotated[tuple[Piece, ...], msgspec.Meta(min_length=1, max_length=100_000)]

    def expand(
        self,
        request: Request,
        features: FeatureParameters,
        pieces: Sequence[tuple[int, int]],
        detokenise: Callable[[Sequence[int]], str],
    ) -> Evidence:
        """Return the evidence, with what was left out put back; its digest is the same.

        Args:
            request: The request that the digest names.
            features: Feature parameters of the reference.
            pieces: Boundaries of the segments in samples, (start, end) each.
            detokenise: From ids to their text.

        Returns:
            Evidence of level `compact`.

        Raises:
            RecordError: The digests are those of another request or other parameters, the number of segments differs,
                or the ids are not well formed.
        """
        if self.request_digest.hex() != request.digest():
            found = f"{self.request_digest.hex()[:12]}...; the request is {request.digest()[:12]}..."
            raise RecordError(f"evidence of request {found}", code="request.mismatch")
        if self.features != features_digest(features):
            raise RecordError("other feature parameters than the reference's", code="features.mismatch")
        if len(self.segments) != len(pieces):
            raise RecordError(f"{len(self.segments)} segments; expected {len(pieces)}", code="segments.mismatch")
        ids = [varint.unpack(piece.ids) for piece in self.segments]
        texts = [detokenise(some) for some in ids]
        return Evidence(
            level="compact",
            request_digest=request.digest(),
            claim=Claim(
                model=self.model,
                family=self.family,
                weights=self.weights.hex(),
                precision=self.precision,
                decoding=request.decoding,
                features=features,
                engine=self.engine,
            ),
            text=join_texts(texts),
            segments=tuple(
                Segment(start=start, end=end, text=text, ids=own, trace=piece.trace)
                for (start, end), text, own, piece in zip(pieces, texts, ids, self.segments, strict=True)
            ),
        )


def features_digest(features: FeatureParameters) -> bytes:
    """Return the SHA-256 of feature parameters."""
    return hashlib.sha256(b"earmark/features\0" + msgspec.msgpack.encode(features)).digest()


def load_evidence(source: bytes | str | os.PathLike[str]) -> Evidence | Compact:
    """Read evidence in either form from bytes or a file.

    Raises:
        RecordError: The content is not well formed.
        UsageError: There is no such file.
    """
    data = source if isinstance(source, bytes) else codec.read_bytes(source)
    return codec.decode(data, Compact) if codec.is_array(data) else codec.decode(data, Evidence)


def join_texts(texts: list[str]) -> str:
    """Join the texts of the segments into the transcript.

    Example:
        >>> join_texts([" one two", "", "three"])
        'one two three'
    """
    return " ".join(text.strip() for text in texts if text.strip())
