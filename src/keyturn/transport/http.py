"""Requests to upstreams over HTTP/1.1, with aiohttp's pool, parser and writer."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import lru_cache

import aiohttp
from aiohttp.abc import AbstractResolver, AbstractStreamWriter
from yarl import URL

from keyturn.core import Clock, HttpRequest, UpstreamRequest
from keyturn.errors import TransportError

from .answer import Answer
from .connections import Connector, Request, Wire
from .headers import incoming, outgoing

_MAX_FIELD = 16 * 1024
"""Bytes of one header of an answer. aiohttp takes 128 of them, `headers.incoming` bounds their sum."""

_READ_BUFFER = 128 * 1024
"""Reading from the peer pauses at twice this: the most that one unread stream holds in memory."""


class HttpTransport:
    """A `Transport` for HttpRequest. One pool, opened by the first request inside the running loop.

    Redirects are not followed, no cookie is kept, no proxy is taken from the environment; an answer is returned as it
    came, but for a compression that is undone. Deadlines beyond connecting are the caller's: it cancels.

    *tls* and *resolver* replace the system's trust and name service.
    """

    def __init__(
        self, clock: Clock, *, tls: ssl.SSLContext | None = None, resolver: AbstractResolver | None = None
    ) -> None:
        self._clock = clock
        self._tls = tls
        self._resolver = resolver
        self._connector: Connector | None = None
        self._closed = False

    @property
    def acquired(self) -> int:
        """Connections in use or being made; 0 when idle."""
        return self._connector.acquired if self._connector else 0

    @property
    def open_connections(self) -> int:
        """Connections in use and idle ones."""
        return self._connector.acquired + self._connector.idle if self._connector else 0

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> HttpAnswer:
        """See `Transport`. An answer may come before the request was sent in full, and then *on_sent* never does."""
        if not isinstance(request, HttpRequest):
            raise TypeError(f"HttpTransport cannot send a {type(request).__name__}")
        connector = self._pool()
        body = _Body(request.body, on_sent)
        written = _written(request, body, connector.loop)
        connection = await connector.lend(written)
        wire = connection.protocol
        assert isinstance(wire, Wire)
        wire.begin()
        body.wire = wire
        response: aiohttp.ClientResponse | None = None
        answer: HttpAnswer | None = None
        try:
            wire.set_response_params(
                read_until_eof=True,
                auto_decompress=False,
                read_bufsize=_READ_BUFFER,
                max_line_size=_MAX_FIELD,
                max_field_size=_MAX_FIELD,
            )
            response = await written.send(connection)
            if not request.body:
                body.mark_sent()
            await response.start(connection)
            answer = HttpAnswer(response)
            return answer
        except (aiohttp.ClientError, OSError, ValueError) as error:
            fault = _fault(error, wire, body.sent)
        finally:
            if answer is None:
                if response is not None:
                    response.close()
                connection.close()
        raise fault  # out here, for aiohttp's error holds the request's headers and must not be its context

    async def close(self) -> None:
        """Close all connections, also those in use. Nothing can be sent afterwards."""
        self._closed = True
        if self._connector is not None:
            await self._connector.close()

    def _pool(self) -> Connector:
        if self._closed:
            raise TransportError("refused", "the transport is closed")
        if self._connector is None:
            self._connector = Connector(self._clock, self._tls, self._resolver)
        return self._connector


class HttpAnswer(Answer):
    """An answer on its connection, which goes back to the pool with the last byte and is closed in all other cases."""

    __slots__ = ("_content", "_response")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        if response.status < 200:
            raise TransportError("protocol", f"the answer has status {response.status}", sent=True)
        super().__init__(response.status, incoming(response.headers.items()))
        self._response = response
        self._content = response.content

    async def take(self) -> bytes:
        try:
            return await self._content.readany()
        except (asyncio.CancelledError, TransportError, aiohttp.ClientError, OSError, RuntimeError) as error:
            return self._cut(error)

    async def __anext__(self) -> bytes:
        if self._inflater is not None:
            return await super().__anext__()
        try:
            data = await self._content.readany()
        except (asyncio.CancelledError, TransportError, aiohttp.ClientError, OSError, RuntimeError) as error:
            data = self._cut(error)
        if not data:
            raise StopAsyncIteration
        return data

    def _cut(self, error: BaseException) -> bytes:
        """What came before *error* still counts; then the error itself, as a TransportError."""
        if not isinstance(error, asyncio.CancelledError) and (rest := self._content._read_nowait(-1)):
            return rest
        self.close()
        if isinstance(error, TransportError | asyncio.CancelledError):
            raise error
        raise TransportError("closed", "the answer ended before its announced length", sent=True) from None

    def close(self) -> None:
        """Let go at once. May be called twice."""
        self._response.close()


class _Body(aiohttp.Payload):
    """The bytes of a request, which tell when the kernel has taken all of them."""

    _autoclose = True
    wire: Wire

    def __init__(self, value: bytes, on_sent: Callable[[], None]) -> None:
        super().__init__(value)
        self._size = len(value)
        self._on_sent = on_sent
        self.sent = False

    def mark_sent(self) -> None:
        self.sent = True
        self._on_sent()

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        await writer.write(self._value)
        await writer.drain()
        if not self.wire.connected:  # a connection that is lost ends the wait for room as well
            raise ConnectionResetError("lost while the request was written")
        self.mark_sent()

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value, encoding, errors)


def _written(request: HttpRequest, body: _Body, loop: asyncio.AbstractEventLoop) -> Request:
    """The request as aiohttp wants it."""
    headers = outgoing(request)
    written: Request | None
    try:
        address = _address(request.url)
        written = Request(request.method, address, headers=headers, data=body if request.body else None, loop=loop)
    except ValueError:
        written = None
    if written is None:  # raised out here, for the error above may quote a password in the URL
        raise TransportError("protocol", "the request has no usable address or method")
    written.connect_timeout = request.connect_timeout
    written.tls_timeout = request.tls_timeout
    return written


@lru_cache(maxsize=1024)
def _address(url: str) -> URL:
    """The URL exactly as given, parsed once: there are few. Raises ValueError when it is not one of http or https."""
    address = URL(url, encoded=True)
    if address.scheme not in ("http", "https") or not address.raw_host:
        raise ValueError
    return address


def _fault(error: Exception, wire: Wire, sent: bool) -> TransportError:
    """What went wrong between writing the request and the answer's headers."""
    if isinstance(error, aiohttp.ClientResponseError):
        return TransportError("protocol", "the answer is not well-formed HTTP", sent=sent)
    if isinstance(error, aiohttp.ClientConnectionError | OSError):
        if wire.heard:
            return TransportError("closed", "the connection ended within the answer's headers", sent=sent)
        if wire.uses > 1:
            return TransportError("stale", "the peer had closed the idle connection", sent=sent)
        return TransportError("reset", "the peer closed the connection without an answer", sent=sent)
    return TransportError("protocol", "the request has a header or a path that cannot be sent", sent=sent)
