"""Voices: accents per language, variants of espeak-ng, and a draw among them."""

from __future__ import annotations

from earmark.challenges.synthesis import Voice, identity
from earmark.challenges.text import Chooser, words

ENGLISH_ACCENTS = words("en-us en-gb en-gb-x-rp en-gb-scotland en-gb-x-gbclan en-gb-x-gbcwmd en-029")
HELD_OUT_ACCENT = "en-us-nyc"
"""The embedded models never heard it in training."""

ACCENTS = {
    "en": [*ENGLISH_ACCENTS, HELD_OUT_ACCENT],
    "de": ["de"],
    "fr": ["fr-fr", "fr-be", "fr-ch"],
    "es": ["es", "es-419"],
}
VARIANTS = words(
    "m1 m2 m3 m5 m7 m8 f1 f2 f3 f5 Alex Alicia Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco "
    "Mario Michael Mike Nguyen Storm adam anika announcer antonio aunty belinda benjamin boris caleb david ed "
    "grandma grandpa gustave iven iven2 iven3 john kaukovalta klatt klatt2 klatt4 marcelo max michel miguel "
    "norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 victor zac"
)
HELD_OUT_VARIANTS = words("m4 m6 f4 Andrea linda klatt3 edward travis steph3 iven4")
"""Variants that the embedded models never heard in training."""

FLITE_VOICES = ("kal16", "awb", "slt", "rms")
"""English only; `rms` was never heard in training."""


def cast_espeak(language: str, rng: Chooser, *, accent: str | None = None) -> Voice:
    """Return a random espeak-ng voice for a language, with a random rate and pitch.

    Args:
        language: `en`, `de`, `fr` or `es`.
        rng: Where the choices come from.
        accent: The espeak-ng voice; a random one of the language by default.
    """
    chosen = accent or rng.choice(ACCENTS[language])
    variant = rng.choice([*VARIANTS, *HELD_OUT_VARIANTS])
    rate, pitch = rng.randrange(80, 121) / 100, rng.randrange(25, 76)
    return Voice(engine="espeak", name=f"{chosen}+{variant}", rate=rate, pitch=pitch, synthesiser=identity("espeak"))


def cast_flite(rng: Chooser) -> Voice:
    """Return a random English voice of flite, with a random rate and pitch."""
    name, rate, pitch = rng.choice(FLITE_VOICES), rng.randrange(80, 121) / 100, rng.randrange(25, 76)
    return Voice(engine="flite", name=name, rate=rate, pitch=pitch, synthesiser=identity("flite"))
