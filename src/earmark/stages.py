"""Where two machines part ways: features and encoder states of a few clips, and how far each stage may differ."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from earmark.errors import RecordError
from earmark.loading import family_of
from earmark.protocols import AttributableFamily, Model
from earmark.recording import Clip, segment_inputs
from earmark.records import codec
from earmark.records.policy import Policy
from earmark.rules import Case, prepare
from earmark.taps import Taps, first_input

if TYPE_CHECKING:
    import torch

CLIPS = 3
"""Clips whose tensors are kept."""
POSITIONS = 8
"""Frames or positions of each that are kept, spread evenly."""
MOST_TENSORS = 3 * CLIPS
"""Features, first and last layer of each."""
TENSOR = re.compile(rf"[0-{CLIPS - 1}]/(features|encoder-[0-9]{{1,3}})")

Tensors = Mapping[str, NDArray[np.float32]]

AUDIO, FEATURES, ENCODER, SCORES = "audio", "features", "encoder", "log-probabilities"
"""The stages, in the order in which recognition passes them."""
UNITS = {AUDIO: "clips", FEATURES: "relative", ENCODER: "relative", SCORES: "nats"}
TOLERANCES: Mapping[str, Mapping[str, float]] = {
    "fp32": {AUDIO: 0.0, FEATURES: 1e-3, ENCODER: 1e-3, SCORES: 0.01},
    "fp16": {AUDIO: 0.0, FEATURES: 2e-3, ENCODER: 5e-3, SCORES: 0.1},
    "bf16": {AUDIO: 0.0, FEATURES: 1e-2, ENCODER: 3e-2, SCORES: 0.5},
}
"""What honest machines may differ by, by claimed precision; above what another attention kernel does to the embedded
models, below what int8 weights do, where that is possible: it is not under bf16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What two machines say at one stage of recognition.

    Attributes:
        name: `audio`, `features`, `encoder` or `log-probabilities`.
        difference: The largest difference: number of clips whose digest is another, ||theirs - ours|| / ||ours|| of a
            clip's tensor, or nats; infinite where one side lacks what the other has, NaN where neither has it.
        tolerance: What honest machines may differ by.
    """

    name: str
    difference: float
    tolerance: float

    @property
    def parted(self) -> bool:
        """Whether the machines differ by more than honest ones may."""
        return self.difference > self.tolerance

    def __str__(self) -> str:
        """Return the difference and what is allowed.

        Example:
            >>> str(Stage(name="features", difference=0.25, tolerance=0.001))
            'features: 0.25 relative, honest up to 0.001'
            >>> str(Stage(name="encoder", difference=float("nan"), tolerance=0.001))
            'encoder: nothing to compare'
        """
        if math.isnan(self.difference):
            return f"{self.name}: nothing to compare"
        return f"{self.name}: {self.difference:.2g} {UNITS[self.name]}, honest up to {self.tolerance:g}"


def stages_of(differences: Mapping[str, float], precision: str) -> list[Stage]:
    """Return the stages, in order, with what is allowed under a claimed precision.

    Example:
        >>> [stage.parted for stage in stages_of({"audio": 0, "features": 1e-6, "encoder": 0.01}, "fp32")]
        [False, False, True, False]
    """
    allowed = TOLERANCES[precision]
    return [Stage(name=n, difference=differences.get(n, math.nan), tolerance=own) for n, own in allowed.items()]


def parting(stages: Sequence[Stage]) -> str:
    """Return where two machines part ways first, in words.

    Example:
        >>> parting(stages_of({"audio": 0, "features": 0.2, "encoder": 0.3}, "fp32"))
        'the machines part ways at the features: 0.2 relative, honest up to 0.001'
        >>> parting(stages_of({"audio": 0, "features": 0, "encoder": 1e-6, "log-probabilities": 1e-5}, "fp32"))
        'the machines agree at every stage'
        >>> parting(stages_of({"audio": 0, "features": 0.0}, "fp32"))
        'the machines agree at audio, features; nothing to compare at encoder, log-probabilities'
    """
    first = next((stage for stage in stages if stage.parted), None)
    if first is not None:
        return f"the machines part ways at the {first}"
    missing = [stage.name for stage in stages if math.isnan(stage.difference)]
    same = ", ".join(stage.name for stage in stages if stage.name not in missing)
    if not missing:
        return "the machines agree at every stage"
    return f"the machines agree at {same or 'no stage'}; nothing to compare at {', '.join(missing)}"


def tensors_of(model: Any, clips: Mapping[int, Clip]) -> dict[str, NDArray[np.float32]]:
    """Return features and encoder states of the first piece of each clip, each (positions, width).

    Args:
        model: The model, run as it is.
        clips: A few clips, by number.

    Returns:
        `CLIP/features`, what enters the network, and `CLIP/encoder-LAYER`, what leaves the first and the last layer of
        its encoder, where it shows layers.
    """
    import torch

    found: dict[str, NDArray[np.float32]] = {}
    layers = list(model.encoder_layers())
    looked_at = sorted({0, len(layers) - 1}) if layers else []
    for number, clip in clips.items():
        samples = segment_inputs(clip, model)[0].samples
        positions = _spread(model.encoder_positions(len(samples))) if layers else ()
        places = [(layer, 0, position) for layer in looked_at for position in positions]
        with torch.inference_mode(), Taps(layers, places) as taps, first_input(model.module) as entered:
            model.encode([samples])
        if entered:
            found[f"{number}/features"] = _frames(entered[0], model.info.features, len(samples))
        for layer in looked_at:
            states: list[torch.Tensor] = [taps.states[place] for place in places if place[0] == layer]
            if states:
                found[f"{number}/encoder-{layer}"] = torch.stack(states).numpy().astype(np.float32)
    return found


def _spread(count: int) -> list[int]:
    return [int(place) for place in np.unique(np.linspace(0, count - 1, POSITIONS).round())] if count else []


def _frames(entered: torch.Tensor, parameters: Any, samples: int) -> NDArray[np.float32]:
    """Return frames spread over the audio, (positions, width), of features in any order of axes."""
    width = parameters.n_mels
    if width in entered.shape:
        entered = entered.movedim(entered.shape.index(width), -1)
    rows = entered.reshape(-1, entered.shape[-1] if width else 1)
    reached = -(-samples // parameters.hop) if parameters.hop else samples
    kept: NDArray[np.float32] = rows[_spread(min(len(rows), reached))].numpy().astype(np.float32)
    return kept


def difference(ours: Tensors, theirs: Tensors, stage: str) -> float:
    """Return the largest relative difference of the tensors of a stage.

    Returns:
        ||theirs - ours|| / ||ours||, the largest; infinite where one side lacks a tensor, has one of another shape or
        one that is not a number, NaN where neither has any.

    Example:
        >>> ours, theirs = {"0/features": np.ones((2, 2))}, {"0/features": np.full((2, 2), 1.5)}
        >>> difference(ours, theirs, "features"), difference(ours, {}, "features"), difference(ours, theirs, "encoder")
        (0.5, inf, nan)
    """
    names = {name for name in (*ours, *theirs) if name.partition("/")[2].startswith(stage)}
    return max((_apart(ours.get(name), theirs.get(name)) for name in names), default=float("nan"))


def _apart(ours: NDArray[np.float32] | None, theirs: NDArray[np.float32] | None) -> float:
    if ours is None or theirs is None or ours.shape != theirs.shape:
        return math.inf
    apart = float(np.linalg.norm(theirs - ours)) / max(float(np.linalg.norm(ours)), 1e-30)
    return math.inf if math.isnan(apart) else apart


def scores_apart(model: Model, clip: Clip, evidence: str | os.PathLike[str]) -> float:
    """Return the largest difference between listed log-probabilities and their replay, in nats.

    Args:
        model: The model on this machine.
        clip: The clip.
        evidence: File of its evidence.

    Returns:
        The difference; infinite for evidence that breaks a rule and where the replay is not a number, NaN where a
        family compares no single values.

    Raises:
        UsageError: There is no such file.
    """
    work = prepare(Case(evidence=evidence, request=clip.request, audio=clip.audio), model, Policy())
    family, advance = family_of(model), lambda _: None
    if not work.open:
        return math.inf
    if not isinstance(family, AttributableFamily):
        return math.nan
    replays = family.replay(model.in_float32(), work.inputs, work.traces, batch_size=1, advance=advance)
    pairs = [family.coordinates(trace, replay) for trace, replay in zip(work.traces, replays, strict=True)]
    provider, reference = (np.concatenate([own.ravel() for own in side]) for side in zip(*pairs, strict=True))
    apart = np.where(np.isnan(reference), math.inf, np.abs(provider - reference))[~np.isnan(provider)]
    return float(np.nanmax(apart, initial=0.0)) if len(provider) else math.nan


def largest(differences: Iterable[float]) -> float:
    """Return the largest difference, whatever their order; NaN only where there is none.

    Example:
        >>> largest([math.nan, 0.5]), largest([0.5, math.nan]), largest([math.nan])
        (0.5, 0.5, nan)
    """
    return max((own for own in differences if not math.isnan(own)), default=math.nan)


def load_tensors(path: str | os.PathLike[str]) -> dict[str, NDArray[np.float32]]:
    """Read features and encoder states.

    Raises:
        RecordError: They are damaged, too many, or not finite.
        UsageError: There is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    data = codec.read_bytes(path)
    if len(data) > codec.MAX_RECORD_BYTES:
        raise RecordError(f"{path} holds more than {codec.MAX_RECORD_BYTES} bytes", code="record.too_large")
    try:
        found: dict[str, NDArray[np.float32]] = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RecordError(f"{path} holds no features and encoder states: {error}") from error
    if len(found) > MOST_TENSORS or not all(_is_sound(name, own) for name, own in found.items()):
        expected = f"at most {MOST_TENSORS} finite float32 tables of 1 to {POSITIONS} positions"
        raise RecordError(f"{path} holds other features and encoder states than expected: {expected}")
    return found


def _is_sound(name: str, own: NDArray[np.float32]) -> bool:
    table = own.dtype == np.float32 and own.ndim == 2 and 1 <= len(own) <= POSITIONS
    return table and TENSOR.fullmatch(name) is not None and bool(np.isfinite(own).all())


def save_tensors(tensors: Tensors, path: str | os.PathLike[str]) -> None:
    """Write features and encoder states as safetensors.

    Raises:
        OutputError: The file cannot be written.
    """
    from safetensors.numpy import save

    codec.write_atomically(path, save(dict(tensors)))
