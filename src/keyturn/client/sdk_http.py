"""Clients of httpx2, which the official SDKs are built on, that are answered by a pool instead of a connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import httpx2

from keyturn.core import Clock
from keyturn.dispatch import Reply, SystemClock, Watch
from keyturn.errors import KeyturnError, TransportError

from .asynchronous import AsyncClient
from .crossing import LoopThread, Pump, close_on
from .sdk_answers import answer
from .sdk_pieces import Pieces
from .synchronous import Client


class _AsyncStream(httpx2.AsyncByteStream):
    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._pieces:
                yield piece
        except KeyturnError as error:
            raise _broken(error) from error

    async def aclose(self) -> None:
        self._pieces.close()


class _Stream(httpx2.SyncByteStream):
    """What *pump* reads on *thread*, for any other."""

    def __init__(self, pump: Pump[bytes], thread: LoopThread) -> None:
        self._pump = pump
        self._thread = thread

    def __iter__(self) -> Iterator[bytes]:
        try:
            while pieces := self._thread.wait(self._pump.take):
                yield b"".join(pieces)
        except KeyturnError as error:
            raise _broken(error) from error

    def close(self) -> None:
        close_on(self._thread.loop, self._pump)


class _Read(NamedTuple):
    """An answer, and who reads its stream on the loop that it belongs to."""

    reply: Reply
    pump: Pump[bytes] | None

    def close(self) -> None:
        """Nobody wants it."""
        (self.pump or self.reply).close()


class AsyncPoolTransport(httpx2.AsyncBaseTransport):
    """Answers requests by *pool*, on the loop that they are made on."""

    def __init__(self, pool: AsyncClient, usual: str, *, owned: bool) -> None:
        self._pool = pool
        self._usual = usual
        self._owned = owned

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()
        clock, patience = SystemClock(), _patience(request)
        try:
            reply = await _ask(self._pool, self._usual, request, clock, patience)
        except KeyturnError as error:
            raise _unreached(error, request) from error
        stream = None if reply.stream is None else _AsyncStream(Pieces(reply, clock, patience))
        return _response(reply, stream)

    async def aclose(self) -> None:
        if self._owned:
            await self._pool.close()


class PoolTransport(httpx2.BaseTransport):
    """Answers requests by *pool*, on its own loop, from any thread."""

    def __init__(self, pool: Client, usual: str) -> None:
        self._pool = pool
        self._usual = usual

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        patience = _patience(request)

        async def ask() -> _Read:
            clock = SystemClock()
            reply = await _ask(self._pool._inner, self._usual, request, clock, patience)
            return _Read(reply, None if reply.stream is None else Pump(Pieces(reply, clock, patience)))

        try:
            thread = self._pool._joined()
            reply, pump = thread.wait(ask)
        except KeyturnError as error:
            raise _unreached(error, request) from error
        return _response(reply, None if pump is None else _Stream(pump, thread))


class AsyncPoolClient(httpx2.AsyncClient, httpx2.AsyncBaseTransport):
    """What the asynchronous SDKs take as `http_client=`, and `httpx2.AsyncClient` as `transport=`."""

    def __init__(self, pool: AsyncClient, usual: str, *, owned: bool) -> None:
        self._answering = AsyncPoolTransport(pool, usual, owned=owned)
        super().__init__(transport=self._answering, trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request, as a transport answers it."""
        return await self._answering.handle_async_request(request)


class PoolClient(httpx2.Client, httpx2.BaseTransport):
    """What the SDKs take as `http_client=`, and `httpx2.Client` as `transport=`. Usable from any thread."""

    def __init__(self, pool: Client, usual: str) -> None:
        self._answering = PoolTransport(pool, usual)
        super().__init__(transport=self._answering, trust_env=False)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """One request, as a transport answers it."""
        return self._answering.handle_request(request)


async def _ask(pool: AsyncClient, usual: str, request: httpx2.Request, clock: Clock, patience: float | None) -> Reply:
    """The pool's reply. Raises TransportError `timeout` when it takes longer than *patience*."""
    path, _, query = request.url.raw_path.partition(b"?")
    headers = {name.lower(): value for name, value in request.headers.raw}
    asking = answer(pool, usual, request.method, path, query.decode("latin-1"), headers, request.content, clock.wall())
    if patience is None:
        return await asking
    watch = Watch(clock, clock.mono() + patience, "read")
    try:
        with watch:
            return await asking
    finally:
        watch.close()


def _patience(request: httpx2.Request) -> float | None:
    """The timeout of *request* for each wait, in seconds."""
    timeout = request.extensions.get("timeout")
    found = timeout.get("read") if isinstance(timeout, dict) else None
    return float(found) if isinstance(found, int | float) else None


def _response(reply: Reply, stream: _Stream | _AsyncStream | None) -> httpx2.Response:
    headers = list(reply.headers)
    identity = next((value for name, value in headers if name == b"x-keyturn-call"), b"")
    headers.append((b"x-request-id", identity))
    if stream is not None:
        return httpx2.Response(reply.status, headers=headers, stream=stream)
    return httpx2.Response(reply.status, headers=headers, content=reply.body)


def _unreached(error: KeyturnError, request: httpx2.Request) -> httpx2.TransportError:
    """The SDKs' kind of exception for a pool that did not answer."""
    if isinstance(error, TransportError) and error.kind == "timeout":
        return httpx2.ReadTimeout(error.message, request=request)
    return httpx2.ConnectError(error.message, request=request)


def _broken(error: KeyturnError) -> httpx2.TransportError:
    """The same for an answer that broke off."""
    if isinstance(error, TransportError) and error.kind == "timeout":
        return httpx2.ReadTimeout(error.message)
    return httpx2.ReadError(error.message)
