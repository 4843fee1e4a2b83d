"""What the compact traces of all families share: the digest of everything that they leave out."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
import numpy as np

from earmark.protocols import SegmentInput

EXACT_BYTES = 16

ExactDigest = Annotated[bytes, msgspec.Meta(min_length=EXACT_BYTES, max_length=EXACT_BYTES)]
Float32 = Annotated[bytes, msgspec.Meta(min_length=4, max_length=4)]


def exact_digest(item: SegmentInput, ids: tuple[int, ...], trace: bytes) -> bytes:
    """Return the digest of everything that a full trace of level `sketch` says, bound to the request's nonce."""
    head = b"earmark/exact/1\0" + bytes.fromhex(item.request.nonce) + item.index.to_bytes(4, "little")
    return hashlib.sha256(head + np.asarray(ids, "<i4").tobytes() + trace).digest()[:EXACT_BYTES]
