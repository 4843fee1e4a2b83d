"""earmark tells which speech-recognition model really transcribed your audio.

Example:
    >>> import earmark
    >>> earmark.__version__
    '0.1.0'
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from earmark.audio import CanonicalAudio
    from earmark.fingerprint.types import Fingerprint
    from earmark.loading import load
    from earmark.recording import Clip, load_audio, record, record_many, request, score
    from earmark.records.evidence import Evidence
    from earmark.records.policy import Policy
    from earmark.records.receipt import Receipt
    from earmark.records.request import Decoding, Request, Segmentation
    from earmark.records.verdict import Finding, Verdict
    from earmark.rules import Case
    from earmark.text_only import TextSegment, verify_text
    from earmark.verification import verify, verify_many

__version__ = "0.1.0"

_HOMES = {
    "load": "loading",
    "load_audio": "recording",
    "record": "recording",
    "record_many": "recording",
    "request": "recording",
    "score": "recording",
    "verify": "verification",
    "verify_many": "verification",
    "verify_text": "text_only",
    "CanonicalAudio": "audio",
    "Case": "rules",
    "Clip": "recording",
    "Decoding": "records.request",
    "Evidence": "records.evidence",
    "Fingerprint": "fingerprint.types",
    "Finding": "records.verdict",
    "Policy": "records.policy",
    "Receipt": "records.receipt",
    "Request": "records.request",
    "Segmentation": "records.request",
    "TextSegment": "text_only",
    "Verdict": "records.verdict",
}

__all__ = [  # noqa: RUF022 - functions first, then types
    "load",
    "load_audio",
    "record",
    "record_many",
    "request",
    "score",
    "verify",
    "verify_many",
    "verify_text",
    "CanonicalAudio",
    "Case",
    "Clip",
    "Decoding",
    "Evidence",
    "Fingerprint",
    "Finding",
    "Policy",
    "Receipt",
    "Request",
    "Segmentation",
    "TextSegment",
    "Verdict",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import earmark` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'earmark' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"earmark.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
