"""What the core, the families and the models ask of each other.

A *family* (`verifiers/`) knows an architecture: what a trace holds, how to force an output and how to compare. A
*model* (`models/`) is one checkpoint behind the small interface that its family asks for. Neither imports the other.
"""

from __future__ import annotations

from earmark.protocols.exchange import (
    Advance,
    Comparison,
    Curve,
    ModelInfo,
    Reported,
    SegmentInput,
    SegmentOutput,
    TextScores,
)
from earmark.protocols.families import (
    AttributableFamily,
    ConfidenceFamily,
    CurveFamily,
    Family,
    ProbedFamily,
    TextFamily,
)
from earmark.protocols.models import (
    AutoregressiveModel,
    BandModel,
    CtcModel,
    FrameModel,
    Model,
    ModelLoader,
    Step,
    Strategy,
    TransducerModel,
)

__all__ = [
    "Advance",
    "AttributableFamily",
    "AutoregressiveModel",
    "BandModel",
    "Comparison",
    "ConfidenceFamily",
    "CtcModel",
    "Curve",
    "CurveFamily",
    "Family",
    "FrameModel",
    "Model",
    "ModelInfo",
    "ModelLoader",
    "ProbedFamily",
    "Reported",
    "SegmentInput",
    "SegmentOutput",
    "Step",
    "Strategy",
    "TextFamily",
    "TextScores",
    "TransducerModel",
]
