"""Notices a client that leaves: cancels the task that works for it, wherever that task is."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from keyturn.core import Clock

from .exchange import Receive

TICK = 0.03
"""Seconds between two looks. Only a call that lasts is worth a watcher: most that are refused cost no task."""


class Watches:
    """All calls under way. One timer serves them all, and runs only while there are any."""

    def __init__(self, clock: Clock) -> None:
        self.young: set[DisconnectWatch] = set()
        """Those without a watcher: each gets one at the second look after its begin, if it is still there."""
        self.looking = False
        self._clock = clock

    def look_later(self) -> None:
        self.looking = True
        self._clock.call_at(self._clock.mono() + TICK, self._look)

    def _look(self) -> None:
        self.looking = False
        seen = [watch for watch in self.young if watch.seen]
        self.young.difference_update(seen)
        for watch in seen:
            watch.listen()
        for watch in self.young:
            watch.seen = True
        if self.young:
            self.look_later()


class DisconnectWatch:
    """Within its `with` block, a client that leaves cancels the block; the block then ends quietly.

    *left* tells whether that happened. A cancellation from elsewhere passes through untouched. Made after the request
    has been read: from then on ASGI's `receive` has nothing but the disconnect to tell.
    """

    __slots__ = ("_owner", "_receive", "_watcher", "_watches", "left", "seen")

    def __init__(self, receive: Receive, watches: Watches) -> None:
        """*receive* is ASGI's, of a request that has been read."""
        self.left = False
        self.seen = False
        """It was there at a look."""
        self._receive = receive
        self._watches = watches
        self._owner: asyncio.Task[object] | None = None
        self._watcher: asyncio.Task[None] | None = None

    def __enter__(self) -> Self:
        self._owner = asyncio.current_task()
        watches = self._watches
        watches.young.add(self)
        if not watches.looking:
            watches.look_later()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        owner, self._owner = self._owner, None
        self._watches.young.discard(self)
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None  # the frame that it is cancelled in knows this watch, and would stay with it
        # As asyncio's own timeouts do: take back the one cancellation that was ours, and only that one.
        if self.left and owner is not None and owner.uncancel() == 0:
            return kind is asyncio.CancelledError
        return False

    def listen(self) -> None:
        """From now on, a task waits for the client to leave."""
        self._watcher = asyncio.get_running_loop().create_task(self._listen())

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if self._owner is not None:
            self.left = True
            self._owner.cancel()
