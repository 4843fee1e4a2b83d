"""The header of a calibrated profile: the part that people read."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import msgspec

from earmark.decision.betting import MOST_TOLERANCE, TOLERANCE
from earmark.decision.conformal import upper_bound
from earmark.fingerprint.matched import along_names, matched_names
from earmark.fingerprint.types import FINGERPRINT_VERSION
from earmark.records.codec import Count, Digest, Name, Record
from earmark.records.evidence import Level, Precision
from earmark.records.request import Strategy

Share = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Numbers = Annotated[tuple[float, ...], msgspec.Meta(max_length=256)]

MOST_RECIPES = 3
"""More would make honest clips pay for directions that nobody takes."""
LEAST_POSITIONS = 2
"""Fewest positions of a clip that may PASS, where a profile does not ask for more."""


class HeldOut(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What honest clips did that took no part in the calibration.

    Attributes:
        clips: How many there were.
        alarms: How many FAILed, by a rule or by their p-value.
    """

    clips: Count
    alarms: Count

    def upper(self, level: float = 0.05) -> float:
        """Return the exact upper bound of the false-alarm rate.

        Example:
            >>> round(HeldOut(clips=3000, alarms=0).upper(), 6)
            0.000998
        """
        return float(upper_bound(self.alarms, self.clips, level)) if self.clips else 1.0


class Power(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a budget finds of one provider: computed, not measured.

    Attributes:
        provider: Name of the cheat; `any` for one that is found wherever it is replayed.
        found: Share of its clips that stood out when they were replayed whole.
        unit: What the budget draws.
        total: How many there are.
        share: Share of them that is replayed.
        cheated: Share of them on which the provider cheats.
        power: Probability that one at least of those that are replayed stands out: FAILs where clips are drawn, is
            INCONCLUSIVE (`statistics.part`) where segments are. An audit asks for more (`earmark.decision.power`).
    """

    provider: Name
    found: Share
    unit: Literal["segments", "clips"]
    total: Count
    share: Share
    cheated: Share
    power: Share


Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=1e6)]


class Header(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a profile that people read; the calibration scores lie beside it.

    Attributes:
        model: Name of the model, for people.
        weights: Digest of the weights it belongs to.
        family: Architecture family.
        precision: Claimed precision it belongs to.
        strategy: Decoding it belongs to.
        level: Level of evidence it was calibrated on.
        k: Listed tokens per position.
        fingerprint_version: Version of the statistics.
        channels: Statistics that take part in the score.
        floor: See `Scale`.
        median: See `Scale`.
        width: See `Scale`.
        rate: False-alarm rate a of one clip.
        tolerance: Declared factor by which honest behaviour may drift in an audit.
        least_positions: Fewest positions of a clip that may PASS.
        development: Decided clips the scale was fitted on.
        held_out: Honest clips that were only tested.
        scenarios: Honest scenarios that were run.
        provenance: Clips (how many, how many of them undecided, a digest over names and files), slack, CPU capability,
            command without absolute paths, versions. Which of these stand here depends on the version that calibrated.
        recipes: Known cheats whose direction takes part in the score (`earmark.attribution`), one more replay for each;
            their channels are the last.
        power: What budgets find (`earmark.budget.powers`).
        least: See `Scale`.
        seconds: Shortest and longest clip for which the rate is promised; None where a slack allows for others.
        positions: Fewest positions of a clip that it accuses; 0 where a slack allows for fewer.
    """

    FORMAT: ClassVar[str] = "earmark.profile/1"

    format: Literal["earmark.profile/1"] = "earmark.profile/1"
    model: Name
    weights: Digest
    family: Name
    precision: Precision
    strategy: Strategy
    level: Level
    k: Annotated[int, msgspec.Meta(ge=1, le=1024)]
    fingerprint_version: int = FINGERPRINT_VERSION
    channels: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1, max_length=256)]
    floor: Numbers
    median: Numbers
    width: Numbers
    rate: Share
    tolerance: Annotated[float, msgspec.Meta(ge=1.0, le=MOST_TOLERANCE)] = TOLERANCE
    least_positions: Annotated[int, msgspec.Meta(ge=1)] = LEAST_POSITIONS
    development: Count
    held_out: HeldOut
    scenarios: tuple[Name, ...] = ()
    provenance: dict[str, str] = msgspec.field(default_factory=dict)
    recipes: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MOST_RECIPES)] = ()
    power: Annotated[tuple[Power, ...], msgspec.Meta(max_length=4096)] = ()
    least: Numbers = ()
    seconds: tuple[Seconds, Seconds] | None = None
    positions: Count = 0

    def promises(self, seconds: float) -> bool:
        """Say whether the rate is promised for clips of this length.

        Noise of a clip with few positions scatters more, and one of many has more positions to stand out.
        """
        return self.seconds is None or self.seconds[0] <= seconds <= self.seconds[1]

    @property
    def matched(self) -> tuple[str, ...]:
        """The channels of the recipes, the last ones."""
        return matched_names(self.recipes)

    @property
    def along(self) -> tuple[str, ...]:
        """Those of them that are projections, see `Scale.linear`."""
        return along_names(self.recipes)

    def __post_init__(self) -> None:
        """Refuse a scale that does not fit its channels, and recipes that are no channels."""
        if self.channels[len(self.channels) - len(self.matched) :] != self.matched:
            raise ValueError(f"recipes {', '.join(self.recipes)} need the last channels {', '.join(self.matched)}")
        sizes = {len(self.channels), len(self.floor), len(self.median), len(self.width), len(self.least or self.floor)}
        numbers = (*self.floor, *self.median, *self.width, *self.least)
        if len(sizes) > 1 or not all(map(math.isfinite, numbers)):
            raise ValueError("floor, median, width and least need one finite number per channel")
        if min(self.width) <= 0 or min((*self.floor, *self.least)) < 0:
            raise ValueError("a scale has widths above 0, and floors and least values of 0 or more")
