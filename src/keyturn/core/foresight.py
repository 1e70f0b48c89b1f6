"""When a call that waits will have its turn: how long answers take, and who was told to come back.

    answers    how long they take for those who waited: who waits any longer than leaves so much waits in vain
    promises   who was refused was told when to come back, and has a claim on what comes free then

How many calls keys take by when: `supply`. What callers ask for, and the work that is done before a call: `crowd`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from math import inf, sqrt
from typing import NamedTuple

from .crowd import Weighed
from .model import CallerClass, Deployment

GRACE = 2.0
LATENESS = 0.1
"""Who comes back is expected until so many seconds after, and until so much of its wait after, when it was told to."""
LATEST = 300.0
"""Seconds that a tenth of its wait counts for at most."""
LONGEST = 172_800.0
"""Seconds ahead that a promise is kept in mind at most: the day after the next reset of a day."""
MOST_PROMISES = 40_000
OF_WHAT_IS_FREE = 4
"""A caller may have so many times as many promises as may still be made: nobody fills the book for the others."""
FEW = 1000
"""Promises that are over and may still be remembered, beside as many as are open."""
MOST_CALLERS = 1024
"""Callers of whom it is remembered, for each of `HORIZONS`, how many of their calls come back."""
HORIZONS = (60.0, 900.0, 3600.0, 21_600.0)
"""Seconds: of those that are told to wait for about as long, it is learned together how many come back."""
UNKNOWN = (0.0, 1.0)
"""What share that is, at least and at most, as long as nothing is known."""
REMEMBERS = 256
"""Of about how many of late that is reckoned."""
SURE = 1.5
"""Standard deviations within which the true share is taken to be."""
LEAST_EXPECTED = 0.05
"""So many are always expected when moments are told: who did not come for long must not come all at once."""
FOLLOWS = 0.125
"""How far the usual time of an answer moves towards the latest."""
MOST_TIMED = 1024
"""Deployments of which it is remembered, streams apart."""
LOOKED_AT = 32
"""Promises to calls of one size that are compared with one that comes."""
KNOWN = 8
"""Moments for which it is known what is promised by then; the sums for others are added up."""
SPAN = 2.0
"""Seconds within which it is not told apart which of two promises is the earlier, in sums."""
LEVELS = 6
"""Sums are kept of spans, of eight spans together, of eight times as many, and so on: so often."""


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


class Promise:
    """Somebody was told to come back at a moment (monotonic seconds). *number*: its place, as it first came."""

    __slots__ = (
        *("at", "caller", "came", "content", "cost", "deployments", "horizon", "number", "open", "patience", "rank"),
        *("size", "until", "weight"),
    )

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
        content: int = 0,
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
        """Bytes of its request."""
        self.content = content
        """What its request says, as a hash: by both it is known again."""
        self.patience = patience
        """Seconds that it would have waited."""
        self.horizon = 0
        """About how long it was told to wait: the place in `HORIZONS`."""
        self.open = True
        self.came = False

    def __lt__(self, other: Promise) -> bool:
        return self.at < other.at


class _Sums:
    """What is promised to one caller of a class, of those that were told to wait for about as long."""

    __slots__ = ("_known", "_last", "_levels", "calls", "work")

    def __init__(self) -> None:
        self.work = 0
        self.calls = 0
        self._known: dict[int, tuple[int, int]] = {}
        """Work and calls before the spans that were asked for lately."""
        self._last = 0
        """The latest span that anything was promised for."""
        self._levels: list[dict[int, tuple[int, int]]] = [{} for _ in range(LEVELS)]
        """Work and calls, by the span of time that they are promised for; and of ever more spans together."""

    def change(self, promise: Promise, step: int) -> None:
        """*promise* is made (1), or over (-1)."""
        span, work = int(promise.at // SPAN), step * promise.cost
        self._last = max(self._last, span)
        self.work += work
        self.calls += step
        for ends, (before, others) in self._known.items():
            if span < ends:
                self._known[ends] = before + work, others + step
        for sums in self._levels:
            before, others = sums.get(span, (0, 0))
            if others + step:
                sums[span] = before + work, others + step
            else:
                del sums[span]
            span >>= 3

    def until(self, moment: float) -> tuple[int, int]:
        """Work and calls that are promised for no later than *moment*, or for the same span."""
        if moment >= self._last * SPAN:
            return self.work, self.calls
        ends = int(moment // SPAN) + 1
        known = self._known
        found = known.get(ends)
        if found is None:
            earlier = known.get(ends - 1)  # as time goes by, the next span is asked for after each
            if earlier is None:
                found = self._before(ends)
            else:
                work, calls = self._levels[0].get(ends - 1, (0, 0))
                found = earlier[0] + work, earlier[1] + calls
            if len(known) >= KNOWN:
                del known[next(iter(known))]
            known[ends] = found
        return found

    def _before(self, ends: int) -> tuple[int, int]:
        """Work and calls before the span *ends*."""
        work = calls = 0
        for sums in self._levels[:-1]:
            begins = ends & ~7
            for span in range(begins, ends):
                found = sums.get(span)
                if found is not None:
                    work += found[0]
                    calls += found[1]
            ends >>= 3
        for span, (more, others) in self._levels[-1].items():
            if span < ends:
                work += more
                calls += others
        return work, calls


class _Claim:
    """What is promised to one caller of a class."""

    __slots__ = ("calls", "sums", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.calls = 0
        self.sums: dict[int, _Sums] = {}
        """By about how long they were told to wait."""

    def change(self, promise: Promise, step: int) -> None:
        """*promise* is made (1), or over (-1)."""
        self.calls += step
        sums = self.sums.get(promise.horizon)
        if sums is None:
            sums = self.sums[promise.horizon] = _Sums()
        sums.change(promise, step)
        if not sums.calls:
            del self.sums[promise.horizon]


class Promises:
    """Who was told to come back, and when. At most 40,000, and of one caller four times as many as there is room for:
    others are told when, and not reckoned with.

    Who comes back is known by its caller and its request, and takes up the promise that is due, with the place that it
    had; just then, also who has changed what the request says but not its size. A promise that nobody takes up is
    forgotten a little later. How many of a caller's calls come back is learned, apart for those that were told to wait
    for seconds and for hours. As long as it is not known, whoever is told when to come back is told it as if all did,
    and whoever would rather wait here may do so as if nobody did: who comes back goes before it.
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
        self._faith: dict[tuple[str, int], tuple[float, float, float, float]] = {}
        """Of each caller and horizon: how many came back of late, of how many, and what share that is, at least and at
        most. The one learned last stands last."""

    def make(self, promise: Promise, now: float) -> bool:
        """Keep *promise* in mind; False when it is too far ahead, or there are too many, or too many of its caller."""
        self.expire(now)
        if self.open >= MOST_PROMISES or promise.at > now + LONGEST:
            return False
        if self._count[promise.caller] >= OF_WHAT_IS_FREE * (MOST_PROMISES - self.open):
            return False
        promise.horizon = _horizon(promise.at - now)
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
        same = self._by_call.setdefault(_mark(promise), [])
        if not same or same[-1].at <= promise.at:
            same.append(promise)
        else:
            insort(same, promise)
        self._pushed += 1
        heappush(self._due, (promise.until, self._pushed, promise))
        if len(self._due) > 2 * self.open + FEW:
            for _, _, each in self._due:
                if not each.open:
                    self._learn(each)
            self._due = [each for each in self._due if each[2].open]
            heapify(self._due)
        return True

    def due(self, like: Promise, now: float) -> Promise | None:
        """The promise to the very call that *like* is, if it may be taken up now; else the earliest to one of its size
        that is due since just now."""
        self.expire(now)
        found = self._by_call.get(_mark(like))
        if found is None:
            return None
        ends = bisect_right(found, now + 0.002, key=_moment)
        same = _same(found, ends, like)
        if same is not None:
            return same
        begins = bisect_left(found, now - GRACE, key=_moment)
        return found[begins] if begins < ends else None

    def latest(self, like: Promise, now: float) -> Promise | None:
        """The latest promise to the very call that *like* is."""
        self.expire(now)
        found = self._by_call.get(_mark(like))
        return None if found is None else _same(found, len(found), like)

    def take_up(self, promise: Promise) -> None:
        """Somebody came back."""
        if self._close(promise):
            promise.came = True

    def expire(self, now: float) -> None:
        """Give up on who did not come back. What share comes is learned only then, of who came as well: else those who
        come would seem to be all at first, and none later."""
        due = self._due
        while due and due[0][0] <= now:
            promise = heappop(due)[2]
            self._close(promise)
            self._learn(promise)

    def faith(self, caller: str, wait: float = 0.0) -> tuple[float, float]:
        """What share of the calls of *caller* that were told to wait for about *wait* seconds come back, lately: at
        least, and at most."""
        return self._share(caller, _horizon(wait))

    def _share(self, caller: str, horizon: int) -> tuple[float, float]:
        """As long as nothing is known of those that wait so long, what is known of those that wait less counts."""
        known = self._faith.get((caller, horizon))
        if known is not None:
            return known[2:]
        for each in range(horizon, -1, -1):
            known = self._faith.get((caller, each))
            if known is not None:
                return known[2:]
        return UNKNOWN

    def wants(
        self,
        deployments: tuple[Deployment, ...],
        waiting: Mapping[CallerClass, Mapping[str, Weighed]],
        *,
        counts: bool,
        until: float = inf,
        all_come: bool = True,
    ) -> dict[CallerClass, dict[str, Weighed]]:
        """*waiting* with what is promised to calls that one of *deployments* may answer. *counts*: in tokens.

        *until*: only what is promised for before that moment. *all_come*: all that may come back; else only what surely
        does, as far as is known.
        """
        found = {rank: dict(callers) for rank, callers in waiting.items()}
        for line in self._near(deployments):
            for (rank, caller), claim in self._lines[line].items():
                callers = found.setdefault(rank, {})
                known = callers.get(caller)
                work, calls = self._promised(caller, claim, counts=counts, until=until, all_come=all_come)
                callers[caller] = Weighed(claim.weight, work, calls) if known is None else known.plus(work, calls)
        return found

    def wants_of(
        self,
        rank: CallerClass,
        caller: str,
        waiting: Weighed | None,
        deployments: tuple[Deployment, ...],
        *,
        counts: bool,
        until: float = inf,
        all_come: bool = True,
    ) -> Weighed | None:
        """The same for one *caller*, of which *waiting* waits; None when it neither waits nor has a promise."""
        for line in self._near(deployments):
            claim = self._lines[line].get((rank, caller))
            if claim is not None:
                waiting = waiting or Weighed(claim.weight, 0.0, 0.0)
                waiting = waiting.plus(*self._promised(caller, claim, counts=counts, until=until, all_come=all_come))
        return waiting

    def _near(self, deployments: tuple[Deployment, ...]) -> Iterable[tuple[Deployment, ...]]:
        """Who of those that anything is promised to may be answered by one of *deployments*."""
        if len(self._lines) == 1 and deployments in self._lines:
            return self._lines
        return dict.fromkeys(line for each in deployments for line in self._of.get(each, ()))

    def _promised(
        self, caller: str, claim: _Claim, *, counts: bool, until: float, all_come: bool
    ) -> tuple[float, float]:
        """Work and calls."""
        work = calls = 0.0
        faith = self._faith
        for horizon, sums in claim.sums.items():
            known = faith.get((caller, horizon))
            share = self._share(caller, horizon)[all_come] if known is None else known[2 + all_come]
            if share:
                more, others = sums.until(until)
                work += (more if counts else others) * share
                calls += others * share
        return work, calls

    def concerns(self, deployments: tuple[Deployment, ...], now: float) -> bool:
        """Whether anything is promised to calls that one of *deployments* may answer."""
        if not self.open:
            return False
        if self._due[0][0] <= now:
            self.expire(now)
        return not self._of.keys().isdisjoint(deployments)

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
        same.pop(0 if same[0] is promise else _position(same, promise))
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

    def _learn(self, promise: Promise) -> None:
        key = promise.caller, promise.horizon
        back, told, _, _ = self._faith.pop(key, (0.0, 0.0, 0.0, 0.0))
        fades = 1.0 - 1.0 / REMEMBERS
        back, told = back * fades + promise.came, told * fades + 1.0
        self._faith[key] = back, told, *_bounds(back / told, told)
        if len(self._faith) > MOST_CALLERS * (len(HORIZONS) + 1):
            del self._faith[next(iter(self._faith))]


