"""How claims and limits are told to the scripts, and how the scripts' answers are read."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

from keyturn.core import LATE, Claim, Denied, Limit, day_of, gravest, month_of, slots_of

from .redis_port import Argument

MOST = 2**53 - 1
"""Scripts count in doubles, which are exact so far: a budget above 9 million dollars counts as one of that."""
KINDS = {"rolling": "r", "calendar": "c", "month": "c", "bucket": "b", "inflight": "i"}


class Figures(NamedTuple):
    """How all gateways together stand at one limit. Seconds."""

    used: int
    held: int
    whole_in: float
    wait: float = 0.0
    """Of a denial: until the cost fits; infinite when only others can free it."""
    wait_any: float = 0.0


class Answer(NamedTuple):
    """What `reserve` said."""

    code: int
    """1 reserved, 0 denied, 2 a cooldown became known, 3 the id was released before."""
    version: int
    """Of the marks."""
    changes: list[bytes] | None
    """Scope, mark, scope, mark …; None: too many to tell."""
    rows: list[Figures]


def name_of(limit: Limit) -> str:
    """What the limit's counter is called; the models in it come from clients and may hold anything."""
    key = limit.key
    return key if key.isascii() else key.encode("utf-8", "backslashreplace").decode()


class Specs:
    """Writes limits and claims as arguments. It remembers the present day and month of each zone."""

    def __init__(self) -> None:
        self._periods: dict[tuple[str, str], tuple[float, float, float]] = {}

    def limit(self, limit: Limit, wall: float) -> list[Argument]:
        """Name, kind, capacity and three numbers of the kind. *wall* is Redis's time."""
        kind, seconds, zone = limit.window
        spec: tuple[Argument, Argument, Argument] = (0, 0, 0)
        if kind == "rolling":
            slots, guard = slots_of(seconds)
            spec = (repr(seconds / slots), slots + guard + 1, 0)
        elif kind == "bucket":
            spec = (repr(seconds), 0, 0)
        elif kind != "inflight":
            starts, ends, after = self._period(kind, zone, wall)
            spec = (repr(starts), repr(ends), repr(after))
        return [name_of(limit), KINDS[kind], min(limit.capacity, MOST), *spec]

    def claim(self, claim: Claim, wall: float) -> list[Argument]:
        """The limit, the cost and the flags that `reserve` and `admit` expect."""
        metric = claim.limit.metric
        flags = "l" * (metric in LATE) + "m" * (metric == "cost") + "c" * (metric == "concurrency")
        return [*self.limit(claim.limit, wall), min(claim.cost, MOST), flags]

    def _period(self, kind: str, zone: str, wall: float) -> tuple[float, float, float]:
        """The present period and the end of the next: Redis may be in that by the time that it reads this."""
        found = self._periods.get((kind, zone))
        if found is None or not found[0] <= wall < found[1]:
            period_of = month_of if kind == "month" else day_of
            starts, ends = period_of(wall, zone)
            found = self._periods[kind, zone] = (starts, ends, period_of(ends, zone)[1])
        return found


def answer_of(reply: Sequence[Any]) -> Answer:
    """The reply of `reserve`."""
    code, _, version, changes, rows = reply
    return Answer(int(code), int(version), changes, [figures_of(row) for row in rows])


def figures_of(row: Sequence[bytes]) -> Figures:
    """One row of `reserve` or `figures`."""
    numbers = [float(each) for each in row]
    return Figures(int(numbers[0]), int(numbers[1]), *numbers[2:])


def denial(claims: Sequence[Claim], waits: Sequence[tuple[float, float]]) -> Denied:
    """Why *claims* were denied, given how long each has to wait, and how long anything at all."""
    rows = zip(claims, waits, strict=True)
    return gravest([Denied(wait, claim.limit, any_wait) for claim, (wait, any_wait) in rows])


