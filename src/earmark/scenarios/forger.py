"""A provider that learned to forge: from a cheap model's numbers to those that the reference reports (THREATS A23).

It learns on clips that it had both models transcribe once, and serves others with the cheap model alone. The cheap
model's tokens stay; forged are all log-probabilities, entropies and what follows from them. Hidden states it cannot
learn, since the nonce chooses and folds them: the sketch stays the cheap model's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from earmark.errors import UsageError
from earmark.protocols import Model, SegmentInput, SegmentOutput
from earmark.recording import Clip
from earmark.scenarios.clips import own_inputs
from earmark.scenarios.core import Scenario, Settings, run_record, run_score
from earmark.scenarios.forged import cheap_model, forged
from earmark.scenarios.traces import Floats, Numbers, open_numbers

Kind = Literal["ridge", "mlp"]
DEEPEST_LIST = 1024
"""The forger's own copy of the reference lists as many tokens as a trace may, to look up those of the cheap model."""
CLIPS = 24


def forger(
    *, kind: Kind = "mlp", writer: Model | None = None, clips: Sequence[Clip] | None = None, seed: int = 0
) -> Scenario:
    """Return a provider that forges the reference's numbers with a learned map.

    Args:
        kind: `ridge` (linear) or `mlp` (a small network).
        writer: The cheap model; by default the reference in 4 bits.
        clips: Clips to learn on; those that are tested are left out. By default those that ship with earmark.
        seed: Seed of the network.

    Example:
        >>> forger(kind="ridge").name
        'forger-ridge'
    """
    if kind not in ("ridge", "mlp"):
        raise UsageError(f"forger takes ridge or mlp; got {kind!r}")

    def produce(reference: Model, inputs: Sequence[SegmentInput], settings: Settings) -> list[SegmentOutput]:
        cheap = cheap_model(reference, writer)
        known = own_inputs(reference, CLIPS, clips=clips, apart_from=inputs)
        if not known:
            raise UsageError("the forger has nothing to learn on: give clips other than those it is tested on")
        learned = learn(reference, cheap, known, settings, kind=kind, seed=seed)
        return forged(reference, run_record(cheap, inputs, settings), learned.forge)

    summary = f"a cheap model's numbers, corrected by a learned map ({kind})"
    return Scenario(name=f"forger-{kind}", honest=False, summary=summary, saves="everything", produce=produce)


@dataclasses.dataclass(frozen=True, slots=True)
class Learned:
    """A map from what a cheap model says of a position to how far the reference differs.

    Attributes:
        regressor: Predicts the differences at a scale of 1.
        mean: Mean of each difference, (k + scalars,).
        spread: Standard deviation of each; 0 where there was none to learn.
    """

    regressor: Any
    mean: Floats
    spread: Floats

    def forge(self, numbers: Numbers) -> Numbers:
        """Return the numbers as the reference would report them, as far as was learned."""
        k = numbers.logprobs.shape[1]
        change = self.mean + self.spread * self.regressor.predict(features(numbers))
        added = numbers.scalars() + change[:, k:]
        columns = ["chosen", "entropy", *(name for name in ("blank", "power") if getattr(numbers, name) is not None)]
        scalars: dict[str, Any] = dict(zip(columns, added.T, strict=True))
        return dataclasses.replace(numbers, logprobs=numbers.logprobs + change[:, :k], **scalars)


def learn(
    reference: Model, cheap: Model, inputs: Sequence[SegmentInput], settings: Settings, *, kind: Kind, seed: int = 0
) -> Learned:
    """Learn on audio that both models see: the reference scores what the cheap model wrote.

    Args:
        reference: The model that is claimed.
        cheap: The model that really runs.
        inputs: Audio to learn on.
        settings: How evidence is recorded.
        kind: `ridge` or `mlp`.
        seed: Seed of the network.
    """
    plain = dataclasses.replace(settings, level="scores")
    wide = dataclasses.replace(plain, k=min(DEEPEST_LIST, reference.info.vocab_size))
    written = run_record(cheap, inputs, plain)
    scored = run_score(reference, inputs, written, wide)
    pairs = [(open_numbers(own), open_numbers(true)) for own, true in zip(written, scored, strict=True)]
    seen = np.concatenate([features(own) for own, _ in pairs])
    wanted = np.concatenate([difference(own, true) for own, true in pairs])
    mean, spread = wanted.mean(axis=0), wanted.std(axis=0)
    regressor = _regressor(kind, seed)
    regressor.fit(seen, (wanted - mean) / np.where(spread > 0, spread, 1.0))
    return Learned(regressor, mean, spread)


def features(numbers: Numbers) -> Floats:
    """Return what a forger sees of each position, its neighbours' entropies too, (positions, features).

    The listed log-probabilities and their gaps, the scalars, and products of the strongest.
    """
    scalars = numbers.scalars()
    entropy = np.pad(numbers.entropy, 1, mode="edge")
    around = np.stack([entropy[:-2], entropy[2:]], axis=1)
    gaps = numbers.logprobs[:, :1] - numbers.logprobs[:, 1:]
    probabilities = np.exp(numbers.logprobs)
    return np.concatenate(
        [numbers.logprobs, gaps, probabilities, probabilities**2, scalars, scalars**2, around], axis=1
    )


def difference(own: Numbers, true: Numbers) -> Floats:
    """Return by how much the reference's numbers exceed the cheap model's, (positions, k + scalars).

    Args:
        own: The cheap model's.
        true: The reference's along the same output, with lists so long that they hold the cheap model's tokens.
    """
    same = own.ids[:, :, None] == true.ids[:, None, :]
    found = same.any(axis=2)
    values = np.where(same, true.logprobs[:, None, :], 0.0).sum(axis=2)
    lowest = np.broadcast_to(true.logprobs[:, -1:], values.shape)
    return np.concatenate([np.where(found, values, lowest) - own.logprobs, true.scalars() - own.scalars()], axis=1)


def _regressor(kind: Kind, seed: int) -> Any:
    """Return a regressor that sees every feature at a scale of 1."""
    from sklearn.linear_model import Ridge
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind == "ridge":
        own: Any = Ridge(alpha=1.0)
    else:
        own = MLPRegressor(
            hidden_layer_sizes=(64, 64), alpha=1e-3, early_stopping=True, max_iter=200, random_state=seed
        )
    return make_pipeline(StandardScaler(), own)
