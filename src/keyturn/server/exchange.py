"""One request and its answer, in ASGI's terms: the only file that builds ASGI messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any

Scope = Mapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

Headers = list[tuple[bytes, bytes]]


class ClientLeft(Exception):
    """The client closed its connection before its request was complete; there is nobody to answer."""


class Exchange:
    """Answers one request. *call_id* goes into every answer as `x-request-id`, which SDKs show in their errors."""

    __slots__ = ("_head", "_send", "call_id", "receive", "started", "streaming")

    def __init__(self, scope: Scope, receive: Receive, send: Send, call_id: str) -> None:
        self.receive = receive
        self.call_id = call_id
        self.started = False
        """True once a status has been sent: from then on no other answer is possible."""
        self.streaming = False
        """True between the pieces of a stream: only then may one more piece follow."""
        self._send = send
        self._head = scope["method"] == "HEAD"

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Sends a whole answer with its length; to HEAD, everything but the body."""
        await self._send(self._start(status, [*headers, (b"content-length", b"%d" % len(body))]))
        await self._send({"type": "http.response.body", "body": b"" if self._head else body})

    async def begin_stream(self, status: int, headers: Headers) -> None:
        """Sends status and headers of an answer that follows in pieces; proxies are told not to hold them back."""
        still = ((b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
        await self._send(self._start(status, [*headers, *still]))
        self.streaming = True

    async def write(self, piece: bytes) -> None:
        """Sends a piece of a stream; waits while the client does not read."""
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def relay(self, pieces: AsyncIterator[bytes]) -> None:
        """Sends all pieces of a stream as they come."""
        send = self._send
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end_stream(self) -> None:
        self.streaming = False
        await self._send({"type": "http.response.body", "body": b""})

    def _start(self, status: int, headers: Headers) -> Message:
        self.started = True
        headers.append((b"x-request-id", self.call_id.encode()))
        return {"type": "http.response.start", "status": status, "headers": headers}
