"""One client connection: reading the request, waiting, writing, and noticing at once that the client has left."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyturn.core import Clock

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ClientLeft(Exception):
    """The client closed the connection before its answer was complete."""


class Connection:
    """Wraps one ASGI exchange. All waiting goes through it, so that a client that leaves ends it."""

    def __init__(self, receive: Receive, send: Send, clock: Clock) -> None:
        self._receive = receive
        self._send = send
        self._clock = clock
        self._watch: asyncio.Task[None] | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self.left_at: float | None = None
        self.bytes_sent = 0

    async def read(self) -> bytes:
        """The request body."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.left_at = self._clock.mono()
                raise ClientLeft
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    async def pause(self, seconds: float) -> None:
        """Let *seconds* pass; infinite means until the client leaves. Raises ClientLeft when it does."""
        self.watch()
        self._check()
        self._wakeup = asyncio.get_running_loop().create_future()
        timer = None
        if seconds != float("inf"):
            timer = self._clock.call_at(self._clock.mono() + seconds, self._wake)
        try:
            await self._wakeup
        finally:
            self._wakeup = None
            if timer is not None:
                timer.cancel()
        self._check()

    async def start(self, status: int, headers: list[tuple[str, str]]) -> None:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await self._tell({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        await self._tell({"type": "http.response.body", "body": data, "more_body": more})
        self.bytes_sent += len(data)

    async def drop(self) -> None:
        """Break the connection off, as a crash or a proxy does.

        On a real server the socket is reset; ASGI has no message for that, so it is reached through the server's own
        `send`. In process the application fails with ConnectionResetError.
        """
        transport: Any = getattr(getattr(self._send, "__self__", None), "transport", None)
        if transport is not None:
            peer = transport.get_extra_info("socket")
            if peer is not None:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
            while (await self._receive())["type"] != "http.disconnect":
                pass
            return
        raise ConnectionResetError("the simulator dropped the connection, as its script says")

    def watch(self) -> None:
        """From now on notice when the client leaves. Call it only after `read`."""
        if self._watch is None:
            self._watch = asyncio.ensure_future(self._await_leaving())

    def close(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.cancel()

    async def _await_leaving(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.left_at = self._clock.mono()
        self._wake()

    async def _tell(self, message: Message) -> None:
        self._check()
        try:
            await self._send(message)
        except OSError:  # what ASGI servers raise when nobody is listening any more
            self.left_at = self._clock.mono()
            raise ClientLeft from None

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    def _check(self) -> None:
        if self.left_at is not None:
            raise ClientLeft
