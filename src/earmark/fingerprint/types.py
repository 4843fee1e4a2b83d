"""The `Fingerprint`: named statistics of evidence against replay, in a fixed, versioned order."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

FINGERPRINT_VERSION = 2
"""Rises when a statistic is added, removed, renamed or computed in another way."""


@dataclass(frozen=True, slots=True)
class Statistic:
    """One statistic: its name, unit and meaning; every statistic grows with suspicion.

    Attributes:
        name: Stable name, for instance `logprob_l1`.
        unit: Unit of the value.
        meaning: One sentence.
        steady: Whether its honest size is the same whatever is said. One of probabilities is not: noise in the logits
            moves a probability p by p (1 - p) times as much, so that it grows where the model is in doubt.
    """

    name: str
    unit: str
    meaning: str
    steady: bool = True


@dataclass(frozen=True, slots=True)
class Fingerprint(Mapping[str, float]):
    """The statistics of one clip.

    A statistic that does not apply to the clip is NaN: it is neither evidence for nor against the provider.

    Attributes:
        family: Architecture family whose statistics these are.
        names: Names in their fixed order.
        values_: One value per name.
        version: Version of names, order and definitions.
        shape: In which way the provider deviates (`earmark.fingerprint.shape`); decides nothing, may be empty.

    Example:
        >>> f = Fingerprint("autoregressive", ("logprob_l1", "prob_l1"), (0.25, 0.01))
        >>> f["logprob_l1"], len(f), f.headline()
        (0.25, 2, 'logprob_l1 0.25, prob_l1 0.01')
    """

    family: str
    names: tuple[str, ...]
    values_: tuple[float, ...]
    version: int = FINGERPRINT_VERSION
    shape: Mapping[str, float] = field(default_factory=dict, compare=False, repr=False)

    def __getitem__(self, name: str) -> float:
        """Return the value of one statistic."""
        try:
            return self.values_[self.names.index(name)]
        except ValueError:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in their order."""
        return iter(self.names)

    def __len__(self) -> int:
        """Return the number of statistics."""
        return len(self.names)

    def extended(self, more: Mapping[str, float]) -> Fingerprint:
        """Return the fingerprint with further statistics behind its own; one that it has already is replaced.

        Example:
            >>> dict(Fingerprint("ctc", ("logprob_l1",), (0.25,)).extended({"along_int8": 0.1}))
            {'logprob_l1': 0.25, 'along_int8': 0.1}
        """
        values = {**self, **more}
        return replace(self, names=tuple(values), values_=tuple(values.values()))

    def headline(self, count: int = 3) -> str:
        """Return the first `count` statistics that apply in one line."""
        pairs = [(name, value) for name, value in self.items() if not math.isnan(value)][:count]
        return ", ".join(f"{name} {value:.3g}" for name, value in pairs)
