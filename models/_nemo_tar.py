"""The tar behind a `.nemo` file, opened with care: nothing is read beyond what an honest archive can hold."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Any

from earmark.errors import ModelError

MAX_MEMBERS = 1_000
MAX_GROWTH = 4
"""Weights hardly compress: an archive that grows by more when it is read is a bomb."""
GZIP = b"\x1f\x8b"
DAMAGE = (OSError, tarfile.TarError, EOFError, ValueError, LookupError, OverflowError, RecursionError, zlib.error)
"""What reading a damaged archive raises."""


@contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive, plain or with gzip as NeMo writes it, and check its members one by one.

    Args:
        path: The file.

    Raises:
        ModelError: It is damaged, has too many members, links or names outside itself, or grows when it is read.
    """
    with ExitStack() as stack:
        try:
            archive = stack.enter_context(tarfile.open(fileobj=_decompressed(path, stack), mode="r:"))
            _check_members(archive, path)
        except DAMAGE as error:
            if isinstance(error, ModelError):
                raise
            raise ModelError(f"{path} is no .nemo archive: {error}; fetch it again") from error
        yield archive


def _decompressed(path: Path, stack: ExitStack) -> Any:
    """Return the bytes of the tar as a file that ends in an error where an honest one would have ended."""
    raw = stack.enter_context(path.open("rb"))
    packed = raw.read(len(GZIP)) == GZIP
    raw.seek(0)
    file: Any = stack.enter_context(gzip.GzipFile(fileobj=raw)) if packed else raw
    return _Bounded(file, path)


class _Bounded:
    """A file that is read up to a limit; tar headers can ask for any number of bytes, also of a stream without end.

    Args:
        file: The decompressed file.
        path: Where it lies.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        """Set the limit by the size on the disk; tar ends in a block of zeros."""
        self._file, self._path, self._size = file, path, path.stat().st_size
        self._limit = MAX_GROWTH * self._size + tarfile.RECORDSIZE

    def read(self, size: int) -> bytes:
        """Read from where the file stands."""
        self._check(self._file.tell() + size)
        return self._file.read(size)

    def seek(self, place: int) -> int:
        """Go to a place, which decompresses all that lies before it."""
        self._check(place)
        return self._file.seek(place)

    def tell(self) -> int:
        """Return where the file stands."""
        return self._file.tell()

    def _check(self, place: int) -> None:
        if place > self._limit:
            raise ModelError(f"{self._path} has {self._size} bytes and would grow to {place} when read; do not use it")


def _check_members(archive: tarfile.TarFile, path: Path) -> None:
    for number, member in enumerate(archive, 1):
        if number > MAX_MEMBERS:
            raise ModelError(f"{path} holds more than {MAX_MEMBERS} members; a .nemo archive has a dozen")
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise ModelError(
                f"{path} holds a member named {member.name[:80]!r}, which lies outside of it; do not use it"
            )
        if not (member.isreg() or member.isdir()) or member.issparse() or member.size < 0:
            raise ModelError(f"{path} holds {member.name[:80]!r}, which is no plain file; do not use it")
