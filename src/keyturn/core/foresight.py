"""When a call that waits will have its turn: what callers ask for lately, and who was told to come back.

    answers    how long they take for those who waited: who waits any longer than leaves so much waits in vain
    demand     what is asked for: who asks for more than its share will go on to, probably
    promises   who was refused was told when to come back, and has a claim on what comes free then

How many calls keys take by when: `supply`. The work that is done before a call: `crowd`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from math import exp, inf
from typing import NamedTuple

from .crowd import Weighed
from .model import CallerClass, Deployment

GRACE = 2.0
LATENESS = 0.1
"""Who comes back is expected until so many seconds after, and until so much of its wait after, when it was told to."""
LONGEST = 3600.0
"""Seconds ahead that a promise is kept in mind at most."""
MOST_PROMISES = 10_000
MOST_OF_ONE = 1000
"""Promises that one caller may have once half of all are made: nobody fills the book for the others."""
FEW = 1000
"""Promises that are over and may still be remembered, beside as many as are open."""
MOST_CALLERS = 1024
"""Callers of whom it is remembered how many of them come back."""
UNKNOWN = (0.0, 1.0)
"""What share that is, at least and at most, as long as nothing is known."""
LEARNS = 0.05
"""How much one that comes back, or does not, changes it."""
FOLLOWS = 0.125
"""How far the usual time of an answer moves towards the latest."""
MOST_TIMED = 1024
"""Deployments of which it is remembered, streams apart."""
DEMAND = 30.0
"""Seconds in which what was asked for loses two thirds of its weight."""
SPAN = 2.0
"""Seconds within which it is not told apart which of two promises is the earlier, in sums."""


class Foreseen(NamedTuple):
    """What a call has to expect that cannot be answered at once."""

    wait: float | None
    """Seconds until its turn; None when nobody knows."""
    position: int
    """Its place in the line, from 1."""


class Answers:
    """How long answers take until they begin, or are there as a whole, for calls that had to wait for a key."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: dict[tuple[Deployment, bool], tuple[float, float]] = {}
        """The mean of late, and how far from it they are; the one observed last stands last."""

    def observe(self, deployment: Deployment, seconds: float, *, stream: bool) -> None:
        """One took so long."""
        key = (deployment, stream)
        mean, off = self._times.pop(key, (seconds, 0.0))
        off += (abs(seconds - mean) - off) * FOLLOWS
        self._times[key] = mean + (seconds - mean) * FOLLOWS, off
        if len(self._times) > MOST_TIMED:
            del self._times[next(iter(self._times))]

    def usual(self, deployment: Deployment, *, stream: bool) -> float:
        """Within how long most are there; 0 while nothing is known."""
        return sum(self._times.get((deployment, stream), (0.0, 0.0)))


class Demand:
    """How much work callers ask for lately, per second: who asks for more than its share will go on to, probably."""

    __slots__ = ("_rates",)

    def __init__(self) -> None:
        self._rates: dict[tuple[tuple[Deployment, ...], CallerClass, str], tuple[float, float, float]] = {}
        """Work and calls per second, and when that was so; the one that asked last stands last."""

    def asked(
        self, deployments: tuple[Deployment, ...], rank: CallerClass, caller: str, work: float, now: float
    ) -> None:
        """A call of *caller* that makes so much work came, and could not be answered at once."""
        key = (deployments, rank, caller)
        rate, calls, since = self._rates.pop(key, (0.0, 0.0, now))
        fades = exp((since - now) / DEMAND)
        self._rates[key] = rate * fades + work / DEMAND, calls * fades + 1 / DEMAND, now
        if len(self._rates) > MOST_CALLERS:
            del self._rates[next(iter(self._rates))]

    def coming(
        self, deployments: tuple[Deployment, ...], rank: CallerClass, caller: str, now: float
    ) -> tuple[float, float]:
        """Work and calls that *caller* asks for in a second, as far as it goes on as lately."""
        rate = self._rates.get((deployments, rank, caller))
        if rate is None:
            return 0.0, 0.0
        fades = exp((rate[2] - now) / DEMAND)
        return rate[0] * fades, rate[1] * fades


