"""Waits until journal lines are safe on the disk: one flush for all who wait at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from .journal import Journal, sync


class DiskSync:
    """Flushes *journal* to the disk in a thread. *refused* is told what the disk answers in the place of that; those
    who pay get the error that *refusal* makes, all others go on."""

    def __init__(self, journal: Journal, refused: Callable[[OSError], None], refusal: Callable[[], Exception]) -> None:
        self._journal = journal
        self._refused = refused
        self._refusal = refusal
        self._wanted = asyncio.Event()
        self._waiting: list[tuple[asyncio.Future[None], bool]] = []
        self._ending = False

    def synced(self, *, paying: bool) -> Awaitable[None] | None:
        """Done when all that was written so far is safe on the disk; None: nobody flushes it any more."""
        if self._ending:
            return None
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((done, paying))
        self._wanted.set()
        return done

    def wake(self) -> None:
        """Something was written that nobody waits for."""
        self._wanted.set()

    def end(self) -> None:
        """Have `work` return, once those who wait now have been told."""
        self._ending = True
        self._wanted.set()

    async def work(self) -> None:
        """Flush whenever somebody wants it, until the end."""
        while not self._ending or self._waiting:
            await self._wanted.wait()
            self._wanted.clear()
            waiting, self._waiting = self._waiting, []
            safe = await self._flush()
            for done, paying in waiting:
                if done.done():
                    continue
                if paying and not safe:
                    done.set_exception(self._refusal())
                else:
                    done.set_result(None)

    async def _flush(self) -> bool:
        loop = asyncio.get_running_loop()
        try:
            for segment, size in self._journal.unsynced():
                await loop.run_in_executor(None, sync, segment.path)
                segment.synced = size
        except OSError as error:
            self._refused(error)
            return False
        return True
