"""Scenarios by name and parameters in one word, for command lines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from typing import Any

from earmark.errors import EarmarkError, UsageError
from earmark.protocols import Model
from earmark.registry import registry
from earmark.scenarios.core import Scenario, scenario_names
from earmark.scenarios.stand_in import other_checkpoint

MODELS = ("model", "writer", "draft")
"""Parameters that name a checkpoint."""
SCENARIOS = ("cheat",)
"""Parameters that name a scenario, in parentheses where it has parameters of its own."""
OUTSIDE = re.compile(r",(?![^(]*\))")
"""Commas outside parentheses."""
WORDS = {"true": True, "false": False, "none": None}


def parse_scenario(text: str, load: Callable[[str], Model]) -> Scenario:
    """Make a scenario from one word: `NAME`, `NAME:KEY=VALUE,KEY=VALUE`, or a checkpoint that stands in.

    Args:
        text: For instance `quantise:bits=4,group=64`, `mixed:share=0.1,cheat=(quantise:bits=4,group=64)`,
            `rescored:writer=FOLDER`, or a folder, hub id or `embedded:NAME`.
        load: Loads a checkpoint.

    Returns:
        The scenario.

    Raises:
        UsageError: A parameter is unknown, has no value, or is outside its range.

    Example:
        >>> parse_scenario("quantise:bits=4,group=64", load=None).name
        'int4-g64'
        >>> parse_scenario("mixed:share=0.1,cheat=(quantise:bits=4,group=64)", load=None).name
        'int4-g64-on-0.1'
    """
    name, _, rest = text.partition(":")
    if name not in scenario_names():
        return other_checkpoint(model=_stand_in(text, load), name=short_name(text))
    try:
        made: Scenario = registry("scenario").get(name)(**_parameters(rest, load))
    except TypeError as error:
        raise UsageError(f"scenario {text!r}: {error}; write {name}:KEY=VALUE,KEY=VALUE") from error
    return made


def short_name(source: str) -> str:
    """Return the short name of a checkpoint.

    Example:
        >>> short_name("embedded:whisper-nano-student"), short_name("models/mine/")
        ('whisper-nano-student', 'mine')
    """
    return source.removeprefix("embedded:").rstrip("/").rpartition("/")[2]


def _stand_in(source: str, load: Callable[[str], Model]) -> Model:
    try:
        return load(source)
    except EarmarkError as error:
        near = difflib.get_close_matches(source.partition(":")[0], scenario_names(), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`earmark scenarios` lists the scenarios"
        raise UsageError(f"{source!r} is no scenario ({hint}) and no checkpoint: {error}") from error


def _parameters(text: str, load: Callable[[str], Model]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in OUTSIDE.split(text) if text else ():
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise UsageError(f"{part!r} is no parameter; write KEY=VALUE")
        if key in SCENARIOS:
            found[key] = parse_scenario(value.removeprefix("(").removesuffix(")"), load)
        else:
            found[key] = load(value) if key in MODELS else _value(value)
    return found


def _value(text: str) -> Any:
    if text in WORDS:
        return WORDS[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
