"""Fresh clips from any seed: nobody can prepare for them, and everybody gets the same."""

from __future__ import annotations

import hashlib
import multiprocessing
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np

from earmark import audio
from earmark.challenges.casting import cast_espeak, cast_flite
from earmark.challenges.grammars import GRAMMARS
from earmark.challenges.manifest import MANIFEST, Row, write_manifest
from earmark.challenges.mixing import Layer, Noise, Samples, level_gain, mix, noise_gain
from earmark.challenges.synthesis import Engine, Voice, identity, say
from earmark.challenges.text import Chooser, Dice, held_out_sentence
from earmark.errors import OutputError, UsageError
from earmark.protocols import Advance
from earmark.records.codec import Record, write_atomically
from earmark.records.codec import load as load_record

DRAWING = "draw-1"
"""Name of the way clips are drawn; it changes whenever any clip would."""

CHUNK_CLIPS = 50
MIN_SECONDS, MAX_SECONDS = 3.0, 120.0
_KINDS = ("clean", "clean", "noisy", "noisy", "overlapping", "rare", "ambiguous")
_NOISES: tuple[Noise, ...] = ("white", "pink")
_TRIES = 40


class Drawing(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is drawn.

    Attributes:
        seed: Any hexadecimal digits, for instance the hash of a block that nobody knew before.
        seconds: Longest clip.
        languages: Among which each clip's language is drawn.
        engines: Synthesisers, and which versions of them.
        drawing: The way of drawing.
    """

    seed: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{1,1024}$")]
    seconds: Annotated[float, msgspec.Meta(ge=MIN_SECONDS, le=MAX_SECONDS)] = 10.0
    languages: tuple[str, ...] = tuple(GRAMMARS)
    engines: dict[Engine, str] = {}  # noqa: RUF012 - msgspec copies it
    drawing: str = DRAWING


def make_drawing(
    seed: str, *, seconds: float = 10.0, languages: Sequence[str] = (), engines: Sequence[Engine] = ("espeak",)
) -> Drawing:
    """Say what is to be drawn, with the synthesisers that are installed.

    Args:
        seed: Hexadecimal digits, `0x` before them and capitals allowed.
        seconds: Longest clip, 3 to 120 s.
        languages: Among which each clip's language is drawn; all by default.
        engines: Synthesisers to use; `flite` speaks English only.

    Raises:
        UsageError: A value is outside its range, or a synthesiser is missing.
    """
    unknown = sorted(set(languages) - set(GRAMMARS))
    if unknown:
        raise UsageError(f"languages {', '.join(unknown)}; known: {', '.join(GRAMMARS)}")
    made = {
        "seed": seed.lower().removeprefix("0x"),
        "seconds": float(seconds),
        "languages": tuple(languages or GRAMMARS),
        "engines": {engine: identity(engine) for engine in engines},
    }
    try:
        return msgspec.convert(made, Drawing)
    except msgspec.ValidationError as error:
        raise UsageError(f"clips cannot be drawn so: {error}") from error


def draw_clip(drawing: Drawing, number: int) -> tuple[Row, audio.CanonicalAudio]:
    """Return one drawn clip; it depends on the drawing and its number alone, not on how many are drawn.

    Args:
        drawing: What is drawn.
        number: From 0.
    """
    dice = Dice(DRAWING, drawing.seed, number)
    language, kind = dice.choice(drawing.languages), dice.choice(_KINDS)
    voice = _cast(drawing, language, dice)
    texts, speech = _speak(language, kind, voice, dice, round(drawing.seconds * audio.CANONICAL_RATE_HZ))
    if kind == "noisy":
        speech = _with_noise(speech, dice)
    if kind == "overlapping":
        speech = _with_other_voice(speech, drawing, language, dice)
    clip = audio.from_samples(speech, audio.CANONICAL_RATE_HZ)
    row = Row(
        id=f"{number:06d}",
        category=kind,
        language=language,
        text=" ".join(texts),
        duration=round(clip.seconds, 4),
        digest=clip.digest,
        audio_filepath=f"audio/{number:06d}.flac",
        source=f"{drawing.drawing} {drawing.digest()} {number} {voice.engine}:{voice.name}",
    )
    return row, clip


def _cast(drawing: Drawing, language: str, dice: Dice) -> Voice:
    if "flite" in drawing.engines and language == "en" and dice.randrange(3) == 0:
        return cast_flite(dice)
    return cast_espeak(language, dice)


def _speak(language: str, kind: str, voice: Voice, dice: Dice, limit: int) -> tuple[list[str], Samples]:
    """Say sentences with pauses between them, as many as fit."""
    grammar = GRAMMARS[language]
    templates = {"rare": grammar.rare, "ambiguous": grammar.confusable}.get(kind, grammar.templates)
    texts: list[str] = []
    pieces: list[Samples] = []
    used = 0
    for _ in range(_TRIES):
        pause = dice.randrange(3_200, 9_600) if texts else dice.randrange(0, 8_000)
        text = held_out_sentence(grammar, dice, templates)
        said = say(text, voice).samples
        if used + pause + len(said) <= limit:
            texts.append(text)
            pieces += [np.zeros(pause, np.int16), said]
            used += pause + len(said)
        elif texts:
            return texts, np.concatenate(pieces)
    if not texts:
        raise UsageError(f"no sentence fits into {limit / audio.CANONICAL_RATE_HZ:g} s; draw longer clips")
    return texts, np.concatenate(pieces)


def _with_noise(speech: Samples, dice: Chooser) -> Samples:
    gain = noise_gain(speech, dice.randrange(-3, 25))
    noise = Layer(noise=dice.choice(_NOISES), seed=dice.randrange(1 << 62), gain=gain, samples=len(speech))
    return mix([Layer(clip="speech"), noise], lambda _: speech)


def _with_other_voice(speech: Samples, drawing: Drawing, language: str, dice: Dice) -> Samples:
    grammar, voice = GRAMMARS[language], _cast(drawing, language, dice)
    other = say(held_out_sentence(grammar, dice), voice).samples[: len(speech)]
    gain = level_gain(speech, other, -dice.randrange(0, 13))
    offset = dice.randrange(len(speech) - len(other) + 1)
    layers = [Layer(clip="speech"), Layer(clip="other", gain=gain, offset=offset)]
    return mix(layers, {"speech": speech, "other": other}.__getitem__)


def draw(drawing: Drawing, count: int, out: Path, *, processes: int = 2, advance: Advance | None = None) -> list[Row]:
    """Draw clips into a folder; an interrupted run of the same drawing goes on where it stopped.

    Args:
        drawing: What is drawn.
        count: How many clips.
        out: Folder for `audio/*.flac` and `manifest.jsonl`.
        processes: How many synthesise at once.
        advance: Called with the number of finished clips.

    Returns:
        The rows of the manifest.

    Raises:
        UsageError: The folder holds another set.
        OutputError: It cannot be written.
    """
    if not 0 < count <= 1_000_000:
        raise UsageError(f"{count} clips; 1 to 1000000 can be drawn")
    work = _prepare(drawing, out)
    starts = range(0, count, CHUNK_CLIPS)
    with _workers(min(processes, len(starts))) as pool:
        if pool is None:
            for start in starts:
                _step(advance, _draw_chunk(drawing, out, start, min(start + CHUNK_CLIPS, count)))
        else:
            running = [pool.submit(_draw_chunk, drawing, out, s, min(s + CHUNK_CLIPS, count)) for s in starts]
            for done in as_completed(running):
                _step(advance, done.result())
    rows = [row for start in starts for row in _finished(work / f"{start:06d}.json", count - start)]
    write_manifest(out / MANIFEST, rows)
    shutil.rmtree(work)
    return rows


def _step(advance: Advance | None, count: int) -> None:
    if advance is not None:
        advance(count)


@contextmanager
def _workers(processes: int) -> Iterator[ProcessPoolExecutor | None]:
    if processes < 2:
        yield None
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _prepare(drawing: Drawing, out: Path) -> Path:
    """Make the folder and note what is drawn into it."""
    work = out / ".unfinished"
    note = work / "drawing.json"
    if note.exists() and load_record(note, Drawing) != drawing:
        raise UsageError(f"{out} holds an unfinished set of another drawing; give another folder or delete it")
    if not note.exists() and out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty; give a new folder")
    try:
        (out / "audio").mkdir(parents=True, exist_ok=True)
        work.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: {error.strerror or error}; give a folder that can be written") from error
    drawing.save(note)
    return work


class _Chunk(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rows: tuple[Row, ...]


def _finished(path: Path, wanted: int) -> tuple[Row, ...]:
    return load_record(path, _Chunk).rows[:wanted] if path.exists() else ()


def _draw_chunk(drawing: Drawing, out: Path, start: int, stop: int) -> int:
    """Draw some clips, unless they are there; their listing is written last."""
    listing = out / ".unfinished" / f"{start:06d}.json"
    if len(_finished(listing, stop - start)) < stop - start:
        rows = [_draw_file(drawing, number, out) for number in range(start, stop)]
        write_atomically(listing, _Chunk(rows=tuple(rows)).to_json().encode())
    return stop - start


def _draw_file(drawing: Drawing, number: int, out: Path) -> Row:
    row, clip = draw_clip(drawing, number)
    path = out / row.audio_filepath
    audio.write(path, clip)
    return msgspec.structs.replace(row, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
