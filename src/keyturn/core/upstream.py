"""What is handed to a transport and what comes back: the one seam between decisions and bytes on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from .model import Secret


@dataclass(slots=True)
class HttpRequest:
    """An HTTP request to an upstream. The secret travels apart from the other headers, in *auth*.

    Nobody changes one; it is not frozen because each attempt makes one, and a frozen one takes three times as long.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""
    auth: tuple[str, str, Secret] | None = None
    """Header name, prefix (`Bearer ` or empty), secret."""
    connect_timeout: float = 5.0
    tls_timeout: float = 5.0


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """The same for an ASGI application in this process: the demo, tests, rehearsals. *app* names it."""

    app: str
    http: HttpRequest


@dataclass(frozen=True, slots=True)
class ProcessRequest:
    """A command line tool to run: argv, what it reads on stdin, and the environment that it may see."""

    argv: tuple[str, ...]
    stdin: bytes
    environ: Mapping[str, str]


UpstreamRequest = HttpRequest | LocalRequest | ProcessRequest


class UpstreamResponse(Protocol):
    """An answer whose status and headers have arrived. Header names are lower case."""

    status: int
    headers: Mapping[str, str]

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises TransportError: `too_large` above *limit* bytes, `closed` when it is cut."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises TransportError when it is cut."""
        ...

    def close(self) -> None:
        """Let go, at once and without waiting: an unfinished exchange loses its connection. May be called twice."""
        ...


class Transport(Protocol):
    """Sends a request; returns once the answer's headers are there. Raises TransportError.

    *on_sent* is called once, when the request has been written in full. A cancelled `send` leaves nothing open.
    """

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> UpstreamResponse: ...
    async def close(self) -> None: ...
