"""A pool of keys in front of true limiters, without a gateway: who asks whom, so that what it tells can be judged."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf, nextafter

from keyturn.core import Kinship
from keyturn.core.suspects import Kin, Stated
from keyturn.simulator.limiters import Kind, Limiter, limiter

PLACE = ("acme", "model")
LADDER = (10.0, 30.0, 60.0)
MOST_TRIES = 20


@dataclass
class Upstream:
    """The provider. *projects*: each key's project."""

    projects: Sequence[int]
    requests: dict[int, Limiter]
    tokens: dict[int, Limiter]
    troubles: Sequence[tuple[float, float]] = ()
    """From when until when everybody is refused."""
    says_wait: bool = True

    def ask(self, key: int, now: float, cost: int) -> float | None:
        """None: admitted. Else how long it asks to wait."""
        if any(begin <= now < end for begin, end in self.troubles):
            return 15.0
        project = self.projects[key]
        waits = [self.requests[project].wait(now, 1)] if project in self.requests else []
        waits += [self.tokens[project].wait(now, cost)] if project in self.tokens else []
        if any(waits):
            return min(max(waits), 60.0)
        if project in self.requests:
            self.requests[project].take(now, 1)
        if project in self.tokens:
            self.tokens[project].take(now, cost)
        return None

    def stated(self, key: int, now: float) -> list[Stated]:
        found = self.requests.get(self.projects[key])
        return [] if found is None else [Stated(found.capacity, int(found.capacity - found.used(now)))]


@dataclass
class Pool:
    """Asks *upstream* for a stream of calls, and learns."""

    upstream: Upstream
    seed: int = 0
    capacities: Sequence[int] | None = None
    """What the keys are known to be allowed in a minute; None: unknown, and headers say nothing."""
    latency: float = 0.2
    size: Callable[[random.Random], int] = lambda draw: 100
    kinship: Kinship = field(default_factory=Kinship)
    kin: list[tuple[Kin, int]] = field(default_factory=list)
    """What was found, and after how many calls."""
    calls: int = 0
    served: int = 0
    refused: int = 0
    """By the provider."""

    def __post_init__(self) -> None:
        self.draw = random.Random(self.seed)
        count = len(self.upstream.projects)
        self.cool = [0.0] * count
        self.strikes = [0] * count
        self.last = [0.0] * count
        self.log: list[list[float]] = [[] for _ in range(count)]
        self.busy = [0] * count
        self.tested: set[int] = set()
        self.queue: list[tuple[float, int, Callable[[float], None]]] = []
        self.events = 0

    def at(self, when: float, work: Callable[[float], None]) -> None:
        self.events += 1
        heappush(self.queue, (when, self.events, work))

    def run(self, arrivals: Sequence[float], most: int | None = None) -> None:
        """Play *arrivals*; ends early after *most* calls, or once something was found when *most* is given."""
        for when in arrivals:
            self.at(when, lambda now: self.arrive(now))
        while self.queue:
            now, _, work = heappop(self.queue)
            work(now)
            if most is not None and (self.calls > most):
                return

    def arrive(self, now: float) -> None:
        self.calls += 1
        if self.calls % 20 == 0:
            self.kin += [(each, self.calls) for each in self.kinship.expire(now)]
        self.go_on(now, self.size(self.draw), [], now + 20.0)

    def go_on(self, now: float, cost: int, tried: list[int], until: float) -> None:
        key = self.pick(now, tried)
        if key is None:
            if now + 1.0 < until and not tried:
                self.at(now + 1.0, lambda later: self.go_on(later, cost, tried, until))
            return
        self.busy[key] += 1
        sent = nextafter(now, inf) if tried else now  # after the refusal that led here
        self.last[key] = now + self.events * 1e-9
        self.at(now + self.latency / 2, lambda there: self.judge(there, sent, key, cost, tried, until))

    def judge(self, there: float, sent: float, key: int, cost: int, tried: list[int], until: float) -> None:
        wait = self.upstream.ask(key, there, cost)
        stated = self.upstream.stated(key, there) if self.capacities is not None else []
        if wait is None:
            self.log[key].append(sent)
        self.at(there + self.latency / 2, lambda now: self.answered(now, sent, key, cost, tried, until, wait, stated))

    def answered(
        self,
        now: float,
        sent: float,
        key: int,
        cost: int,
        tried: list[int],
        until: float,
        wait: float | None,
        stated: list[Stated],
    ) -> None:
        name = str(key)
        self.busy[key] -= 1
        busy = {str(each): count for each, count in enumerate(self.busy)}
        if wait is None:
            self.served += 1
            self.strikes[key] = 0
            after = str(tried[-1]) if tried else ""
            found = self.kinship.admitted(PLACE, name, sent, now, cost=cost, busy=busy, stated=stated, after=after)
        else:
            self.refused += 1
            self.strikes[key] += 1
            length = wait if self.upstream.says_wait else LADDER[min(self.strikes[key], 3) - 1]
            self.cool[key] = max(self.cool[key], now + length * (1 + 0.05 * self.draw.random()))
            said = wait if self.upstream.says_wait else None
            full = [str(each) for each in range(len(self.cool)) if self.cool[each] <= now and self.is_full(each, now)]
            found = self.kinship.refused(
                PLACE, name, sent, now, wait=said, cost=cost, busy=busy, stated=stated, full=full
            )
        self.kin += [(each, self.calls) for each in found]
        if wait is not None:
            tried.append(key)
            if len(tried) < MOST_TRIES:
                self.go_on(now, cost, tried, until)

    def is_full(self, key: int, now: float) -> bool:
        if self.capacities is None:
            return False
        log = self.log[key]
        while log and log[0] <= now - 61.5:
            log.pop(0)
        return len(log) >= self.capacities[key]

    def pick(self, now: float, tried: list[int]) -> int | None:
        ready = [
            key
            for key in range(len(self.cool))
            if key not in tried and self.cool[key] <= now and not self.is_full(key, now)
        ]
        if not ready:
            return None
        groups = [[int(each) for each in group] for group in self.kinship.leads(PLACE)]
        for lead in groups:
            if lead[0] in ready:
                self.tested.difference_update(lead)
                return lead[0]
            untested = [each for each in lead[1:] if each in ready and each not in self.tested]
            if untested and (lead[0] in tried or self.cool[lead[0]] > now or self.is_full(lead[0], now)):
                self.tested.add(untested[0])
                return untested[0]
        return min(ready, key=lambda key: self.last[key])


def limiters(kind: Kind, capacities: Sequence[int]) -> dict[int, Limiter]:
    """A limit per minute for each project."""
    return {number: limiter(kind, each, 60.0) for number, each in enumerate(capacities) if each}


def steady(rate: float, seconds: float, draw: random.Random | None = None) -> list[float]:
    """Arrivals at *rate* a second; with *draw* at random moments."""
    if draw is None:
        return [each / rate for each in range(int(rate * seconds))]
    found, now = [], 0.0
    while (now := now + draw.expovariate(rate)) < seconds:
        found.append(now)
    return found


def bursts(size: Callable[[], int], every: float, seconds: float) -> list[float]:
    """So many at once, again and again."""
    return [each * every for each in range(int(seconds / every)) for _ in range(size())]
