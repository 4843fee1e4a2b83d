"""The grammars by language code."""

from __future__ import annotations

from earmark.challenges.english import ENGLISH
from earmark.challenges.french import FRENCH
from earmark.challenges.german import GERMAN
from earmark.challenges.spanish import SPANISH

GRAMMARS = {grammar.language: grammar for grammar in (ENGLISH, GERMAN, FRENCH, SPANISH)}
