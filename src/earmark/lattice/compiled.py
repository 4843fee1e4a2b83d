"""How the kernels of this package are compiled: numba, cached on disk, without the interpreter lock.

The cache of a kernel is renewed when its own file changes, not when a kernel that it calls does: after editing one,
remove `src/earmark/lattice/__pycache__/*.nb?`.

Importing this module imports numba, so only the modules behind `earmark.lattice.ctc`, `transducer` and `loss`
do, and those are loaded on first use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba
from llvmlite import ir  # type: ignore[import-untyped]  # ships no types
from numba import types
from numba.extending import intrinsic

Function = TypeVar("Function", bound=Callable[..., Any])

REDUCTION = {"reassoc", "contract", "nsz"}
"""Lets the compiler split a sum over vector lanes; NaN and infinities keep their meaning."""


def jit(fastmath: set[str] | bool = False) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function with the options all kernels share.

    Args:
        fastmath: LLVM fast-math flags of the function; none by default.

    Returns:
        A decorator that keeps the type of the function.

    Example:
        >>> @jit()
        ... def twice(x: float) -> float:
        ...     return 2.0 * x
        >>> twice(1.5)
        3.0
    """

    def decorate(function: Function) -> Function:
        # doctests and notebooks have no file to keep a cache beside
        cached = not function.__code__.co_filename.startswith("<")
        compiled: Function = numba.njit(cache=cached, nogil=True, fastmath=fastmath, error_model="numpy")(function)
        return compiled

    return decorate


def _bitcast(source: Any, target: Any, llvm: Any) -> Any:
    """Return a numba intrinsic that reads the bits of one number as another type."""

    def signature(_context: Any, _value: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], llvm)

        return target(source), generate

    return intrinsic(signature)


float32_from_bits = _bitcast(types.int32, types.float32, ir.FloatType())
float64_from_bits = _bitcast(types.int64, types.float64, ir.DoubleType())
bits_of_float64 = _bitcast(types.float64, types.int64, ir.IntType(64))
bits_of_float32 = _bitcast(types.float32, types.int32, ir.IntType(32))
