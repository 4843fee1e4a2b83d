"""What families offer: one architecture each, recorded, replayed and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from earmark.fingerprint.types import Statistic
from earmark.protocols.exchange import Advance, Comparison, Curve, SegmentInput, SegmentOutput, TextScores
from earmark.records.evidence import Level, Precision, Segment
from earmark.records.policy import Policy
from earmark.records.request import Request
from earmark.records.verdict import Finding

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
class CurveFamily(Protocol):
    """What a family offers besides if its traces hold an entropy for every position."""

    def curve(self, trace: Any, replay: Any, model: Any) -> Curve:
        """Return the entropy curves of one piece with its words.

        Raises:
            UsageError: The trace is of a level that holds none.
        """


@runtime_checkable
class ProbedFamily(Protocol):
    """What a family offers besides if the encoder alone can be replayed up to a depth."""

    def probe(
        self,
        model: Any,
        inputs: Sequence[SegmentInput],
        traces: Sequence[Any],
        *,
        depth: int,
        batch_size: int,
        advance: Advance,
    ) -> list[NDArray[np.float64]]:
        """Return the distances of the probes in the first `depth` layers of the encoder, (checked,) of each piece."""


@runtime_checkable
class AttributableFamily(Protocol):
    """A family whose evidence can be compared number by number with that of alternatives."""

    def coordinates(self, trace: Any, replay: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return what provider and reference say at the same places, same shape; NaN where the provider is silent."""
