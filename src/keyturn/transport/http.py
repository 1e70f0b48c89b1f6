"""Requests to upstreams over HTTP/1.1: written by us, in one piece, and read by aiohttp's connection and parser."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from functools import lru_cache

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.http import HttpProcessingError, RawResponseMessage

from keyturn.core import Clock, HttpRequest, UpstreamRequest
from keyturn.errors import TransportError

from .answer import Answer
from .connections import STALE_WITHIN, Connector, Target, Wire
from .headers import Auth, Pairs, checked, incoming, refuse_control, secret_header

_BODILESS = ("GET", "HEAD", "OPTIONS", "TRACE")
"""Methods whose requests state no length when they have no body."""


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
        self._targets = lru_cache(maxsize=1024)(self._target)
        self._heads = lru_cache(maxsize=1024)(self._head)

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
        target, written = self._written(request)
        wire = await connector.lend(target)
        answer: HttpAnswer | None = None
        try:
            wire.begin(written, on_sent)
            answer = HttpAnswer(wire, *await wire.answer())
            return answer
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            fault = _fault(error, wire)
            if fault.kind == "stale":
                connector.forget(target)
        finally:
            if answer is None:
                wire.held.close()
        raise fault  # out here, so that aiohttp's error is not its context

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

    def _written(self, request: HttpRequest) -> tuple[Target, bytes]:
        """Where *request* goes, and its bytes. Raises TransportError `protocol` for what cannot be written."""
        try:
            target, head = self._heads(
                request.method, request.url, request.headers, request.auth, request.connect_timeout, request.tls_timeout
            )
            if request.trace:
                head += _lines(request.trace)
            body = request.body
            if body or request.method not in _BODILESS:
                return target, b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body)
            return target, head + b"\r\n"
        except ValueError:
            pass  # raised out here, for the error above may quote a password in the URL
        raise TransportError("protocol", "the request has no usable address, method or header")

    def _head(
        self, method: str, url: str, headers: Pairs, auth: Auth | None, connect_timeout: float, tls_timeout: float
    ) -> tuple[Target, bytes]:
        """What all requests with these headers and this key to this address have in common. There are few, so each is
        made once."""
        target = self._targets(method, url, connect_timeout, tls_timeout)
        line = f"{target.method} {target.url.raw_path_qs} HTTP/1.1"
        refuse_control(line)
        own = any(name.lower() == "host" for name, _ in headers)
        pairs = checked(headers) if own else (("Host", target.headers["Host"]), *checked(headers))
        return target, f"{line}\r\n".encode() + _lines((*pairs, *_credentials(headers, auth, target)))

    def _target(self, method: str, url: str, connect_timeout: float, tls_timeout: float) -> Target:
        return Target(method, url, connect_timeout, tls_timeout, self._pool().loop)


class HttpAnswer(Answer):
    """An answer on its connection, which goes back to the pool with the last byte and is closed in all other cases."""

    __slots__ = ("_content", "_wire")

    def __init__(self, wire: Wire, message: RawResponseMessage, content: aiohttp.StreamReader) -> None:
        if message.code < 200:
            raise TransportError("protocol", f"the answer has status {message.code}", sent=True)
        super().__init__(message.code, incoming(message.raw_headers))
        self._wire: Wire | None = wire
        """None once it is somebody else's."""
        self._content = content
        content.on_eof(self._complete)

    async def read(self, limit: int) -> bytes:
        content = self._content
        if self._inflater is None and content.is_eof() and content.exception() is None:  # it came as a whole
            body = content.read_nowait()
            if len(body) > limit:
                raise self._too_large(limit)
            return body
        return await super().read(limit)

    async def take(self) -> bytes:
        content = self._content
        if content.at_eof() and content.exception() is None:
            return b""
        try:
            return await content.readany()
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
        wire, self._wire = self._wire, None
        if wire is not None:
            self._content.set_exception(TransportError("closed", "the answer was let go", sent=True))
            wire.held.close()

    def _complete(self) -> None:
        wire, self._wire = self._wire, None
        if wire is None:
            return
        if wire.unsent:
            wire.held.close()  # the peer has not read the request, and may take the rest for the next one
        else:
            wire.pool.give_back(wire)


def _lines(pairs: Pairs) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in pairs).encode()


def _credentials(headers: Pairs, auth: Auth | None, target: Target) -> Pairs:
    """The key; user and password of the URL where there is none: a local server behind a guard."""
    pairs, guard = secret_header(auth), target.headers.get("Authorization")
    if guard is None or any(name.lower() == "authorization" for name, _ in (*headers, *pairs)):
        return pairs
    return (*pairs, ("Authorization", guard))


def _fault(error: Exception, wire: Wire) -> TransportError:
    """What went wrong between writing the request and the answer's headers."""
    sent = not wire.unsent
    if isinstance(error, HttpProcessingError):
        return TransportError("protocol", "the answer is not well-formed HTTP", sent=sent)
    if wire.heard:
        return TransportError("closed", "the connection ended within the answer's headers", sent=sent)
    if wire.uses > 1 and (not sent or wire.alive_for < STALE_WITHIN):
        return TransportError("stale", "the peer had closed the idle connection", sent=sent)
    return TransportError("reset", "the peer closed the connection without an answer", sent=sent)
