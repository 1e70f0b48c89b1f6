"""Calls that wait for a credential: first in, first out, woken one by one when something fits.

A waiter leaves a function that tries to take what it needs, without waiting. When something is freed, or the earliest
return comes, the room calls these functions in order of arrival and hands each grant over. So nobody is woken in vain,
and nobody who came later overtakes, unless the one before is kept by what it has already tried.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from keyturn.core import Clock, Deployment, Exhausted, TimerHandle
from keyturn.errors import Draining, KeyturnError

MOST_WAITERS = 1000
PACE = 60.0
"""Seconds over which the pace of a line is measured: one turn of the limits that most lines wait for."""
Line = tuple[Deployment, ...]
"""Calls that may be answered by the same deployments stand in one line."""


class Closable(Protocol):
    """A grant that is given back when nobody is there any more to use it."""

    def close(self) -> None: ...


G = TypeVar("G", bound=Closable)


@dataclass(slots=True, eq=False)
class _Waiter(Generic[G]):
    take: Callable[[], G | Exhausted]
    hindered: bool
    """It has tried candidates already, so that the next in line may be able to use what it cannot."""
    future: asyncio.Future[G | None]


class WaitingRoom(Generic[G]):
    """All lines of one gateway. A full room (1,000 waiters) lets nobody in."""

    def __init__(self, clock: Clock, most: int = MOST_WAITERS) -> None:
        self._clock = clock
        self._most = most
        self._lines: dict[Line, deque[_Waiter[G]]] = {}
        self._timers: dict[Line, TimerHandle] = {}
        self._due: dict[Line, float] = {}
        self._served: dict[Line, deque[float]] = {}
        """When the latest of each line got what they waited for."""
        self.waiting = 0

    @property
    def full(self) -> bool:
        return self.waiting >= self._most

    def ahead(self, line: Line) -> int:
        """How many calls stand in *line*."""
        return len(self._lines.get(line, ()))

    def backlog(self, line: Line) -> float:
        """Seconds until those who stand in *line* now will have been served, at the pace of the last minute."""
        served, now = self._served.get(line), self._clock.mono()
        if not served or not self.ahead(line):
            return 0.0
        while len(served) > 1 and served[0] < now - PACE:
            served.popleft()
        return self.ahead(line) * max(now - served[0], 1.0) / len(served)

    def shortage(self, line: Line) -> Exhausted:
        """What somebody who comes now to a *line* that others stand in has to expect."""
        due = self._due.get(line)
        if due is None:
            return Exhausted(float("inf"), 0, 1, 0, 0)
        return Exhausted(max(due - self._clock.mono(), 0.0), 1, 0, 0, 0)

    async def wait(
        self, line: Line, take: Callable[[], G | Exhausted], *, returns: float, latest: float, hindered: bool
    ) -> G | None:
        """Stand in *line* until *take* succeeds; None when *latest* comes first (monotonic seconds).

        *returns* is when the earliest candidate comes back. A waiter that is cancelled leaves its place at once.
        """
        waiter = _Waiter(take, hindered, asyncio.get_running_loop().create_future())
        queue = self._lines.setdefault(line, deque())
        queue.append(waiter)
        self.waiting += 1
        expiry = self._clock.call_at(latest, lambda: _give_up(waiter))
        self._arm(line, returns)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                grant = waiter.future.result()
                if grant is not None:
                    grant.close()
            raise
        finally:
            expiry.cancel()
            self._leave(line, waiter)

    def freed(self, deployment: Deployment) -> None:
        """Something of *deployment* came free before its time: look at every line that may use it, soon."""
        if self._lines:
            now = self._clock.mono()
            for line in self._lines:
                if deployment in line:
                    self._arm(line, now)

    def dismiss(self, error: KeyturnError | None = None) -> None:
        """Send everybody away, with *error* (draining by default)."""
        for queue in list(self._lines.values()):
            for waiter in queue:
                if not waiter.future.done():
                    waiter.future.set_exception(error or Draining("shutting down", retry_after=1.0))

    def _leave(self, line: Line, waiter: _Waiter[G]) -> None:
        self.waiting -= 1
        queue = self._lines.get(line)
        if queue is None:
            return
        if waiter in queue:
            queue.remove(waiter)
        if not queue:
            del self._lines[line]
            if len(self._served) > self._most:
                self._served.clear()
            self._due.pop(line, None)
            timer = self._timers.pop(line, None)
            if timer is not None:
                timer.cancel()

    def _arm(self, line: Line, when: float) -> None:
        """Serve *line* at *when*, unless that is to happen earlier anyway."""
        due = self._due.get(line)
        if when == float("inf") or (due is not None and due <= when):
            return
        timer = self._timers.pop(line, None)
        if timer is not None:
            timer.cancel()
        self._due[line] = when
        self._timers[line] = self._clock.call_at(when, lambda: self._serve(line))

    def _serve(self, line: Line) -> None:
        self._timers.pop(line, None)
        self._due.pop(line, None)
        queue = self._lines.get(line)
        if queue is None:
            return
        earliest = float("inf")
        for waiter in list(queue):
            if waiter.future.done():
                continue
            try:
                grant = waiter.take()
            except KeyturnError as error:
                waiter.future.set_exception(error)
                continue
            if isinstance(grant, Exhausted):
                earliest = min(earliest, grant.wait)
                if grant.by_size or not waiter.hindered:
                    break
                continue
            queue.remove(waiter)
            waiter.future.set_result(grant)
            self._served.setdefault(line, deque(maxlen=self._most)).append(self._clock.mono())
        if earliest < float("inf"):
            self._arm(line, self._clock.mono() + max(earliest, 0.001))


def _give_up(waiter: _Waiter[G]) -> None:
    if not waiter.future.done():
        waiter.future.set_result(None)