class Promise:
    """Somebody was told to come back at a moment (monotonic seconds). *number*: its place, as it first came."""

    __slots__ = ("at", "caller", "cost", "deployments", "number", "open", "patience", "rank", "size", "until", "weight")

    def __init__(
        self,
        number: int,
        at: float,
        until: float,
        deployments: tuple[Deployment, ...],
        rank: CallerClass,
        caller: str,
        weight: float,
        cost: int,
        size: int,
        patience: float,
    ) -> None:
        self.number = number
        self.at = at
        self.until = until
        self.deployments = deployments
        self.rank: CallerClass = rank
        self.caller = caller
        self.weight = weight
        self.cost = cost
        self.size = size
        """Bytes of its request: by that it is known again."""
        self.patience = patience
        """Seconds that it would have waited."""
        self.open = True

    def __lt__(self, other: Promise) -> bool:
        return self.at < other.at


class _Claim:
    """What is promised to one caller of a class."""

    __slots__ = ("_order", "_spans", "calls", "weight", "work")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.work = 0
        self.calls = 0
        self._spans: dict[int, tuple[int, int]] = {}
        """Work and calls, by the span of time that they are promised for."""
        self._order: list[int] = []
        """These spans, rising."""

    def change(self, promise: Promise, step: int) -> None:
        """*promise* is made (1), or over (-1)."""
        span = int(promise.at // SPAN)
        found = self._spans.get(span)
        if found is None:
            insort(self._order, span)
        work, calls = found or (0, 0)
        self.work += step * promise.cost
        self.calls += step
        if calls + step:
            self._spans[span] = (work + step * promise.cost, calls + step)
        else:
            del self._spans[span]
            del self._order[bisect_left(self._order, span)]

    def until(self, moment: float) -> tuple[float, float]:
        """Work and calls that are promised for no later than *moment*, or for the same span."""
        if moment == inf:
            return float(self.work), float(self.calls)
        last = int(moment // SPAN)
        work = calls = 0
        for span in self._order:
            if span > last:
                break
            more, others = self._spans[span]
            work += more
            calls += others
        return float(work), float(calls)


class Promises:
    """Who was told to come back, and when. At most 10,000, and once there are half as many, at most 1,000 of a caller:
    others are told when, and not reckoned with.

    Who comes back is known by its caller and the size of its request, and takes up the earliest promise that is due,
    with the place that it had. A promise that nobody takes up is forgotten a little later. How many of a caller's calls
    come back is learned. As long as it is not known, whoever is told when to come back is told it as if all did, and
    whoever would rather wait here may do so as if nobody did: who comes back goes before it.
    """

    __slots__ = ("_by_call", "_count", "_due", "_faith", "_lines", "_of", "_pushed", "callers", "open")

    def __init__(self) -> None:
        self.open = 0
        """How many are open."""
        self.callers = 0
        """To how many callers, each once for each class and those who may answer."""
        self._lines: dict[tuple[Deployment, ...], dict[tuple[CallerClass, str], _Claim]] = {}
        self._of: dict[Deployment, dict[tuple[Deployment, ...], None]] = {}
        """In which of these each deployment stands."""
        self._by_call: dict[tuple[object, ...], list[Promise]] = {}
        """By caller, size and who may answer; the earliest first."""
        self._due: list[tuple[float, int, Promise]] = []
        """By when they are given up."""
        self._pushed = 0
        self._count: Counter[str] = Counter()
        """How many each caller has."""
        self._faith: dict[str, tuple[float, float]] = {}

    def make(self, promise: Promise, now: float) -> bool:
        """Keep *promise* in mind; False when it is too far ahead, or there are too many, or too many of its caller."""
        self.expire(now)
        if self.open >= MOST_PROMISES or promise.at > now + LONGEST:
            return False
        if self.open >= MOST_PROMISES / 2 and self._count[promise.caller] >= MOST_OF_ONE:
            return False
        self.open += 1
        self._count[promise.caller] += 1
        line = self._lines.get(promise.deployments)
        if line is None:
            line = self._lines[promise.deployments] = {}
            for deployment in promise.deployments:
                self._of.setdefault(deployment, {})[promise.deployments] = None
        owner = (promise.rank, promise.caller)
        if owner not in line:
            line[owner] = _Claim(promise.weight)
            self.callers += 1
        line[owner].change(promise, 1)
        insort(self._by_call.setdefault(_mark(promise), []), promise)
        self._pushed += 1
        heappush(self._due, (promise.until, self._pushed, promise))
        if len(self._due) > 2 * self.open + FEW:
            self._due = [each for each in self._due if each[2].open]
            heapify(self._due)
        return True

    def due(self, like: Promise, now: float) -> Promise | None:
        """The earliest promise to a call *like* this that may be taken up now."""
        self.expire(now)
        found = self._by_call.get(_mark(like))
        return found[0] if found and found[0].at <= now + 0.002 else None

    def latest(self, like: Promise, now: float) -> Promise | None:
        """The latest promise to a call *like* this."""
        self.expire(now)
        found = self._by_call.get(_mark(like))
        return found[-1] if found else None

    def take_up(self, promise: Promise) -> None:
        """Somebody came back."""
        if self._close(promise):
            self._learn(promise.caller, came=True)

    def expire(self, now: float) -> None:
        """Give up on who did not come back."""
        due = self._due
        while due and (due[0][0] <= now or not due[0][2].open):
            promise = heappop(due)[2]
            if self._close(promise):
                self._learn(promise.caller, came=False)

    def faith(self, caller: str) -> tuple[float, float]:
        """What share of the calls of *caller* come back, lately: at least, and at most."""
        return self._faith.get(caller, UNKNOWN)

    def wants(
        self,
        deployments: Iterable[Deployment],
        waiting: Mapping[CallerClass, Mapping[str, Weighed]],
        *,
        counts: bool,
        until: float = inf,
    ) -> dict[CallerClass, dict[str, Weighed]]:
        """*waiting* with what is promised to calls that one of *deployments* may answer. *counts*: in tokens.

        *until*: only what is promised for before that moment, and of that what surely comes back, as far as is known.
        Else all that may come back.
        """
        found = {rank: dict(callers) for rank, callers in waiting.items()}
        for line in self._near(deployments):
            for (rank, caller), claim in self._lines[line].items():
                callers = found.setdefault(rank, {})
                known = callers.get(caller) or Weighed(claim.weight, 0.0, 0.0)
                callers[caller] = known.plus(*self._promised(caller, claim, counts=counts, until=until))
        return found

    def wants_of(
        self,
        rank: CallerClass,
        caller: str,
        waiting: Weighed | None,
        deployments: Iterable[Deployment],
        *,
        counts: bool,
        until: float = inf,
    ) -> Weighed | None:
        """The same for one *caller*, of which *waiting* waits; None when it neither waits nor has a promise."""
        for line in self._near(deployments):
            claim = self._lines[line].get((rank, caller))
            if claim is not None:
                waiting = waiting or Weighed(claim.weight, 0.0, 0.0)
                waiting = waiting.plus(*self._promised(caller, claim, counts=counts, until=until))
        return waiting

    def _near(self, deployments: Iterable[Deployment]) -> dict[tuple[Deployment, ...], None]:
        """Who of those that anything is promised to may be answered by one of *deployments*."""
        return dict.fromkeys(line for each in deployments for line in self._of.get(each, ()))

    def _promised(self, caller: str, claim: _Claim, *, counts: bool, until: float) -> tuple[float, float]:
        """Work and calls."""
        faith = self.faith(caller)[until == inf]
        work, calls = claim.until(until)
        return (work if counts else calls) * faith, calls * faith

    def concerns(self, deployments: Iterable[Deployment], now: float) -> bool:
        """Whether anything is promised to calls that one of *deployments* may answer."""
        if not self.open:
            return False
        self.expire(now)
        return any(each in self._of for each in deployments)

    def _close(self, promise: Promise) -> bool:
        if not promise.open:
            return False
        promise.open = False
        self.open -= 1
        self._count[promise.caller] -= 1
        if not self._count[promise.caller]:
            del self._count[promise.caller]
        mark = _mark(promise)
        same = self._by_call[mark]
        same.pop(_position(same, promise))
        if not same:
            del self._by_call[mark]
        line, owner = self._lines[promise.deployments], (promise.rank, promise.caller)
        line[owner].change(promise, -1)
        if not line[owner].calls:
            del line[owner]
            self.callers -= 1
        if not line:
            del self._lines[promise.deployments]
            for deployment in set(promise.deployments):
                lines = self._of[deployment]
                del lines[promise.deployments]
                if not lines:
                    del self._of[deployment]
        return True

    def _learn(self, caller: str, *, came: bool) -> None:
        least, most = self._faith.pop(caller, UNKNOWN)
        self._faith[caller] = least + (came - least) * LEARNS, most + (came - most) * LEARNS
        if len(self._faith) > MOST_CALLERS:
            del self._faith[next(iter(self._faith))]


def _mark(promise: Promise) -> tuple[object, ...]:
    return promise.deployments, promise.rank, promise.caller, promise.size


def _position(same: list[Promise], promise: Promise) -> int:
    at = bisect_left(same, promise)
    while same[at] is not promise:
        at += 1
    return at


def expected_until(at: float, now: float) -> float:
    """Until when who was told now to come back at *at* is expected."""
    return at + GRACE + LATENESS * max(at - now, 0.0)
