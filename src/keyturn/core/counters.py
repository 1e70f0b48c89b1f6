"""How much of a limit is used, and when it comes back: slot ring, calendar day, refilling bucket, in flight.

A counter knows one number, what is used at a moment, and answers when a cost will fit. It is *held* before the
provider has counted a request and *charged* afterwards. Four kinds, as providers count in four ways:

    rolling    no stretch of the window's length ever holds more than the capacity. Safe as well against fixed windows
               and against buckets of the same size, so it is what we use when we do not know
    calendar   starts anew at midnight in the provider's zone; `month` likewise, on the first of the month
    bucket     refills evenly; of its capacity 99 % are used
    inflight   counts only what is held

Times are monotonic seconds. A clock that steps back never frees anything.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import ceil, floor, inf, nextafter
from typing import Literal

from .lasting import KeptUse
from .windows import Window, day_of, month_of, slots_of

Waiting = Literal[0, 1, 2]
NOBODY: Waiting = 0
FOR_TIME: Waiting = 1
FOR_OTHERS: Waiting = 2


class Shift:
    """Wall minus monotonic seconds, shared by all calendar counters of one process."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = 0.0


class Counter(ABC):
    """What is held and used of one limit. Units are whole and never negative."""

    __slots__ = ("capacity", "held", "most", "open", "scope", "waiting")

    def __init__(self, scope: str, capacity: int) -> None:
        self.scope = scope
        self.capacity = capacity
        self.most = capacity
        """The largest cost that can ever fit; a larger one is charged as this."""
        self.held = 0
        """Reserved and not yet counted by the provider."""
        self.open = 0
        """Reservations that still refer to this counter."""
        self.waiting: Waiting = NOBODY
        """Whether a call was denied here, and whether only the end of others could say when it will fit."""

    @property
    def remembers(self) -> bool:
        """Whether something would be lost with it although nothing is used at present."""
        return False

    def resize(self, capacity: int, now: float) -> None:
        """The limit is now *capacity*; what is used stays used."""
        self.capacity = self.most = capacity

    @abstractmethod
    def fits(self, cost: int, now: float) -> bool:
        """Whether *cost* more can be taken now."""

    @abstractmethod
    def wait(self, cost: int, now: float) -> float:
        """Seconds until *cost* fits if nothing else happens: 0 when it fits now, infinite when others hold too much."""

    @abstractmethod
    def charge(self, amount: int, now: float) -> float:
        """Count *amount* as used now, whether or not it fits. The mark returned is what `refund` needs."""

    @abstractmethod
    def refund(self, amount: int, mark: float, now: float) -> bool:
        """Take back *amount* of what was charged with *mark*, as far as it still counts. True when it freed any."""

    @abstractmethod
    def used(self, now: float) -> int:
        """What is counted at this moment, without what is held; above the capacity while there is a debt."""

    def lately(self, since: float) -> int:
        """What was charged after *since*, give or take a slot; 0 where that is not known."""
        return 0

    @abstractmethod
    def steady(self, now: float) -> float:
        """Until when `used` stays as it is, give or take a hundredth of the capacity."""

    @abstractmethod
    def whole_in(self, now: float) -> float:
        """Seconds until nothing is used any more, if nothing else happens."""

    @abstractmethod
    def room(self, then: float, now: float) -> int:
        """How much will fit at *then*, which is not before *now*, if nothing else happens until then."""

    def schedule(self, now: float) -> list[tuple[float, int]]:
        """When what is used comes back, if nothing else happens: seconds from now, rising, and how much then."""
        return [(self.whole_in(now), self.used(now))]

    @abstractmethod
    def dump(self, key: str, now: float, offset: float) -> KeptUse | None:
        """What is used and held, with moments *offset* later, as that of the limit *key*; None when that is nothing."""

    @abstractmethod
    def restore(self, kept: KeptUse, now: float, offset: float) -> None:
        """Take over what another counter of this window dumped. Only for one that has counted nothing yet."""


