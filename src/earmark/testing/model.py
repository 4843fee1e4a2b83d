"""What every model and every loader keeps, whatever its family."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import msgspec

from earmark.features import FeatureParameters
from earmark.loading import family_of
from earmark.protocols import Model, ModelLoader
from earmark.recording import Clip, record_many
from earmark.records.evidence import Evidence, Precision
from earmark.registry import registry
from earmark.testing._loader import LOADER_CONTRACTS, Opened
from earmark.testing.bench import default_clips, require, run

DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model on a few clips.

    Attributes:
        model: The model under test.
        clips: Two or more clips with different words.
    """

    model: Any
    clips: Sequence[Clip]

    def record(self, model: Model | None = None) -> list[Evidence]:
        """Record all clips."""
        return list(record_many(model or self.model, self.clips))


def check_model(
    model: Model | None = None,
    *,
    loader: ModelLoader | None = None,
    folder: Path | None = None,
    clips: Sequence[Clip] | None = None,
    contracts: Iterable[str] | None = None,
) -> None:
    """Check that a model keeps every contract on which families and verification rest.

    Args:
        model: A loaded model; without it, the loader opens the folder.
        loader: The plugin that opens it; checked too, where a folder is given.
        folder: A checkpoint that the loader recognises.
        clips: Two or more clips with different words; by default four that ship with earmark.
        contracts: Names out of `MODEL_CONTRACTS` and `LOADER_CONTRACTS`; by default all that apply.

    Raises:
        AssertionError: A contract is broken; the message says which, what was found and what to do.
        UsageError: There is no such contract.

    Example:
        >>> import earmark
        >>> check_model(earmark.load("embedded:whisper-nano", device="cpu"), contracts=["describes itself", "copies"])
    """
    wanted = None if contracts is None else list(contracts)
    opened = None if loader is None or folder is None else Opened(loader=loader, folder=Path(folder))
    subject = model if opened is None or model is not None else opened.load()
    require(subject is not None, "neither a model nor a loader with its folder", "one of them", "give one")
    chosen = default_clips() if clips is None else list(clips)
    if opened is not None:
        run(LOADER_CONTRACTS, _among(wanted, LOADER_CONTRACTS), opened, f"loader {opened.loader.name!r}")
        wanted = wanted and [name for name in wanted if name not in LOADER_CONTRACTS]
    run(MODEL_CONTRACTS, wanted, Loaded(model=subject, clips=chosen), f"model {subject.info.name!r}")  # type: ignore[union-attr]


def _among(wanted: list[str] | None, contracts: Mapping[str, Any]) -> list[str] | None:
    return None if wanted is None else [name for name in wanted if name in contracts]


def describes_itself(loaded: Loaded) -> None:
    """The facts are of their types and within their bounds."""
    info = loaded.model.info
    known = ", ".join(registry("family").names())
    require(info.family in registry("family").names(), f"family {info.family!r}", f"one of {known}", "register it")
    for name in ("name", "architecture", "engine", "device", "attention"):
        value = getattr(info, name)
        require(isinstance(value, str) and 0 < len(value) <= 200, f"{name} {value!r}", "1 to 200 characters", "set it")
    digest = isinstance(info.weights, str) and len(info.weights) == 64 and set(info.weights) <= set("0123456789abcdef")
    require(digest, f"weights {info.weights!r}", "64 hex digits", "use earmark.checkpoint.weights_digest")
    for name in ("precision", "arithmetic"):
        value = getattr(info, name)
        require(value in get_args(Precision), f"{name} {value!r}", f"one of {get_args(Precision)}", "set it")
    require(info.vocab_size > 1, f"{info.vocab_size} tokens", "2 or more", "count the rows of the output layer")
    require(info.window_samples >= 16_000, f"a window of {info.window_samples} samples", "16000 or more", "set it")
    require(isinstance(info.features, FeatureParameters), type(info.features), "FeatureParameters", "use describe()")
    again = msgspec.convert(msgspec.to_builtins(info.features), FeatureParameters)
    require(
        again == info.features, "features that do not survive a record", "the same", "use earmark.features.describe"
    )


def _weights(model: Model) -> dict[str, Any]:
    return dict(model.module.state_dict())


def _equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    import torch

    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def copies(loaded: Loaded) -> None:
    """`with_module` gives the same numbers around a copy, and the numbers of other weights around them."""
    model = loaded.model
    before = {name: tensor.clone() for name, tensor in _weights(model).items()}
    one, other = loaded.record(), loaded.record(model.with_module(copy.deepcopy(model.module)))
    require(one == other, "other evidence around a copy of the network", "the same bytes", "keep all other state")
    require(_equal(before, _weights(model)), "other weights after recording", "the same", "change copies alone")
    from earmark.testing._forgeries import noisy

    changed = loaded.record(model.with_module(noisy(model.module, 0.3, 0)))
    advice = "let `with_module` use the network it is given"
    require(one[0].segments != changed[0].segments, "the same evidence around other weights", "another", advice)
    require(loaded.record() == one, "other evidence after `with_module`", "the same", "change nothing in place")


