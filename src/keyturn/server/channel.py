"""Frames between a worker and the process that started it, over a pair of sockets that nobody else can reach."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Literal

import msgspec

LARGEST = 32 * 1024 * 1024
"""Bytes of a frame."""
MOST_UNREAD = 64 * 1024 * 1024
"""Bytes that may wait for the other end; what comes on top of them is not sent."""


class Frame(msgspec.Struct, array_like=True):
    """One message. A *question* and its *answer* carry the same number; *ready* and *answers* go one way only."""

    kind: Literal["ready", "question", "answer", "answers"]
    number: int = 0
    what: str = ""
    content: bytes = b""


class Channel:
    """One end of the pair. *took* gets each frame; *gone* is called once, when the other end is closed."""

    def __init__(self, took: Callable[[Frame], object], gone: Callable[[], object]) -> None:
        self._took = took
        self._gone = gone
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def open(self, sock: socket.socket) -> None:
        """Read from *sock* from now on; it is the channel's."""
        reader, self._writer = await asyncio.open_unix_connection(sock=sock)
        self._reading = asyncio.create_task(self._read(reader))

    def send(self, frame: Frame) -> bool:
        """Hands *frame* to the other end; False when that end does not take any."""
        writer = self._writer
        if writer is None or writer.is_closing() or writer.transport.get_write_buffer_size() > MOST_UNREAD:
            return False
        content = msgspec.msgpack.encode(frame)
        if len(content) > LARGEST:
            return False
        writer.write(len(content).to_bytes(4, "big") + content)
        return True

    async def close(self) -> None:
        """Read and send no more; *gone* is not called any more."""
        if self._writer is not None:
            self._writer.close()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                size = int.from_bytes(await reader.readexactly(4), "big")
                if size > LARGEST:
                    break
                self._took(msgspec.msgpack.decode(await reader.readexactly(size), type=Frame))
        except (OSError, EOFError, msgspec.DecodeError):
            pass
        if self._writer is not None:
            self._writer.close()  # what is sent from now on finds nobody
        self._gone()
