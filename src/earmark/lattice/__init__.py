"""Exact mathematics of CTC and transducer lattices: likelihoods, alignments, posteriors, entropies, gradients.

Example:
    >>> import numpy as np
    >>> from earmark import lattice
    >>> scores = lattice.ctc(np.zeros((1, 4, 3)), [[1, 2]], [4], [2], blank=0)
    >>> scores
    LatticeScores(rule='ctc', log_likelihood=[-1.6864], failed=0)
    >>> scores.token_frame.tolist()
    [[0, 1]]
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earmark.lattice.autograd import loss
    from earmark.lattice.band import ctc_band
    from earmark.lattice.engine import ctc, transducer
    from earmark.lattice.joint import AdditiveJoint
    from earmark.lattice.margins import MarginPath, ctc_margins, transducer_margins
    from earmark.lattice.sources import ChunkedJoint
    from earmark.lattice.types import LatticeError, LatticeScores

_HOMES = {
    "AdditiveJoint": "joint",
    "ChunkedJoint": "sources",
    "LatticeError": "types",
    "LatticeScores": "types",
    "MarginPath": "margins",
    "ctc": "engine",
    "ctc_band": "band",
    "ctc_margins": "margins",
    "loss": "autograd",
    "transducer": "engine",
    "transducer_margins": "margins",
}

__all__ = [
    "AdditiveJoint",
    "ChunkedJoint",
    "LatticeError",
    "LatticeScores",
    "MarginPath",
    "ctc",
    "ctc_band",
    "ctc_margins",
    "loss",
    "transducer",
    "transducer_margins",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: numba and torch come with the engine, not before."""
    if name not in _HOMES:
        raise AttributeError(f"module 'earmark.lattice' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"earmark.lattice.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
