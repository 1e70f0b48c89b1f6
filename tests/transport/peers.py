"""Scripted servers on free loopback ports, and what the transport tests share: loops, a clock, requests."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import pytest
import uvloop
from aiohttp.abc import AbstractResolver, ResolveResult

from keyturn.core import HttpRequest, Secret
from keyturn.errors import TransportError
from keyturn.transport import HttpTransport

T = TypeVar("T")
Script = Callable[["Line"], Awaitable[None]]
HERE = Path(__file__).parent
SECRET = "gsk_planted_secret_0123456789"


class LoopClock:
    """The Clock protocol on the running loop's real time."""

    def mono(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return time.time()

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(max(0.0, when - self.mono()))

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_at(when, callback)


def run(loop: str, main: Callable[[], Coroutine[Any, Any, T]], *, seconds: float = 20.0) -> T:
    """Run main() on a fresh loop of the given kind, and fail for tasks it leaves behind or errors nobody saw."""
    unseen: list[Any] = []

    async def watched() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        result = await asyncio.wait_for(main(), seconds)
        await no_other_task()
        return result

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        result = runner.run(watched())
    assert unseen == []
    return result


async def no_other_task() -> None:
    """Wait a few turns of the loop until this is the only task."""
    for _ in range(100):
        if len(asyncio.all_tasks()) == 1:
            return
        await asyncio.sleep(0)
    raise AssertionError(f"tasks left over: {asyncio.all_tasks()}")


class Line:
    """One accepted connection, from the server's side."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    async def request(self) -> bytes:
        """A whole request as it came, with a body of its announced length."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        return head + (await self.reader.readexactly(length) if length else b"")

    async def say(self, *parts: bytes) -> None:
        """Each part in a packet of its own, as far as the loop turns allow."""
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()
            await asyncio.sleep(0)

    def reset(self) -> None:
        """RST instead of FIN."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def until_gone(self) -> None:
        """Wait until the other side has closed."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


class Peer:
    """A server that runs *script* for each connection and closes the connection behind it."""

    def __init__(self, script: Script, *, certificate: str | None = None) -> None:
        self._script = script
        self._context = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(HERE / certificate)
        self.accepted = 0
        self.gone = 0
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self.port}/v1/chat/completions"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context, backlog=1000)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.accepted += 1
        try:
            await self._script(Line(reader, writer, self.accepted))
        except (ConnectionError, asyncio.IncompleteReadError, RuntimeError):
            pass  # the other side left; uvloop says so with a RuntimeError
        except asyncio.CancelledError:
            pass  # the test is over; a stream server's own callback would report it
        finally:
            self.gone += 1
            self._tasks.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()


def always(*parts: bytes) -> Script:
    """Answer every request of a connection with the same bytes."""

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.say(*parts)

    return script


def once(*parts: bytes, reset: bool = False) -> Script:
    """Answer one request, then close."""

    async def script(line: Line) -> None:
        await line.request()
        await line.say(*parts)
        if reset:
            line.reset()

    return script


def plain(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> bytes:
    """An answer with its length announced."""
    lines = [b"HTTP/1.1 " + status, b"Content-Type: application/json", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def request(url: str, body: bytes = b'{"model":"m"}', **more: Any) -> HttpRequest:
    headers = (("content-type", "application/json"), ("accept-encoding", "identity"), ("user-agent", "keyturn/0"))
    more = {"headers": headers, "auth": ("authorization", "Bearer ", Secret(SECRET)), "method": "POST", **more}
    return HttpRequest(url=url, body=body, **more)


def ignore() -> None:
    """An `on_sent` that nobody looks at."""


async def fault_of(awaitable: Awaitable[Any]) -> TransportError:
    """The TransportError that it ends with; neither it nor what led to it may hold the key."""
    with pytest.raises(TransportError) as caught:
        await awaitable
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error!r}{error.__dict__!r}"
        error = error.__cause__ or error.__context__
    return caught.value


class Names(AbstractResolver):
    """A name service without a network: `localhost` is found, `*.invalid` is not, everything else hangs."""

    asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if host != "localhost":
            await asyncio.get_running_loop().create_future()
        return [ResolveResult(hostname=host, host="127.0.0.1", port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until *condition* holds; `run` bounds how long."""
    while not condition():  # noqa: ASYNC110 - the conditions are plain numbers
        await asyncio.sleep(0)


@asynccontextmanager
async def opened(**more: Any) -> AsyncIterator[HttpTransport]:
    """A transport that is closed in the end, and holds nothing then."""
    http = HttpTransport(LoopClock(), **more)
    try:
        yield http
    finally:
        await http.close()
    assert (http.acquired, http.open_connections) == (0, 0)
