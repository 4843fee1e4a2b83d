"""One bounded HTTP exchange: a limit of time, a limit of size, no redirects."""

from __future__ import annotations

import http.client
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
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


class _Watched(http.client.HTTPConnection):
    """A connection that somebody else can cut; `keep` gets a second handle of its socket."""

    keep: Callable[[socket.socket], None]

    def connect(self) -> None:
        """Connect, and hand over the second handle, before any handshake."""
        super().connect()
        self.keep(self.sock.dup())


class _WatchedSecure(http.client.HTTPSConnection, _Watched):
    """The same with TLS."""


class _Watching(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens connections that are cut at a deadline."""

    def __init__(self, keep: Callable[[socket.socket], None]) -> None:
        """Remember who gets the sockets."""
        super().__init__()
        self._keep = keep

    def _opened(self, kind: type[_Watched], request: urllib.request.Request) -> Any:
        def connection(*given: Any, **options: Any) -> _Watched:
            made = kind(*given, **options)
            made.keep = self._keep
            return made

        return self.do_open(connection, request)

    def http_open(self, request: urllib.request.Request) -> Any:
        """Open a plain connection."""
        return self._opened(_Watched, request)

    def https_open(self, request: urllib.request.Request) -> Any:
        """Open a connection with TLS."""
        return self._opened(_WatchedSecure, request)


@contextmanager
def _cut_at(end: float) -> Iterator[Callable[[socket.socket], None]]:
    """Cut every connection that is handed over when the time is over, however slowly its bytes drip."""
    kept: list[socket.socket] = []

    def keep(handle: socket.socket) -> None:
        kept.append(handle)
        if time.monotonic() >= end:
            cut()

    def cut() -> None:
        for handle in kept:
            with suppress(OSError):
                handle.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, end - time.monotonic()), cut)
    timer.daemon = True
    timer.start()
    try:
        yield keep
    finally:
        timer.cancel()
        for handle in kept:
            handle.close()


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
        with _cut_at(end) as keep:
            return _exchange(request, _Watching(keep), end)
    except EndpointError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        timed_out = isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)
        if timed_out or time.monotonic() >= end:
            raise EndpointError(f"{url} took more than {timeout_s:g} s", code="endpoint.timeout") from error
        if isinstance(error, http.client.IncompleteRead):
            raise EndpointError(f"{url} broke off in the middle of its answer", code="endpoint.cut") from error
        reason = " ".join(str(error).split())[:200]
        raise EndpointError(f"{url} cannot be reached: {reason}", code="endpoint.unreachable") from error


def _exchange(request: urllib.request.Request, watching: _Watching, end: float) -> bytes:
    url = request.full_url
    try:
        with urllib.request.build_opener(_NoRedirect, watching).open(
            request, timeout=max(1e-3, end - time.monotonic())
        ) as answer:
            return b"".join(_blocks(answer, end, url))
    except urllib.error.HTTPError as error:
        with error:
            raise _refused(url, error.code, _reason(error)) from error


def _blocks(answer: Any, end: float, url: str) -> Iterator[bytes]:
    expected, size = answer.length, 0
    while block := answer.read1(BLOCK):
        size += len(block)
        if size > MAX_BYTES:
            raise EndpointError(f"{url} answers with more than {MAX_BYTES} bytes", code="endpoint.too_large")
        if time.monotonic() > end:
            raise EndpointError(f"{url} is still answering when its time is over", code="endpoint.timeout")
        yield block
    if time.monotonic() >= end:  # then it was cut here, and may have had more to say
        raise EndpointError(f"{url} is still answering when its time is over", code="endpoint.timeout")
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
