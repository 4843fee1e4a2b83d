"""Families, models and scenarios, found through entry points and loaded only when they are used."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from earmark.errors import PluginError, UnknownNameError

GROUPS = {
    "family": "earmark.families",
    "model": "earmark.models",
    "scenario": "earmark.scenarios",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One registered name.

    Attributes:
        name: The name.
        kind: `family`, `model` or `scenario`.
        origins: Where it is registered, as `package version (module:attribute)`; more than one is a collision.
        error: Why it cannot be used, or None.
        value: The loaded object, or None where it cannot be used.
    """

    name: str
    kind: str
    origins: tuple[str, ...]
    error: str | None = None
    value: Any = None


class Registry:
    """The plugins of one kind.

    Args:
        kind: What they are called in messages.
        points: Their entry points.
    """

    def __init__(self, kind: str, points: Iterable[EntryPoint]) -> None:
        """Group the entry points by name; nothing is imported yet."""
        self.kind = kind
        self._points: dict[str, dict[str, EntryPoint]] = {}
        for point in points:
            self._points.setdefault(point.name, {})[_origin(point)] = point
        self._loaded: dict[str, Plugin] = {}

    def names(self) -> list[str]:
        """Return all registered names in alphabetical order."""
        return sorted(self._points)

    def get(self, name: str) -> Any:
        """Return the plugin behind a name, importing it on first use.

        Raises:
            UnknownNameError: Nobody registered the name.
            PluginError: Two packages did, or the import failed.
        """
        if name not in self._points:
            raise UnknownNameError(self._unknown(name))
        plugin = self.inspect(name)
        if plugin.error is not None:
            raise PluginError(plugin.error)
        return plugin.value

    def inspect(self, name: str) -> Plugin:
        """Load one plugin and return it with its state; never raises for a registered name."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name, self._points[name])
        return self._loaded[name]

    def inspect_all(self) -> list[Plugin]:
        """Load every plugin and return them with their state; a broken one takes nothing else down."""
        return [self.inspect(name) for name in self.names()]

    @contextmanager
    def standing_in(self, name: str, value: Any) -> Iterator[None]:
        """Put `value` behind a name while the block runs: for tests of a plugin that nobody registered yet."""
        points, loaded = dict(self._points), dict(self._loaded)
        self._points[name] = {}
        self._loaded[name] = Plugin(name=name, kind=self.kind, origins=("a test",), value=value)
        try:
            yield
        finally:
            self._points, self._loaded = points, loaded

    def _load(self, name: str, points: dict[str, EntryPoint]) -> Plugin:
        origins = tuple(sorted(points))
        if len(points) > 1:
            error = f"{self.kind} {name!r} is registered by {' and by '.join(origins)}; uninstall one of them"
            return Plugin(name=name, kind=self.kind, origins=origins, error=error)
        try:
            loaded = next(iter(points.values())).load()
            value = loaded() if isinstance(loaded, type) else loaded
        except Exception as failure:  # noqa: BLE001 - the plugin border: whatever a plugin throws is kept and shown
            error = f"{self.kind} {name!r} of {origins[0]} does not load: {type(failure).__name__}: {failure}"
            return Plugin(name=name, kind=self.kind, origins=origins, error=" ".join(error.split()))
        return Plugin(name=name, kind=self.kind, origins=origins, value=value)

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names(), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        known = ", ".join(self.names()) or "none"
        return f"unknown {self.kind} {name[:80]!r}; {hint}registered: {known}"


def _origin(point: EntryPoint) -> str:
    package = f"{point.dist.name} {point.dist.version}" if point.dist else "an unknown package"
    return f"{package} ({point.value})"


@cache
def registry(kind: str) -> Registry:
    """Return the registry of one kind.

    Args:
        kind: `family`, `model` or `scenario`.

    Example:
        >>> "autoregressive" in registry("family").names()
        True
    """
    return Registry(kind, entry_points(group=GROUPS[kind]))
