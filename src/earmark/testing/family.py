"""What every family keeps, whatever its traces hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from earmark.protocols import Family, Model
from earmark.recording import Clip
from earmark.testing import _dishonest, _honest, _strict
from earmark.testing.bench import Bench, default_clips, run_family


def check_family(
    family: Family,
    model: Model,
    clips: Sequence[Clip] | None = None,
    *,
    contracts: Iterable[str] | None = None,
    seed: int = 0,
) -> None:
    """Check that a family keeps every contract on which verification rests.

    Args:
        family: The family; it need not be registered.
        model: A loaded model of it, which really transcribes the clips.
        clips: Two or more clips with different words; by default four that ship with earmark.
        contracts: Names out of `FAMILY_CONTRACTS`; by default all, in their order.
        seed: Seed of damage and noise.

    Raises:
        AssertionError: A contract is broken; the message says which, what was found and what to do.
        UsageError: There is no such contract.

    Example:
        >>> import earmark
        >>> from earmark.registry import registry
        >>> model = earmark.load("embedded:whisper-nano", device="cpu")
        >>> check_family(registry("family").get("autoregressive"), model, contracts=["round trip"])
    """
    chosen = default_clips() if clips is None else list(clips)
    run_family(FAMILY_CONTRACTS, contracts, Bench(family=family, model=model, clips=chosen, seed=seed))


FAMILY_CONTRACTS: dict[str, Callable[[Bench], None]] = {
    "describes itself": _honest.describes_itself,
    "round trip": _honest.round_trip,
    "repeatable": _honest.repeatable,
    "batch invariance": _honest.batch_invariant,
    "segments": _honest.cuts_audio,
    "silence": _honest.silence,
    "bounded traces": _strict.bounded,
    "strict reading": _strict.reads_strictly,
    "damaged records": _strict.survives_damage,
    "bound to ids": _dishonest.binds_ids,
    "bound to audio": _dishonest.binds_audio,
    "bound to values": _dishonest.binds_values,
    "bound to nonce": _dishonest.binds_nonce,
    "least k": _dishonest.reports_k,
    "grows with noise": _dishonest.grows,
}
"""Name to contract, from the first that a new family meets to the last."""
