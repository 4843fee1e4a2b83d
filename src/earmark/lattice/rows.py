"""Log-softmax statistics of one row of logits in a single pass over memory.

The sum is taken in float64 over exponentials of the precision of the logits: float32 rows use a polynomial of
degree 5 that is exactly 1 at 0 (relative error 9e-8), float64 rows one of degree 12. The largest logit so
contributes exactly 1, and a sure row keeps the relative accuracy of its tiny negative log-probability.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import types
from numba.extending import overload
from numpy.typing import NDArray

from earmark.lattice.compiled import (
    REDUCTION,
    bits_of_float32,
    bits_of_float64,
    float32_from_bits,
    float64_from_bits,
    jit,
)
from earmark.lattice.extended import LN_2, LOG2_E, exp2_fraction

Row = NDArray[np.floating]

# 2**f on [-0.5, 0.5], weighted least squares at Chebyshev nodes with the value 1 held at 0: error 9.2e-8.
A1, A2, A3, A4, A5 = (
    np.float32(c)
    for c in (0.693146977612893, 0.24022242068599284, 0.05550733727887333, 0.009671513409934607, 0.001326473133354926)
)
ONE32, ROUND32, LEAST32 = np.float32(1.0), np.float32(12582912.0), np.float32(-125.0)
LEAST64 = -1022.0
MAGNITUDE32, MAGNITUDE64 = np.int32(2**31 - 1), np.int64(2**63 - 1)
LOG2_E32 = np.float32(LOG2_E)


@jit()
def _max32(x: Row) -> float:
    """Return the largest of a float32 row by its bits: integer maxima vectorise without losing NaN."""
    top = np.int32(-(2**31))
    for i in range(x.shape[0]):
        bits = bits_of_float32(x[i])
        top = max(top, np.int32(bits ^ ((bits >> np.int32(31)) & MAGNITUDE32)))
    return float32_from_bits(  # type: ignore[no-any-return]
        np.int32(top ^ ((top >> np.int32(31)) & MAGNITUDE32))
    )


@jit()
def _max64(x: Row) -> float:
    """Return the largest of a float64 row; see `_max32`."""
    top = np.int64(-(2**63))
    for i in range(x.shape[0]):
        bits = bits_of_float64(x[i])
        top = max(top, bits ^ ((bits >> 63) & MAGNITUDE64))
    return float64_from_bits(top ^ ((top >> 63) & MAGNITUDE64))  # type: ignore[no-any-return]


def row_max(x: Row) -> float:
    """Return the largest logit; NaN if a positive NaN is there (the sum finds the others)."""
    raise NotImplementedError("compiled code only")


@overload(row_max, strict=False)  # type: ignore[untyped-decorator]  # numba has no types
def _row_max(x: Any) -> Any:
    if x.dtype == types.float32:
        return lambda x: _max32(x)  # noqa: PLW0108 - numba wants a plain function
    return lambda x: _max64(x)  # noqa: PLW0108 - numba wants a plain function


@jit({"contract"})
def exp2_32(t: Any) -> Any:
    """Return 2**t in float32 for -125 <= t <= 0; NaN stays NaN.

    Adding 1.5 * 2**23 leaves the nearest integer in the low bits, from where it moves into the exponent.
    """
    shifted = t + ROUND32
    f = t - (shifted - ROUND32)
    p = ((((A5 * f + A4) * f + A3) * f + A2) * f + A1) * f + ONE32
    return float32_from_bits(np.int32(bits_of_float32(p) + np.int32(bits_of_float32(shifted) << np.int32(23))))


@jit({"contract"})
def exp2_64(t: float) -> float:
    """Return 2**t in float64 for -1022 <= t <= 0; NaN stays NaN."""
    n = np.int64(math.floor(t + 0.5))
    return exp2_fraction(t - n) * float64_from_bits((n + 1023) << 52)  # type: ignore[no-any-return]


@jit(REDUCTION)
def _sums32(x: Any, top: Any, order: float) -> tuple[float, float]:
    total = 0.0
    weighted = np.float32(0.0)
    scale = np.float32(order * LOG2_E)
    for i in range(x.shape[0]):
        t = (x[i] - top) * scale
        t = LEAST32 if t < LEAST32 else t  # noqa: FURB136 - unlike max, keeps NaN
        e = exp2_32(t)
        total += np.float64(e)
        weighted += e * t
    return total, np.float64(weighted)


@jit(REDUCTION)
def _sums64(x: Row, top: float, order: float) -> tuple[float, float]:
    total = 0.0
    weighted = 0.0
    scale = order * LOG2_E
    for i in range(x.shape[0]):
        t = (x[i] - top) * scale
        t = LEAST64 if t < LEAST64 else t  # noqa: FURB136 - unlike max, keeps NaN
        e = exp2_64(t)
        total += e
        weighted += e * t
    return total, weighted


def exp_sums(x: Row, top: float, order: float) -> tuple[float, float]:
    """Return the sums of e and of e * log2(e) with e = exp(order * (x - top))."""
    raise NotImplementedError("compiled code only")


@overload(exp_sums, strict=False)  # type: ignore[untyped-decorator]  # numba has no types
def _exp_sums(x: Any, top: Any, order: Any) -> Any:  # noqa: ARG001 - numba matches the names
    if x.dtype == types.float32:
        return lambda x, top, order: _sums32(x, top, order)  # noqa: PLW0108 - numba wants a plain function
    return lambda x, top, order: _sums64(x, top, order)  # noqa: PLW0108 - numba wants a plain function


@jit()
def summarise(x: Row, orders: NDArray[np.float64], entropies: NDArray[np.float64]) -> tuple[float, float]:
    """Return maximum and log of the exponential sum over the maximum; write the row's entropies.

    Args:
        x: Logits of one row, (V,).
        orders: Orders of the power sums, (K,).
        entropies: Output, (1 + K,): the Gibbs entropy in nats, then log of sum p**order per order.

    Returns:
        (m, l) with log-softmax(x) = x - m - l; l is NaN where the row holds NaN, +inf or only -inf.
    """
    top = row_max(x)
    total, weighted = exp_sums(x, top, 1.0)
    log_sum = math.log(total)
    # rounding may leave a sure row a hair below 0
    entropies[0] = max(log_sum - weighted * LN_2 / total, 0.0)
    for k in range(orders.shape[0]):
        power, _ = exp_sums(x, top, orders[k])
        entropies[1 + k] = math.log(power) - orders[k] * log_sum
    return np.float64(top), log_sum
