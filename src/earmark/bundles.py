"""Bundles: what one machine recorded, with what it is made of, to be held against another machine.

A bundle holds evidence, canonical audio digests, features and encoder states of a few clips, and facts on hardware and
libraries. It holds no audio, no transcript but the model's own, no name of a person, a machine or a file. Who guesses
what a clip is called can confirm it, though: its nonce is a digest of its name.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec

from earmark.errors import OutputError, RecordError, UsageError
from earmark.limits import DEFAULT_K
from earmark.protocols import Advance, Model
from earmark.recording import Clip, load_audio, record_many
from earmark.records import codec
from earmark.records.codec import Digest, Name, Nonce, Record
from earmark.records.evidence import Evidence, Level, load_evidence
from earmark.scenarios.core import Scenario
from earmark.stages import (
    AUDIO,
    CLIPS,
    ENCODER,
    FEATURES,
    SCORES,
    Stage,
    difference,
    largest,
    load_tensors,
    save_tensors,
    scores_apart,
    stages_of,
    tensors_of,
)
from earmark.study import Sample

BUNDLE_FILE = "bundle.json"
STAGES_FILE = "stages.safetensors"
LIBRARIES = ("earmark", "torch", "transformers", "numpy", "onnxruntime", "soundfile")

Fact = Annotated[str, msgspec.Meta(max_length=500)]


class Recorded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One clip: the nonce of its request, the digest of its canonical audio, and the file of its evidence.

    The nonce begins the SHA-256 of the clip's name, without a salt, so that who has the clip knows it again. It does
    not say the name, but who guesses a name can confirm the guess: rename clips whose names must stay secret.
    """

    clip: Nonce
    audio: Digest
    evidence: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,8}\.evidence\.msgpack$")]


