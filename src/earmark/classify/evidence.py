"""What evidence says of itself: a fingerprint without any pass of the reference."""

from __future__ import annotations

import numpy as np

from earmark.errors import UsageError
from earmark.fingerprint.sequence import Listed
from earmark.fingerprint.shape import own_shape
from earmark.fingerprint.types import Fingerprint
from earmark.protocols import Model
from earmark.records.policy import Policy
from earmark.rules import Case, prepare


def without_replay(case: Case, reference: Model) -> Fingerprint:
    """Return a fingerprint without statistics, for a classifier of the kind `alone`; the reference is not run.

    Args:
        case: The clip.
        reference: The claimed model, whose tokens are needed to read the evidence.

    Raises:
        UsageError: A rule is broken, or the evidence holds no lists.
    """
    work = prepare(case, reference, Policy())
    if not work.open:
        raise UsageError(f"the evidence breaks a rule ({work.findings[-1]}), so there is nothing to classify")
    parts = [own for trace in work.traces if isinstance(own := getattr(trace, "scores", trace), Listed)]
    if not parts:
        raise UsageError("the evidence holds no lists; record the level scores or sketch")
    with np.errstate(all="ignore"):  # evidence of any content has a shape
        return Fingerprint(reference.info.family, (), (), shape=own_shape(parts))
