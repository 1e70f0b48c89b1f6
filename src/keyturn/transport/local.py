"""Requests to an ASGI application in this process: the demo, tests and rehearsals. No socket and no timer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import unquote, urlsplit

from keyturn.core import HttpRequest, LocalRequest, UpstreamRequest
from keyturn.errors import TransportError

from .answer import Answer
from .headers import incoming, outgoing

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_MAX_WAITING = 256 * 1024
"""Bytes of an answer that wait for its reader; above this the application waits."""


class LocalTransport:
    """A `Transport` for LocalRequest. *apps* maps the names that requests carry to ASGI applications.

    Each request is one task. When its answer is let go before the end, the application gets `http.disconnect` and, if
    it does not return at that, is cancelled.
    """

    def __init__(self, apps: Mapping[str, ASGIApp]) -> None:
        self._apps = apps
        self._running: set[_Exchange] = set()

    @property
    def acquired(self) -> int:
        """Applications at work on a request; 0 when idle."""
        return len(self._running)

    async def send(self, request: UpstreamRequest, on_sent: Callable[[], None]) -> LocalAnswer:
        """See `Transport`. An application that fails is a `reset` before its answer begins, and `closed` later."""
        if not isinstance(request, LocalRequest):
            raise TypeError(f"LocalTransport cannot send a {type(request).__name__}")
        app = self._apps.get(request.app)
        if app is None:
            raise TransportError("refused", f"there is no local app {request.app!r}")
        exchange = _Exchange(app, request.http, on_sent)
        self._running.add(exchange)
        exchange.task.add_done_callback(lambda _: self._running.discard(exchange))
        answer: LocalAnswer | None = None
        try:
            answer = await exchange.started
            return answer
        finally:
            if answer is None:
                exchange.close()

    async def close(self) -> None:
        """Let go of every answer and wait until each application has ended."""
        running = list(self._running)
        for exchange in running:
            exchange.close()
            exchange.task.cancel()
        await asyncio.gather(*(exchange.task for exchange in running), return_exceptions=True)
        self._running.difference_update(running)  # their own callbacks may come a turn later


class LocalAnswer(Answer):
    """An answer that an application in this process is giving."""

    __slots__ = ("_exchange",)

    def __init__(self, status: int, headers: dict[str, str], exchange: _Exchange) -> None:
        super().__init__(status, headers)
        self._exchange = exchange

    async def take(self) -> bytes:
        try:
            return await self._exchange.take()
        except asyncio.CancelledError:
            self.close()
            raise

    def close(self) -> None:
        """Let go at once. May be called twice."""
        self._exchange.close()


class _Exchange:
    """One request and its answer: both ends of the ASGI conversation and the bytes between them."""

    def __init__(self, app: ASGIApp, request: HttpRequest, on_sent: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.started: asyncio.Future[LocalAnswer] = loop.create_future()
        self._app = app
        self._scope = _scope(request)
        self._body: bytes | None = request.body
        self._on_sent = on_sent
        self._sent = False
        self._waiting: list[bytes] = []
        self._size = 0
        self._complete = False
        self._fault: TransportError | None = None
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._over = asyncio.Event()
        """Nothing that the application says is heard any more."""
        self.task = loop.create_task(self._run())
        self.task.add_done_callback(self._ended)

    async def take(self) -> bytes:
        """All bytes that wait for the reader; b"" at the end."""
        while not self._waiting:
            if self._complete:
                return b""
            if self._fault is not None:
                raise self._fault
            self._arrived.clear()
            await self._arrived.wait()
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._room.set()
        return data

    def close(self) -> None:
        """Nobody wants the rest. The application is told first and cancelled a turn later, unless it has finished."""
        if self._over.is_set():
            return
        self._fault = TransportError("closed", "the answer was let go", sent=self._sent)
        self._over.set()
        self._waiting.clear()
        self._arrived.set()
        self._room.set()
        asyncio.get_running_loop().call_soon(self.task.cancel)

    async def _run(self) -> None:
        await self._app(self._scope, self._receive, self._send)

    async def _receive(self) -> Message:
        body, self._body = self._body, None
        if body is not None:
            self._mark_sent()
            return {"type": "http.request", "body": body, "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self._over.is_set():
            raise OSError("nobody is listening")
        if message["type"] == "http.response.start":
            self._start(message)
            return
        data: bytes = message.get("body", b"")
        if data:
            self._waiting.append(data)
            self._size += len(data)
        self._arrived.set()
        if not message.get("more_body", False):
            self._complete = True
            self._over.set()
        elif self._size > _MAX_WAITING:
            self._room.clear()
            await self._room.wait()

    def _start(self, message: Message) -> None:
        self._mark_sent()  # an application may answer without having read the body
        self.started.set_result(LocalAnswer(message["status"], incoming(message.get("headers", ())), self))

    def _mark_sent(self) -> None:
        if not self._sent:
            self._sent = True
            self._on_sent()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._over.set()
        error = None if task.cancelled() else task.exception()
        why = "it returned" if error is None else type(error).__name__
        if self._complete:
            if error is not None:  # its answer is told already, so the error has nowhere else to go
                task.get_loop().call_exception_handler({"message": "a local app failed", "exception": error})
        elif self.started.done():
            self._fault = TransportError("closed", f"the local app broke off its answer: {why}", sent=True)
            self._arrived.set()
        else:
            fault = TransportError("reset", f"the local app ended without an answer: {why}", sent=self._sent)
            fault.__cause__ = error
            self.started.set_exception(fault)
            self.started.exception()  # looked at, for a `send` that is cancelled now does not


def _scope(request: HttpRequest) -> MutableMapping[str, Any]:
    address = urlsplit(request.url)
    headers = [(name.lower().encode(), value.encode("utf-8")) for name, value in outgoing(request)]
    headers.insert(0, (b"host", address.netloc.rpartition("@")[2].encode()))
    if request.body:
        headers.append((b"content-length", str(len(request.body)).encode()))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": address.scheme,
        "path": unquote(address.path),
        "raw_path": address.path.encode(),
        "query_string": address.query.encode(),
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 0),
        "server": (address.hostname or "", address.port or (443 if address.scheme == "https" else 80)),
    }
