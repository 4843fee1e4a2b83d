"""Loading a model: the plugin that recognises a checkpoint opens it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from earmark.checkpoint import read_config, resolve
from earmark.errors import ModelError, UsageError
from earmark.protocols import Family, Model, ModelLoader
from earmark.registry import registry

DTYPES = {
    "float32": "float32", "fp32": "float32", "float16": "float16", "fp16": "float16",
    "bfloat16": "bfloat16", "bf16": "bfloat16",
}  # fmt: skip
ATTENTIONS = ("sdpa", "eager")


def load(
    source: str | os.PathLike[str],
    *,
    device: str | None = None,
    dtype: str = "float32",
    arithmetic: str | None = None,
    attention: str = "sdpa",
) -> Model:
    """Load a model from a folder, the hub, or those that ship with earmark.

    Args:
        source: `embedded:NAME`, a checkpoint folder, a `.nemo` file, or a hub id.
        device: `cpu`, `cuda`, `cuda:1`, ...; by default cuda where there is one.
        dtype: The claimed precision, to which the weights are rounded: float32, float16, bfloat16.
        arithmetic: The precision to compute in; by default `dtype`. A verifier may give float32 here, which is
            what `verify` replays in anyway, to spare the second copy of the weights.
        attention: `sdpa` or `eager`.

    Returns:
        The model, ready to record and to verify.

    Raises:
        ModelError: The checkpoint is missing, damaged or of no registered kind.
        UsageError: An option has no such value.

    Example:
        >>> model = load("embedded:whisper-nano")
        >>> model.info.family
        'autoregressive'
    """
    chosen = _option("dtype", dtype, DTYPES)
    computing = _option("arithmetic", arithmetic or dtype, DTYPES)
    kernel = _option("attention", attention, {name: name for name in ATTENTIONS})
    folder, name = resolve(source)
    where = device or _best_device()
    _check_device(where)
    for plugin in registry("model").inspect_all():
        if plugin.error is None and _recognises(plugin.value, folder):
            model: Model = plugin.value.load(
                folder, name=name, device=where, dtype=chosen, arithmetic=computing, attention=kernel
            )
            return model
    raise ModelError(_unrecognised(folder))


def _recognises(loader: ModelLoader, folder: Path) -> bool:
    """Ask a plugin; one that looks for a config.json says by its error that there is none."""
    try:
        return loader.recognises(folder)
    except ModelError:
        return False


def _option(name: str, value: str, known: dict[str, str]) -> str:
    if value not in known:
        raise UsageError(f"{name} {value!r}; known: {', '.join(known)}")
    return known[value]


def _best_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {device!r} cannot be used: {reason}") from error


def _unrecognised(folder: Any) -> str:
    kind = "none" if folder.is_file() else read_config(folder).get("model_type", "none")
    plugins = registry("model").inspect_all()
    broken = [p.error for p in plugins if p.error]
    known = ", ".join(p.name for p in plugins if not p.error)
    hint = f"; not loaded: {'; '.join(broken)}" if broken else ""
    return f"{folder} holds model_type {kind!r}, which no plugin opens; there are: {known}{hint}"


def family_of(model: Model) -> Family:
    """Return the family plugin of a loaded model."""
    family: Family = registry("family").get(model.info.family)
    return family
