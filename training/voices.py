"""Synthetic voices: espeak-ng, flite and festival, with whole voices held out for tests."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

from earmark.challenges.casting import ACCENTS, ENGLISH_ACCENTS, HELD_OUT_ACCENT, HELD_OUT_VARIANTS, VARIANTS
from earmark.challenges.synthesis import Voice, command

#: (engine, name): share of the training clips; the variants are spread over the espeak share.
TRAINING_SHARES = {
    ("espeak", ""): 0.50,
    ("flite", "kal16"): 0.06,
    ("flite", "awb"): 0.12,
    ("flite", "slt"): 0.12,
    ("festival", "kal_diphone"): 0.06,
    ("festival", "cmu_us_slt_arctic_hts"): 0.14,
}
HELD_OUT_SHARES = {("espeak", ""): 0.5, ("flite", "rms"): 0.25, ("festival", "ked_diphone"): 0.25}


@dataclass(frozen=True, slots=True, kw_only=True)
class Utterance:
    """A text to be said by a voice.

    Attributes:
        text: lower-case words.
        engine: espeak, flite or festival.
        voice: the voice's name within its engine.
        rate: speaking rate, 1 is the engine's own.
        pitch: pitch on a scale of 0 to 99 (espeak and flite only), 50 is the voice's own.
    """

    text: str
    engine: str
    voice: str
    rate: float
    pitch: int

    @property
    def speaker(self) -> str:
        """Engine and voice as one name."""
        return f"{self.engine}:{self.voice}"


def cast_voice(text: str, rng: random.Random, *, held_out: bool) -> Utterance:
    """Choose a voice, a rate and a pitch for a text."""
    shares = HELD_OUT_SHARES if held_out else TRAINING_SHARES
    engine, voice = rng.choices(list(shares), weights=list(shares.values()))[0]
    if engine == "espeak":
        variant = rng.choice(HELD_OUT_VARIANTS if held_out else VARIANTS)
        voice = f"{HELD_OUT_ACCENT if held_out else rng.choice(ENGLISH_ACCENTS)}+{variant}"
    return Utterance(text=text, engine=engine, voice=voice, rate=rng.uniform(0.8, 1.2), pitch=rng.randint(25, 75))


def cast_foreign(text: str, language: str, rng: random.Random) -> Utterance:
    """Choose a voice of espeak-ng, a rate and a pitch for a German, French or Spanish text."""
    voice = f"{rng.choice(ACCENTS[language])}+{rng.choice(VARIANTS)}"
    return Utterance(text=text, engine="espeak", voice=voice, rate=rng.uniform(0.8, 1.2), pitch=rng.randint(25, 75))


def synthesise(utterances: list[Utterance], folder: Path) -> list[Path]:
    """Say every utterance into `folder` and return the WAV files in order."""
    paths = [folder / f"{index:05d}.wav" for index in range(len(utterances))]
    script: list[str] = []
    for utterance, path in zip(utterances, paths, strict=True):
        if utterance.engine == "festival":
            script.append(_festival_lines(utterance, path))
        else:
            voice = Voice(
                engine=utterance.engine,  # type: ignore[arg-type]  # the literal, checked by `command`
                name=utterance.voice,
                rate=utterance.rate,
                pitch=utterance.pitch,
            )
            subprocess.run(command(utterance.text, voice, path), check=True, stderr=subprocess.DEVNULL)
    if script:
        (folder / "say.scm").write_text("\n".join(script))
        subprocess.run(["festival", "-b", str(folder / "say.scm")], check=True, stdout=subprocess.DEVNULL)
    return paths


def _festival_lines(utterance: Utterance, path: Path) -> str:
    stretch = f"(Parameter.set 'Duration_Stretch {1 / utterance.rate:.3f})"
    say = f"""(utt.save.wave (SynthText "{utterance.text}") "{path}" 'riff)"""
    return f"(voice_{utterance.voice})\n{stretch}\n{say}"
