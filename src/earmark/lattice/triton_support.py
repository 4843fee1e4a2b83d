"""Triton where it is installed; elsewhere the kernel modules can be imported, for their documentation, but not run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any


class _Absent:
    """What the kernel modules need of Triton while they are imported."""

    @staticmethod
    def jit(function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function as it stands."""
        return function

    @staticmethod
    def constexpr(value: Any) -> Any:
        """Return the value as it stands."""
        return value


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:  # no wheel for this platform, or not asked for
        return _Absent


triton = _load("triton")
tl = _load("triton.language")
