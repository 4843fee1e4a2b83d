"""Recipes of the mixed challenges: noise, echo, several voices, long clips, and what is hardly there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from earmark.challenges.manifest import MULTIPLE, Row
from earmark.challenges.mixing import UNIT_GAIN, Layer, Noise, level_gain, noise_gain
from earmark.challenges.text import Dice

RATE_HZ = 16_000
SNRS_DB = (20, 10, 5, 0, -5)


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored clip: its row and its samples."""

    row: Row
    samples: NDArray[np.int16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """A recipe: what is said, in which language, and the layers."""

    category: str
    language: str
    text: str
    layers: tuple[Layer, ...]


Clips = Mapping[str, Stored]


@dataclass(frozen=True, slots=True, kw_only=True)
class MixFamily:
    """A kind of recipe, how many are kept, and how many times as many are tried."""

    name: str
    kept: int
    make: Callable[[Dice, Clips], Mix]
    pool: int = 4


def _pick(dice: Dice, clips: Clips, language: str = "en") -> Stored:
    return dice.choice([clip for clip in clips.values() if clip.row.language == language])


def _any_language(dice: Dice) -> str:
    return dice.choice(("en", "en", "en", "en", "de", "fr", "es"))


def _mix(category: str, base: Stored, layers: Sequence[Layer]) -> Mix:
    return Mix(category=category, language=base.row.language, text=base.row.text, layers=tuple(layers))


def noisy(dice: Dice, clips: Clips) -> Mix:
    """White or pink noise."""
    base = _pick(dice, clips, _any_language(dice))
    kinds: tuple[Noise, ...] = ("white", "pink")
    gain = noise_gain(base.samples, dice.choice(SNRS_DB))
    noise = Layer(noise=dice.choice(kinds), seed=dice.randrange(1 << 32), gain=gain, samples=len(base.samples))
    return _mix("noisy", base, [Layer(clip=base.row.id), noise])


def babble(dice: Dice, clips: Clips) -> Mix:
    """Four other voices, together at the level of the noise."""
    base = _pick(dice, clips)
    snr_db = dice.choice(SNRS_DB[:4])
    layers = [Layer(clip=base.row.id)]
    for other in dice.shuffled([clip for clip in clips.values() if clip is not base])[:4]:
        used = min(len(other.samples), len(base.samples))
        gain = level_gain(base.samples, other.samples[:used], -snr_db - 6)
        layers.append(Layer(clip=other.row.id, gain=gain, samples=used))
    return _mix("noisy", base, layers)


def echo(dice: Dice, clips: Clips) -> Mix:
    """A room with hard walls: five later, quieter copies."""
    base = _pick(dice, clips)
    layers, offset, gain = [Layer(clip=base.row.id)], 0, UNIT_GAIN
    for _ in range(5):
        offset += dice.randrange(480, 2_400)
        gain = gain * dice.randrange(55, 80) // 100
        layers.append(Layer(clip=base.row.id, gain=gain, offset=offset))
    return _mix("noisy", base, layers)


def overlapping(dice: Dice, clips: Clips) -> Mix:
    """One or two others speak into the first voice, 0 to 12 dB below it."""
    base = _pick(dice, clips, _any_language(dice))
    layers = [Layer(clip=base.row.id)]
    for _ in range(dice.choice((1, 1, 2))):
        other = _pick(dice, clips, dice.choice((base.row.language, "en")))
        if other is not base:
            gain = level_gain(base.samples, other.samples, -dice.randrange(0, 13))
            layers.append(Layer(clip=other.row.id, gain=gain, offset=dice.randrange(len(base.samples) // 2)))
    return _mix("overlapping", base, layers)


def two_languages(dice: Dice, clips: Clips) -> Mix:
    """Two sentences in two languages."""
    first, second = dice.shuffled(("en", "de", "fr", "es"))[:2]
    return _row_of(dice, [_pick(dice, clips, first), _pick(dice, clips, second)], "multilingual", MULTIPLE)


def _row_of(dice: Dice, said: Sequence[Stored], category: str, language: str) -> Mix:
    layers, offset = [], 0
    for clip in said:
        gain = UNIT_GAIN * dice.randrange(50, 126) // 100
        layers.append(Layer(clip=clip.row.id, gain=gain, offset=offset))
        offset += len(clip.samples) + dice.randrange(3_200, 12_800)
    text = " ".join(clip.row.text for clip in said)
    return Mix(category=category, language=language, text=text, layers=tuple(layers))


def long(dice: Dice, clips: Clips) -> Mix:
    """One to three minutes of sentences, half of them over faint noise."""
    language = dice.choice(("en", "en", "en", "de", "fr", "es"))
    wanted = dice.randrange(62, 175) * RATE_HZ
    order = [c for _ in range(8) for c in dice.shuffled([c for c in clips.values() if c.row.language == language])]
    said: list[Stored] = []
    while sum(len(clip.samples) + 8_000 for clip in said) < wanted:
        said.append(order[len(said)])
    made = _row_of(dice, said, "long", language)
    if dice.randrange(2):
        return made
    length = made.layers[-1].offset + len(said[-1].samples)
    gain = noise_gain(said[0].samples, 25)
    noise = Layer(noise="pink", seed=dice.randrange(1 << 32), gain=gain, samples=length)
    return Mix(category="long", language=language, text=made.text, layers=(*made.layers, noise))


def nearly_silent(dice: Dice, clips: Clips) -> Mix:
    """Speech of a few steps of the sample grid."""
    base = _pick(dice, clips)
    return _mix("ambiguous", base, [Layer(clip=base.row.id, gain=dice.randrange(4, 40))])


def clipped(dice: Dice, clips: Clips) -> Mix:
    """Speech driven far beyond full scale."""
    base = _pick(dice, clips)
    return _mix("ambiguous", base, [Layer(clip=base.row.id, gain=UNIT_GAIN * dice.randrange(8, 33))])


def cut(dice: Dice, clips: Clips) -> Mix:
    """Begins 50 to 100 ms into the first word; the transcript stays that of the whole."""
    base = _pick(dice, clips)
    return _mix("ambiguous", base, [Layer(clip=base.row.id, start=dice.randrange(1_600, 2_400))])


FAMILIES = [
    MixFamily(name="noisy", kept=20, make=noisy),
    MixFamily(name="babble", kept=10, make=babble),
    MixFamily(name="echo", kept=6, make=echo),
    MixFamily(name="overlapping", kept=20, make=overlapping),
    MixFamily(name="two-languages", kept=6, make=two_languages),
    MixFamily(name="long", kept=12, make=long, pool=2),
    MixFamily(name="nearly-silent", kept=4, make=nearly_silent),
    MixFamily(name="clipped", kept=4, make=clipped),
    MixFamily(name="cut", kept=4, make=cut),
]
