"""Libraries that are not always installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from earmark.errors import UsageError


def need(library: str, *, what: str, extra: str) -> Any:
    """Return a library of one of earmark's extras.

    Args:
        library: Name of the module.
        what: What needs it, for the message.
        extra: The extra that installs it.

    Raises:
        UsageError: It is not installed.

    Example:
        >>> need("panda", what="to_pandas", extra="table")
        Traceback (most recent call last):
        ...
        earmark.errors.UsageError: to_pandas needs panda; install earmark[table]
    """
    try:
        return import_module(library)
    except ImportError as error:
        raise UsageError(f"{what} needs {library}; install earmark[{extra}]") from error
