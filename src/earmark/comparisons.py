"""What is compared with what: the providers of a study, of precisions, of two checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from earmark.checkpoint import EMBEDDED, embedded_names
from earmark.errors import UsageError
from earmark.protocols import Model
from earmark.scenarios.core import Scenario, scenario
from earmark.scenarios.honest import honest_scenarios
from earmark.scenarios.naming import short_name
from earmark.scenarios.stand_in import other_checkpoint

Load = Callable[[str, str], Model]
"""(checkpoint, precision) to model."""

FLOATS = {"fp32": 32, "fp16": 16, "bf16": 16}
"""Precisions that a model can be loaded for, and their bits."""
ROUNDED = {"fp8": 8, "int8": 8, "int4": 4}
"""Precisions that are made by rounding weights."""
ALL_PRECISIONS = "precisions"
"""Names all of them in place of one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One model that is claimed, and the providers that claim it."""

    reference: Model
    scenarios: tuple[Scenario, ...]


def variants_of(name: str, names: Sequence[str]) -> list[str]:
    """Return the embedded models that are variants of another: its name and a word more.

    Example:
        >>> variants_of("a-nano", ["a-nano", "a-nano-student", "b-nano", "a-nano-early"])
        ['a-nano-student', 'a-nano-early']
    """
    return [other for other in names if other.startswith(f"{name}-")]


def originals(names: Sequence[str]) -> list[str]:
    """Return the embedded models that are no variant of another.

    Example:
        >>> originals(["a-nano", "a-nano-student", "b-nano"])
        ['a-nano', 'b-nano']
    """
    return [name for name in names if not any(name in variants_of(other, names) for other in names)]


def usual(reference: Model, load: Load) -> Task:
    """Return the usual study of a model: four honest providers, rounded weights, a layer and audio left out.

    The variants of an embedded model (students, siblings) stand in for it as well.

    Args:
        reference: The model that is claimed.
        load: Loads the variants.
    """
    scenarios = [
        *honest_scenarios(),
        *_rounded(ALL_PRECISIONS),
        scenario("skip_layers", count=1),
        scenario("drop_audio", seconds=1.0),
    ]
    name = reference.info.name
    if name.startswith(EMBEDDED):
        for other in variants_of(name.removeprefix(EMBEDDED), embedded_names()):
            model = load(f"{EMBEDDED}{other}", reference.info.precision)
            scenarios.append(other_checkpoint(model=model, name=other))
    return Task(reference=reference, scenarios=tuple(own for own in scenarios if possible(own, reference)))


def possible(provider: Scenario, reference: Model) -> bool:
    """Tell whether a scenario can be played with a model: its kind may not have what is altered."""
    if provider.model is None:
        return True
    try:
        provider.alternative(reference)
    except UsageError:
        return False
    return True


def precisions(source: str, load: Load, only: str = ALL_PRECISIONS, claim: str | None = None) -> Iterator[Task]:
    """Yield one task per claimed precision: who runs a cheaper one in its place.

    Args:
        source: The checkpoint.
        load: Loads it for a precision.
        only: The one precision that is really run, or `precisions` for all.
        claim: The one that is claimed; by default all of fp32, fp16 and bf16.

    Raises:
        UsageError: A precision is unknown, or the one that is run is not cheaper than the claim.
    """
    bits = {**FLOATS, **ROUNDED}
    if only != ALL_PRECISIONS and only not in bits:
        raise UsageError(f"precision {only!r}; known: {', '.join(bits)}, or {ALL_PRECISIONS} for all")
    for claimed in [claim] if claim else FLOATS:
        reference = load(source, claimed)
        others = [name for name in FLOATS if name != claimed and bits[name] <= bits[claimed]]
        chosen = [name for name in others if only in (name, ALL_PRECISIONS)]
        stand_ins = [other_checkpoint(model=load(source, name), name=name) for name in chosen]
        cheats = [*stand_ins, *_rounded(only)]
        if not cheats:
            raise UsageError(f"{only} in place of {claimed} spares nothing; name a cheaper precision")
        yield Task(reference=reference, scenarios=(*two_honest(), *cheats))


def checkpoints(a: Model, b: Model, b_source: str, *, load: Load, same: bool = False) -> Iterator[Task]:
    """Yield what two checkpoints can be asked: b in place of a, or, where it cannot stand in, each by itself.

    Args:
        a: The model that is claimed.
        b: The other one.
        b_source: Its name.
        load: Loads variants.
        same: b is the same model elsewhere, another engine or machine: its provider is honest.
    """
    name = short_name(b_source) if not same else f"{short_name(b_source)}-{b.info.engine.split(' ')[0]}"
    other = dataclasses.replace(other_checkpoint(model=b, name=name), honest=same)
    if possible(other, a):
        yield Task(reference=a, scenarios=(*two_honest(), other))
        return
    if same:
        found, expected = b.info.family, a.info.family
        raise UsageError(f"{b_source} ({found}) cannot be {a.info.name} ({expected}) in another engine")
    yield usual(a, load)
    yield usual(b, load)


def two_honest() -> tuple[Scenario, ...]:
    """Return two honest providers: clips one by one, and in batches with the other attention kernel."""
    return scenario("honest", batch_size=1), scenario("honest", batch_size=8, attention="eager")


def _rounded(only: str) -> list[Scenario]:
    made = {
        "fp8": scenario("float8"),
        "int8": scenario("quantise", bits=8),
        "int4": scenario("quantise", bits=4, group=64),
    }
    return [made[only]] if only in made else list(made.values()) if only == ALL_PRECISIONS else []