def replays_in_float32(loaded: Loaded) -> None:
    """`in_float32` computes in float32 on the weights rounded to the claimed precision."""
    import torch

    model = loaded.model
    replaying = model.in_float32()
    found = (replaying.info.precision, replaying.info.arithmetic)
    expected = (model.info.precision, "fp32")
    require(found == expected, found, f"(precision, arithmetic) {expected}", "change arithmetic alone")
    require(replaying.info.weights == model.info.weights, "another digest", "the checkpoint's", "keep it")
    claimed = getattr(torch, DTYPES[model.info.precision])
    for name, weight in replaying.module.named_parameters():
        require(weight.dtype == torch.float32, f"{name} in {weight.dtype}", "float32", "call .float() on a copy")
        exact = torch.equal(weight, weight.to(claimed).float())
        require(exact, f"{name} not rounded to {claimed}", "rounded weights", "round first, then compute in float32")
    again = model.in_float32()
    require(again is replaying or again is model, "a new copy at each call", "one copy", "keep it")


def detokenises(loaded: Loaded) -> None:
    """Text follows from ids alone, and equals what was recorded."""
    model = loaded.model
    require(isinstance(model.detokenise(()), str), type(model.detokenise(())), "str for no ids", "return ''")
    for evidence in loaded.record():
        for segment in evidence.segments:
            texts = {model.detokenise(segment.ids), model.detokenise(list(segment.ids)), segment.text}
            require(len(texts) == 1, sorted(texts), "one text", "detokenise from the ids alone")
    for ids in ((0,), (model.info.vocab_size - 1,), tuple(range(min(64, model.info.vocab_size)))):
        require(isinstance(model.detokenise(ids), str), f"no text for {ids[:4]}", "str for any ids", "skip specials")


def counts_words(loaded: Loaded) -> None:
    """Every id belongs to a word, or to none."""
    if not hasattr(loaded.model, "word_index"):
        return
    for evidence in loaded.record():
        ids = evidence.segments[0].ids
        words = loaded.model.word_index(ids)
        require(len(words) == len(ids), f"{len(words)} words of {len(ids)} ids", "one per id", "give -1 outside words")
        inside = [word for word in words if word >= 0]
        steps = [b - a for a, b in pairwise(inside)]
        fine = inside[:1] in ([], [0]) and set(steps) <= {0, 1} and min(words, default=0) >= -1
        require(fine, words[:20], "0, 0, 1, ... in order, -1 outside words", "count words from 0")


def counts_positions(loaded: Loaded) -> None:
    """`encoder_positions` is what the encoder really gives."""
    model = loaded.model
    if not hasattr(model, "encoder_positions") or not model.encoder_layers():
        return
    longest = min(model.info.window_samples, 30 * 16_000)
    sizes = sorted({2_000, 16_000, 16_001, 100_000, longest} & set(range(longest + 1)))
    given = {size: _positions(model, size) for size in sizes}
    padded = len(set(given.values())) == 1  # every piece fills the window, as Whisper's do
    for size, real in given.items():
        said = model.encoder_positions(size)
        expected = math.ceil(real * size / longest) if padded else real
        near = abs(said - expected) <= 1 if padded and size < longest else said == expected
        require(near, f"{said} positions for {size} samples", f"{expected}, as the encoder gives", "count as it does")


def _positions(model: Any, size: int) -> int:
    """Return the positions of the encoder for a piece alone, by its own `lengths` or the output of its last layer."""
    import numpy as np
    import torch

    shapes: list[int] = []

    def hook(_module: Any, _inputs: Any, output: Any) -> None:
        shapes.append(int((output[0] if isinstance(output, tuple) else output).shape[1]))

    handle = model.encoder_layers()[-1].register_forward_hook(hook)
    samples = (np.random.default_rng(size).normal(size=size) * 1000).astype(np.int16)
    try:
        with torch.inference_mode():
            encoded = model.encode([samples])
    finally:
        handle.remove()
    require(shapes, "an encoder that does not run its layers", "a call of the last one", "return the layers that run")
    return int(model.lengths(encoded)[0]) if hasattr(model, "lengths") else shapes[-1]


def verifies_itself(loaded: Loaded) -> None:
    """Honest evidence of the model passes."""
    from earmark.testing.bench import Bench, told

    bench = Bench(family=family_of(loaded.model), model=loaded.model, clips=loaded.clips)
    for number, verdict in enumerate(bench.verify(bench.honest)):
        require(verdict.passed, f"{told(verdict)} for honest evidence of clip {number}", "PASS", "see `check_family`")


MODEL_CONTRACTS: dict[str, Callable[[Loaded], None]] = {
    "describes itself": describes_itself,
    "text": detokenises,
    "words": counts_words,
    "positions": counts_positions,
    "copies": copies,
    "float32": replays_in_float32,
    "verifies itself": verifies_itself,
}
"""Name to contract."""
