"""What models offer: all of them, and what each family asks of its own besides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from earmark.protocols.exchange import ModelInfo
from earmark.records.request import Request

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from earmark.lattice import AdditiveJoint, ChunkedJoint

    Samples = NDArray[np.int16]


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
class BandModel(Protocol):
    """What a model offers besides whose features are normalised band by band over the clip."""

    def least_deviation(self, samples: Samples) -> float:
        """Return the standard deviation of the log energy in the band that varies least, before it is normalised."""


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
    One that has a tokenizer offers it as `tokenise(text) -> tuple[int, ...]`, so that plain text can be verified;
    letters that no token stands for become whatever `detokenise` leaves out.
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
