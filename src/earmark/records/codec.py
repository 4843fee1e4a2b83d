"""Reading and writing records: strict, bounded, deterministic.

JSON is for people, MessagePack for the wire; both are read by the same typed decoder. The digest of a record is
taken over its MessagePack form, in which fields stand in the order of their declaration.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from earmark.errors import OutputError, RecordError, UsageError

MAX_RECORD_BYTES = 64 * 1024 * 1024
"""No record is read beyond this size."""

Digest = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
"""A SHA-256 digest, 64 lower-case hexadecimal digits."""
Nonce = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
"""16 random bytes as 32 lower-case hexadecimal digits."""
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
"""A short name: a model, a rule, an engine."""
Text = Annotated[str, msgspec.Meta(max_length=1_000_000)]
"""Free text."""
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**40)]
"""A number of samples, frames or tokens."""

R = TypeVar("R", bound="Record")


class _Header(msgspec.Struct):
    format: str = ""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The base of every record that crosses a file boundary: it has a digest and two written forms."""

    def to_msgpack(self) -> bytes:
        """Return the record as MessagePack."""
        return msgspec.msgpack.encode(self)

    def to_json(self) -> str:
        """Return the record as indented JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()

    def digest(self) -> str:
        """Return the SHA-256 (64 hex digits) over the type's name and the MessagePack form."""
        tag = f"earmark/{type(self).__name__.lower()}\0".encode()
        return hashlib.sha256(tag + self.to_msgpack()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record to `path`: MessagePack where the name ends in .msgpack, else JSON.

        Raises:
            OutputError: The file could not be written; nothing is left behind.
        """
        packed = str(path).endswith(".msgpack")
        write_atomically(path, self.to_msgpack() if packed else self.to_json().encode() + b"\n")


def decode(data: bytes, kind: type[R]) -> R:
    """Decode one record from JSON or MessagePack.

    Args:
        data: The whole record; JSON if it starts with `{` or `[` (after white space), else MessagePack.
        kind: The type to read.

    Returns:
        The record, fully checked against its type.

    Raises:
        RecordError: The data is not a well-formed record of this type and version.
    """
    label = kind.__name__.lower()
    if len(data) > MAX_RECORD_BYTES:
        message = f"{label} of {len(data)} bytes; at most {MAX_RECORD_BYTES} are read"
        raise RecordError(message, code="record.too_large")
    if not data.strip():
        raise RecordError(f"{label} is empty; expected JSON or MessagePack")
    reader = msgspec.json.decode if data.lstrip()[:1] in (b"{", b"[") else msgspec.msgpack.decode
    try:
        return reader(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError, ValueError) as error:
        raise _explain(error, data, kind, reader) from error


def is_array(data: bytes) -> bool:
    """Tell whether a record is written as an array, as compact evidence is, and not as a map.

    Example:
        >>> is_array(b"[1]"), is_array(msgspec.msgpack.encode([1])), is_array(b"{}")
        (True, True, False)
    """
    first = data.lstrip()[:1]
    return first == b"[" or b"\x90" <= first <= b"\x9f" or first in (b"\xdc", b"\xdd")


def _explain(error: Exception, data: bytes, kind: type[Any], reader: Callable[..., Any]) -> RecordError:
    label = kind.__name__.lower()
    known = getattr(kind, "FORMAT", "")
    try:
        found = reader(data, type=_Header).format
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, OverflowError, ValueError):
        found = known
    if found != known:
        message = f"{label} has format {found[:60]!r}; this version of earmark reads {known!r}"
        return RecordError(message, code="record.unknown_version")
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return RecordError(f"{label} is not well formed: {reason}")


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Read a record file, never more than `MAX_RECORD_BYTES` + 1 bytes.

    Raises:
        UsageError: There is no such file, or it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return file.read(MAX_RECORD_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}; give an existing file") from error


def load(source: bytes | str | os.PathLike[str], kind: type[R]) -> R:
    """Read a record from bytes or from a file.

    Raises:
        RecordError: The content is not well formed.
        UsageError: There is no such file.
    """
    return decode(source if isinstance(source, bytes) else read_bytes(source), kind)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path` so that the file is either complete or not there.

    The bytes go to a temporary file beside the target, which is renamed once they are on the disk; a device
    such as /dev/stdout is written directly.

    Raises:
        OutputError: The disk is full, the folder is missing or not writable.
    """
    target = Path(path)
    try:
        if target.exists() and not stat.S_ISREG(target.stat().st_mode):
            with open(target, "wb", buffering=0) as device:
                device.write(data)
            return
        _replace(target, data)
    except OSError as error:
        raise OutputError(f"{target}: {error.strerror or error}; nothing was written") from error


def _replace(target: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:40]}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
