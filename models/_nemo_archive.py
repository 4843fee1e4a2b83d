"""`.nemo` archives, read with care: nothing in them is unpacked to disk or executed."""

from __future__ import annotations

import io
import math
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any

from earmark.errors import ModelError
from earmark.models import _torch_file
from earmark.models._nemo_tar import DAMAGE, opened

if TYPE_CHECKING:
    from torch import Tensor

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
TOKENIZER_PREFIX = "nemo:"
"""Stands before the names of members in the config."""
MAX_SMALL_BYTES = 16 << 20
"""Configs have some hundred kB, tokenizers below 5 MB."""
MAX_SETTINGS = 4 << 20
"""Settings and letters of a config when every alias is written out: a few aliases of aliases have no end."""
MAX_LANGUAGES = 64
"""Tokenizers of an aggregate: Canary has five."""


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
    with opened(path) as archive:
        return _config(archive, path)


def read_archive(path: Path) -> Archive:
    """Return configuration, weights and tokenizer of an archive.

    Args:
        path: The file.

    Raises:
        ModelError: It is damaged, incomplete, grows when it is read, holds links or names outside itself, or weights
            that would run code.
    """
    with opened(path) as archive:
        config = _config(archive, path)
        tensors = _tensors(_member(archive, WEIGHTS, path), path)
        tokenizer = config.get("tokenizer")
        settings = tokenizer if isinstance(tokenizer, dict) else {}
        own = _pieces(archive, settings, path)
        languages = settings.get("langs")
        models = languages if isinstance(languages, dict) and settings.get("type") == "agg" else {}
        if len(models) > MAX_LANGUAGES:
            raise ModelError(f"{path} has {len(models)} tokenizers; expected at most {MAX_LANGUAGES}")
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


def _member(archive: tarfile.TarFile, name: str, path: Path) -> IO[bytes]:
    found = [member for member in archive.getmembers() if str(PurePosixPath(member.name)) == name]
    if len(found) != 1:
        raise ModelError(f"{path} holds {len(found)} members named {name[:80]!r}; expected one: fetch it again")
    file = archive.extractfile(found[0])
    if file is None:
        raise ModelError(f"{path}: {name[:80]!r} is no file")
    return file


def _small(file: IO[bytes], path: Path) -> bytes:
    data = _bytes(file, path, MAX_SMALL_BYTES + 1)
    if len(data) > MAX_SMALL_BYTES:
        raise ModelError(f"{path} holds a config or tokenizer of more than {MAX_SMALL_BYTES} bytes; do not use it")
    return data


def _bytes(file: IO[bytes], path: Path, most: int = -1) -> bytes:
    try:
        return file.read(most)
    except DAMAGE as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path} is damaged: {' '.join(str(error).split())[:200]}; fetch it again") from error


def _config(archive: tarfile.TarFile, path: Path) -> dict[str, Any]:
    import yaml

    class Loader(yaml.SafeLoader):  # type: ignore[misc] # PyYAML has no types
        """Makes no objects, and merges no mappings, which takes time and memory without end; NeMo writes no merges."""

        def flatten_mapping(self, node: yaml.MappingNode) -> None:
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise yaml.constructor.ConstructorError(problem="mappings are merged", problem_mark=node.start_mark)

    data = _small(_member(archive, CONFIG, path), path)
    try:
        config = Loader(data).get_single_data()
        size = _size(config, {})
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError, OverflowError, TypeError) as error:
        raise ModelError(f"{path}: {CONFIG} cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{path}: {CONFIG} holds no settings")
    if "model" in config:
        raise ModelError(f"{path}: {CONFIG} has a setting `model`, which NeMo would take in place of all others")
    if size > MAX_SETTINGS:
        raise ModelError(f"{path}: {CONFIG} comes to more than {MAX_SETTINGS} settings and letters; do not use it")
    return config


def _size(part: Any, known: dict[int, float]) -> float:
    """Return the settings and letters of a part when every alias is written out; one that holds itself has no end."""
    if isinstance(part, str):
        return 1 + len(part)
    if not isinstance(part, dict | list):
        return 1
    if id(part) not in known:
        known[id(part)] = math.inf
        inside = [*part, *part.values()] if isinstance(part, dict) else part
        known[id(part)] = 1 + sum(_size(each, known) for each in inside)
    return known[id(part)]


def _tensors(file: IO[bytes], path: Path) -> dict[str, Tensor]:
    """Load weights and nothing else: no class, no code."""
    what = f"{path}: {WEIGHTS}"
    data = io.BytesIO(_bytes(file, path))
    return _torch_file.named_tensors(_torch_file.read_torch(data, what), what)
