"""What is handed to a transport and what comes back: the one seam between decisions and bytes on the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from .model import Secret


@dataclass(slots=True)
class HttpRequest:
    """An HTTP request to an upstream. The secret travels apart from the other headers, in *auth*.

    Nobody changes one; it is not frozen because each attempt makes one, and a frozen one takes three times as long.
    """

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(default=b"", repr=False)
    """Of a request for a token it holds secrets."""
    auth: tuple[str, str, Secret] | None = None
    """Header name, prefix (`Bearer ` or empty), secret."""
    connect_timeout: float = 5.0
    tls_timeout: float = 5.0
    trace: tuple[tuple[str, str], ...] = ()
    """Headers of this one request, where tracing is on; the others are the same for many."""


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """The same for an ASGI application in this process: the demo, tests, rehearsals. *app* names it."""

    app: str
    http: HttpRequest


class ToolReply(NamedTuple):
    """What one run of a tool amounts to, as an HTTP answer. *body* is what follows the bytes that `feed` gave."""

    status: int
    headers: dict[str, str]
    body: bytes


class Interpreter(Protocol):
    """Turns what one run of a tool prints into an answer of OpenAI's shape. Pure; never raises, whatever is printed.

    *now*: Unix seconds.
    """

    def feed(self, data: bytes, now: float) -> bytes:
        """The part of a streamed answer that *data*, printed on stdout, completes. Its first bytes mean HTTP 200."""
        ...

    def end(self, code: int, stderr: bytes, now: float) -> ToolReply:
        """The run is over: *code* is its exit code, below 0 when a signal ended it; *stderr* is what it said last.

        After bytes of `feed`, only the body counts: the rest of the answer, or an error event.
        """
        ...


@dataclass(frozen=True, slots=True)
class ProcessRequest:
    """A command line tool to run once, in an empty folder and never through a shell."""

    argv: tuple[str, ...]
    stdin: bytes
    environ: Mapping[str, str] = field(repr=False)
    """All of the environment that it sees."""
    timeout: float
    """Seconds after which it is ended."""
    interpreter: Interpreter = field(repr=False)
    """Reads what it prints; made for this run."""


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
