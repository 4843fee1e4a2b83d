"""The receipt: the short commitment that goes out with every transcript, alone or in a batch."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import msgspec

from earmark.errors import RecordError, UsageError
from earmark.records.codec import Count, Digest, Record

TOKEN_PREFIX = "er1-"  # noqa: S105 - the name of a format, no secret
MAX_PROOF = 64
"""Levels of a Merkle tree; 2^64 receipts are more than anyone hands out."""


class Inclusion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Proof that one commitment stands in a batch.

    Attributes:
        root: Root of the batch's Merkle tree, which is what the provider handed out.
        index: Number of the commitment in the batch.
        size: Number of commitments in the batch.
        path: Sibling digests from the leaf to the root.
    """

    root: Digest
    index: Count
    size: Count
    path: Annotated[tuple[Digest, ...], msgspec.Meta(max_length=MAX_PROOF)]


class Receipt(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Commits a provider to one evidence before it knows whether anyone will ask for it.

    Attributes:
        commitment: Digest of the whole evidence, which holds request digest, claim, ids and traces.
        inclusion: Where the receipt stands in a batch, or None for a receipt of its own.

    Example:
        >>> receipt = Receipt(commitment="ab" * 32)
        >>> receipt.token, len(receipt.token)
        ('er1-q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s', 47)
    """

    FORMAT: ClassVar[str] = "earmark.receipt/1"

    format: Literal["earmark.receipt/1"] = "earmark.receipt/1"
    commitment: Digest
    inclusion: Inclusion | None = None

    @property
    def token(self) -> str:
        """The receipt in 47 characters, for a header or a database column."""
        return TOKEN_PREFIX + base64.urlsafe_b64encode(bytes.fromhex(self.commitment)).decode().rstrip("=")

    @classmethod
    def from_token(cls, token: str) -> Receipt:
        """Read the short form.

        Raises:
            RecordError: It is no receipt.

        Example:
            >>> Receipt.from_token(Receipt(commitment="ab" * 32).token).commitment == "ab" * 32
            True
        """
        body = token.strip().removeprefix(TOKEN_PREFIX)
        try:
            raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        if len(raw) != 32 or cls(commitment=raw.hex()).token != token.strip():
            raise RecordError(f"{token[:60]!r} is no receipt; expected {TOKEN_PREFIX} and 43 characters")
        return cls(commitment=raw.hex())

    def holds(self) -> bool:
        """Tell whether the receipt agrees with the root of its batch; one of its own always does."""
        return self.inclusion is None or _included(self.commitment, self.inclusion)


def _leaf(commitment: str) -> bytes:
    return hashlib.sha256(b"\0" + bytes.fromhex(commitment)).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def batch(commitments: Sequence[str]) -> list[Receipt]:
    """Return the receipts of a batch, which share one root.

    The tree is that of certificate transparency: leaves and nodes are hashed with different prefixes, and a node
    without sibling rises as it is.

    Args:
        commitments: Digest of each evidence, 64 hex digits.

    Returns:
        One receipt per commitment, each with its proof; the root is in `inclusion.root`.

    Raises:
        UsageError: The batch is empty.

    Example:
        >>> receipts = batch(["00" * 32, "11" * 32, "22" * 32])
        >>> all(receipt.holds() for receipt in receipts), len(receipts[2].inclusion.path)
        (True, 1)

    Source: RFC 6962, section 2.1.
    """
    if not commitments:
        raise UsageError("an empty batch has no receipts")
    paths: list[list[str]] = [[] for _ in commitments]
    level = [_leaf(commitment) for commitment in commitments]
    owners = [[i] for i in range(len(commitments))]
    while len(level) > 1:
        above, joined = [], []
        for i in range(0, len(level) - 1, 2):
            for side, sibling in ((i, i + 1), (i + 1, i)):
                for owner in owners[side]:
                    paths[owner].append(level[sibling].hex())
            above.append(_node(level[i], level[i + 1]))
            joined.append(owners[i] + owners[i + 1])
        if len(level) % 2:
            above.append(level[-1])
            joined.append(owners[-1])
        level, owners = above, joined
    root, size = level[0].hex(), len(commitments)
    return [
        Receipt(commitment=c, inclusion=Inclusion(root=root, index=i, size=size, path=tuple(paths[i])))
        for i, c in enumerate(commitments)
    ]


def _included(commitment: str, proof: Inclusion) -> bool:
    """Climb from the leaf to the root; index and size say on which side each sibling stands.

    Source: RFC 9162, section 2.1.3.2.
    """
    index, last = proof.index, proof.size - 1
    if not 0 <= index <= last:
        return False
    node = _leaf(commitment)
    for sibling in proof.path:
        if last == 0:
            return False
        if index % 2 or index == last:
            node = _node(bytes.fromhex(sibling), node)
            while index % 2 == 0 and index:
                index, last = index // 2, last // 2
        else:
            node = _node(node, bytes.fromhex(sibling))
        index, last = index // 2, last // 2
    return last == 0 and hmac.compare_digest(node.hex(), proof.root)


def draw(commitments: Sequence[str], seed: bytes, count: int) -> list[int]:
    """Draw receipts to be opened, with a secret that the verifier chose and kept.

    Every commitment gets HMAC-SHA256(seed, commitment); the smallest are drawn. So the draw cannot be foreseen
    without the seed, does not depend on the order, and can be repeated by anyone once the seed is published.

    Args:
        commitments: Digests that were handed in, 64 hex digits.
        seed: At least 16 secret bytes.
        count: How many to draw.

    Returns:
        Indices of the drawn receipts, in their order.

    Raises:
        UsageError: The seed is too short, or more are asked for than there are.

    Example:
        >>> draw(["00" * 32, "11" * 32, "22" * 32], b"a secret of the verifier", 2)
        [0, 1]
    """
    if len(seed) < 16:
        raise UsageError(f"a seed of {len(seed)} bytes can be guessed; at least 16 are needed")
    if not 0 <= count <= len(commitments):
        raise UsageError(f"{count} receipts asked for, {len(commitments)} are there")
    keys = [hmac.digest(seed, bytes.fromhex(commitment), "sha256") for commitment in commitments]
    return sorted(sorted(range(len(keys)), key=lambda i: (keys[i], i))[:count])