class Last(NamedTuple):
    """What was denied last at a limit. Moments are monotonic seconds."""

    limit: Limit
    cost: int
    until: float
    """As much as *cost* is not asked for before."""
    fits: float
    fits_any: float
    """When anything at all fits."""
    others: bool
    """Somebody here was told that only others can free it, and waits to be woken."""


class Denials:
    """What was denied last at each limit: as much is not asked for again until it can fit, or came free."""

    MOST = 4096
    RECHECK = 1.0
    """Seconds after which a limit that only others can free is asked about again: the news of it may have been lost."""

    def __init__(self) -> None:
        self._last: dict[str, Last] = {}
        """By name of the limit."""
        self._forgotten: dict[str, None] = {}
        """Scopes that somebody is to be woken at, though what was denied there had to be forgotten."""

    def __len__(self) -> int:
        return len(self._last)

    def note(self, claims: Sequence[Claim], rows: Sequence[Figures], now: float) -> Denied:
        """Remember a denial, and say it."""
        if len(self._last) >= self.MOST:
            self._forget(now)
        for claim, row in zip(claims, rows, strict=True):
            if row.wait > 0.0:
                name, until = name_of(claim.limit), now + (self.RECHECK if row.wait == inf else row.wait)
                before = self._last.get(name)
                others = row.wait == inf or row.wait_any == inf or (before is not None and before.others)
                if others:  # who was told before that time is of no use looks again soon, whatever others are told now
                    until = min(until, now + self.RECHECK)
                self._last[name] = Last(claim.limit, claim.cost, until, now + row.wait, now + row.wait_any, others)
        return denial(claims, [(row.wait, row.wait_any) for row in rows])

    def known(self, claims: Sequence[Claim], now: float) -> Denied | None:
        """The denial of *claims*, as far as it is known without asking."""
        if not self._last or any(claim.floor > claim.limit.capacity for claim in claims):
            return None
        waits = [self._waits(claim, now) for claim in claims]
        return denial(claims, waits) if any(wait for wait, _ in waits) else None

    def _waits(self, claim: Claim, now: float) -> tuple[float, float]:
        last = self._last.get(name_of(claim.limit))
        if last is None or now >= last.until or claim.cost < last.cost or claim.limit.capacity > last.limit.capacity:
            return 0.0, 0.0
        return last.fits - now, max(0.0, last.fits_any - now)

    def lift(self, name: str) -> str | None:
        """The limit called *name* came free: the scope of who was denied there; None when nobody was."""
        last = self._last.pop(name, None)
        return None if last is None else last.limit.scope

    def widen(self, scope: str, limits: Sequence[Limit]) -> bool:
        """*limits* hold for *scope* now. True when somebody was denied by one that was smaller, or is gone."""
        capacities = {limit.key: limit.capacity for limit in limits}
        over = [
            name
            for name, last in self._last.items()
            if last.limit.scope == scope and capacities.get(last.limit.key, inf) > last.limit.capacity
        ]
        for name in over:
            del self._last[name]
        return bool(over)

    def stale(self, now: float) -> list[str]:
        """Scopes of limits that only others can free and that were not heard of for a while; forget what is over."""
        over = [name for name, last in self._last.items() if last.until <= now]
        gone = [self._last.pop(name) for name in over]
        scopes = dict.fromkeys(last.limit.scope for last in gone if last.others) | self._forgotten
        self._forgotten = {}
        return list(scopes)

    def clear(self) -> list[str]:
        """Forget all; the scopes of who was denied."""
        scopes = dict.fromkeys(last.limit.scope for last in self._last.values()) | self._forgotten
        self._last.clear()
        self._forgotten = {}
        return list(scopes)

    def _forget(self, now: float) -> None:
        """Make room: what is over, and at worst all. Redis says it again."""
        over = [name for name, last in self._last.items() if last.until <= now]
        for name in over if len(over) < len(self._last) and over else list(self._last):
            last = self._last.pop(name)
            if last.others:
                self._forgotten[last.limit.scope] = None
