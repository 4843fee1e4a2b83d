"""The models that keep the contracts, shared by the tests of contracts and those of broken families and models."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import pytest
from tiny_models import parakeet

import earmark
from earmark.checkpoint import embedded_names, resolve
from earmark.registry import registry

#: Models of each family: those that ship, which really transcribe, and small random ones of the real classes.
MODELS = {
    "autoregressive": ("whisper-nano",),
    "ctc": ("parakeet-ctc-nano", "random-ctc"),
    "transducer": ("parakeet-tdt-nano", "random-tdt", "random-rnnt"),
}
PAIRS = [(family, name) for family, names in MODELS.items() for name in names]


@cache
def folder_of(name: str) -> Path:
    """Return the folder of a checkpoint; random ones are made."""
    if name.startswith("random-"):
        return parakeet(Path(tempfile.mkdtemp(prefix="earmark-")) / name, name.removeprefix("random-"))
    if name not in embedded_names():
        pytest.skip(f"{name} does not ship yet")
    return resolve(f"embedded:{name}")[0]


@cache
def model_of(name: str):
    """Return a model, loaded once."""
    return earmark.load(folder_of(name), device="cpu")


def loader_of(name: str):
    """Return the loader that recognises a checkpoint, and its folder."""
    plugins = [plugin.value for plugin in registry("model").inspect_all() if plugin.error is None]
    return next(loader for loader in plugins if _recognises(loader, folder_of(name))), folder_of(name)


def _recognises(loader, folder: Path) -> bool:
    try:
        return loader.recognises(folder)
    except earmark.errors.ModelError:
        return False
