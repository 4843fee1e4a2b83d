"""Bundles: what one machine recorded, with what it is made of, to be held against another machine.

A bundle holds evidence, canonical audio digests, encoder states of a few clips, and facts on hardware and libraries. It
holds no audio, no transcript but the model's own, no name of a person, a machine or a folder.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from earmark.errors import OutputError, RecordError, UsageError
from earmark.limits import DEFAULT_K
from earmark.protocols import Advance, Model
from earmark.recording import Clip, record_many, segment_inputs
from earmark.records import codec
from earmark.records.codec import Digest, Name, Record
from earmark.records.evidence import Evidence, Level, load_evidence
from earmark.scenarios.core import Scenario
from earmark.study import Sample
from earmark.taps import Taps

if TYPE_CHECKING:
    import torch

BUNDLE_FILE = "bundle.json"
STATES_FILE = "states.safetensors"
LIBRARIES = ("earmark", "torch", "transformers", "numpy", "onnxruntime", "soundfile")
STATE_CLIPS = 3
"""Clips whose encoder states are kept."""
STATE_POSITIONS = 8
"""Positions of each that are kept, spread evenly."""

Fact = Annotated[str, msgspec.Meta(max_length=500)]
States = Mapping[str, NDArray[np.float32]]


class Recorded(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One clip: its name, the digest of its canonical audio, and the file of its evidence."""

    clip: Name
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

    FORMAT: ClassVar[str] = "earmark.bundle/1"

    format: Literal["earmark.bundle/1"] = "earmark.bundle/1"
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
        UsageError: There are no clips, or the level holds no numbers to compare.
    """
    if not samples or level == "compact":
        raise UsageError(
            f"{len(samples)} clips at level {level}; a bundle holds one or more, at level scores or sketch"
        )
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{target} cannot be made: {error}") from error
    clips = [sample.clip() for sample in samples]
    made = record_many(model, clips, k=k, level=level, batch_size=batch_size, advance=advance)
    rows = []
    for number, (sample, clip, evidence) in enumerate(zip(samples, clips, made, strict=True)):
        rows.append(Recorded(clip=sample.name, audio=clip.audio.digest, evidence=f"{number}.evidence.msgpack"))
        evidence.save(target / rows[-1].evidence)
    _save_states(encoder_states(model, clips[:STATE_CLIPS]), target / STATES_FILE)
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


def encoder_states(model: Any, clips: Sequence[Clip]) -> dict[str, NDArray[np.float32]]:
    """Return states behind the first and the last layer of the encoder, (positions, width), by clip and layer.

    Empty where the model shows no layers.
    """
    import torch

    found: dict[str, NDArray[np.float32]] = {}
    layers = len(model.encoder_layers())
    for number, clip in enumerate(clips if layers else ()):
        first = segment_inputs(clip, model)[0]
        count = model.encoder_positions(len(first.samples))
        positions = np.unique(np.linspace(0, count - 1, STATE_POSITIONS).round().astype(int)) if count else ()
        places = [(layer, 0, int(position)) for layer in sorted({0, layers - 1}) for position in positions]
        with torch.inference_mode(), Taps(model.encoder_layers(), places) as taps:
            model.encode([first.samples])
        for layer in sorted({0, layers - 1}):
            kept: list[torch.Tensor] = [taps.states[place] for place in places if place[0] == layer]
            if kept:
                found[f"{number}/{layer}"] = torch.stack(kept).numpy().astype(np.float32)
    return found


def difference(ours: States, theirs: States) -> float:
    """Return the largest relative difference of encoder states; NaN where nothing can be compared.

    Example:
        >>> difference({"0/0": np.ones((2, 2), np.float32)}, {"0/0": np.full((2, 2), 1.5, np.float32)})
        0.5
    """
    shared = [name for name in ours if name in theirs and ours[name].shape == theirs[name].shape]
    apart = [float(np.linalg.norm(theirs[n] - ours[n])) / max(float(np.linalg.norm(ours[n])), 1e-30) for n in shared]
    return max(apart, default=float("nan"))


def load_bundle(folder: str | os.PathLike[str]) -> Bundle:
    """Read the header of a bundle.

    Raises:
        RecordError: It is damaged.
        UsageError: There is none.
    """
    return codec.load(Path(folder) / BUNDLE_FILE, Bundle)


def load_states(folder: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Read the encoder states of a bundle.

    Raises:
        RecordError: They are damaged.
        UsageError: There are none.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = codec.read_bytes(Path(folder) / STATES_FILE)
    try:
        found: dict[str, NDArray[np.float32]] = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RecordError(f"{Path(folder) / STATES_FILE} holds no encoder states: {error}") from error
    if len(data) > codec.MAX_RECORD_BYTES or any(own.dtype != np.float32 or own.ndim != 2 for own in found.values()):
        raise RecordError(f"{Path(folder) / STATES_FILE}: expected float32 tables (positions, width)")
    return found


def _save_states(states: States, path: Path) -> None:
    from safetensors.numpy import save

    codec.write_atomically(path, save(dict(states)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere(Scenario):
    """The provider behind a bundle: it hands in what was recorded there.

    Attributes:
        stored: Evidence file by digest of the request.
    """

    stored: Mapping[str, Path] = field(default_factory=dict)

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
            place = self.stored.get(clip.audio.digest)
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
    stored = {own.audio: Path(folder) / own.evidence for own in bundle.clips}

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
