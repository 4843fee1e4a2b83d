"""Engines: where the clips of an audit are verified. In this process, in others (`local`), or on a cluster (`ray`).

An engine takes groups of cases and returns their verdicts, in the order of the groups. It decides nothing and keeps
nothing: the same group gets the same verdicts wherever it is verified, so that the log of an audit tells no difference.
Cases go to workers as records, bytes and paths; models are opened where they run, and never sent.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from earmark.budget import Budget
from earmark.errors import EarmarkError, UsageError
from earmark.loading import load
from earmark.profiles import Profile
from earmark.protocols import Model, ModelInfo
from earmark.records.policy import Policy
from earmark.records.verdict import Verdict, unclear
from earmark.replaying import Mode
from earmark.rules import Case
from earmark.verification import verify_many

KINDS = ("local", "ray")
TRIES = 2
"""Workers that a group may cost, and then each of its cases alone."""
TIMEOUT_S = 1800.0
"""Seconds that a worker may take for one group, or to open the model."""
LONGEST_S = 1e6
"""Longest such limit: more than a week."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a worker opens: the arguments of `earmark.load` but for the device."""

    model: str | os.PathLike[str]
    dtype: str = "float32"
    arithmetic: str | None = None
    attention: str = "sdpa"

    def open(self, device: str | None) -> Model:
        """Load the model on a device."""
        return load(self.model, device=device, dtype=self.dtype, arithmetic=self.arithmetic, attention=self.attention)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """By what every group is verified; see `earmark.verify_many`."""

    profile: Profile
    policy: Policy | None = None
    budget: Budget | None = None
    batch_size: int = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Cases that are verified together, with the name and the mode of each."""

    names: tuple[str, ...]
    cases: tuple[Case, ...]
    modes: tuple[Mode, ...]

    def only(self, place: int) -> Group:
        """Return one of its cases as a group."""
        return Group(names=(self.names[place],), cases=(self.cases[place],), modes=(self.modes[place],))


@runtime_checkable
class Engine(Protocol):
    """Where groups are verified."""

    @property
    def info(self) -> ModelInfo:
        """Facts about the model that the workers opened.

        Raises:
            EarmarkError: A worker could not open it.
        """

    def verify(self, groups: Iterable[Group], terms: Terms) -> Iterator[tuple[Group, list[Verdict]]]:
        """Yield each group with its verdicts, in order; groups are taken a bounded number ahead, or all at once.

        A group whose worker dies, or takes too long, is done again. Where it costs more workers than `TRIES`, its cases
        are done one by one; a case that alone costs as many gets the verdict of `lost`. What `groups` raises comes
        behind the verdicts of the groups before it.

        Raises:
            EarmarkError: What `earmark.verify_many` raises for a group, when its turn has come; or no worker starts.
        """

    def close(self) -> None:
        """End all workers at once, whatever they are doing."""


class InProcess:
    """The engine without workers: one model, in this process."""

    def __init__(self, model: Model) -> None:
        """Take the verifier's own copy of the claimed model."""
        self.model = model

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""
        return self.model.info

    def verify(self, groups: Iterable[Group], terms: Terms) -> Iterator[tuple[Group, list[Verdict]]]:
        """Yield each group with its verdicts; the next one is taken when it is asked for."""
        for group in groups:
            yield group, verify_group(group, self.model, terms)

    def close(self) -> None:
        """Do nothing."""


def verify_group(group: Group, model: Model, terms: Terms) -> list[Verdict]:
    """Return the verdicts of a group, each case in its own mode."""
    options: dict[str, Any] = {
        "profile": terms.profile,
        "policy": terms.policy,
        "budget": terms.budget or 1.0,
        "batch_size": terms.batch_size,
    }
    found: dict[int, Verdict] = {}
    for mode in dict.fromkeys(group.modes):
        places = [i for i, own in enumerate(group.modes) if own == mode]
        verdicts = verify_many([group.cases[i] for i in places], model, mode=mode, **options)
        found.update(zip(places, verdicts, strict=True))
    return [found[i] for i in range(len(group.cases))]


def lost() -> Verdict:
    """Return the verdict of a case whose verification ends the worker: the verifier's own fault, and no verdict."""
    found = f"{TRIES} workers that died, or took too long, while they verified this clip alone"
    expected = "a worker that answers: look at its memory and --worker-timeout, and verify the clip apart"
    finding = unclear("worker.died", "verifier", found, expected)
    return Verdict(outcome="INCONCLUSIVE", proves="reconstructable", findings=(finding,))


def portable(error: Exception) -> EarmarkError:
    """Return an error that can be sent to another process: itself, or one of earmark that says the same.

    Args:
        error: What a worker, or a plugin in it, raised.

    Example:
        >>> print(portable(KeyError("x")))
        a worker raised KeyError: 'x'; expected verdicts: verify without workers to see where it comes from
    """
    try:
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - errors of plugins may do anything here
        copy = None
    if isinstance(error, EarmarkError) and type(copy) is type(error) and str(copy) == str(error):
        return error
    found = f"a worker raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return UsageError(f"{found}; expected verdicts: verify without workers to see where it comes from")


def open_engine(
    source: Source,
    *,
    kind: str = "local",
    device: str | None = None,
    devices: Sequence[str] = (),
    processes: int | None = None,
    timeout_s: float | None = TIMEOUT_S,
) -> Engine:
    """Return an engine; what it started ends with `close`.

    Args:
        source: The model.
        kind: `local` or `ray`.
        device: Where every worker opens the model; by default cuda where there is one.
        devices: One local process per device, in place of `device` and `processes`.
        processes: Local processes, or workers of ray; None for this process alone, or one worker per GPU of the
            cluster.
        timeout_s: Seconds that a worker may take for one group, or to open the model; it is then started anew as if
            it had died. None for no limit. This process alone has none.

    Raises:
        EarmarkError: The model cannot be opened, ray is missing, or the options contradict each other.
    """
    if kind not in KINDS:
        raise UsageError(f"engine {kind!r}; known: {', '.join(KINDS)}")
    if devices and (kind == "ray" or processes is not None or device is not None):
        expected = "with ray, --processes workers take GPUs as ray hands them out" if kind == "ray" else "one of them"
        raise UsageError(f"--devices {','.join(devices)} beside other options of the same; expected {expected}")
    if processes is not None and processes < 1:
        raise UsageError(f"{processes} processes; expected 1 or more")
    if timeout_s is not None and not 0 < timeout_s <= LONGEST_S:
        raise UsageError(f"a timeout of {timeout_s:g} s for workers; expected above 0, at most {LONGEST_S:g}, or none")
    if kind == "ray":
        from earmark.engines.ray import RayEngine

        return RayEngine(source, device=device, workers=processes, timeout_s=timeout_s)
    places: list[str | None] = [*devices] or [device] * (processes or 0)
    if not places:
        return InProcess(source.open(device))
    from earmark.engines.local import LocalEngine

    return LocalEngine(source, places, timeout_s=timeout_s)
