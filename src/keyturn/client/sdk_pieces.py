"""The bytes of an answer for an SDK, with its own timeout for each wait."""

from __future__ import annotations

import asyncio

from keyturn.core import Clock
from keyturn.dispatch import ByteStream, Reply, Watch
from keyturn.errors import TransportError


class Pieces:
    """The bytes of a stream as they come. A piece that takes longer than *patience* seconds (None: any time) raises
    TransportError `timeout`. To be read by one task and closed."""

    def __init__(self, reply: Reply, clock: Clock, patience: float | None) -> None:
        assert reply.stream is not None
        self._reply = reply
        self._stream: ByteStream = reply.stream
        self._clock = clock
        self._patience = patience
        self._watch = Watch(clock, 0.0, "read")

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        if self._patience is None:
            return await self._stream.__anext__()
        watch = self._watch
        watch.deadline = self._clock.mono() + self._patience
        watch.task = asyncio.current_task()
        if watch.timer is None:
            watch.arm()
        try:
            piece = await self._stream.__anext__()
        except asyncio.CancelledError:
            if not watch.ours():
                self.close()
                raise
            self.close()
            raise TransportError("timeout", f"nothing came for {self._patience:g} s", sent=True) from None
        except BaseException:
            self.close()
            raise
        watch.task = None
        return piece

    def close(self) -> None:
        """Let go of the answer. May be called twice; on the loop that it is read on."""
        self._watch.task = None
        self._watch.close()
        self._reply.close()
