"""The request: what the customer asked to be transcribed, and how."""

from __future__ import annotations

import secrets
from typing import Annotated, ClassVar, Literal

import msgspec

from earmark.errors import AudioError, UsageError
from earmark.records.codec import Count, Digest, Name, Nonce, Record

Task = Literal["transcribe", "translate"]
Strategy = Literal["greedy", "beam", "sample"]


class Decoding(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the model is to choose its tokens.

    Attributes:
        strategy: `greedy`; `beam` with `beams`; `sample` at `temperature` with the noise that `seed` gives.
        beams: Number of beams.
        temperature: Divides the logits before sampling.
        seed: Seed of the sampling noise (`earmark.verifiers.autoregressive.gumbel_noise`).
        timestamps: Whether the model also writes time tokens, where it can.

    Example:
        >>> Decoding(strategy="sample", temperature=0.4, seed=7).temperature
        0.4
    """

    strategy: Strategy = "greedy"
    beams: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    temperature: Annotated[float, msgspec.Meta(ge=0.0, le=2.0)] = 0.0
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**62)] = 0
    timestamps: bool = False

    def __post_init__(self) -> None:
        """Refuse combinations that mean nothing, so that one decoding has one form."""
        if (self.strategy == "beam") != (self.beams > 1):
            raise ValueError(f"strategy {self.strategy!r} with {self.beams} beams; beam needs 2 or more, others 1")
        if (self.strategy == "sample") != (self.temperature > 0):
            raise ValueError(
                f"strategy {self.strategy!r} at temperature {self.temperature}; sample needs more than 0, others 0"
            )
        if self.strategy != "sample" and self.seed:
            raise ValueError(f"a seed of {self.seed} with strategy {self.strategy!r}; only sample takes one")


class Segmentation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long audio is cut into the pieces that the model sees.

    Attributes:
        rule: The rule that finds the boundaries (`earmark.audio.segment`).
        max_samples: Longest piece, in samples at 16 kHz; 0 means the model's own window.
        boundaries: Explicit boundaries in samples; they replace the rule where given.
    """

    rule: Name = "silence-1"
    max_samples: Count = 0
    boundaries: Annotated[tuple[Count, ...], msgspec.Meta(max_length=100_000)] = ()


class Request(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the customer asked: which audio, and what to do with it.

    Attributes:
        audio_digest: Digest of the canonical audio.
        audio_samples: Its length at 16 kHz.
        lossless: Whether the canonical audio came from a lossless source, so that every machine gets the same.
        language: Language code, or None to let the model detect it.
        task: `transcribe` or `translate`.
        prompt: Text that precedes the transcript, or empty.
        decoding: How tokens are chosen.
        segmentation: How long audio is cut.
        nonce: 16 random bytes, so that no two requests are alike.

    Example:
        >>> r = Request(audio_digest="0" * 64, audio_samples=16000, nonce="0" * 32)
        >>> r.task, len(r.digest())
        ('transcribe', 64)
    """

    FORMAT: ClassVar[str] = "earmark.request/1"

    format: Literal["earmark.request/1"] = "earmark.request/1"
    audio_digest: Digest
    audio_samples: Count
    lossless: bool = True
    language: Annotated[str, msgspec.Meta(min_length=1, max_length=40)] | None = None
    task: Task = "transcribe"
    prompt: Annotated[str, msgspec.Meta(max_length=20_000)] = ""
    decoding: Decoding = Decoding()
    segmentation: Segmentation = Segmentation()
    nonce: Nonce


def make_request(
    *,
    audio_digest: str,
    audio_samples: int,
    lossless: bool,
    language: str | None = None,
    task: Task = "transcribe",
    prompt: str = "",
    decoding: Decoding | None = None,
    segmentation: Segmentation | None = None,
    nonce: str | None = None,
) -> Request:
    """Build a request with a fresh nonce, checked as strictly as one that is read from a file.

    Raises:
        UsageError: An option is outside its range.
        AudioError: There is no audio.
    """
    if audio_samples < 1:
        raise AudioError("the audio has no samples; nothing can be asked about it")
    made = Request(
        audio_digest=audio_digest,
        audio_samples=audio_samples,
        lossless=lossless,
        language=language,
        task=task,
        prompt=prompt,
        decoding=decoding or Decoding(),
        segmentation=segmentation or Segmentation(),
        nonce=nonce or secrets.token_hex(16),
    )
    try:
        return msgspec.convert(msgspec.to_builtins(made), Request)
    except msgspec.ValidationError as error:
        raise UsageError(f"this request cannot be made: {error}") from error
