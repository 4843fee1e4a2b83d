"""Files of `torch.save`, read with care: tensors and plain values come out of them, no class and no code."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from typing import IO, TYPE_CHECKING, Any

from earmark.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

UNSAFE_SETTING = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
MAX_SHARING = 4
"""Weights may be tied; tensors that say they are larger than what is stored, by more than this, are a bomb."""


def read_torch(data: IO[bytes], what: str) -> Any:
    """Return what a file of `torch.save` holds.

    Args:
        data: The file, opened.
        what: How messages call it.

    Raises:
        ModelError: It is damaged, compressed, or holds more than tensors and plain values; or the environment would let
            it run code.
    """
    import pickle

    import torch

    if os.environ.get(UNSAFE_SETTING, "0").lower() not in ("", "0", "n", "no", "false"):
        raise ModelError(f"{UNSAFE_SETTING} is set: weights could run code; unset it")
    try:
        _check_zip(data, what)
        return torch.load(data, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        if isinstance(error, ModelError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{what} is damaged, or more than tensors: {reason}; do not use it") from error


def _check_zip(data: IO[bytes], what: str) -> None:
    try:
        entries = zipfile.ZipFile(data).infolist()
    except zipfile.BadZipFile as error:
        raise ModelError(f"{what} is not in torch's format: {error}; fetch it again") from error
    finally:
        data.seek(0)
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ModelError(f"{what} is compressed, which torch never does; do not use it")


def named_tensors(found: Any, what: str) -> dict[str, Tensor]:
    """Return tensors by name.

    Args:
        found: What a file held.
        what: How messages call it.

    Raises:
        ModelError: It is something else, or tensors that are no plain numbers in memory, or larger than what is stored.
    """
    import torch

    if not isinstance(found, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in found.items()
    ):
        raise ModelError(f"{what} holds something else than named tensors")
    for name, own in found.items():
        if own.layout != torch.strided or own.device.type != "cpu" or own.is_quantized or own.is_nested:
            raise ModelError(f"{what}: {name[:80]!r} is no plain tensor: {own.layout}, {own.device}, {own.dtype}")
    stored = {own.untyped_storage().data_ptr(): own.untyped_storage().nbytes() for own in found.values()}
    claimed = sum(own.numel() * own.element_size() for own in found.values())
    if claimed > MAX_SHARING * sum(stored.values()):
        raise ModelError(f"{what} stores {sum(stored.values())} bytes and claims tensors of {claimed}; do not use it")
    return dict(found)


def tensors_digest(kind: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the digest of tensors, however they are packed: SHA-256 of name, dtype, shape and bytes of each.

    Args:
        kind: What they are, so that no digest stands for two things.
        tensors: Weights by name.

    Returns:
        64 hexadecimal digits.
    """
    import torch

    total = hashlib.sha256(f"earmark/{kind}/1\0".encode())
    for name, tensor in sorted(tensors.items()):
        total.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\0")
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
