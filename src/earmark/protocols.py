"""What the core, the families and the models ask of each other.

A *family* (`verifiers/`) knows an architecture: what a trace holds, how to force an output and how to compare. A
*model* (`models/`) is one checkpoint behind the small interface that its family asks for. Neither imports the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

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

    from earmark.lattice import AdditiveJoint, ChunkedJoint

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
        mean_logprobs: Mean log-probability per token, as the model says it and after its own rules: what interfaces
            report as an average.
    """

    own_text: str
    likelihood: float
    own_likelihood: float
    positions: int
    margins: tuple[float, ...]
    stop_margin: float
    mean_logprobs: tuple[float, ...]


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
    levels: ClassVar[tuple[Level, ...]]
    """Levels of evidence that it records and reads."""

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

    def listed(self, trace: Any) -> int:
        """Return the candidates per position in a trace that was read; of a compact one, those behind it."""

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


@runtime_checkable
class TextFamily(Protocol):
    """What a family offers besides if it can judge plain text."""

    def text_scores(
        self,
        model: Any,
        inputs: Sequence[SegmentInput],
        texts: Sequence[str],
        *,
        batch_size: int,
        advance: Advance,
    ) -> list[TextScores]:
        """Force each text through `model` and transcribe each piece as well."""


@runtime_checkable
class ConfidenceFamily(Protocol):
    """What a family offers besides if its traces hold a confidence for every word."""

    def confidences(self, trace: Any, replay: Any, model: Any) -> NDArray[np.float64]:
        """Return each word's confidence, the provider's and the reference's, (2, words).

        Raises:
            UsageError: The trace is of a level that holds none.
        """


@runtime_checkable
class AttributableFamily(Protocol):
    """A family whose evidence can be compared number by number with that of alternatives."""

    def coordinates(self, trace: Any, replay: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what provider and reference say at the same places, same shape; NaN where the provider is silent."""


class AutoregressiveModel(Model, Protocol):
    """What the autoregressive family asks of a model; states and logits are torch tensors on the model's device."""

    end_id: int
    """The token that usually ends a transcript; also fills up rows that are too short."""
    stop_ids: frozenset[int]
    """All tokens that end a transcript, `end_id` among them."""
    token_bytes: Sequence[bytes]
    """The bytes that each id stands for; special tokens as their names, ids without a token as nothing."""
    languages: Mapping[str, int]
    """Language code to token id; empty where the model has no language tokens."""
    no_speech_id: int | None

    def tokenise(self, text: str) -> tuple[int, ...]:
        """Return the ids of plain text, as the model would write it at the beginning of a transcript.

        Special tokens in the text are taken as plain letters.
        """

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

    def head(self) -> torch.nn.Module:
        """Return the module that maps last hidden states to logits; recording looks at its calls in `generate`.

        Its first call must show all positions of the prompt where the model has a start position.
        """

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


Strategy = Literal["ar", "nar", "sar"]
"""How a transducer uses its prediction network: at every token, not at all, or in a second pass (HAINAN)."""


class Step(NamedTuple):
    """One decision of a transducer's decoder, blanks included.

    Attributes:
        frame: Encoder frame it was made at.
        token: Symbol that was chosen.
        duration: Frames the decoder moved on: of RNN-T 1 for the blank and 0 for a token, of TDT the chosen duration;
            1 where the decoder forces itself on: at a blank of duration 0, at the last of `max_symbols` tokens.
    """

    frame: int
    token: int
    duration: int


class FrameModel(Model, Protocol):
    """What the frame-synchronous families (ctc, transducer) ask of a model; tensors are on the model's device.

    A model whose numbers depend on padding says so by a further attribute, `alone = True`: it gets one piece at a time.
    """

    blank_id: int

    def encoder_layers(self) -> Sequence[torch.nn.Module]:
        """Return the encoder's layers; each gives (batch, positions, width), or a tuple that begins with that.

        A model without separate layers may pass its encoder's output through one `torch.nn.Identity`.
        """

    def encoder_positions(self, samples: int) -> int:
        """Return how many encoder frames a piece of that many samples gives, padding left out."""

    def encode(self, samples: Sequence[Samples]) -> Any:
        """Return the encoded batch; what it is, only the model knows."""

    def lengths(self, encoded: Any) -> list[int]:
        """Return the frames of each row without padding; equal to `encoder_positions` of its samples."""

    def word_index(self, ids: Sequence[int]) -> list[int]:
        """Return for each id of a transcript the index of its word, -1 for tokens outside words."""


class CtcModel(FrameModel, Protocol):
    """What the ctc family asks of a model; decoding is argmax, repeats joined, blanks dropped."""

    def logits(self, encoded: Any) -> torch.Tensor:
        """Return raw logits (batch, frames, vocab)."""


class TransducerModel(FrameModel, Protocol):
    """What the transducer family asks of a model: RNN-T, multi-blank, TDT, HAINAN."""

    durations: tuple[int, ...]
    """Durations of the duration logits, rising; () without them."""
    big_blanks: Mapping[int, int]
    """Duration of each big blank by symbol id; {} without them."""
    max_symbols: int
    """Most tokens that greedy decoding writes at one frame before it moves on by one; 0 where it has no such limit."""
    strategy: Strategy

    def frames(self, encoded: Any, row: int) -> torch.Tensor:
        """Return the encoder states of one row ready for the joint, (frames, width_e), padding left out."""

    def predict(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """Return the prediction network's states along each transcript, (batch, tokens + 1, width_p).

        State u follows u tokens, state 0 the start; transcripts of one batch may differ in length.
        """

    def joint(self, frames: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        """Return raw logits (nodes, vocab [+ durations]) of pairs (nodes, width_e), (nodes, width_p)."""

    def lattice_joint(self, frames: torch.Tensor, states: torch.Tensor) -> AdditiveJoint | ChunkedJoint:
        """Return the joint over all pairs of (batch, frames, width_e), (batch, tokens + 1, width_p)."""

    def greedy(self, encoded: Any) -> list[list[Step]]:
        """Return the model's own greedy decoding of each row: every step, blanks included."""