def _horizon(wait: float) -> int:
    return bisect_left(HORIZONS, wait)


def _bounds(share: float, number: float) -> tuple[float, float]:
    """Between what the true share lies, probably, if it was *share* of *number* (Wilson's interval)."""
    part = SURE * SURE / number
    middle = (share + part / 2.0) / (1.0 + part)
    off = SURE * sqrt(share * (1.0 - share) / number + part / number / 4.0) / (1.0 + part)
    return middle - off, max(middle + off, LEAST_EXPECTED)


def _mark(promise: Promise) -> tuple[object, ...]:
    return promise.deployments, promise.rank, promise.caller, promise.size


def _moment(promise: Promise) -> float:
    return promise.at


def _same(among: list[Promise], ends: int, like: Promise) -> Promise | None:
    """The last of the few before the place *ends* whose content is that of *like*."""
    for place in range(ends - 1, max(ends - LOOKED_AT, 0) - 1, -1):
        if among[place].content == like.content:
            return among[place]
    return None


def _position(same: list[Promise], promise: Promise) -> int:
    at = bisect_left(same, promise)
    while same[at] is not promise:
        at += 1
    return at


def expected_until(at: float, now: float) -> float:
    """Until when who was told now to come back at *at* is expected."""
    return at + GRACE + min(LATENESS * max(at - now, 0.0), LATEST)
