"""Attribution: which of the known cheats the evidence looks like.

The verifier owns the reference's weights, so it can build the likely cheats and replay the same clip with each: the
library is a list of recipes, not of numbers. What matches none of them is called so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from earmark.errors import UsageError
from earmark.fingerprint.matched import Match, matched_filter, matched_names
from earmark.loading import family_of
from earmark.protocols import AttributableFamily, Model
from earmark.rules import Work
from earmark.scenarios.core import Scenario
from earmark.scenarios.network import quantise_cache, skip_layers
from earmark.scenarios.weights import float8, normal_float4, quantise

Floats = NDArray[np.float64]

NEAREST = (0.6, 1.4)
"""T of an alternative that is named lies between these."""
MOST_UNEXPLAINED = 0.5
"""An alternative that is named explains at least half of the deviation's energy, or all but honest noise of it."""
SURE = 5.0
"""Standard errors by which T of the latter differs from 0."""
NONE = "none of the known"
MATCH = "match_"
PARTS = ("projection", "unexplained", "share", "sure", "rest")
"""How matches are called in a shape: `match_RECIPE_PART`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """What the evidence of one clip looks like.

    Attributes:
        name: Name of the cheat, or `none of the known`.
        matches: The match of every recipe.
    """

    name: str
    matches: Mapping[str, Match]

    def shape(self) -> dict[str, float]:
        """Return the matches as numbers of a clip's shape (`earmark.fingerprint.shape`).

        Example:
            >>> attribution = Attribution(name="int8", matches={"int8": Match(projection=0.98, unexplained=0.01)})
            >>> attribution.shape()["match_int8_projection"]
            0.98
        """
        return {f"{MATCH}{name}_{part}": getattr(match, part) for name, match in self.matches.items() for part in PARTS}

    def statistics(self) -> dict[str, float]:
        """Return how far the provider deviates along each recipe, and how much; see `Match.along` and `Match.excess`.

        Example:
            >>> match = Match(projection=0.98, unexplained=0.01, along=0.7, excess=1.2)
            >>> Attribution(name="int8", matches={"int8": match}).statistics()
            {'along_int8': 0.7, 'excess_int8': 1.2}
        """
        found = [*self.matches.values()]
        values = (*(match.along for match in found), *(match.excess for match in found))
        return dict(zip(matched_names([*self.matches]), values, strict=True))

    def __str__(self) -> str:
        """Return the name, with T of the recipe, or of the nearest one.

        Example:
            >>> str(Attribution(name="int8", matches={"int8": Match(projection=0.98, unexplained=0.01)}))
            'int8 (T = 0.98)'
        """
        if self.name != NONE:
            return f"{self.name} (T = {_share(self.matches[self.name]):.2f})"
        known = {name: m for name, m in self.matches.items() if np.isfinite(m.unexplained)}
        if not known:
            return NONE
        nearest = min(known, key=lambda name: known[name].unexplained)
        return f"{NONE} (nearest: {nearest}, T = {_share(known[nearest]):.2f})"


def library() -> list[Scenario]:
    """Return the recipes that are tried by default; other checkpoints can be added with `other_checkpoint`.

    Example:
        >>> [recipe.name for recipe in library()][:3]
        ['int8', 'int8-tensor', 'int4-g64']
    """
    return [
        quantise(bits=8),
        quantise(bits=8, sharing="tensor"),
        quantise(bits=4, group=64),
        quantise(bits=4, group=128),
        normal_float4(),
        float8(),
        quantise_cache(kind="fp8"),
        skip_layers(count=1),
    ]


def recipes_of(names: Sequence[str]) -> list[Scenario]:
    """Return recipes of the library by name.

    Raises:
        UsageError: The library has none of that name.

    Example:
        >>> [recipe.name for recipe in recipes_of(["fp8", "int8"])]
        ['fp8', 'int8']
    """
    known = {recipe.name: recipe for recipe in library()}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UsageError(f"no recipe {unknown[0]!r}; known: {', '.join(known)}")
    return [known[name] for name in names]


def applies(recipe: Scenario, reference: Model) -> bool:
    """Say whether a model can be made into the cheat of a recipe."""
    try:
        recipe.alternative(reference.in_float32())
    except UsageError:
        return False
    return True


def named_in(shape: Mapping[str, float]) -> str | None:
    """Return which recipe a clip looks like by the matches in its shape; None where it was matched with none.

    Args:
        shape: What `Attribution.shape` wrote, and whatever stands beside it.

    Example:
        >>> named_in({"shape_rms": 0.1, "match_int8_projection": 0.98, "match_int8_unexplained": 0.01})
        'int8'
        >>> named_in({"match_int8_projection": 0.1, "match_int8_unexplained": 0.9}), named_in({"shape_rms": 0.1})
        ('none of the known', None)
    """
    first = f"_{PARTS[0]}"
    names = [key[len(MATCH) : -len(first)] for key in shape if key.startswith(MATCH) and key.endswith(first)]
    matches = {name: Match(**{part: shape.get(f"{MATCH}{name}_{part}", math.nan) for part in PARTS}) for name in names}
    return _name(matches) if matches else None


def attribute(
    works: Sequence[Work], reference: Model, recipes: Sequence[Scenario] | None = None, *, batch_size: int = 8
) -> list[Attribution | None]:
    """Say of replayed cases which recipe they look like; one replay per recipe.

    Args:
        works: Cases behind their replay.
        reference: The reference in float32 arithmetic.
        recipes: Scenarios that run another model; by default `library()`. One that this model cannot be made into is
            left out.
        batch_size: Segments at once.

    Returns:
        One attribution per case; None where it was not replayed, or its family compares no single values.
    """
    family = family_of(reference)
    found: list[Attribution | None] = [None] * len(works)
    if not isinstance(family, AttributableFamily):
        return found
    open_ones = [i for i, work in enumerate(works) if work.replays]
    chosen = [works[i] for i in open_ones]
    matches: list[dict[str, Match]] = [{} for _ in chosen]
    own = [_coordinates(family, work, work.replays) for work in chosen]
    noise = family.provisional_bounds(reference.info.precision)["logprob_l1"]
    inputs = [item for work in chosen for item in work.inputs]
    traces = [trace for work in chosen for trace in work.traces]
    for recipe in (library() if recipes is None else recipes) if inputs else ():
        try:
            model = recipe.alternative(reference)
        except UsageError:
            continue
        replays = iter(family.replay(model, inputs, traces, batch_size=batch_size, advance=lambda _: None))
        for i, work in enumerate(chosen):
            _, other = _coordinates(family, work, [next(replays) for _ in work.inputs])
            match = matched_filter(*own[i], other)
            matches[i][recipe.name] = replace(match, rest=match.rest / noise)
    for i, place in enumerate(open_ones):
        found[place] = Attribution(name=_name(matches[i]), matches=matches[i])
    return found


def _coordinates(family: AttributableFamily, work: Work, replays: Sequence[object]) -> tuple[Floats, Floats]:
    pairs = [family.coordinates(trace, replay) for trace, replay in zip(work.traces, replays, strict=True)]
    provider, reference = (_stacked(column) for column in zip(*pairs, strict=True))
    return provider, reference


def _stacked(parts: Sequence[Floats]) -> Floats:
    """Return the rows of all segments one below the other; NaN where one lists fewer values than another."""
    rows = [part.reshape(len(part), math.prod(part.shape[1:])) for part in parts]
    widest = max(part.shape[1] for part in rows)
    return np.concatenate(
        [np.pad(part, ((0, 0), (0, widest - part.shape[1])), constant_values=np.nan) for part in rows]
    )


def _name(matches: Mapping[str, Match]) -> str:
    """Return the recipe that leaves least unexplained, if it is near enough."""
    near = {name: match.unexplained for name, match in matches.items() if _explains(match)}
    return min(near, key=lambda name: near[name]) if near else NONE


def _explains(match: Match) -> bool:
    """Say whether a recipe explains a deviation: half of it, or, under 16 bits, all but honest noise."""
    if NEAREST[0] <= match.projection <= NEAREST[1] and match.unexplained <= MOST_UNEXPLAINED:
        return True
    return NEAREST[0] <= match.share <= NEAREST[1] and match.sure >= SURE and match.rest <= 1


def _share(match: Match) -> float:
    return match.projection if math.isnan(match.share) else match.share
