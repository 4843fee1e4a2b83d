"""Checkpoints on disk: where they are, whether they are complete, and the digest of their tensors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

from earmark.errors import ModelError

EMBEDDED = "embedded:"
ARCHIVE = ".nemo"
"""The one kind of checkpoint that is a single file."""
HUB_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
"""What is fetched of a checkpoint from the hub: no pickles, no code."""


def embedded_names() -> list[str]:
    """Return the names of the models that ship with earmark."""
    root = Path(str(files("earmark.data"))) / "embedded"
    return sorted(folder.name for folder in root.glob("*") if (folder / "config.json").exists())


def resolve(source: str | os.PathLike[str]) -> tuple[Path, str]:
    """Find the folder of a checkpoint.

    Args:
        source: `embedded:NAME`, a folder, a `.nemo` file, or a hub id such as `openai/whisper-large-v3`.

    Returns:
        The folder or file, and the name by which people know the model.

    Raises:
        ModelError: There is no such checkpoint.

    Example:
        >>> resolve("embedded:whisper-nano")[1]
        'embedded:whisper-nano'
    """
    text = os.fspath(source)
    if text.startswith(EMBEDDED):
        name = text.removeprefix(EMBEDDED)
        if name not in embedded_names():
            raise ModelError(f"no embedded model {name!r}; there are: {', '.join(embedded_names()) or 'none'}")
        return Path(str(files("earmark.data"))) / "embedded" / name, text
    folder = Path(text)
    if folder.is_dir():
        return folder, folder.resolve().name
    if folder.suffix == ARCHIVE and folder.is_file():
        return folder, folder.stem
    if folder.exists():
        raise ModelError(f"{text} is a file; a checkpoint is a {ARCHIVE} file, or a folder with config and weights")
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise ModelError(f"{text}: no such folder; give a checkpoint folder, a hub id or embedded:NAME")
    return _fetch(text), text


def _fetch(hub_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(hub_id, allow_patterns=HUB_FILES))
    except Exception as error:
        # the hub client has no common base for its many errors; each means that there is no checkpoint
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{hub_id} is neither a folder nor could it be fetched from the hub: {reason}") from error


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a checkpoint.

    Raises:
        ModelError: The folder is no checkpoint.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is no checkpoint: it has no config.json") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{folder / 'config.json'} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{folder / 'config.json'} holds no JSON object")
    return config


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint, all of them present.

    Raises:
        ModelError: There are none, or a shard of the index is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"{index} cannot be read: {error}") from error
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise ModelError(f"{folder} lacks {len(missing)} of {len(names)} weight files, first {missing[0]}")
        return [folder / name for name in names]
    single = folder / "model.safetensors"
    if not single.is_file():
        raise ModelError(f"{folder} has no model.safetensors; convert older formats with `save_pretrained`")
    return [single]


def _tensors(paths: list[Path]) -> Iterator[tuple[str, Path, str, list[int], tuple[int, int]]]:
    """Yield name, file, dtype, shape and byte range of every tensor, from the headers alone."""
    for path in paths:
        try:
            with path.open("rb") as file:
                size = int.from_bytes(file.read(8), "little")
                if size > 100_000_000:
                    raise ValueError(f"header of {size} bytes")
                header = json.loads(file.read(size))
            for name, entry in header.items():
                if name != "__metadata__":
                    start, end = entry["data_offsets"]
                    offset = 8 + size
                    yield name, path, entry["dtype"], entry["shape"], (offset + start, offset + end)
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"{path} is no complete safetensors file: {error}") from error


def weights_digest(folder: Path) -> str:
    """Return the digest of a checkpoint's tensors, whatever the number of shards and their order.

    SHA-256 over the tensors in order of their names: name, dtype, shape and bytes of each.

    Args:
        folder: The checkpoint.

    Returns:
        64 hexadecimal digits.

    Raises:
        ModelError: The checkpoint is damaged or incomplete.
    """
    total = hashlib.sha256(b"earmark/weights/1\0")
    for name, path, dtype, shape, (start, end) in sorted(_tensors(weight_files(folder))):
        total.update(json.dumps([name, dtype, shape, end - start]).encode() + b"\0")
        with path.open("rb") as file:
            file.seek(start)
            left = end - start
            while left > 0:
                block = file.read(min(left, 1 << 22))
                if not block:
                    raise ModelError(f"{path} ends before tensor {name!r} does; fetch the file again")
                total.update(block)
                left -= len(block)
    return total.hexdigest()
