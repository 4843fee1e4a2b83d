"""One bounded HTTP exchange: a limit of time, a limit of size, no redirects."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from earmark.errors import EndpointError, UsageError

MAX_BYTES = 64 * 1024 * 1024
"""No response is read beyond this size."""
BLOCK = 1 << 16


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key, and the audio, to a host that nobody named."""

    def redirect_request(self, *_args: Any, **_options: Any) -> None:
        """Follow none."""


def post(url: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> bytes:
    """Send a body and return the answer.

    Args:
        url: Where to, http or https.
        body: What to send.
        headers: Its headers.
        timeout_s: Seconds for the whole exchange.

    Returns:
        The body of the answer.

    Raises:
        EndpointError: The server cannot be reached, refuses, takes too long, says too much, or breaks off.
        UsageError: The address is none.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is no address of a server; give http://HOST:PORT or https://HOST")
    request = urllib.request.Request(url, data=body, headers=dict(headers), method="POST")  # noqa: S310 - checked above
    end = time.monotonic() + timeout_s
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout_s) as answer:
            return b"".join(_blocks(answer, end, url))
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(url, error.code, _reason(error)) from error
    except TimeoutError as error:
        raise EndpointError(f"{url} took more than {timeout_s:g} s", code="endpoint.timeout") from error
    except http.client.IncompleteRead as error:
        raise EndpointError(f"{url} broke off in the middle of its answer", code="endpoint.cut") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, EndpointError):
            raise
        if isinstance(getattr(error, "reason", None), TimeoutError):
            raise EndpointError(f"{url} took more than {timeout_s:g} s", code="endpoint.timeout") from error
        reason = " ".join(str(error).split())[:200]
        raise EndpointError(f"{url} cannot be reached: {reason}", code="endpoint.unreachable") from error


def _blocks(answer: Any, end: float, url: str) -> Iterator[bytes]:
    expected, size = answer.length, 0
    while block := answer.read1(BLOCK):
        size += len(block)
        if size > MAX_BYTES:
            raise EndpointError(f"{url} answers with more than {MAX_BYTES} bytes", code="endpoint.too_large")
        if time.monotonic() > end:
            raise EndpointError(f"{url} is still answering when its time is over", code="endpoint.timeout")
        yield block
    if expected is not None and size < expected:
        raise EndpointError(f"{url} broke off after {size} of {expected} bytes", code="endpoint.cut")


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return " ".join(error.read(2000).decode("utf-8", "replace").split())[:200]
    except (OSError, http.client.HTTPException):
        return ""


def _refused(url: str, status: int, reason: str) -> EndpointError:
    """Return the error of a status: a request that is refused is ours, everything else the provider's."""
    ours = 400 <= status < 500 and status not in (408, 429)
    found = f"{url} answered {status}{f': {reason}' if reason else ''}"
    code = "endpoint.refused" if ours else "endpoint.failed"
    return EndpointError(found, code=code, fault="verifier" if ours else "provider")
