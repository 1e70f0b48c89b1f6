"""How many calls some keys will take by when, from what their limits say.

A supply is worked out only where it is asked: it keeps how each limit stood when it was made, and adds the keys up at
the few moments of its grid that a binary search looks at.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from math import floor, inf
from typing import NamedTuple

from .counters import SHARE, Counter
from .limitbook import Limit, LimitRow
from .windows import slots_of

GRID = (
    *(each * 0.5 for each in range(40)),
    *(float(each) for each in range(20, 64)),
    *(float(each) for each in range(64, 130, 2)),
    *(150.0, 183.0, 240.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 21_600.0, 43_200.0, 90_000.0, 180_000.0),
)
"""Seconds from now at which a supply is worked out. Between two of them it is taken to grow evenly."""
TINY = 1e-6
"""Units that are lost in rounding."""
PLENTY = 1e9
"""Calls that a key without any limit is taken to bear."""


class Refill(NamedTuple):
    """One limit of a key: how it stands, and how much of it one call takes."""

    limit: Limit
    own: Counter | None
    """What this process counted."""
    row: LimitRow
    """How it stands over all that share it."""
    unit: float


class Return(NamedTuple):
    """What one limit gives back by when, in its units. Rolling windows, days and months, and buckets in one form."""

    unit: float
    free: float
    """Now; below 0 while there is a debt."""
    rate: float
    """That come back each second."""
    times: Sequence[float]
    """Seconds from now at which more comes back, rising."""
    sums: Sequence[float]
    """How much has by each of them."""
    whole: float
    """Seconds after which what was taken first comes back once more, and all of it then; infinite: never."""
    capacity: float

    def calls(self, ahead: float) -> float:
        """How many calls can be taken in all by so many seconds *ahead*. A part of a unit is none."""
        turn = int(ahead // self.whole) if ahead >= self.whole else 0
        at = bisect_right(self.times, ahead - turn * self.whole if turn else ahead)
        units = self.free + self.rate * ahead + (self.sums[at - 1] if at else 0.0)
        return (max(floor(units + TINY), 0) + turn * self.capacity) / self.unit


class KeySupply(NamedTuple):
    """One key, as it stands."""

    blocked: float
    """Seconds until it can be used at all."""
    returns: Sequence[Return]
    like: float = 1.0
    """How many keys it stands for."""

    def calls(self, ahead: float) -> float:
        """How many calls it will have taken in all so many seconds *ahead*, if it is used as soon as it can be."""
        if ahead < self.blocked:
            return 0.0
        return min((each.calls(ahead) for each in self.returns), default=PLENTY) * self.like


class Supply:
    """How many calls some keys will take by when."""

    __slots__ = ("_calls", "_keys")

    def __init__(self, keys: Iterable[KeySupply]) -> None:
        """As *keys* stand now."""
        self._keys = tuple(keys)
        self._calls: dict[int, float] = {}
        """By the place in `GRID`, as far as somebody asked."""

    def time_for(self, calls: float) -> float:
        """Seconds after which so many will have been taken; infinite when they never will."""
        wanted, low, high = calls - 1e-9, -1, len(GRID)
        while high - low > 1:
            middle = (low + high) // 2
            if self._by(middle) >= wanted:
                high = middle
            else:
                low = middle
        if high == len(GRID):
            return inf
        if low < 0:
            return GRID[0]
        before, after = self._by(low), self._by(high)
        return GRID[low] + min((calls - before) / (after - before), 1.0) * (GRID[high] - GRID[low])

    def _by(self, place: int) -> float:
        found = self._calls.get(place)
        if found is None:
            found = self._calls[place] = sum(each.calls(GRID[place]) for each in self._keys)
        return found


def returns_of(refills: Iterable[Refill], now: float) -> list[Return]:
    """What limits give back from *now* on; those of calls at once are left out, as nobody knows when one ends."""
    return [_return_of(each, now) for each in refills if each.limit.window.kind != "inflight"]


def _return_of(refill: Refill, now: float) -> Return:
    limit, own, row, unit = refill
    window = limit.window
    if window.kind == "bucket":
        rate = limit.capacity * SHARE / window.seconds
        return Return(unit, _left_of(own, row, rate, now), rate, (), (), inf, limit.capacity)
    if window.kind != "rolling":  # a day or a month: nothing comes back before its end
        return Return(unit, row.free, 0.0, (row.resets_in,), (limit.capacity,), inf, limit.capacity)
    own_used = 0 if own is None else own.used(now)
    back = [] if own is None else own.schedule(now)
    if row.used > own_used:  # by others: nobody knows when, but by when all is back
        back = sorted([*back, (row.resets_in, row.used - own_used)])
    slots, guard = slots_of(window.seconds)
    whole = window.seconds * (slots + guard + 1) / slots
    sums = tuple(accumulate(units for _, units in back))
    free = limit.capacity - row.used - row.reserved
    return Return(unit, free, 0.0, tuple(when for when, _ in back), sums, whole, limit.capacity)


def _left_of(own: Counter | None, row: LimitRow, rate: float, now: float) -> float:
    """What is left of a bucket that refills by *rate*: of a large one, the next unit may be minutes away."""
    if own is None:
        return max(row.capacity * SHARE, 1.0) - row.used - row.reserved
    whole = own.room(now, now)
    wait = own.wait(whole + 1, now)
    part = 1.0 - wait * rate if wait < inf else 0.0  # below 0 while there is a debt
    others = row.used - own.used(now) + row.reserved - own.held
    return whole + part - max(others, 0)
