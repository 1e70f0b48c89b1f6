"""An upstream at the level of bytes: it hears what really is sent, and says what no HTTP library would.

async with RawUpstream(says(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhal")) as upstream:
    … GROQ_API_BASE=upstream.url …
    assert upstream.heard[0].startswith(b"POST /v1/chat/completions HTTP/1.1")
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Literal, Self

Then = Literal["close", "reset", "hang", "again"]
Script = Callable[["Line"], Awaitable[None]]


class Line:
    """One connection, from the upstream's side. *number* counts them from 1."""

    def __init__(self, upstream: RawUpstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = upstream.accepted
        self._upstream = upstream
        self._reader = reader
        self._writer = writer

    async def request(self) -> bytes:
        """The next whole request; one with a body must announce its length."""
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next((int(row[15:]) for row in head.lower().split(b"\r\n") if row.startswith(b"content-length:")), 0)
        whole = head + await self._reader.readexactly(length)
        self._upstream.heard.append(whole)
        return whole

    async def say(self, *parts: bytes) -> None:
        """Each part on its way before the next begins."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0)

    def reset(self) -> None:
        """End with RST instead of FIN."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def hang(self) -> None:
        """Say nothing until the other side leaves."""
        while await self._reader.read(65536):
            pass


def says(*parts: bytes, then: Then = "close") -> Script:
    """Answer the first request of a connection with *parts*; with `again`, every one."""

    async def script(line: Line) -> None:
        while True:
            await line.request()
            await line.say(*parts)
            if then != "again":
                break
        if then == "reset":
            line.reset()
        elif then == "hang":
            await line.hang()

    return script


async def listens(line: Line) -> None:
    """Take every request and never answer."""
    while True:
        await line.request()


def answer(body: bytes, *headers: bytes, status: bytes = b"200 OK", media: bytes = b"application/json") -> bytes:
    """A whole answer with its length announced."""
    head = [b"HTTP/1.1 " + status, b"content-type: " + media, b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def streamed(*chunks: bytes, end: bool = True) -> tuple[bytes, ...]:
    """An event stream in these chunks, each a part; without *end*, its last chunk never comes."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return (head, *(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks), *([b"0\r\n\r\n"] if end else []))


class RawUpstream:
    """A server on a free port of this machine that runs *script* for each connection and closes it behind it.

    *heard* holds every request as it came; when the block is left, connections that are still open are cut.
    """

    def __init__(self, script: Script) -> None:
        self.script = script
        self.accepted = 0
        self.heard: list[bytes] = []
        self._tasks: set[asyncio.Task[object]] = set()

    @property
    def url(self) -> str:
        """The base URL that a provider is given."""
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
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
            await self.script(Line(self, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the other side left
        except asyncio.CancelledError:
            writer.transport.abort()  # the test is over; asyncio's own callback would report it
        finally:
            self._tasks.discard(task)
            writer.close()
