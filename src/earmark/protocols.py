"""What the core, the families and the models ask of each other.

A *family* (`verifiers/`) knows an architecture: what a trace holds, how to force an output and how to compare. A
*model* (`models/`) is one checkpoint behind the small interface that its family asks for. Neither imports the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from earmark.features import FeatureParameters
from earmark.fingerprint.types import Fingerprint, Statistic
from earmark.records.evidence import Level, Precision, Segment
from earmark.records.policy import Policy
from earmark.records.request import Request
from earmark.records.verdict import Finding

if TYPE_CHECKING:
    import numpy as np
    import torch
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


class Model(Protocol):
    """What every loaded model offers."""

    @property
    def info(self) -> ModelInfo:
        """Facts about the model."""

    @property
    def module(self) -> torch.nn.Module:
        """The network itself; scenarios alter copies of it."""

    def detokenise(self, ids: Sequence[int]) -> str:
        """Return the text of emitted ids, special tokens left out."""

    def in_float32(self) -> Model:
        """Return the model that replays: float32 arithmetic on the weights rounded to the claimed precision."""

    def with_module(self, module: torch.nn.Module) -> Model:
        """Return the same model around another network of the same shape."""


@runtime_checkable
class ModelLoader(Protocol):
    """A plugin of the group `earmark.models`: opens checkpoints of one model family."""

    name: ClassVar[str]
    family: ClassVar[str]
    summary: ClassVar[str]

    def recognises(self, folder: Path) -> bool:
        """Tell whether the folder holds a checkpoint of this kind, from its config alone."""

    def load(self, folder: Path, *, name: str, device: str, dtype: str, arithmetic: str, attention: str) -> Model:
        """Load the checkpoint.

        Raises:
            ModelError: The checkpoint is damaged or incomplete.
        """


@runtime_checkable
class Family(Protocol):
    """A plugin of the group `earmark.families`: records, replays and compares one architecture family."""

    name: ClassVar[str]
    summary: ClassVar[str]
    statistics: ClassVar[tuple[Statistic, ...]]

    def record(
        self,
        model: Any,
        inputs: Sequence[SegmentInput],
        *,
        k: int,
        level: Level,
        batch_size: int,
        advance: Advance,
    ) -> list[SegmentOutput]:
        """Transcribe each piece and write down what the model said meanwhile."""

    def score(
        self,
        model: Any,
        inputs: Sequence[SegmentInput],
        outputs: Sequence[SegmentOutput],
        *,
        k: int,
        level: Level,
        batch_size: int,
        advance: Advance,
    ) -> list[SegmentOutput]:
        """Write the trace of given outputs as `model` sees them, without decoding."""

    def read(self, segment: Segment, request: Request, model: Any, level: Level) -> Any:
        """Decode and check one trace against rules that need no replay.

        Raises:
            TraceError: The trace is not well formed or breaks a rule; its `code` becomes the finding.
        """

    def replay(
        self,
        model: Any,
        inputs: Sequence[SegmentInput],
        traces: Sequence[Any],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[Any]:
        """Force each trace's output through `model` (float32 arithmetic) and return what it says."""

    def rerun(
        self,
        model: Any,
        inputs: Sequence[SegmentInput],
        traces: Sequence[Any],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[Any]:
        """Decode each piece again as its request says, in place of forcing the provider's output."""

    def needs_rerun(self, request: Request) -> bool:
        """Tell whether forcing alone cannot check how the request wants tokens chosen."""

    def review(self, traces: Sequence[Any], policy: Policy) -> list[Finding]:
        """Say whether the traces of one clip hold as much as the policy asks."""

    def compare(
        self,
        traces: Sequence[Any],
        replays: Sequence[Any],
        *,
        model: Any,
        request: Request,
        reruns: Sequence[Any] | None = None,
    ) -> Comparison:
        """Compare the traces of one clip with their replays."""

    def provisional_bounds(self, precision: Precision) -> Mapping[str, float]:
        """Return bounds of statistics beyond which the provisional profile says FAIL."""


class AutoregressiveModel(Model, Protocol):
    """What the autoregressive family asks of a model; states and logits are torch tensors on the model's device."""

    end_id: int
    languages: Mapping[str, int]
    """Language code to token id; empty where the model has no language tokens."""
    no_speech_id: int | None

    def prompt_ids(self, request: Request, language: str | None) -> tuple[int, ...]:
        """Return the ids that precede the transcript.

        Raises:
            UsageError: The model has no such language, task or option.
        """

    def start_position(self, prompt: Sequence[int]) -> int | None:
        """Return the position that predicts language and silence, or None where the model has none."""

    def max_new_tokens(self, prompt: Sequence[int]) -> int:
        """Return how many tokens fit behind the prompt."""

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the encoder's layers, whose outputs (batch, positions, width) can be probed."""

    def encoder_positions(self, samples: int) -> int:
        """Return how many encoder positions carry audio in a piece of that many samples."""

    def encode(self, samples: Sequence[Samples]) -> Any:
        """Return the encoded batch; what it is, only the model knows."""

    def generate(
        self,
        encoded: Any,
        rows: Sequence[int],
        prompts: Sequence[tuple[int, ...]],
        *,
        max_new_tokens: int,
        beams: int,
        processor: Any,
    ) -> list[list[int]]:
        """Decode some rows of an encoded batch; prompts have one length; ids include the end token if reached."""

    def forced_states(self, encoded: Any, ids: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states (batch, length, width) with the decoder forced to `ids` (batch, length)."""

    def project(self, states: torch.Tensor) -> torch.Tensor:
        """Return logits (positions, vocab) of hidden states (positions, width)."""

    def apply_rules(
        self, logits: torch.Tensor, prompt: Sequence[int], ids: Sequence[int], *, timestamps: bool
    ) -> torch.Tensor:
        """Return logits (positions, vocab) after the model's own rules; row i precedes ids[i]."""

    def step_rules(self, begin: int, *, timestamps: bool) -> Any:
        """Return the same rules as a transformers `LogitsProcessor` for prompts of length `begin`."""

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return for each id the index of its word, -1 for special tokens."""
