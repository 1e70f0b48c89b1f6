"""Calls that wait for a credential: first in, first out, woken one by one when something fits.

A waiter leaves a function that tries to take what it needs, without waiting. When something is freed, or the earliest
return comes, the room calls these functions in order of arrival and hands each grant over. So nobody is woken in vain,
and nobody who came later overtakes, unless the one before is kept by what it has already tried. Calls that may be
answered by the same deployments stand in one line; the lines are served together, the longest waiting first.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, NamedTuple, Protocol, TypeVar

from keyturn.core import Clock, Deployment, Exhausted, TimerHandle
from keyturn.errors import Draining, KeyturnError

MOST_WAITERS = 1000
MOST_BYTES = 256 * 1024 * 1024
"""Bytes of the requests that wait, all together."""
PACE = 60.0
"""Seconds over which the pace of a line is measured: one turn of the limits that most lines wait for."""
FOREVER = float("inf")


class Line(NamedTuple):
    """What is waited for. Calls of different configurations do not wait for one another: their pools differ."""

    generation: int
    deployments: tuple[Deployment, ...]


class MovedOn(Exception):
    """Another configuration is in use: who waits should look again by that one."""


class Closable(Protocol):
    """A grant that is given back when nobody is there any more to use it."""

    def close(self) -> None: ...


G = TypeVar("G", bound=Closable)


@dataclass(slots=True, eq=False)
class _Waiter(Generic[G]):
    number: int
    """By arrival, over all lines."""
    take: Callable[[], G | Exhausted]
    hindered: bool
    """It has tried candidates already, so that the next in line may be able to use what it cannot."""
    future: asyncio.Future[G | None]


class WaitingRoom(Generic[G]):
    """All lines of one gateway. A full room (1,000 waiters, or 256 MiB of requests) lets nobody in."""

    def __init__(self, clock: Clock, most: int = MOST_WAITERS) -> None:
        self._clock = clock
        self._most = most
        self._lines: dict[Line, deque[_Waiter[G]]] = {}
        self._wanted: Counter[tuple[int, Deployment]] = Counter()
        """How many lines each deployment is waited for in, by configuration."""
        self._due: dict[Line, float] = {}
        """When the first of each line may get something, as far as was known when it last asked."""
        self._timer: TimerHandle | None = None
        self._timer_at = FOREVER
        self._served: dict[Line, deque[float]] = {}
        """When the latest of each line got what they waited for."""
        self._arrivals = 0
        self.waiting = 0
        self.held = 0
        """Bytes of the requests that wait."""

    def full(self, size: int) -> bool:
        """Whether a request of *size* bytes must not come in."""
        return self.waiting >= self._most or self.held + size > MOST_BYTES

    def ahead(self, line: Line) -> int:
        """How many calls stand in *line*."""
        return len(self._lines.get(line, ()))

    def wanted(self, deployment: Deployment, generation: int = 0) -> bool:
        """Whether somebody waits for *deployment*: who comes now, by the same configuration, must not overtake."""
        return bool(self._lines) and (generation, deployment) in self._wanted

    def due(self, line: Line) -> float:
        """Seconds until the first of *line* may get something; infinite when an attempt under way must end first."""
        return max(self._due.get(line, FOREVER) - self._clock.mono(), 0.0)

    def backlog(self, line: Line) -> float:
        """Seconds until those who stand in *line* now will have been served, at the pace of the last minute."""
        served, now = self._served.get(line), self._clock.mono()
        if not served or not self.ahead(line):
            return 0.0
        while len(served) > 1 and served[0] < now - PACE:
            served.popleft()
        return self.ahead(line) * max(now - served[0], 1.0) / len(served)

    def arrival(self) -> int:
        """A place behind everybody who has come so far."""
        self._arrivals += 1
        return self._arrivals

    async def wait(
        self,
        line: Line,
        take: Callable[[], G | Exhausted],
        *,
        returns: float,
        latest: float,
        hindered: bool,
        place: int | None = None,
        size: int = 0,
    ) -> G | None:
        """Stand in *line* until *take* succeeds; None when *latest* comes first (monotonic seconds).

        *returns* is when the earliest candidate comes back. *place*: an `arrival` of before, for who comes back.
        *size*: bytes of the request. A waiter that is cancelled leaves its place at once.
        """
        number = self.arrival() if place is None else place
        waiter = _Waiter(number, take, hindered, asyncio.get_running_loop().create_future())
        self._enter(line, waiter)
        self.held += size
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
            self.held -= size
            self._leave(line, waiter)

    def freed(self, deployment: Deployment) -> None:
        """Something of *deployment* came free before its time: look at every line that may use it, soon."""
        if not self._lines:
            return
        now = self._clock.mono()
        for line in self._lines:
            if deployment in line.deployments:
                self._arm(line, now)

    def move_on(self, generation: int) -> None:
        """Send away by `MovedOn` who waits by the configuration *generation* and has not been asked for anywhere."""
        for line, queue in list(self._lines.items()):
            for waiter in queue if line.generation <= generation else ():
                if not waiter.hindered and not waiter.future.done():
                    waiter.future.set_exception(MovedOn())

    def dismiss(self, error: KeyturnError | None = None) -> None:
        """Send everybody away, with *error* (draining by default)."""
        for queue in list(self._lines.values()):
            for waiter in queue:
                if not waiter.future.done():
                    waiter.future.set_exception(error or Draining("shutting down", retry_after=1.0))

    def _enter(self, line: Line, waiter: _Waiter[G]) -> None:
        self.waiting += 1
        queue = self._lines.get(line)
        if queue is None:
            queue = self._lines[line] = deque()
            self._wanted.update((line.generation, each) for each in line.deployments)
        behind = len(queue)
        while behind and queue[behind - 1].number > waiter.number:
            behind -= 1
        queue.insert(behind, waiter)

    def _leave(self, line: Line, waiter: _Waiter[G]) -> None:
        self.waiting -= 1
        queue = self._lines.get(line)
        if queue is None or waiter not in queue:
            return  # it was served
        queue.remove(waiter)
        if queue:
            self._arm(line, self._clock.mono())  # who stood behind may fit where it did not
        else:
            self._close(line)
            for deployment in line.deployments:
                self.freed(deployment)  # who let this line go first need not any more

    def _close(self, line: Line) -> None:
        """Nobody stands in *line* any more."""
        del self._lines[line]
        self._due.pop(line, None)
        for deployment in line.deployments:
            key = (line.generation, deployment)
            self._wanted[key] -= 1
            if not self._wanted[key]:
                del self._wanted[key]
        if len(self._served) > self._most:
            self._served.clear()

    def _arm(self, line: Line, when: float) -> None:
        """Serve *line* at *when*, unless that is to happen earlier anyway."""
        if when >= self._due.get(line, FOREVER):
            return
        self._due[line] = when
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self._clock.call_at(when, self._serve)

    def _serve(self) -> None:
        """Serve the lines whose time has come, whoever waits longest first, until nobody gets anything any more."""
        self._timer, self._timer_at = None, FOREVER
        now = self._clock.mono()
        heads: list[tuple[int, int, Line]] = []
        for line, queue in self._lines.items():
            if queue and self._due.get(line, FOREVER) <= now:
                del self._due[line]
                heads.append((queue[0].number, 0, line))
        heapify(heads)
        while heads:
            _, place, line = heappop(heads)
            place = self._offer(line, place)
            left = self._lines.get(line, ())
            if 0 <= place < len(left):
                heappush(heads, (left[place].number, place, line))
        for line, when in list(self._due.items()):
            del self._due[line]
            self._arm(line, when)

    def _offer(self, line: Line, place: int) -> int:
        """Let the waiter at *place* try. The place to go on with; below 0 when nobody behind can do better."""
        queue = self._lines[line]
        waiter = queue[place]
        if waiter.future.done():
            return place + 1
        try:
            grant = waiter.take()
        except Exception as error:  # who waits is told; the others must be served all the same
            waiter.future.set_exception(error)
            return place + 1
        if isinstance(grant, Exhausted):
            now = self._clock.mono()
            when = now + max(grant.wait, 0.001)
            self._due[line] = min(when, self._due.get(line, FOREVER))
            return -1 if grant.by_size or not waiter.hindered else place + 1
        del queue[place]
        waiter.future.set_result(grant)
        self._served.setdefault(line, deque(maxlen=self._most)).append(self._clock.mono())
        if not queue:
            self._close(line)
        return place


def _give_up(waiter: _Waiter[G]) -> None:
    if not waiter.future.done():
        waiter.future.set_result(None)
