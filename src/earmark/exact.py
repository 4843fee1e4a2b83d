"""The exact match: the reference records again, and where every bit is the same, no statistic is needed.

It applies where provider and verifier run the same build in batches of the same shape, in `mode="reexecute"`. It is
safe because nothing is taken on trust: the verifier computes ids and trace itself, from audio and request, and compares
them with what the provider committed to. Equal bytes have distance 0 in every statistic, and the ids are those that the
reference writes itself. The bytes of the levels `sketch` and `compact` follow from the nonce, and a compact trace holds
16 bytes of SHA-256 over the full one, so that a match covers every number that was left out. No match decides nothing:
replay and statistics follow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from earmark.loading import family_of
from earmark.protocols import Model
from earmark.records.evidence import Level
from earmark.rules import Work


def find_exact(works: Sequence[Work], model: Model, batch_size: int) -> None:
    """Record cases again as their provider did, and mark those of equal bits.

    Args:
        works: Cases whose rules hold.
        model: The reference in the claimed arithmetic.
        batch_size: Clips at once, as in recording.
    """
    family = family_of(model)
    groups: dict[tuple[Level, int], list[Work]] = defaultdict(list)
    for work in works:
        if work.evidence is not None:
            groups[work.evidence.level, family.listed(work.traces[0])].append(work)
    for (level, k), same in groups.items():
        for first in range(0, len(same), batch_size):
            together = same[first : first + batch_size]
            inputs = [item for work in together for item in work.inputs]
            outputs = iter(
                family.record(model, inputs, k=k, level=level, batch_size=batch_size, advance=lambda _: None)
            )
            for work in together:
                mine = [next(outputs) for _ in work.inputs]
                theirs = [] if work.evidence is None else work.evidence.segments
                # where a budget left segments out, the others show nothing of the whole
                work.exact = [(o.ids, o.trace) for o in mine] == [(s.ids, s.trace) for s in theirs]
