"""Notices a client that leaves: cancels the task that works for it, wherever that task is."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from keyturn.core import Clock

from .exchange import Receive

PATIENCE = 0.05
"""Seconds before a call is worth a watcher: most calls that fail or are refused end before, and cost no task."""


class DisconnectWatch:
    """Within its `with` block, a client that leaves cancels the block; the block then ends quietly.

    *left* tells whether that happened. A cancellation from elsewhere passes through untouched. Made after the request
    has been read: from then on ASGI's `receive` has nothing but the disconnect to tell.
    """

    __slots__ = ("_clock", "_owner", "_receive", "_timer", "_watcher", "left")

    def __init__(self, receive: Receive, clock: Clock) -> None:
        self.left = False
        self._receive = receive
        self._clock = clock
        self._owner: asyncio.Task[object] | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._owner = asyncio.current_task()
        self._timer = self._clock.call_at(self._clock.mono() + PATIENCE, self._start)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        owner, self._owner = self._owner, None
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()
        # As asyncio's own timeouts do: take back the one cancellation that was ours, and only that one.
        if self.left and owner is not None and owner.uncancel() == 0:
            return kind is asyncio.CancelledError
        return False

    def _start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._owner is not None:
            self.left = True
            self._owner.cancel()
