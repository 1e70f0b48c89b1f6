"""The real clock, randomness and the one kind of timeout: the only place that touches time, random and sleep."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from types import TracebackType

from keyturn.core import Clock, TimerHandle
from keyturn.errors import TransportError

draw: Callable[[], float] = random.random

_VERSION_7, _DRAWN = 0x7000_8000_0000_0000_0000, 0x0FFF_3FFF_FFFF_FFFF_FFFF
"""The bits of an id that say what kind of UUID it is, and those that are drawn."""


class SystemClock:
    """The Clock of a running gateway: the loop's monotonic time and the system's wall time."""

    __slots__ = ("_loop",)
    mono = staticmethod(time.monotonic)
    wall = staticmethod(time.time)

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    async def sleep_until(self, when: float) -> None:
        await asyncio.sleep(when - time.monotonic())

    def call_at(self, when: float, callback: Callable[[], object]) -> TimerHandle:
        loop = self._loop
        if loop is None or loop.is_closed():  # kept, for asking asyncio costs a system call
            loop = self._loop = asyncio.get_running_loop()
        left = when - time.monotonic()
        return loop.call_later(left if left > 0.0 else 0.0, callback)


def new_id(wall: float, bits: Callable[[int], int] = random.getrandbits) -> str:
    """A UUIDv7: sortable by its time, Unix seconds *wall*, with 74 random bits (RFC 9562 §5.7).

    An identifier, not a secret: ordinary randomness will do.
    """
    number = (int(wall * 1000) & 0xFFFF_FFFF_FFFF) << 80 | bits(80) & _DRAWN | _VERSION_7
    digits = number.to_bytes(16, "big").hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class Watch:
    """Interrupts the task inside its `with` block when `deadline` passes, by a TransportError `timeout`.

    Moving the deadline later is a plain assignment: the timer looks when it fires and sets itself again. So a stream
    whose deadline moves with each chunk costs no timer per chunk; it may also leave the arithmetic to `extend`, which
    is called when the timer fires. Who waits again and again sets `task` before and clears it after, and arms the timer
    when there is none; it is left to run between and finds out for itself that nobody waits.
    """

    __slots__ = ("_cancelling", "_clock", "deadline", "expired", "extend", "reason", "task", "timer")

    def __init__(self, clock: Clock, deadline: float, reason: str) -> None:
        self.deadline = deadline
        self.reason = reason
        """Which phase ran out: becomes the fault of the outcome."""
        self.extend: Callable[[], None] | None = None
        self.expired = False
        self._clock = clock
        self.timer: TimerHandle | None = None
        self.task: asyncio.Task[object] | None = None
        """Who waits now, and is to be interrupted."""
        self._cancelling = 0

    def __enter__(self) -> Watch:
        task = asyncio.current_task()
        self._cancelling = task.cancelling() if task is not None else 0
        self.task = task
        if self.timer is None:
            self.timer = self._clock.call_at(self.deadline, self._fire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.expired and kind is asyncio.CancelledError and self.ours():
            raise TransportError("timeout", f"nothing came in time ({self.reason})", sent=True) from error
        self.task = None

    def arm(self) -> None:
        """Set the timer, unless it is."""
        if self.timer is None:
            self.timer = self._clock.call_at(self.deadline, self._fire)

    def ours(self) -> bool:
        """A cancellation arrived: whether it is this watch's alone. Takes ours back; the task goes on."""
        task, self.task = self.task, None
        return self.expired and task is not None and task.uncancel() <= self._cancelling

    def tighten(self, deadline: float, reason: str) -> None:
        """Set a deadline that may be nearer than the moment that the timer is set to."""
        self.close()
        self.deadline, self.reason = deadline, reason

    def close(self) -> None:
        """Stop the timer."""
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _fire(self) -> None:
        self.timer = None
        if self.task is None:
            return
        if self.extend is not None:
            self.extend()
        if self._clock.mono() < self.deadline:
            self.timer = self._clock.call_at(self.deadline, self._fire)
        elif not self.expired:
            self.expired = True
            self.task.cancel()
