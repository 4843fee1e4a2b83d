"""Cross-check by k2, where it is installed: totals of a lattice in its text form.

k2 has no wheel for current Python and torch on the package index (the one there downgrades torch and then fails);
build it from source, or take it from k2's own pages.
"""

from __future__ import annotations

from earmark.lattice.fst import Fsa
from earmark.lattice.types import LatticeError


def k2_scores(fsa: Fsa) -> tuple[float, float]:
    """Return log P and the score of the best path as k2 computes them in float64.

    Args:
        fsa: A lattice of `ctc_fsa` or `transducer_fsa`.

    Raises:
        LatticeError: k2 is not installed.
    """
    try:
        import k2  # type: ignore[import-not-found, import-untyped, unused-ignore]  # optional, without types
    except ImportError as error:
        raise LatticeError("k2 is not installed; see https://k2-fsa.github.io/k2/installation") from error
    batch = k2.create_fsa_vec([k2.Fsa.from_str(fsa.k2())])
    total, best = (batch.get_tot_scores(use_double_scores=True, log_semiring=log) for log in (True, False))
    return float(total[0]), float(best[0])
