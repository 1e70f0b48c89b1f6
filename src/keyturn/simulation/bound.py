"""The most that anybody could have served: calls as a fluid, limits known exactly, nothing under way, nothing wrong.

Time is cut into slots of 10 s. In each slot every class of accounts that are alike (same provider, same limits, same
mishaps) offers

    offer = n * min over its limits of (capacity - used) / cost

calls, n accounts together, where cost is 1 for requests and the average tokens of a call for tokens; a limit gives
back what its kind gives back (rolling: what was taken a window ago; fixed and calendar: all of it at its end; bucket:
an even stream), at the earliest moment that the slots allow. Calls come at the beginning of their slot and may wait
until the end of the slot in which their patience ends; who must go first is served first. The accounts with the least
slack are used first:

    slack = time until what is unused is lost - time that it takes to use all of it

What is unused is lost at the end of a fixed day, in a bucket that is full, and at the end of the simulation.

    bound = sum over all slots of min(waiting, sum of offers)

Nothing that is refused, lost or on its way takes anything. So a strategy that serves 99 % of it wastes nearly nothing.
What it serves is compared in calls and in tokens, and the smaller share counts: who prefers small calls serves more of
them, and fewer tokens.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import chain
from operator import attrgetter
from typing import NamedTuple, Protocol
from zoneinfo import ZoneInfo

from .arrivals import DAY, Asked
from .played import PlayedKey, persona_of, true_limits
from .shape import Scenario

SLOT = 10.0
MOST_OBEYED = 900.0
"""Seconds after which nobody comes back to ask again."""
LENGTHS = {"rps": 1.0, "rpm": 60.0, "tpm": 60.0, "rpd": DAY, "tpd": DAY}


class Tank(Protocol):
    """One limit of a class of accounts, in calls."""

    left: float
    """What is free of it."""

    def take(self, amount: float) -> None: ...
    def tick(self, wall: float) -> None:
        """A slot begins at *wall*, Unix seconds."""
        ...

    def lost(self, wall: float, ends: float) -> tuple[float, float]:
        """When what is unused begins to be lost, at the latest at *ends*, and how much there is to use until then."""
        ...


class _Rate:
    """A window shorter than a slot: so much in each slot."""

    def __init__(self, capacity: float, seconds: float) -> None:
        self._most = self.left = capacity * SLOT / seconds

    def take(self, amount: float) -> None:
        self.left -= amount

    def tick(self, wall: float) -> None:
        self.left = self._most

    def lost(self, wall: float, ends: float) -> tuple[float, float]:
        return ends, self._most * (ends - wall) / SLOT


class _Rolling:
    """What was taken a window ago comes back."""

    def __init__(self, capacity: float, seconds: float) -> None:
        self.left = capacity
        self._taken = deque([0.0] * round(seconds / SLOT))

    def take(self, amount: float) -> None:
        self.left -= amount
        self._taken[-1] += amount

    def tick(self, wall: float) -> None:
        self.left += self._taken.popleft()
        self._taken.append(0.0)

    def lost(self, wall: float, ends: float) -> tuple[float, float]:
        return ends, self.left


class _Fixed:
    """All of it comes back at the next multiple of the window, of a calendar day at midnight in its zone."""

    def __init__(self, capacity: float, seconds: float, zone: str = "") -> None:
        self._capacity = self.left = capacity
        self._seconds = seconds
        self._zone = ZoneInfo(zone) if zone else None
        self._ends = -math.inf

    def take(self, amount: float) -> None:
        self.left -= amount

    def tick(self, wall: float) -> None:
        if wall >= self._ends:
            self.left = self._capacity
            self._ends = self._end_of(wall)

    def lost(self, wall: float, ends: float) -> tuple[float, float]:
        return min(ends, self._ends), self.left

    def _end_of(self, wall: float) -> float:
        if self._zone is None:
            return (math.floor(wall / self._seconds) + 1) * self._seconds
        today = datetime.fromtimestamp(wall, UTC).astimezone(self._zone).date()
        return datetime.combine(today + timedelta(days=1), time(), self._zone).timestamp()


class _Bucket:
    """Begins full and fills up evenly; what comes in the course of a slot may be taken at its beginning."""

    def __init__(self, capacity: float, seconds: float) -> None:
        self._capacity = self.left = capacity
        self._stream = capacity * SLOT / seconds

    def take(self, amount: float) -> None:
        self.left -= amount

    def tick(self, wall: float) -> None:
        self.left = min(self._capacity, self.left) + self._stream

    def lost(self, wall: float, ends: float) -> tuple[float, float]:
        full = wall + (self._capacity - self.left) / self._stream * SLOT
        if full < ends:
            return full, 0.0
        return ends, self.left + self._stream * (ends - wall) / SLOT


class _Class:
    """Accounts that are alike."""

    def __init__(self, short: Sequence[Tank], day: Sequence[Tank], keys: Sequence[PlayedKey], speed: float) -> None:
        """*speed*: calls that its short limits allow in a slot."""
        self._speed = speed / SLOT
        self.tanks = (*short, *day)
        self.day = day
        self.keys = keys

    def offer(self, now: float) -> float:
        for key in self.keys:
            if key.state(now) == "ok":
                return max(0.0, min([tank.left for tank in self.tanks], default=math.inf))
        return 0.0

    def slack(self, wall: float, ends: float) -> float:
        """How long it may be left unused before something is lost. Seconds; below 0: some will be lost."""
        if not self.day:
            return -math.inf
        speed = self._speed
        return min([lost - wall - amount / speed for lost, amount in [tank.lost(wall, ends) for tank in self.day]])

    def take(self, amount: float) -> None:
        for tank in self.tanks:
            tank.take(amount)

    def tick(self, wall: float) -> None:
        for tank in self.tanks:
            tank.tick(wall)


class _Line:
    """Calls of one patience, those that came first in front: until when each may wait, and how many may so long."""

    __slots__ = ("counts", "untils")

    def __init__(self) -> None:
        self.untils: deque[float] = deque()
        self.counts: deque[float] = deque()


class Bound(NamedTuple):
    """What could have been served: calls, and tokens of input and output."""

    served: float
    tokens: float
    asked: int


def bound(
    scenario: Scenario, calls: Sequence[Asked], keys: Sequence[PlayedKey], start_wall: float, *, in_order: bool = False
) -> Bound:
    """The fluid bound of *scenario* with these calls and keys; *start_wall*: Unix seconds at its beginning.

    *in_order*: of those who ask providers in the order of the scenario, each as far as it goes.
    """
    order = {name: place if in_order else 0 for place, name in enumerate(scenario.providers)}
    sizes = _mean(calls)
    classes = _classes(scenario, keys, sizes)
    lines: dict[float, _Line] = {}
    coming = _by_slot(calls)
    total, slot = 0.0, 0
    while slot * SLOT < scenario.duration:
        now = slot * SLOT
        for patience, count in coming.get(slot, {}).items():
            line = lines.setdefault(patience, _Line())
            line.untils.append(now + SLOT * math.ceil(patience / SLOT) + SLOT)
            line.counts.append(float(count))
        for each in classes:
            each.tick(start_wall + now)
        waiting = sum(chain.from_iterable([line.counts for line in lines.values()]))
        served = _fill(classes, waiting, now, order, start_wall, start_wall + scenario.duration) if waiting else 0.0
        total += served
        _leave(lines, served, now + SLOT)
        slot += 1
    return Bound(total, total * sum(sizes), len(calls))


def _by_slot(calls: Sequence[Asked]) -> dict[int, dict[float, int]]:
    """How many calls come in each slot, by how long they may wait in all."""
    found: dict[int, dict[float, int]] = {}
    for asked in sorted(calls, key=attrgetter("at")):
        patience = asked.patience + (MOST_OBEYED + asked.patience if asked.obeys else 0.0)
        counts = found.setdefault(int(asked.at // SLOT), {})
        counts[patience] = counts.get(patience, 0) + 1
    return found


def _fill(
    classes: Sequence[_Class], waiting: float, now: float, order: Mapping[str, int], start_wall: float, ends: float
) -> float:
    left, wall = waiting, start_wall + now
    offers = [(each, offer) for each in classes if (offer := each.offer(now)) > 0]
    if len(offers) > 1:
        offers.sort(key=lambda each: (order[each[0].keys[0].provider], each[0].slack(wall, ends)))
    for each, offer in offers:
        amount = min(left, offer)
        each.take(amount)
        left -= amount
        if left <= 1e-9:
            break
    return waiting - left


def _leave(lines: Mapping[float, _Line], served: float, now: float) -> None:
    """Who must go first was served first; who waited too long leaves."""
    while served > 1e-9:
        line = min([line for line in lines.values() if line.untils], key=lambda line: line.untils[0])
        amount = min(served, line.counts[0])
        line.counts[0] -= amount
        served -= amount
        if line.counts[0] <= 1e-9:
            line.untils.popleft()
            line.counts.popleft()
    for line in lines.values():
        while line.untils and line.untils[0] <= now:
            line.untils.popleft()
            line.counts.popleft()


def _mean(calls: Sequence[Asked]) -> tuple[float, float]:
    """Average tokens of input and of output."""
    count = max(1, len(calls))
    return sum(asked.input for asked in calls) / count, sum(asked.output for asked in calls) / count


def _classes(scenario: Scenario, keys: Sequence[PlayedKey], sizes: tuple[float, float]) -> list[_Class]:
    accounts: dict[str, list[PlayedKey]] = {}
    for key in keys:
        accounts.setdefault(key.account, []).append(key)
    alike: Counter[tuple[object, ...]] = Counter()
    first: dict[tuple[object, ...], list[PlayedKey]] = {}
    for group in accounts.values():
        if all(key.dies <= 0.0 for key in group):  # it never gives anything
            continue
        lives = tuple(sorted({(key.dies, *map(tuple, key.outages)) for key in group}))
        mark = (group[0].provider, group[0].halved, lives)
        alike[mark] += 1
        first.setdefault(mark, group)
    return [_class(scenario, first[mark], count, sizes) for mark, count in alike.items()]


def _class(scenario: Scenario, keys: Sequence[PlayedKey], count: int, sizes: tuple[float, float]) -> _Class:
    name = keys[0].provider
    upstream, persona = scenario.providers[name], persona_of(name, scenario.providers[name])
    input_tokens, output_tokens = sizes
    tokens = input_tokens + (0.0 if persona.charge == "input" else output_tokens)
    short: list[Tank] = []
    day: list[Tank] = []
    speed = math.inf
    for limit, capacity in true_limits(upstream, keys[0].halved).items():
        if limit == "concurrency":
            lasts = max(0.001, sum(upstream.latency) / 2)
            short.append(_Rate(count * capacity, lasts))
            speed = min(speed, count * capacity * SLOT / lasts)
            continue
        amount = count * capacity / (tokens if limit[0] == "t" else 1.0)
        seconds = LENGTHS[limit]
        kind = (upstream.day or persona.day) if seconds == DAY else (upstream.window or persona.minute)
        zone = (upstream.zone or persona.zone) if kind == "calendar" else ""
        (day if seconds == DAY else short).append(_tank(kind, amount, seconds, zone))
        speed = min(speed, amount * SLOT / seconds) if seconds < DAY else speed
    return _Class(short, day, keys, speed)


def _tank(kind: str, amount: float, seconds: float, zone: str) -> Tank:
    if seconds <= SLOT:
        return _Rate(amount, seconds)
    if kind == "bucket":
        return _Bucket(amount, seconds)
    return _Rolling(amount, seconds) if kind == "rolling" else _Fixed(amount, seconds, zone)
