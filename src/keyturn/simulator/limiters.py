"""True limiters: fixed window, calendar day, rolling log, token bucket and concurrency, as providers enforce them.

They judge the gateway, so they share no code with `keyturn.core`. Time is passed in, in seconds that only move
forward; costs are whole requests or tokens. A limiter answers how long a cost would have to wait and charges what it
is told to charge: charging more than is free (output that nobody could foresee) leaves a debt.
"""

from __future__ import annotations

import datetime
import math
from collections import deque
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

Kind = Literal["fixed", "rolling", "bucket", "calendar"]

DAY = 86_400.0
TICK = 1e-6
"""Seconds that Unix time in a float can just tell apart: one who waited as told must not be refused by rounding."""


class Limiter(Protocol):
    """One limit over one metric."""

    capacity: int

    def wait(self, now: float, cost: int) -> float:
        """Seconds until *cost* fits: 0 when it fits now, infinite when it is above the capacity."""
        ...

    def take(self, now: float, cost: int) -> None:
        """Charge *cost*, whether or not it fits."""
        ...

    def used(self, now: float) -> float:
        """What is charged at this moment; above the capacity while there is a debt."""
        ...

    def full_in(self, now: float) -> float:
        """Seconds until the whole capacity is free again if nothing more comes: what `reset` headers say."""
        ...


class FixedWindow:
    """Counts since the last multiple of *seconds*; the whole capacity comes back at the next one."""

    def __init__(self, capacity: int, seconds: float) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self._ends = -math.inf
        self._used = 0

    def _end_of(self, now: float) -> float:
        """The first moment after the window that *now* is in."""
        return (math.floor(now / self.seconds) + 1) * self.seconds

    def _turn(self, now: float) -> None:
        if now + TICK >= self._ends:
            self._ends = self._end_of(now + TICK)
            self._used = 0

    def wait(self, now: float, cost: int) -> float:
        if cost > self.capacity:
            return math.inf
        self._turn(now)
        return 0.0 if self._used + cost <= self.capacity else self._ends - now

    def take(self, now: float, cost: int) -> None:
        self._turn(now)
        self._used += cost

    def used(self, now: float) -> float:
        self._turn(now)
        return float(self._used)

    def full_in(self, now: float) -> float:
        self._turn(now)
        return self._ends - now if self._used else 0.0


class CalendarDay(FixedWindow):
    """A fixed window that ends at midnight in *zone*; such days last 23 to 25 hours."""

    def __init__(self, capacity: int, zone: str) -> None:
        super().__init__(capacity, DAY)
        self._zone = ZoneInfo(zone)

    def _end_of(self, now: float) -> float:
        today = datetime.datetime.fromtimestamp(now, self._zone).date()
        tomorrow = today + datetime.timedelta(days=1)
        return datetime.datetime.combine(tomorrow, datetime.time(), self._zone).timestamp()


class RollingLog:
    """Remembers every charge for *seconds*: in no stretch of that length is more admitted than the capacity."""

    def __init__(self, capacity: int, seconds: float) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self._log: deque[tuple[float, int]] = deque()
        self._used = 0

    def _forget(self, now: float) -> None:
        log = self._log
        while log and log[0][0] + self.seconds <= now + TICK:
            self._used -= log.popleft()[1]

    def wait(self, now: float, cost: int) -> float:
        if cost > self.capacity:
            return math.inf
        self._forget(now)
        excess = self._used + cost - self.capacity
        if excess <= 0:
            return 0.0
        for when, charged in self._log:
            excess -= charged
            if excess <= 0:
                return when + self.seconds - now
        raise AssertionError("unreachable: an empty log holds nothing")

    def take(self, now: float, cost: int) -> None:
        self._forget(now)
        self._log.append((now, cost))
        self._used += cost

    def used(self, now: float) -> float:
        self._forget(now)
        return float(self._used)

    def full_in(self, now: float) -> float:
        self._forget(now)
        return self._log[-1][0] + self.seconds - now if self._log else 0.0


class TokenBucket:
    """Starts full and refills evenly, the whole capacity in *seconds*."""

    def __init__(self, capacity: int, seconds: float) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self._level = float(capacity)
        self._at = -math.inf

    def _refill(self, now: float) -> None:
        if now > self._at:
            gained = (now - self._at) * self.capacity / self.seconds
            self._level = min(float(self.capacity), self._level + gained)
            self._at = now

    def wait(self, now: float, cost: int) -> float:
        if cost > self.capacity:
            return math.inf
        self._refill(now)
        wait = (cost - self._level) * self.seconds / self.capacity
        return wait if wait > TICK else 0.0

    def take(self, now: float, cost: int) -> None:
        self._refill(now)
        self._level -= cost

    def used(self, now: float) -> float:
        self._refill(now)
        return self.capacity - self._level

    def full_in(self, now: float) -> float:
        self._refill(now)
        return (self.capacity - self._level) * self.seconds / self.capacity


class Slots:
    """At most *capacity* requests at a time; one counts from its admission to the end of its answer."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.open = 0

    def enter(self) -> bool:
        """Take a slot; False when all are taken."""
        if self.open >= self.capacity:
            return False
        self.open += 1
        return True

    def leave(self) -> None:
        self.open -= 1


def limiter(kind: Kind, capacity: int, seconds: float, zone: str = "UTC") -> Limiter:
    """A new limiter; *zone* matters to `calendar` alone, which is always a day."""
    if kind == "calendar":
        return CalendarDay(capacity, zone)
    if kind == "fixed":
        return FixedWindow(capacity, seconds)
    return RollingLog(capacity, seconds) if kind == "rolling" else TokenBucket(capacity, seconds)
