"""Statistics of evidence against replay: pure functions on arrays, and the type that carries them."""

from earmark.fingerprint.types import FINGERPRINT_VERSION, Fingerprint, Statistic

__all__ = ["FINGERPRINT_VERSION", "Fingerprint", "Statistic"]
