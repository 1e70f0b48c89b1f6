"""How many calls some keys will take by when, from what their limits say.

A supply is worked out only where it is asked: it keeps how each limit stood when it was made, and adds the keys up at
the few moments that a binary search looks at: those of a grid, those at which a key returns or a day begins anew, and
ever more between two of them. From such a moment on a key takes no more than the pace of its short limits allows.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from math import ceil, inf
from operator import itemgetter
from typing import NamedTuple

from .counters import SHARE, Counter
from .limitbook import Limit, LimitRow
from .windows import slots_of

FAR = 130.0
"""Seconds from now after which limits of up to an hour are taken to give back evenly what they take."""
GRID = (
    *(each * 0.5 for each in range(40)),
    *(float(each) for each in range(20, 64)),
    *(float(each) for each in range(64, int(FAR), 2)),
    *(150.0, 183.0, 240.0, 300.0, 450.0, 600.0, 900.0, 1350.0, 1800.0, 2700.0, 3600.0, 5400.0, 7200.0),
    *(10_800.0, 21_600.0, 43_200.0, 90_000.0, 180_000.0, 360_000.0, 720_000.0),
)
"""Seconds from now at which a supply is worked out."""
FINE, FINEST = 0.002, 2.0
"""Between these a time is looked for until it is known to so much of it, and to so many seconds. Within that a supply
is taken to grow evenly."""
MOST_MOMENTS = 2
"""Far moments at which a key gets more that are told apart to `TICK`; of more, the first."""
SHORT = 3600.0
"""Seconds: a limit of at most so many sets the pace of a key."""
TICK = 0.001
"""Seconds: moments that are as near to each other are not told apart."""
TINY = 1e-6
"""Units that are lost in rounding."""
PLENTY = 1e9
"""Calls that a key without any limit is taken to bear."""
NOTHING = (0.0, 0)
"""What no key comes to."""


class Refill(NamedTuple):
    """One limit of a key: how it stands, and how much of it one call takes."""

    limit: Limit
    own: Counter | None
    """What this process counted."""
    row: LimitRow | None
    """How it stands over all that share it; None where nobody else counts it."""
    unit: float


class Return(NamedTuple):
    """What one limit gives back by when, in its units. Rolling windows, days and months, and buckets in one form."""

    unit: float
    free: float
    """Now; below 0 while there is a debt."""
    rate: float
    """That come back each second."""
    times: tuple[float, ...]
    """Seconds from now at which more comes back, rising."""
    sums: tuple[float, ...]
    """How much has by each of them."""
    whole: float
    """Seconds after which what was taken first comes back once more, and all of it then; infinite: never."""
    capacity: float

    @property
    def pace(self) -> float:
        """Calls a second that it bears for ever; infinite for one that is longer than an hour."""
        if self.rate:
            return self.rate / self.unit if self.capacity <= self.rate * SHORT else inf
        return self.capacity / self.whole / self.unit if self.whole <= 2 * SHORT else inf


PROBE = Return(1.0, 1.0, 0.0, (), (), inf, 1.0)
"""A key of which no more is known than that it may be tried once."""


class KeySupply:
    """One key, as it stood at a moment (monotonic seconds), from which all its times count."""

    __slots__ = ("_levels", "_moments", "_pace", "at", "blocked", "first", "kinks", "returns")

    def __init__(self, blocked: float, returns: Sequence[Return], at: float = 0.0) -> None:
        self.at = at
        self.blocked = blocked
        """Seconds until it can be used at all."""
        self.returns = tuple(sorted(returns, key=_lasts, reverse=True))
        self.first = max([blocked, 0.0, *map(_first, self.returns)])
        """Before that it takes nothing."""
        self.kinks: tuple[float, ...] = ()
        """Just before far moments at which it gets more, and these."""
        paces = [each.pace for each in self.returns]
        self._pace = min(paces, default=inf)
        self._moments: list[float] = []
        """Far ones at which it gets more at once than it can take at once."""
        self._levels: list[float] = []
        """From each on it takes no more than this, and its pace since now."""
        named = zip(self.returns, paces, strict=True)
        far = [each for each, pace in named if pace == inf and each.times and each.times[-1] > FAR]
        if far or blocked > FAR:
            self._find_moments(far, paces)

    def calls(self, ahead: float) -> float:
        """How many calls it will have taken in all so many seconds *ahead*, if it is used as soon as it can be."""
        if ahead < self.blocked:
            return 0.0
        allowed = PLENTY
        for unit, free, rate, times, sums, whole, capacity in self.returns:
            if allowed * unit <= free:  # as it is, it lets through as many
                continue
            units, turned, left = free + rate * ahead, 0.0, ahead
            if ahead >= whole:
                turns = ahead // whole
                turned, left = turns * capacity, ahead - turns * whole
            if times:
                at = bisect_right(times, left)
                if at:
                    units += sums[at - 1]
            # a part of a unit is none
            calls = (((units + TINY) // 1.0 if units > 0.0 else 0.0) + turned) / unit
            if calls < allowed:
                if not calls:
                    return 0.0
                allowed = calls
        if not self._moments:
            return allowed
        at = bisect_right(self._moments, ahead)
        return min(allowed, self._levels[at - 1] + self._pace * ahead) if at else allowed

    def _find_moments(self, far: Sequence[Return], paces: Sequence[float]) -> None:
        """*far*: its limits that give back so late. *paces*: of each of its limits."""
        moments = {self.blocked} if self.blocked > FAR else set()
        named = zip(self.returns, paces, strict=True)
        burst = min([each.capacity / each.unit for each, pace in named if pace < inf], default=1.0)
        for each in far:
            least = burst * each.unit
            steps = zip(each.times, each.sums, (0.0, *each.sums), strict=False)
            moments.update(when for when, by, before in steps if when > FAR and by - before > least)
        level = inf
        for moment in sorted(moments):
            if len(self.kinks) < 2 * MOST_MOMENTS:
                begins = ceil(moment / TICK) * TICK
                self.kinks += (begins - 2 * TICK, begins)
            if self._pace == inf:
                continue
            before = self.calls(moment - TICK)
            level = min(level, before + 1.0 - self._pace * moment)
            self._moments.append(moment)
            self._levels.append(level)


def _lasts(limit: Return) -> float:
    return limit.whole


def _first(limit: Return) -> float:
    """Seconds within which it lets nothing through; fewer than that is true where nobody knows."""
    if limit.free >= 1.0 - TINY:
        return 0.0
    if limit.rate:
        return (1.0 - TINY - limit.free) / limit.rate
    at = bisect_left(limit.sums, 1.0 - TINY - limit.free)
    return min(limit.times[at] if at < len(limit.times) else inf, limit.whole)


class _Step(NamedTuple):
    """Between two moments a supply grows from *before* to *after*, evenly as far as it was worked out."""

    after: float
    before: float
    begins: float
    ends: float


class Supply:
    """How many calls some keys will take by when."""

    __slots__ = ("_added", "_grid", "_keys", "_most", "_steps")

    def __init__(self, keys: Mapping[KeySupply, float], now: float = 0.0) -> None:
        """As *keys* stand now, of each so many."""
        self._keys = sorted(
            [(key.first + key.at - now, now - key.at, key, many) for key, many in keys.items()], key=itemgetter(0)
        )
        self._added: dict[float, tuple[float, int]] = {}
        """By seconds from now: what its first keys come to, and how many these are, as far as somebody asked."""
        kinks = {(past, key.kinks) for _, past, key, _ in self._keys if key.kinks}
        moments = {round(kink - past, 6) for past, those in kinks for kink in those}
        self._grid: Sequence[float] = sorted({*GRID, *moments}) if moments else GRID
        self._most = inf
        """What it comes to at most, once that is known."""
        self._steps: list[_Step] = []
        """What was found, rising."""

    def time_for(self, calls: float) -> float:
        """Seconds after which so many will have been taken; infinite when they never will."""
        wanted, steps = calls - 1e-9, self._steps
        at = bisect_left(steps, (wanted,))
        if at == len(steps) or steps[at].before >= wanted:
            if wanted > self._most:
                return inf
            fewer = steps[at - 1].ends if at else -inf
            enough = steps[at].begins if at < len(steps) else inf
            step = self._searched(wanted, fewer, enough)
            if step is None:
                return inf
            steps.insert(at, step)
        after, before, begins, ends = steps[at]
        if ends - begins < 3 * TICK:
            return ends
        return begins + min((calls - before) / (after - before), 1.0) * (ends - begins)

    def _searched(self, wanted: float, fewer: float, enough: float) -> _Step | None:
        """In which step of it so many will have been taken; None: in none. By *fewer* they are not, by *enough* they
        are: as a supply never shrinks, only moments between these need be looked at."""
        grid, low, high = self._grid, -1, len(self._grid)
        while high - low > 1:
            middle = (low + high) // 2
            moment = grid[middle]
            if moment >= enough or (moment > fewer and self._by(moment, wanted) >= wanted):
                high = middle
            else:
                low = middle
        if high == len(grid):
            self._most = min(self._most, self._by(grid[-1]))
            return None
        if low < 0:
            return _Step(self._by(grid[0]), -inf, grid[0], grid[0])
        begins, ends = grid[low], grid[high]
        while ends - begins > max(FINE * begins, FINEST):
            between = (begins + ends) / 2.0
            if between >= enough or (between > fewer and self._by(between, wanted) >= wanted):
                ends = between
            else:
                begins = between
        return _Step(self._by(ends), self._by(begins), begins, ends)

    def _by(self, ahead: float, wanted: float = inf) -> float:
        """How many calls by then. If these are *wanted* or more: no fewer than *wanted*, and not more than all."""
        keys, every = self._keys, len(self._keys)
        found, added = self._added.get(ahead, NOTHING)
        while added < every and found < wanted:
            first, past, key, many = keys[added]
            if first > ahead:  # nor do those that come after it
                added = every
                break
            found += key.calls(ahead + past) * many
            added += 1
        self._added[ahead] = found, added
        return found


def returns_of(refills: Iterable[Refill], now: float) -> tuple[Return, ...]:
    """What limits give back from *now* on; those of calls at once are left out, as nobody knows when one ends."""
    return tuple([_return_of(each, now) for each in refills if each.limit.window.kind != "inflight"])


def _return_of(refill: Refill, now: float) -> Return:
    limit, own, row, unit = refill
    window, capacity = limit.window, limit.capacity
    own_used, held = (0, 0) if own is None else (own.used(now), own.held)
    used, reserved = (own_used, held) if row is None else (row.used, row.reserved)
    if window.kind == "bucket":
        rate = capacity * SHARE / window.seconds
        left = _left_of(own, capacity, rate, now) - max(used - own_used + reserved - held, 0)
        return Return(unit, left, rate, (), (), inf, capacity)
    free = capacity - used - reserved
    if window.kind != "rolling":  # a day or a month: nothing comes back before its end
        begins_anew = row.resets_in if row is not None else 0.0 if own is None else own.whole_in(now)
        ends = (begins_anew, begins_anew + window.seconds)
        return Return(unit, max(free, 0), 0.0, ends, (capacity, 2 * capacity), inf, capacity)
    whole = _whole(window.seconds)
    if not used:
        return Return(unit, free, 0.0, (), (), whole, capacity)
    back = [] if own is None else own.schedule(now)
    if row is not None and used > own_used:  # by others: nobody knows when, but by when all is back
        back = sorted([*back, (row.resets_in, used - own_used)])
    times = tuple([when for when, _ in back])
    return Return(unit, free, 0.0, times, tuple(accumulate([units for _, units in back])), whole, capacity)


@lru_cache
def _whole(seconds: float) -> float:
    """After how long what a rolling window of *seconds* took first comes back."""
    slots, guard = slots_of(seconds)
    return seconds * (slots + guard + 1) / slots


def _left_of(own: Counter | None, capacity: int, rate: float, now: float) -> float:
    """What *own* leaves of a bucket that refills by *rate*: of a large one, the next unit may be minutes away."""
    if own is None:
        return max(capacity * SHARE, 1.0)
    whole = own.room(now, now)
    wait = own.wait(whole + 1, now)
    part = 1.0 - wait * rate if wait < inf else 0.0  # below 0 while there is a debt
    return whole + part
