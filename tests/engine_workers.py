"""Workers without a model, for tests of what engines do when workers die."""

from __future__ import annotations

import os
import time
from types import SimpleNamespace

from earmark.engines import Group, Source
from earmark.errors import UsageError
from earmark.records.verdict import Verdict, note
from earmark.rules import Case


class OddError(Exception):
    """An error that can be sent, and not received."""

    def __init__(self, wanted, found):
        super().__init__(f"{found} in place of {wanted}")


class OddSource(Source):
    """A model that does not open, for a reason of its own."""

    def open(self, device):
        raise OddError(1, device)


def serve(pipe, source, device, workers):  # noqa: ARG001
    """Stand in for `earmark.engines.local._serve`; the audio of a case says what happens."""
    if device == "broken":
        os._exit(7)
    pipe.send(UsageError("no such model") if device == "wrong" else SimpleNamespace(name="none", device=device))
    while True:
        try:
            group, _ = pipe.recv()
        except EOFError:
            return
        pipe.send(answer(group))


def answer(group):
    """Answer with the names of the cases, or as one of them asks."""
    for case in group.cases:
        if case.audio == "deadly":
            os._exit(9)
        if case.audio == "stuck":
            time.sleep(3600)
        if case.audio == "slow":
            time.sleep(0.3)
        if case.audio == "wrong":
            return UsageError("a wrong case")
    notes = [(note("name", name, len(group.cases)),) for name in group.names]
    return [Verdict(outcome="PASS", proves="reconstructable", findings=own) for own in notes]


def grouped(audios, size=3):
    """Return groups of cases with these audios, named by their numbers."""
    return [
        Group(
            names=tuple(str(start + i) for i in range(len(part))),
            cases=tuple(Case(evidence=None, audio=audio) for audio in part),
            modes=("replay",) * len(part),
        )
        for start in range(0, len(audios), size)
        if (part := audios[start : start + size])
    ]
