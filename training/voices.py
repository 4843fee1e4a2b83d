"""Synthetic voices: espeak-ng, flite and festival, with whole voices held out for tests."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass
from pathlib import Path


def _words(text: str) -> list[str]:
    return text.split()


ACCENTS = ["en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029"]
VARIANTS = _words(
    "m1 m2 m3 m5 m7 m8 f1 f2 f3 f5 Alex Alicia Andy Annie Denis Diogo Gene Gene2 Henrique Hugo Jacky Lee Marco "
    "Mario Michael Mike Nguyen Storm adam anika announcer antonio aunty belinda benjamin boris caleb david ed "
    "grandma grandpa gustave iven iven2 iven3 john kaukovalta klatt klatt2 klatt4 marcelo max michel miguel "
    "norbert pablo paul pedro quincy rob robert sandro shelby steph steph2 victor zac"
)

HELD_OUT_ACCENT = "en-us-nyc"
HELD_OUT_VARIANTS = _words("m4 m6 f4 Andrea linda klatt3 edward travis steph3 iven4")

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
        voice = f"{HELD_OUT_ACCENT if held_out else rng.choice(ACCENTS)}+{variant}"
    return Utterance(text=text, engine=engine, voice=voice, rate=rng.uniform(0.8, 1.2), pitch=rng.randint(25, 75))


def synthesise(utterances: list[Utterance], folder: Path) -> list[Path]:
    """Say every utterance into `folder` and return the WAV files in order."""
    paths = [folder / f"{index:05d}.wav" for index in range(len(utterances))]
    script: list[str] = []
    for utterance, path in zip(utterances, paths, strict=True):
        if utterance.engine == "festival":
            script.append(_festival_lines(utterance, path))
        else:
            command = _espeak_command if utterance.engine == "espeak" else _flite_command
            subprocess.run(command(utterance, path), check=True, stderr=subprocess.DEVNULL)
    if script:
        (folder / "say.scm").write_text("\n".join(script))
        subprocess.run(["festival", "-b", str(folder / "say.scm")], check=True, stdout=subprocess.DEVNULL)
    return paths


def _espeak_command(utterance: Utterance, path: Path) -> list[str]:
    speed = round(165 * utterance.rate)
    options = ["-s", str(speed), "-p", str(utterance.pitch), "-v", utterance.voice]
    return ["espeak-ng", *options, "-w", str(path), utterance.text]


def _flite_command(utterance: Utterance, path: Path) -> list[str]:
    base_hz = {"kal16": 105, "rms": 95, "awb": 125, "slt": 180}[utterance.voice]
    pitch_hz = base_hz * (1 + (utterance.pitch - 50) / 125)
    settings = {"duration_stretch": f"{1 / utterance.rate:.3f}", "int_f0_target_mean": f"{pitch_hz:.1f}"}
    options = [part for key, value in settings.items() for part in ("--setf", f"{key}={value}")]
    return ["flite", "-voice", utterance.voice, *options, "-t", utterance.text, "-o", str(path)]


def _festival_lines(utterance: Utterance, path: Path) -> str:
    stretch = f"(Parameter.set 'Duration_Stretch {1 / utterance.rate:.3f})"
    say = f"""(utt.save.wave (SynthText "{utterance.text}") "{path}" 'riff)"""
    return f"(voice_{utterance.voice})\n{stretch}\n{say}"