class Bundle(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The header of a bundle.

    Attributes:
        model: Name of the model.
        weights: Digest of its weights.
        precision: Its precision.
        level: Level of the evidence.
        engine: Software that ran it.
        facts: Hardware and libraries.
        clips: What was recorded.
    """

    FORMAT: ClassVar[str] = "earmark.bundle/2"

    format: Literal["earmark.bundle/2"] = "earmark.bundle/2"
    model: Name
    weights: Digest
    precision: Name
    level: Level
    engine: Name
    facts: Annotated[dict[Name, Fact], msgspec.Meta(max_length=50)]
    clips: Annotated[tuple[Recorded, ...], msgspec.Meta(min_length=1, max_length=100_000)]

    @property
    def machine(self) -> str:
        """A few words that tell machines apart."""
        return " ".join(dict.fromkeys((self.facts.get("device", "?"), self.facts.get("instructions", "?"))))


def facts_of(model: Model) -> dict[str, str]:
    """Return what a model runs on, and nothing that names an owner, a host or a folder."""
    import torch

    facts = {
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": model.info.device.partition(":")[0],
        "attention": model.info.attention,
        "threads": str(torch.get_num_threads()),
    }
    if facts["device"] == "cuda":
        facts |= {"device": torch.cuda.get_device_name(model.info.device), "cuda": str(torch.version.cuda)}
    for name in LIBRARIES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts


def make_bundle(
    model: Model,
    samples: Sequence[Sample],
    folder: str | os.PathLike[str],
    *,
    level: Level = "scores",
    k: int = DEFAULT_K,
    batch_size: int = 8,
    advance: Advance | None = None,
) -> Bundle:
    """Record clips on this machine and write the bundle; `bundle.json` is written last.

    Args:
        model: The model.
        samples: The clips; their requests follow from their names, so that another machine asks the same.
        folder: Where to write it.
        level: Level of the evidence.
        k: Listed tokens per position.
        batch_size: Segments at once.
        advance: Called with the number of finished segments.

    Raises:
        OutputError: The folder cannot be written.
        UsageError: There are no clips, two have one name, or the level holds no numbers to compare.
    """
    if not samples or level == "compact":
        raise UsageError(
            f"{len(samples)} clips at level {level}; a bundle holds one or more, at level scores or sketch"
        )
    names = Counter(sample.name for sample in samples)
    name, count = names.most_common(1)[0]
    if count > 1:
        raise UsageError(f"{count} clips are named {name!r}; a bundle knows clips by their names: name each otherwise")
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be made: {error}") from error
    clips = [sample.clip() for sample in samples]
    made = record_many(model, clips, k=k, level=level, batch_size=batch_size, advance=advance)
    rows = []
    for number, (sample, clip, evidence) in enumerate(zip(samples, clips, made, strict=True)):
        rows.append(Recorded(clip=sample.nonce, audio=clip.audio.digest, evidence=f"{number}.evidence.msgpack"))
        evidence.save(target / rows[-1].evidence)
    save_tensors(tensors_of(model, dict(enumerate(clips[:CLIPS]))), target / STAGES_FILE)
    info = model.info
    bundle = Bundle(
        model=info.name,
        weights=info.weights,
        precision=info.precision,
        level=level,
        engine=info.engine,
        facts=facts_of(model),
        clips=tuple(rows),
    )
    bundle.save(target / BUNDLE_FILE)
    return bundle


def load_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Read the header of a bundle.

    Raises:
        RecordError: It is damaged, or lists a clip twice.
        UsageError: There is none.
    """
    bundle = codec.load(Path(folder) / BUNDLE_FILE, Bundle)
    clips = {own.clip for own in bundle.clips}
    if len(clips) < len(bundle.clips):
        found = f"{folder} lists {len(bundle.clips)} clips, of which {len(clips)} differ"
        raise RecordError(f"{found}; expected each once: make the bundle again")
    return bundle


def hold_against(model: Model, folder: str | os.PathLike[str], samples: Sequence[Sample]) -> list[Stage]:
    """Say how far another machine is from this one, stage by stage.

    Digests of audio are compared for every clip, the rest for the few whose features and encoder states are stored.

    Args:
        model: The model on this machine.
        folder: The bundle of the other one.
        samples: Clips that it was made of, all or some.

    Returns:
        Audio, features, encoder and log-probabilities, in this order; see `earmark.stages.parting`.

    Raises:
        RecordError: The bundle is damaged.
        UsageError: There is none, or its evidence is missing.
    """
    bundle, theirs = load_bundle(folder), load_tensors(Path(folder) / STAGES_FILE)
    known = {sample.nonce: sample for sample in samples}
    shared = {number: own for number, own in enumerate(bundle.clips) if own.clip in known}
    changed = {n for n, own in shared.items() if load_audio(known[own.clip].audio).digest != own.audio}
    few = {number: known[own.clip].clip() for number, own in shared.items() if number < CLIPS}
    ours = tensors_of(model, few)
    theirs = {name: own for name, own in theirs.items() if int(name.partition("/")[0]) in few}
    places = {number: Path(folder) / shared[number].evidence for number in few if number not in changed}
    found = {
        AUDIO: float(len(changed)) if shared else float("nan"),
        FEATURES: difference(ours, theirs, FEATURES),
        ENCODER: difference(ours, theirs, ENCODER),
        SCORES: largest(scores_apart(model, few[n], place) for n, place in places.items()),
    }
    return stages_of(found, model.info.precision)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere(Scenario):
    """The provider behind a bundle: it hands in what was recorded there.

    Attributes:
        stored: Evidence file by nonce of the request and digest of the audio.
    """

    stored: Mapping[tuple[str, str], Path] = field(default_factory=dict)

    def record(
        self,
        reference: Model,  # noqa: ARG002 - it was recorded already
        clips: Sequence[Clip],
        *,
        k: int = DEFAULT_K,  # noqa: ARG002
        level: Level = "scores",  # noqa: ARG002
        batch_size: int = 8,  # noqa: ARG002
    ) -> list[Evidence]:
        """Return the evidence of the bundle.

        Raises:
            UsageError: It has none of a clip.
        """
        found = []
        for clip in clips:
            place = self.stored.get((clip.request.nonce, clip.audio.digest))
            evidence = None if place is None else load_evidence(place)
            if not isinstance(evidence, Evidence):
                raise UsageError(f"the bundle holds no evidence of the audio {clip.audio.digest[:12]}...")
            found.append(evidence)
        return found


def elsewhere(folder: str | os.PathLike[str], *, honest: bool = True) -> Elsewhere:
    """Return the provider behind a bundle.

    Args:
        folder: The bundle.
        honest: Whether it must PASS.

    Raises:
        RecordError: The bundle is damaged.
        UsageError: There is none.
    """
    bundle = load_bundle(folder)
    stored = {(own.clip, own.audio): Path(folder) / own.evidence for own in bundle.clips}

    def produce(*_: Any) -> list[Any]:
        raise UsageError("a bundle was recorded already; nothing can be produced with it")

    summary = f"recorded on {bundle.machine}"
    return Elsewhere(
        name=f"elsewhere ({bundle.machine})"[:200],
        honest=honest,
        summary=summary,
        saves="",
        produce=produce,
        stored=stored,
    )
