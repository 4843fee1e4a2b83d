"""Composes data/challenges: a pool of candidates, mined with a reference, of which the telling ones are kept.

    python -m training.challenge_set --model embedded:whisper-nano --out data/challenges

Per category the pool is about five times as large as what is kept. Half of what is kept are the candidates on which
the reference is most uncertain and on which 8-bit weights show best (sum of both ranks); the other half are those
nearest the middle of the pool, because a set of extremes alone would tell nothing about ordinary traffic.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

import earmark
from earmark import audio
from earmark.audio import CanonicalAudio
from earmark.challenges.casting import ACCENTS, cast_espeak, cast_flite
from earmark.challenges.grammars import GRAMMARS
from earmark.challenges.manifest import MANIFEST, Row, write_manifest
from earmark.challenges.mining import Candidate, Mined, mine
from earmark.challenges.mixing import Layer, mix
from earmark.challenges.synthesis import Voice, say
from earmark.challenges.text import Dice, held_out_sentence
from earmark.protocols import Model
from earmark.scenarios import scenario
from training import challenge_mixes as mixes

SEED = "challenge-set-1"
POOL = 5
MAX_PART_S = 6.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One candidate: its row without an id of its own yet, and its audio."""

    row: Row
    clip: CanonicalAudio


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many clips of a kind are kept; `accents` limits the espeak-ng voices, `flite` mixes its voices in."""

    category: str
    language: str
    kept: int
    accents: Sequence[str] = ()
    flite: bool = False


QUOTAS = [
    Quota(category="clean", language="en", kept=20, accents=("en-us", "en-gb"), flite=True),
    Quota(category="accents", language="en", kept=24, accents=ACCENTS["en"][2:]),
    Quota(category="accents", language="fr", kept=4, accents=ACCENTS["fr"][1:]),
    Quota(category="accents", language="es", kept=2, accents=ACCENTS["es"][1:]),
    *(Quota(category="multilingual", language=language, kept=12) for language in ("de", "fr", "es")),
    Quota(category="rare", language="en", kept=16, flite=True),
    *(Quota(category="rare", language=language, kept=3) for language in ("de", "fr", "es")),
    Quota(category="ambiguous", language="en", kept=12, flite=True),
    *(Quota(category="ambiguous", language=language, kept=2) for language in ("de", "fr", "es")),
]


def spoken(quota: Quota, number: int) -> Part | None:
    """Say one candidate of a quota; None where it is too long."""
    dice, grammar = Dice(SEED, quota.category, quota.language, number), GRAMMARS[quota.language]
    templates = {"rare": grammar.rare, "ambiguous": grammar.confusable}.get(quota.category)
    text = held_out_sentence(grammar, dice, templates)
    if quota.flite and dice.randrange(2):
        voice = cast_flite(dice)
    else:
        accent = dice.choice(quota.accents) if quota.accents else None
        voice = cast_espeak(quota.language, dice, accent=accent)
    clip = say(text, voice)
    return make_part(quota.category, quota.language, text, clip, voice=voice) if clip.seconds <= MAX_PART_S else None


def make_part(
    category: str,
    language: str,
    text: str,
    clip: CanonicalAudio,
    *,
    voice: Voice | None = None,
    layers: tuple[Layer, ...] = (),
) -> Part:
    """Put a candidate together."""
    row = Row(
        id="candidate",
        category=category,
        language=language,
        text=text,
        duration=round(clip.seconds, 4),
        digest=clip.digest,
        voice=voice,
        layers=layers,
    )
    return Part(row=row, clip=clip)


def select(reference: Model, pool: Sequence[Part], kept: int) -> list[Part]:
    """Keep the most telling half and the most ordinary half of a pool, no text twice."""
    known = ["en" if part.row.language == "en" else None for part in pool]  # other languages are for it to guess
    candidates = [
        Candidate(name=str(i), audio=part.clip, language=language)
        for i, (part, language) in enumerate(zip(pool, known, strict=True))
    ]
    found = list(mine(reference, candidates, cheats=[scenario("quantise", bits=8)]))
    telling = _ranks(found, lambda m: -m.entropy), _ranks(found, lambda m: -m.separation)
    score = [a + b for a, b in zip(*telling, strict=True)]
    middle = sorted(m.entropy for m in found)[len(found) // 2]
    by_telling = sorted(range(len(pool)), key=lambda i: (score[i], i))
    by_middle = sorted(range(len(pool)), key=lambda i: (abs(found[i].entropy - middle), i))
    chosen: dict[str, int] = {}
    for order, limit in ((by_telling, (kept + 1) // 2), (by_middle, kept)):
        for i in order:
            if len(chosen) < limit:
                chosen.setdefault(pool[i].row.text if pool[i].row.voice else pool[i].row.digest, i)
    languages = "/".join(sorted({part.row.language for part in pool}))
    before, after = _mean(m.entropy for m in found), _mean(found[i].entropy for i in chosen.values())
    row = f"| {pool[0].row.category} | {languages} | {len(pool)} | {len(chosen)} | {before:.3f} | {after:.3f} |"
    print(row, flush=True)
    return [pool[i] for i in sorted(chosen.values())]


def _ranks(found: Sequence[Mined], key: Callable[[Mined], float]) -> list[int]:
    order = sorted(range(len(found)), key=lambda i: (key(found[i]), i))
    ranks = [0] * len(found)
    for rank, i in enumerate(order):
        ranks[i] = rank
    return ranks


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def named(parts: Iterable[Part], counts: dict[str, int]) -> list[Part]:
    """Give every part its id: category and number."""
    done = []
    for part in parts:
        category = part.row.category
        counts[category] = counts.get(category, 0) + 1
        name = f"{category}-{counts[category]:03d}"
        done.append(Part(row=msgspec.structs.replace(part.row, id=name), clip=part.clip))
    return done


def store(parts: Iterable[Part], out: Path) -> list[Row]:
    """Write the stored clips and return the rows of all."""
    rows = []
    for part in parts:
        row = part.row
        if row.voice is not None:
            name = f"audio/{row.id}.flac"
            audio.write(out / name, part.clip)
            digest = hashlib.sha256((out / name).read_bytes()).hexdigest()
            row = msgspec.structs.replace(row, audio_filepath=name, sha256=digest)
        rows.append(row)
    return rows


def mixed(recipe: mixes.Mix, stored: dict[str, Part]) -> Part:
    """Make a candidate of a recipe."""
    samples = mix(recipe.layers, lambda name: stored[name].clip.samples)
    clip = audio.from_samples(samples, audio.CANONICAL_RATE_HZ)
    return make_part(recipe.category, recipe.language, recipe.text, clip, layers=recipe.layers)


def main() -> None:
    """Compose the set."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="embedded:whisper-nano")
    parser.add_argument("--out", type=Path, default=Path("data/challenges"))
    options = parser.parse_args()
    reference, counts = earmark.load(options.model, device="cpu"), {}
    chosen: list[Part] = []
    for quota in QUOTAS:
        pool = [part for n in range(quota.kept * POOL) if (part := spoken(quota, n))]
        chosen += named(select(reference, pool, quota.kept), counts)
    stored = {part.row.id: part for part in chosen}
    clips = {name: mixes.Stored(part.row, part.clip.samples) for name, part in stored.items()}
    for family in mixes.FAMILIES:
        recipes = [family.make(Dice(SEED, family.name, n), clips) for n in range(family.kept * family.pool)]
        chosen += named(select(reference, [mixed(recipe, stored) for recipe in recipes], family.kept), counts)
    shutil.rmtree(options.out / "audio", ignore_errors=True)
    (options.out / "audio").mkdir(parents=True)
    rows = store(chosen, options.out)
    write_manifest(options.out / MANIFEST, rows)
    print(f"{len(rows)} clips, {sum(row.duration for row in rows) / 60:.1f} minutes")


if __name__ == "__main__":
    main()
