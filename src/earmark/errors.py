"""Every error earmark raises on purpose.

EarmarkError
├── UsageError              what was asked for cannot be done (exit code 3)
│   ├── UnknownNameError    a family, model, scenario that nobody registered
│   └── PluginError         a plugin that clashes or does not load
├── AudioError              the audio is not usable
│   └── AudioFileNotFoundError
├── ModelError              a checkpoint cannot be loaded
├── RecordError             a request, receipt, evidence or policy is not well formed
│   ├── TraceError          the trace inside an evidence is not well formed
│   └── PayloadError        the response of another system cannot be read as evidence
├── EndpointError           a server did not answer as it was asked
└── OutputError             a result could not be written

Each is also the builtin error that callers would expect, so `except ValueError` works.
"""

from __future__ import annotations

from functools import partial


class EarmarkError(Exception):
    """The root of all errors of earmark; its message is one line that says what to do."""


class UsageError(EarmarkError, ValueError):
    """What was asked for cannot be done; the message says what can."""


class UnknownNameError(UsageError, LookupError):
    """A name that no plugin has registered."""


class PluginError(EarmarkError, ImportError):
    """A plugin does not load, or two plugins claim one name."""


class AudioError(EarmarkError, ValueError):
    """The audio cannot be decoded or is not fit for transcription."""


class AudioFileNotFoundError(AudioError, FileNotFoundError):
    """There is no such audio file."""

    def __str__(self) -> str:
        """Return the message alone, without the errno form of OSError."""
        return str(self.args[0]) if self.args else "audio file not found"


class ModelError(EarmarkError, ValueError):
    """A checkpoint cannot be found, read or used."""


class RecordError(EarmarkError, ValueError):
    """A record from outside is not well formed; `code` is the finding it becomes."""

    def __init__(self, message: str, *, code: str = "record.malformed") -> None:
        """Keep the message and the code of the finding."""
        super().__init__(message)
        self.code = code


class TraceError(RecordError):
    """The trace inside an evidence is not well formed."""

    def __init__(self, message: str, *, code: str = "trace.malformed") -> None:
        """Keep the message and the code of the finding."""
        super().__init__(message, code=code)


class PayloadError(RecordError):
    """The response of another system cannot be read as evidence; that is no proof of a cheat."""

    def __init__(self, message: str, *, code: str = "payload.malformed") -> None:
        """Keep the message and the code of the finding."""
        super().__init__(message, code=code)


class EndpointError(EarmarkError, OSError):
    """A server did not answer as it was asked; `fault` says whose it is: provider, verifier or input."""

    def __init__(self, message: str, *, code: str, fault: str = "provider") -> None:
        """Keep the message, the code of the finding and whose fault it is."""
        super().__init__(message)
        self.code, self.fault = code, fault

    def __reduce__(self) -> tuple[partial[EndpointError], tuple[str]]:
        """Keep code and fault on the way to another process."""
        return partial(type(self), code=self.code, fault=self.fault), (str(self),)


class OutputError(EarmarkError, OSError):
    """A result could not be written; nothing half written is left behind."""
