"""Token ids in few bytes: unsigned LEB128, seven bits a byte, lowest first."""

from __future__ import annotations

from collections.abc import Sequence

from earmark.errors import RecordError

MAX_BYTES = 5
"""Bytes of one id; ids stay below 2^31."""


def pack(ids: Sequence[int]) -> bytes:
    """Return ids as unsigned LEB128.

    Args:
        ids: Numbers from 0 to 2^31 - 1.

    Returns:
        One to five bytes for each.

    Example:
        >>> pack([1, 300]).hex()
        '01ac02'

    Source: DWARF 5, section 7.6.
    """
    packed = bytearray()
    for number in ids:
        rest = number
        while rest > 0x7F:
            packed.append(rest & 0x7F | 0x80)
            rest >>= 7
        packed.append(rest)
    return bytes(packed)


def unpack(data: bytes) -> tuple[int, ...]:
    """Return the ids behind unsigned LEB128; one list of ids has one form.

    Args:
        data: What `pack` returned.

    Returns:
        The ids.

    Raises:
        RecordError: A number is cut off, longer than needed, or 2^31 or more.

    Example:
        >>> unpack(bytes.fromhex("01ac02"))
        (1, 300)
    """
    ids: list[int] = []
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte & 0x80:
            if shift == 7 * MAX_BYTES:
                raise RecordError(f"token id {len(ids)} has more than {MAX_BYTES} bytes")
            continue
        if (byte == 0 and shift > 7) or number >= 2**31:
            raise RecordError(f"token id {len(ids)} is not in its shortest form or too large")
        ids.append(number)
        number = shift = 0
    if shift:
        raise RecordError("the last token id is cut off")
    return tuple(ids)
