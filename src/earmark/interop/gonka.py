"""Gonka's rules applied to responses."""

from __future__ import annotations

import math
from typing import Any

from earmark.fingerprint import gonka
from earmark.interop.response import Response, Token


def positions(response: Response) -> list[gonka.Position]:
    """Return a response as Gonka's rules see it: ids where there are any, missing values as its sentinel."""
    return [
        gonka.Position(_key(step.chosen), _value(step.chosen), [(_key(token), _value(token)) for token in step.top])
        for step in response.steps
    ]


def _key(token: Token) -> int | str:
    return token.text if token.id is None else token.id


def _value(token: Token) -> float:
    return gonka.SENTINEL if math.isnan(token.logprob) else token.logprob


def similarity(executor: Response, validator: Response, rule: gonka.Rule = "current", **options: Any) -> gonka.Outcome:
    """Compare an executor's response with a validator's replay of it.

    Args:
        executor: What the provider reported.
        validator: What a replay with `enforced_tokens` reported.
        rule: `legacy`, `current` or `policy`.
        options: Those of `earmark.fingerprint.gonka.compare`.

    Returns:
        The outcome with its similarity.
    """
    return gonka.compare(positions(executor), positions(validator), rule, **options)
