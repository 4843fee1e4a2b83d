"""`.nemo` archives, read with care: nothing in them is unpacked to disk or executed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from earmark.errors import ModelError
from earmark.models import _torch_file

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
TOKENIZER_PREFIX = "nemo:"
"""Stands before the names of members in the config."""
MAX_MEMBERS = 1_000
MAX_SMALL_BYTES = 16 << 20
"""Configs have some hundred kB, tokenizers below 5 MB."""
MAX_GROWTH = 4
"""Weights hardly compress: an archive that grows by more when it is read is a bomb."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """What a `.nemo` file holds.

    Attributes:
        path: The file.
        config: Its configuration.
        tensors: Its weights by name.
        tokenizer: Its SentencePiece model, or None where it has another kind of tokenizer.
        tokenizers: The SentencePiece models of an aggregate by language, in the order of their ids; else empty.
    """

    path: Path
    config: dict[str, Any]
    tensors: Mapping[str, Tensor]
    tokenizer: bytes | None
    tokenizers: Mapping[str, bytes]


def find_archive(path: Path) -> Path | None:
    """Return the `.nemo` file that a path names: itself, or the only one of a folder without config.json.

    Example:
        >>> find_archive(Path("no-such-folder")) is None
        True
    """
    if path.suffix == ".nemo" and path.is_file():
        return path
    found = sorted(path.glob("*.nemo")) if path.is_dir() and not (path / "config.json").exists() else []
    return found[0] if len(found) == 1 else None


def read_config(path: Path) -> dict[str, Any]:
    """Return the configuration of an archive.

    Raises:
        ModelError: It is no archive, or none that can be trusted.
    """
    with _opened(path) as archive:
        return _config(archive, path)


def read_archive(path: Path) -> Archive:
    """Return configuration, weights and tokenizer of an archive.

    Args:
        path: The file.

    Raises:
        ModelError: It is damaged, incomplete, grows when it is read, holds links or names outside itself, or weights
            that would run code.
    """
    with _opened(path) as archive:
        config = _config(archive, path)
        tensors = _tensors(_member(archive, WEIGHTS, path), path)
        tokenizer = config.get("tokenizer")
        settings = tokenizer if isinstance(tokenizer, dict) else {}
        own = _pieces(archive, settings, path)
        languages = settings.get("langs")
        models = languages if isinstance(languages, dict) and settings.get("type") == "agg" else {}
        parts = {str(name): _pieces(archive, part, path) for name, part in models.items()}
    complete = {name: model for name, model in parts.items() if model is not None}
    several = complete if len(complete) == len(parts) else {}
    return Archive(path=path, config=config, tensors=tensors, tokenizer=own, tokenizers=several)


def _pieces(archive: tarfile.TarFile, settings: Any, path: Path) -> bytes | None:
    """Return the SentencePiece model that a tokenizer's settings name, None where they name none of the archive."""
    name = settings.get("model_path") if isinstance(settings, dict) else None
    if not (isinstance(name, str) and name.startswith(TOKENIZER_PREFIX)):
        return None
    return _small(_member(archive, name.removeprefix(TOKENIZER_PREFIX), path), path)


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the digest of tensors, however they are packed: SHA-256 of name, dtype, shape and bytes of each.

    Args:
        tensors: Weights by name.

    Returns:
        64 hexadecimal digits.
    """
    return _torch_file.tensors_digest("nemo", tensors)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive and check its members."""
    try:
        archive = tarfile.open(path, "r:*")  # noqa: SIM115 - the members are checked before the block below
        members = archive.getmembers()
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise ModelError(f"{path} is no .nemo archive: {error}; fetch it again") from error
    with archive:
        _check_members(members, path)
        yield archive


def _check_members(members: list[tarfile.TarInfo], path: Path) -> None:
    if len(members) > MAX_MEMBERS:
        raise ModelError(f"{path} holds {len(members)} members; a .nemo archive has a dozen")
    for member in members:
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise ModelError(
                f"{path} holds a member named {member.name[:80]!r}, which lies outside of it; do not use it"
            )
        if not (member.isreg() or member.isdir()) or member.issparse():
            raise ModelError(f"{path} holds {member.name[:80]!r}, which is no plain file; do not use it")
    total, size = sum(member.size for member in members), path.stat().st_size
    if total > MAX_GROWTH * size:
        raise ModelError(f"{path} has {size} bytes and would grow to {total} when it is read; do not use it")


def _member(archive: tarfile.TarFile, name: str, path: Path) -> IO[bytes]:
    found = [member for member in archive.getmembers() if str(PurePosixPath(member.name)) == name]
    if len(found) != 1:
        raise ModelError(f"{path} holds {len(found)} members named {name[:80]!r}; expected one: fetch it again")
    file = archive.extractfile(found[0])
    if file is None:
        raise ModelError(f"{path}: {name[:80]!r} is no file")
    return file


def _small(file: IO[bytes], path: Path) -> bytes:
    data = file.read(MAX_SMALL_BYTES + 1)
    if len(data) > MAX_SMALL_BYTES:
        raise ModelError(f"{path} holds a config or tokenizer of more than {MAX_SMALL_BYTES} bytes; do not use it")
    return data


def _config(archive: tarfile.TarFile, path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(_small(_member(archive, CONFIG, path), path))
    except (
        yaml.YAMLError,
        UnicodeDecodeError,
        RecursionError,
        ValueError,
        tarfile.TarError,
        EOFError,
        OSError,
    ) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: {CONFIG} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: {CONFIG} holds no settings")
    return config


def _tensors(file: IO[bytes], path: Path) -> dict[str, Tensor]:
    """Load weights and nothing else: no class, no code."""
    what = f"{path}: {WEIGHTS}"
    try:
        data = io.BytesIO(file.read())
    except (OSError, EOFError, tarfile.TarError) as error:
        raise ModelError(f"{what} is damaged: {' '.join(str(error).split())[:200]}; fetch it again") from error
    return _torch_file.named_tensors(_torch_file.read_torch(data, what), what)