def counter_for(window: Window, scope: str, capacity: int, shift: Shift) -> Counter:
    """A counter of the kind that *window* asks for."""
    if window.kind == "rolling":
        return SlotRing(scope, capacity, window.seconds)
    if window.kind == "calendar":
        return CalendarPeriod(scope, capacity, window.zone, shift, day_of)
    if window.kind == "month":
        return CalendarPeriod(scope, capacity, window.zone, shift, month_of)
    if window.kind == "bucket":
        return RefillingBucket(scope, capacity, window.seconds)
    return InFlight(scope, capacity)


def _until(moment: float, now: float) -> float:
    """The shortest wait after which *moment* has come; a rounded difference may fall short of it by one step."""
    wait = moment - now
    return wait if now + wait >= moment else nextafter(wait, inf)


class SlotRing(Counter):
    """A rolling window cut into slots that are counted in full until the last moment of each has left the window.

    At a moment in slot k the slots k-N-g … k count. So whatever was used in the last window, and up to the guard
    before it, is in the sum; the price is that a unit returns up to a slot and the guard later than it could.
    """

    __slots__ = ("_leaves", "_newest", "_origin", "_slots", "_span", "_sum", "_width")

    def __init__(self, scope: str, capacity: int, seconds: float) -> None:
        super().__init__(scope, capacity)
        slots, guard = slots_of(seconds)
        self._width = seconds / slots
        self._span = slots + guard + 1
        self._origin = 0.0
        """When slot 0 begins: 0, or what makes the slots those of an earlier process."""
        self._slots: dict[int, int] = {}
        """Units by slot number, oldest first; empty slots are absent."""
        self._newest = -1
        self._sum = 0
        self._leaves = inf
        """When the oldest slot stops counting."""

    def fits(self, cost: int, now: float) -> bool:
        if now >= self._leaves:
            self._expire(now)
        return self._sum + self.held + cost <= self.capacity

    def wait(self, cost: int, now: float) -> float:
        excess = self.used(now) + self.held + cost - self.capacity
        if excess <= 0:
            return 0.0
        for slot, amount in self._slots.items():
            excess -= amount
            if excess <= 0:
                return _until(self._end_of(slot), now)
        return inf

    def charge(self, amount: int, now: float) -> float:
        slot = int((now - self._origin) // self._width)
        if slot < self._newest:
            slot = self._newest
        self._newest = slot
        slots = self._slots
        if not slots:
            self._leaves = self._end_of(slot)
        slots[slot] = slots.get(slot, 0) + amount
        self._sum += amount
        return slot

    def refund(self, amount: int, mark: float, now: float) -> bool:
        if now >= self._leaves:
            self._expire(now)
        slot = int(mark)
        back = min(amount, self._slots.get(slot, 0))
        if back <= 0:
            return False
        self._slots[slot] -= back
        self._sum -= back
        return True

    def used(self, now: float) -> int:
        if now >= self._leaves:
            self._expire(now)
        return self._sum

    def lately(self, since: float) -> int:
        first, total = int((since - self._origin) // self._width), 0
        for slot in reversed(self._slots):
            if slot < first:
                break
            total += self._slots[slot]
        return total

    def steady(self, now: float) -> float:
        return self._leaves if self.used(now) else inf

    def whole_in(self, now: float) -> float:
        return _until(self._end_of(self._newest), now) if self.used(now) else 0.0

    def room(self, then: float, now: float) -> int:
        gone = 0
        if self.used(now):
            for slot, amount in self._slots.items():
                if self._end_of(slot) > then:
                    break
                gone += amount
        return max(0, self.capacity - self._sum + gone - self.held)

    def schedule(self, now: float) -> list[tuple[float, int]]:
        if not self.used(now):
            return []
        span, width, origin = self._span, self._width, self._origin  # as in `_end_of`
        return [((slot + span) * width + origin - now, amount) for slot, amount in self._slots.items()]

    def _end_of(self, slot: int) -> float:
        """The first moment at which *slot* no longer counts: the start of the slot that pushes it out."""
        return (slot + self._span) * self._width + self._origin

    def _expire(self, now: float) -> None:
        slots = self._slots
        while slots:
            oldest = next(iter(slots))
            self._leaves = self._end_of(oldest)
            if now < self._leaves:
                return
            self._sum -= slots.pop(oldest)
        self._leaves = inf

    def dump(self, key: str, now: float, offset: float) -> KeptUse | None:
        if not self.used(now) and not self.held:
            return None
        amounts: list[tuple[float, int]] = [each for each in self._slots.items() if each[1]]
        if self.held:
            amounts.append((max(int((now - self._origin) // self._width), self._newest), self.held))
        return KeptUse(key, self.capacity, self._origin + offset, amounts)

    def restore(self, kept: KeptUse, now: float, offset: float) -> None:
        self._origin = kept.at - offset
        present = (now - self._origin) // self._width
        for slot, amount in sorted(kept.amounts):
            if amount > 0:
                number = int(min(slot, present))
                self._slots[number] = self._slots.get(number, 0) + amount
                self._sum += amount
                self._newest = number
        self._leaves = -inf
        self._expire(now)


PeriodOf = Callable[[float, str], tuple[float, float]]
"""Start and end of the calendar period in a zone that a moment is in, all in Unix seconds."""


class CalendarPeriod(Counter):
    """Counts since the present day or month began in the provider's zone, and forgets it all when the next begins.

    When the wall clock is set back into a period that was counted before, its count is taken up again; into one that
    was not, the present count is kept. So setting the clock frees nothing, and a wrong one does no harm for longer
    than it is wrong.
    """

    __slots__ = ("_ends", "_past", "_period_of", "_shift", "_starts", "_used", "_zone")

    def __init__(self, scope: str, capacity: int, zone: str, shift: Shift, period_of: PeriodOf) -> None:
        super().__init__(scope, capacity)
        self._zone = zone
        self._shift = shift
        self._period_of = period_of
        self._starts = self._ends = 0.0
        """The present period, in Unix seconds."""
        self._used = 0
        self._past: dict[float, int] = {}
        """Counts of the few periods before, by their start."""

    @property
    def remembers(self) -> bool:
        """A month is money: it is not forgotten because the clock was wrong for a while."""
        return self._period_of is month_of and any(self._past.values())

    def fits(self, cost: int, now: float) -> bool:
        return self.used(now) + self.held + cost <= self.capacity

    def wait(self, cost: int, now: float) -> float:
        if self.fits(cost, now):
            return 0.0
        return inf if self.held + cost > self.capacity else self._left(now)

    def charge(self, amount: int, now: float) -> float:
        self._used = self.used(now) + amount
        return self._starts

    def refund(self, amount: int, mark: float, now: float) -> bool:
        back = min(amount, self.used(now))
        if back <= 0 or mark != self._starts:
            return False
        self._used -= back
        return True

    def used(self, now: float) -> int:
        wall = now + self._shift.seconds
        if not self._starts <= wall < self._ends:
            self._turn(wall)
        return self._used

    def steady(self, now: float) -> float:
        return now + self._left(now) if self.used(now) else inf

    def whole_in(self, now: float) -> float:
        return self._left(now) if self.used(now) else 0.0

    def room(self, then: float, now: float) -> int:
        used = self.used(now)
        return max(0, self.capacity - self.held - (used if then - now < self._left(now) else 0))

    def _left(self, now: float) -> float:
        """Seconds to the end of the period; a microsecond more, as Unix seconds are no finer than that."""
        return self._ends - (now + self._shift.seconds) + 1e-6

    def dump(self, key: str, now: float, offset: float) -> KeptUse | None:
        used = self.used(now) + self.held
        if not used and not self.remembers:
            return None
        past = [(starts, amount) for starts, amount in self._past.items() if amount]
        return KeptUse(key, self.capacity, self._starts, [*past, (self._starts, used)])

    def restore(self, kept: KeptUse, now: float, offset: float) -> None:
        self._starts, self._ends = self._period_of(kept.at, self._zone)
        counts = dict(kept.amounts[-4:])
        self._used = counts.pop(kept.at, 0)
        self._past = counts

    def _turn(self, wall: float) -> None:
        starts, ends = self._period_of(wall, self._zone)
        kept = self._used if starts < self._starts else 0
        self._past[self._starts] = self._used
        self._used = self._past.pop(starts, kept)
        self._starts, self._ends = starts, ends
        while len(self._past) > 3:
            del self._past[next(iter(self._past))]


SHARE = 0.99
"""How much of a bucket is used: the rest covers what the provider counts a little later than we do."""


def most_of(window: Window, capacity: int) -> int:
    """The largest cost that can ever fit into *capacity* over *window*."""
    return int(max(1.0, capacity * SHARE)) if window.kind == "bucket" else capacity


_GRAIN = 1e-3
"""A bucket's level is a fraction; a difference of less than this many units is none."""


class RefillingBucket(Counter):
    """A bucket that refills evenly, its capacity once per window. The level is what is used, and drains."""

    __slots__ = ("_at", "_drained", "_level", "_rate", "_seconds", "_size")

    def __init__(self, scope: str, capacity: int, seconds: float) -> None:
        super().__init__(scope, capacity)
        self._seconds = seconds
        self._level = 0.0
        self._at = 0.0
        self._drained = 0.0
        """All that ever left the bucket, by time or by refund."""
        self._set_size(capacity)

    def _set_size(self, capacity: int) -> None:
        self.capacity = capacity
        self._size = max(1.0, capacity * SHARE)
        self._rate = capacity * SHARE / self._seconds
        self.most = int(self._size)

    def resize(self, capacity: int, now: float) -> None:
        self._drain(now)
        self._set_size(capacity)

    def fits(self, cost: int, now: float) -> bool:
        self._drain(now)
        return self._level + self.held + cost <= self._size + _GRAIN

    def wait(self, cost: int, now: float) -> float:
        if self.fits(cost, now):
            return 0.0
        if self.held + cost > self._size:
            return inf
        return max(self._at - now, 0.0) + (self._level + self.held + cost - self._size) / self._rate

    def charge(self, amount: int, now: float) -> float:
        self._drain(now)
        self._level += amount
        return self._level + self._drained

    def refund(self, amount: int, mark: float, now: float) -> bool:
        """What has drained meanwhile cannot be given back: an emptier bucket would not have drained as much.

        The mark is the level after the charge plus all that had left the bucket by then; so what is left of that level
        is the mark less all that has left it by now.
        """
        self._drain(now)
        back = min(float(amount), mark - self._drained)
        if back <= 0:
            return False
        self._level = max(0.0, self._level - back)
        self._drained += back
        return True

    def used(self, now: float) -> int:
        self._drain(now)
        level = self._level
        return ceil(level - _GRAIN) if level > _GRAIN else 0

    def steady(self, now: float) -> float:
        return now + max(1.0, self._size / 100) / self._rate if self.used(now) else inf

    def whole_in(self, now: float) -> float:
        return self._level / self._rate if self.used(now) else 0.0

    def room(self, then: float, now: float) -> int:
        self._drain(now)
        level = max(0.0, self._level - max(0.0, then - self._at) * self._rate)
        return max(0, floor(self._size + _GRAIN - level - self.held))

    def dump(self, key: str, now: float, offset: float) -> KeptUse | None:
        if not self.used(now) and not self.held:
            return None
        return KeptUse(key, self.capacity, self._at + offset, level=self._level + self.held)

    def restore(self, kept: KeptUse, now: float, offset: float) -> None:
        self._at = min(kept.at - offset, now)
        self._level = max(0.0, kept.level)

    def _drain(self, now: float) -> None:
        if now > self._at:
            gone, level = (now - self._at) * self._rate, self._level
            if gone > level:
                gone = level
            self._level = level - gone
            self._drained += gone
            self._at = now


class InFlight(Counter):
    """At most so many at a time: nothing is used, only held."""

    __slots__ = ()

    def fits(self, cost: int, now: float) -> bool:
        return self.held + cost <= self.capacity

    def wait(self, cost: int, now: float) -> float:
        return 0.0 if self.held + cost <= self.capacity else inf

    def charge(self, amount: int, now: float) -> float:
        return 0.0

    def refund(self, amount: int, mark: float, now: float) -> bool:
        return False

    def used(self, now: float) -> int:
        return 0

    def steady(self, now: float) -> float:
        return inf

    def whole_in(self, now: float) -> float:
        return 0.0

    def room(self, then: float, now: float) -> int:
        return max(0, self.capacity - self.held)

    def dump(self, key: str, now: float, offset: float) -> KeptUse | None:
        return None

    def restore(self, kept: KeptUse, now: float, offset: float) -> None:
        return None
