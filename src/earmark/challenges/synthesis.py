"""Speech from a text: espeak-ng and flite as programs, and which version of them is installed."""

from __future__ import annotations

import hashlib
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from earmark import audio
from earmark.audio import CanonicalAudio
from earmark.errors import UsageError

Engine = Literal["espeak", "flite"]
Samples = NDArray[np.int16]

_PROGRAMS = {"espeak": "espeak-ng", "flite": "flite"}
_VERSIONS = {"espeak": re.compile(r"text-to-speech: (\S+)"), "flite": re.compile(r"version: flite-(\S+)")}
_BASE_HZ = {"kal16": 105, "rms": 95, "awb": 125, "slt": 180}
_TIMEOUT_S = 60
_SILENCE = 328  # 1 % of full scale
_MARGIN = 800  # 50 ms
_PROBES = {
    "espeak": {
        "en-us+f2": "the quick brown fox",
        "de+m3": "zwölf große boxkämpfer",
        "fr-fr": "portez ce vieux whisky",
        "es+f5": "el veloz murciélago",
    },
    "flite": dict.fromkeys(_BASE_HZ, "the quick brown fox"),
}


class Voice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who says a text.

    Attributes:
        engine: `espeak` or `flite`.
        name: The voice's name within its engine, for instance `de+f2` or `slt`.
        rate: Speaking rate, 1 is the engine's own.
        pitch: Pitch on a scale of 0 to 99, 50 is the voice's own.
        synthesiser: The engine as `identity` names it; empty where none was chosen yet.
    """

    engine: Engine
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_-]{0,60}$")]
    rate: Annotated[float, msgspec.Meta(ge=0.25, le=4.0)] = 1.0
    pitch: Annotated[int, msgspec.Meta(ge=0, le=99)] = 50
    synthesiser: Annotated[str, msgspec.Meta(max_length=200)] = ""


def command(text: str, voice: Voice, path: Path) -> list[str]:
    """Return the command that writes `text` as a WAV file.

    Raises:
        UsageError: flite has no such voice.
    """
    if voice.engine == "espeak":
        options = ["-s", str(round(165 * voice.rate)), "-p", str(voice.pitch), "-v", voice.name]
        return ["espeak-ng", *options, "-w", str(path), "--", text]
    if voice.name not in _BASE_HZ:
        raise UsageError(f"flite voice {voice.name!r}; known: {', '.join(_BASE_HZ)}")
    pitch_hz = _BASE_HZ[voice.name] * (1 + (voice.pitch - 50) / 125)
    settings = {"duration_stretch": f"{1 / voice.rate:.3f}", "int_f0_target_mean": f"{pitch_hz:.1f}"}
    options = [part for key, value in settings.items() for part in ("--setf", f"{key}={value}")]
    return ["flite", "-voice", voice.name, *options, "-t", text, "-o", str(path)]


def say(text: str, voice: Voice) -> CanonicalAudio:
    """Say a text and return it as canonical audio, silence at both ends cut to 50 ms.

    Args:
        text: What to say, at most 2000 characters.
        voice: Who says it.

    Returns:
        The same samples on every machine that has the same synthesiser.

    Raises:
        UsageError: The synthesiser is missing or fails.
        AudioError: It gave no usable sound.
    """
    if not 0 < len(text) <= 2000 or "\0" in text:
        raise UsageError(f"a text of {len(text)} characters; 1 to 2000 can be said")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "said.wav"
        _run(command(text, voice, path))
        if not path.exists():
            raise UsageError(f"{_PROGRAMS[voice.engine]} wrote nothing for voice {voice.name!r}; is it installed?")
        said = audio.load(path)
    return audio.from_samples(trim_silence(said.samples), audio.CANONICAL_RATE_HZ)


def trim_silence(samples: Samples) -> Samples:
    """Cut silence (below 1 % of full scale) at both ends, leaving 50 ms.

    Args:
        samples: Shape ``(n,)``, int16 at 16 kHz.

    Returns:
        The samples from 50 ms before the first loud one to 50 ms after the last; all of them if none is loud.

    Example:
        >>> len(trim_silence(np.array([0] * 1000 + [900] + [0] * 1000, np.int16)))
        1600
    """
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) >= _SILENCE)
    return samples[max(0, loud[0] - _MARGIN) : loud[-1] + _MARGIN] if loud.size else samples


@cache
def identity(engine: Engine) -> str:
    """Return the installed synthesiser: program, version, and a digest of what it says to fixed words.

    The digest covers its dictionaries and voices, which change without a new version.

    Raises:
        UsageError: The synthesiser is not installed, or not usable.
    """
    program = _PROGRAMS[engine]
    shown = _run([program, "--version"])
    found = _VERSIONS[engine].search(shown)
    state = hashlib.sha256()
    for name, text in _PROBES[engine].items():
        state.update(say(text, Voice(engine=engine, name=name)).digest.encode())
    return f"{program} {found.group(1) if found else 'unknown'} ({state.hexdigest()[:12]})"


def require(engine: Engine, expected: str) -> None:
    """Check that the synthesiser with which something was made is the one installed.

    Args:
        engine: Which one.
        expected: What `identity` said then.

    Raises:
        UsageError: Another one is installed, or none.
    """
    found = identity(engine)
    if found != expected:
        raise UsageError(
            f"the installed synthesiser is {found}, expected {expected}; it would say the same words differently, so "
            "install that version (Debian 12 has it) or keep the stored clips"
        )


def _run(arguments: list[str]) -> str:
    program = arguments[0]
    try:
        done = subprocess.run(arguments, capture_output=True, timeout=_TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise UsageError(f"{program} is not installed; on Debian: apt install {program}") from error
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise UsageError(f"{program} cannot be run: {str(error)[:200]}") from error
    if done.returncode and "--version" not in arguments:
        reason = " ".join(done.stderr.decode(errors="replace").split())[:200]
        raise UsageError(f"{program} failed with exit code {done.returncode}: {reason or 'no reason given'}")
    return (done.stdout + done.stderr).decode(errors="replace")
