"""What models, families and the core hand to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from earmark.features import FeatureParameters
from earmark.fingerprint.types import Fingerprint
from earmark.records.evidence import Precision
from earmark.records.request import Request
from earmark.records.verdict import Finding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Samples = NDArray[np.int16]


Advance = Callable[[int], None]
"""Called with the number of segments that were finished, to move a progress bar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """Facts about a loaded model.

    Attributes:
        name: Name for people, for instance `openai/whisper-large-v3`.
        family: Name of its family.
        architecture: Name of the plugin that loaded it.
        weights: Digest of the checkpoint's tensors.
        precision: The precision it is loaded for; its weights are rounded to it.
        arithmetic: The precision it computes in; `fp32` in a replay.
        features: Parameters of its acoustic features.
        vocab_size: Number of token ids.
        window_samples: Longest piece of audio it takes at once, at 16 kHz.
        engine: Software that runs it.
        device: Where it runs.
        attention: Attention kernel.
    """

    name: str
    family: str
    architecture: str
    weights: str
    precision: Precision
    arithmetic: Precision
    features: FeatureParameters
    vocab_size: int
    window_samples: int
    engine: str
    device: str
    attention: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentInput:
    """One piece of audio with the request that it belongs to.

    Attributes:
        samples: Canonical samples of the piece, (n,) int16 at 16 kHz.
        request: What was asked.
        index: Number of the segment within its clip.
    """

    samples: Samples
    request: Request
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentOutput:
    """What a model made of one piece: emitted ids, their text, the encoded trace."""

    ids: tuple[int, ...]
    text: str
    trace: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """What an API reports of one piece: tokens, and a few candidates of each with their log-probabilities.

    A family that can read it has a method `reported(model, item, report) -> SegmentOutput`, which writes a trace of
    the level `listed`.

    Attributes:
        ids: Emitted ids, with or without the end token.
        logprobs: Log-probability of each in nats; NaN where the API gave none.
        top: Candidates of each position, (id, log-probability); NaN where the API gave none.
        k: Candidates that it listed at every position, also those that are left out here because none can tell which
            tokens they are.
        ended: Whether the transcript ended by itself.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    top: tuple[tuple[tuple[int, float], ...], ...]
    k: int
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The outcome of comparing the evidence of one clip with its replay.

    Attributes:
        fingerprint: All statistics of the family.
        findings: Broken rules that only the replay could show.
        positions: Number of positions that were compared.
    """

    fingerprint: Fingerprint
    findings: tuple[Finding, ...]
    positions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextScores:
    """What a reference says of a text that it is forced to, beside its own transcript of the same piece.

    Attributes:
        own_text: The reference's own transcript.
        likelihood: Log-probability of the text given the audio in nats, its end included.
        own_likelihood: The same of the reference's own transcript.
        positions: Number of the text's tokens, the end token included where the family has one.
        margins: Margin of each token below what the rule of decoding would have chosen, in nats; empty where no
            such rule holds token by token.
        stop_margin: Nats by which the reference would rather go on than end behind the text; NaN where unknown.
        mean_logprobs: Mean log-probability per token, as the model says it and after its own rules, or over all
            alignments and on the best one: what interfaces report as an average.
        uncovered_gap: Seconds by which the longest stretch of loud audio without a token is longer than with the
            reference's own transcript; NaN where the family does not place tokens in time.
        unknown: Letters of the text that no token stands for.
    """

    own_text: str
    likelihood: float
    own_likelihood: float
    positions: int
    margins: tuple[float, ...]
    stop_margin: float
    mean_logprobs: tuple[float, ...]
    uncovered_gap: float = float("nan")
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """How unsure provider and reference were along one piece of audio.

    Attributes:
        unit: `s` where the family knows the time of its positions, else `tokens`.
        places: Where each position lies, in that unit, (positions,).
        provider: Entropy that the provider reports, in nats, (positions,).
        reference: The same from the replay, (positions,).
        words: Place and text of each word.
    """

    unit: Literal["s", "tokens"]
    places: NDArray[np.float64]
    provider: NDArray[np.float64]
    reference: NDArray[np.float64]
    words: tuple[tuple[float, str], ...]
