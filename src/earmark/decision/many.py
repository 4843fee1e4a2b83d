"""Many providers at once: which e-values count, with a bound on the share of false accusations."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from earmark.errors import UsageError


def e_benjamini_hochberg(log_e: ArrayLike, rate: float) -> NDArray[np.bool_]:
    """Return which providers are rejected with a false discovery rate of at most `rate`.

    With e-values in falling order, the k largest are rejected for the largest k with e_(k) >= n / (rate k); this holds
    under any dependence between the providers.

    Args:
        log_e: log e-value of each provider's audit, (n,).
        rate: Largest expected share of honest providers among the rejected.

    Returns:
        Whether each provider is rejected, (n,).

    Raises:
        UsageError: A value is NaN or the rate is not between 0 and 1.

    Source: Wang & Ramdas, False discovery rate control with e-values (JRSS B, 2022), section 3.

    Example:
        >>> e_benjamini_hochberg(np.log([1000.0, 0.5, 45.0]), 0.05).tolist()
        [True, False, True]
    """
    values = np.asarray(log_e, dtype=np.float64).ravel()
    if np.isnan(values).any() or not 0 < rate < 1:
        raise UsageError(f"e-values with NaN, or rate {rate:g}; expected numbers and 0 < rate < 1")
    n = len(values)
    order = np.argsort(-values, kind="stable")
    enough = values[order] >= np.log(n / (rate * np.arange(1, n + 1)))
    rejected = np.zeros(n, dtype=bool)
    if enough.any():
        rejected[order[: int(np.flatnonzero(enough)[-1]) + 1]] = True
    return rejected
