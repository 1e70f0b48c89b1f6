"""What 429s teach of limits that nobody states, and what `remaining` headers tell of others who use the same key.

A limit that nobody states is learned like this. After the first 429 of a quota group and model its use is counted. A
429 that comes when a whole window was counted tells how much the provider let through: nine tenths of that are the
limit from then on. After three windows that were used up without a 429 it rises by two percent, and with each further
one again: up to what somebody states, else until the next 429. Where the provider refused before, rising stops for a
while, which is twice as long each time that it refuses at the same place when more is tried: so a limit that stays as
it is costs few 429s. Once more is let through than was refused, it rises twice as fast with each window, and after a
fall below half of what was let through once it does not stop for long: an hour in which a provider refuses for other
reasons does not slow a key down for many more.

    a 429 of an attempt that began before the last decrease       belongs to that: one decrease per burst. What was
                                                                  refused late had been taken for let through, though
    one at less than 60 % of what was let through before, with    a limit per second is learned instead, once
    three requests within the second
    any other one at less than 45 %                               is not believed before a second one: providers refuse
                                                                  for other reasons too, and others may use the key
"""

from __future__ import annotations

import re
from collections import deque
from math import inf
from typing import NamedTuple

from .limitbook import Grounds, Metric

DECREASE = 0.9
INCREASE = 0.02
LEAST_INCREASE = 0.5
"""Units by which a limit rises at least: two percent of a few requests would take hours."""
FEW = 5.0
CLEAN = 3
"""Windows that are used up without a 429 before a limit rises."""
FIRST_CALLS, MOST_CALLS = 60, 500
LONG_PATIENCE = 60
"""Before more is tried than what was refused once: windows without a 429, in which so many calls were let through; in
the end as many calls, or windows, as the others say."""
LONGEST_PATIENCE = 720
"""The same where it was refused each time that more was tried: half a day of full use."""
FULL = 0.85
"""The share from which on a window counts as used up."""
LOW = 0.6
"""Below this share of what was let through before, a 429 is probably about something else."""
HALF = 0.45
"""The same for one that is no burst: a limit that was halved is to be known at once."""
BURST = 3
"""Requests within a second from which on it may be a limit per second."""
DOUBT = 300.0
"""Seconds within which a second 429 confirms the first."""
MARGIN = 1.0
"""Seconds that a count must be longer than its window: requests arrive later than they are sent."""
ALIKE, NEAR = 0.3, 2
"""Two places at which a provider refused are the same within this share, or so many units."""
BEYOND = 1.1
"""How many times what was let through before must be, until where the provider refused is forgotten."""
STRIDE = 16
"""How many times as fast a limit rises at most, as long as it turns out that more is let through."""
SECOND, ONE_MINUTE, ONE_HOUR = 1.0, 60.0, 3600.0
KEPT = 3
"""Attempts that are kept as evidence."""
MOST_REFUSALS = 1000
FOREIGN = 0.05
"""The share of a limit from which on what others use counts."""
IN_A_ROW = 3
MOST_FOLLOWED = 10_000

_OTHERS = ("concurren", "parallel", "simultaneous", "in-flight", "in flight")
_REQUESTS = ("requests per", "request per", "requests/", " rpm ", " rps ", "rate of requests", "request rate")
_TOKENS = ("token", " tpm ")
_SECONDLY = ("per second", "per sec ", "/second", "/sec ", " rps ", " tps ")
_HOURLY = ("per hour", "/hour", "/hr ", "hourly", " rph ", " tph ")
_ADDRESS = re.compile(r"https?://\S*")
_MARKS = re.compile(r"[^\w/-]+")


def limit_in_words(code: str, message: str) -> tuple[Metric, float] | None:
    """Of which metric, and over how many seconds, a refusal speaks: requests per minute unless it says otherwise. None:
    of calls at the same time, which is no rate."""
    text = _MARKS.sub(" ", _ADDRESS.sub(" ", f" {code} {message} ".lower()))
    if any(word in text for word in _OTHERS):
        return None
    tokens = any(word in text for word in _TOKENS) and not any(word in text for word in _REQUESTS)
    seconds = ONE_MINUTE
    if any(word in text for word in _SECONDLY):
        seconds = SECOND
    elif any(word in text for word in _HOURLY):
        seconds = ONE_HOUR
    return ("tokens" if tokens else "requests"), seconds


class Rejection(NamedTuple):
    """A 429, and what had been sent by then. Monotonic seconds, *wall* apart."""

    attempt: str
    started: float
    now: float
    wall: float
    used: int
    """Units counted in the window, by all gateways, refused ones included."""
    cost: int
    """How many of them this attempt was."""
    lately: int = 0
    """Requests sent within the second before it, itself included; 0 where that is not known."""
    secondly: bool = False
    """The provider says that it is about a second."""


class Change(NamedTuple):
    """Which numbers a refusal changed."""

    rate: bool = False
    burst: bool = False


NOTHING = Change()


class Lesson:
    """One number that is being learned: at most `capacity` in *seconds*. Mutable and deterministic."""

    __slots__ = (
        "_base",
        "_before",
        "_best",
        "_confirmed",
        "_level",
        "_most",
        "_stride",
        "_tried",
        "_waited",
        "at",
        "capacity",
        "clean",
        "evidence",
        "hindered",
        "lowered",
        "patience",
        "peak",
        "reached",
        "seconds",
        "since",
        "trusted",
    )

    def __init__(self, seconds: float, since: float, trusted: int | None = None) -> None:
        self.seconds = seconds
        self.since = since
        """From when its use was counted; -inf: always."""
        self.trusted = trusted
        """The least that somebody states, above which nothing is learned."""
        self.capacity: float | None = None
        """None: nothing was learned yet."""
        self.reached = 0
        """What the provider lets through, by its last refusal: less than was sent, and less than was taken to be the
        limit by then. 0: it never refused, or lets more through by now."""
        self.patience = CLEAN
        """Windows without a 429 before more than that is tried."""
        self.clean = 0
        self.peak = 0
        """The most that was let through in a window while nothing was learned."""
        self.hindered = False
        """Somebody was kept away by it since the last look."""
        self.lowered = -inf
        self.at = 0.0
        self.evidence: tuple[str, ...] = ()
        self._base = self._level = self._most = inf
        self._before = 0
        self._waited = CLEAN
        self._best: float = 0
        """What may be let through for all that is known, until it is confirmed that it is less."""
        self._tried = self._confirmed = False
        """It rose beyond what was refused, since it was lowered last; it had, before that."""
        self._stride = 1

    @property
    def whole(self) -> int:
        """The capacity in whole units; only of one that was learned. Of a few units a tenth is none."""
        capacity = self.capacity or 1.0
        whole = max(1, int(capacity + 0.5 if capacity < FEW else capacity))
        return whole if self.trusted is None else min(whole, self.trusted)

    @property
    def grounds(self) -> Grounds:
        return Grounds(self.at, self.evidence, self.reached, self.patience)

    def go_on(self, capacity: int, grounds: Grounds, now: float) -> None:
        """Take over what another process, or another gateway, learned: as if it had been lowered now."""
        self.capacity, self.lowered, self.clean, self._level = float(capacity), now, 0, inf
        self.at, self.evidence = grounds.at, grounds.evidence
        self.reached, self.patience = grounds.reached, max(CLEAN, grounds.patience)

    def covers(self, now: float) -> bool:
        """Whether a whole window was counted."""
        return now - self.since >= self.seconds + MARGIN

    def lower(self, level: int, seen: Rejection) -> None:
        """The provider let *level* through and refused more."""
        stated = inf if self.trusted is None else float(self.trusted)
        self._base = stated if self.capacity is None else min(self.capacity, stated)
        self._before, self._waited = self.reached, self.patience
        if self.capacity is None:
            self._best = self.trusted or (inf if self.seconds > SECOND else 0)
        if self._best == inf and level < HALF * self.reached:
            self._best = self.reached
        self._best = max(self._best, self.reached)
        self._confirmed, self._tried, self._stride = self._tried, False, 1
        self._most = inf if self.capacity is None else self.whole - max(1.0, INCREASE * self.whole)
        self.clean, self.lowered, self.at = 0, seen.now, seen.wall
        self.evidence = (seen.attempt, *self.evidence)[:KEPT]
        self._settle(level)

    def recount(self, cost: int) -> bool:
        """*cost* of what was taken for let through was refused too. False where that changes nothing."""
        if self._level == inf:
            return False
        self._settle(max(1, int(self._level) - cost))
        return True

    def _settle(self, level: int) -> None:
        self._level, self.reached = level, max(1, int(min(level, self._most)))
        self.capacity = max(1.0, min(self._base, level) * DECREASE)
        again = self._before > 0 and abs(level - self._before) <= max(NEAR, ALIKE * self._before)
        least, most = max(CLEAN, -(-FIRST_CALLS // level)), max(LONG_PATIENCE, -(-MOST_CALLS // level))
        most = max(most, self._waited, LONGEST_PATIENCE if self._confirmed else 0)
        longer = self._waited * 2 if self._confirmed else self._waited
        if level < HALF * self._best and (not again or longer < least):
            self.patience = longer if again else max(CLEAN, least // 2) if self._best == inf else CLEAN
            return
        if self._confirmed:
            self._best = self.reached
        self.patience = min(max(2 * self._waited, least), most) if again else least

    def window_over(self, used: int, refused: bool, now: float, wall: float) -> bool:
        """A window is over, in which *used* units were sent and, unless *refused*, all let through. True when the
        capacity is another one in whole units."""
        hindered, self.hindered = self.hindered, False
        if self.capacity is None:
            if not refused:
                self.peak = max(self.peak, used)
            return False
        if refused or now - self.lowered < self.seconds:
            self.clean = 0
            return False
        if not hindered and used < FULL * self.whole:
            return False
        self.clean += 1
        if self.reached and used > self.reached * BEYOND:
            self.reached, self.patience = used, max(CLEAN, self.patience // 2)
            self._stride = min(2 * self._stride, STRIDE)
        beyond = self.reached and self.capacity >= self.reached
        if self.clean < (max(CLEAN, self.patience) if beyond else CLEAN):
            return False
        before, most = self.whole, inf if self.trusted is None else float(self.trusted)
        risen = self.capacity + self._stride * max(INCREASE * self.capacity, LEAST_INCREASE)
        self._tried = self._tried or bool(beyond)
        if self.reached and not beyond:
            risen = min(risen, float(self.reached))
        self.capacity = min(risen, most)
        if self.whole != before:
            self.at = wall
        return self.whole != before


class Learner:
    """What is learned of one metric of one quota group and model: a rate, and a limit per second beside it."""

    __slots__ = ("_doubt", "_refusals", "burst", "rate")

    def __init__(self, rate: Lesson, burst: Lesson | None = None) -> None:
        self.rate = rate
        self.burst = burst
        self._doubt: tuple[float, int, bool] | None = None
        """A 429 at low use: when, what had been let through, and whether a limit per second was made of it."""
        self._refusals: deque[tuple[float, int]] = deque(maxlen=MOST_REFUSALS)

    def refused(self, seen: Rejection) -> Change:
        """Learn from a 429."""
        rate, now = self.rate, seen.now
        self._refusals.append((now, seen.cost))
        if (late := self._late(seen)) is not None:
            return late
        within = seen.lately - self._count(now - SECOND - MARGIN)
        if seen.secondly:
            return self._lower_burst(within, seen)
        observed = seen.used - self._count(now - rate.seconds)
        if observed < 1 or not rate.covers(now):
            return NOTHING
        usual = rate.capacity or rate.trusted or rate.peak
        dropped = False
        if observed < LOW * usual:
            if self._doubt is None or now - self._doubt[0] > DOUBT:
                bursting = seen.lately >= BURST and within >= 1
                if bursting or observed < HALF * usual:
                    self._doubt = (now, observed, bursting)
                    return self._lower_burst(within, seen) if bursting else NOTHING
            else:
                _, before, bursting = self._doubt
                observed = max(observed, before)
                if bursting:
                    self.burst, dropped = None, True
        self._doubt = None
        rate.lower(observed, seen)
        return Change(rate=True, burst=dropped)

    def _lower_burst(self, within: int, seen: Rejection) -> Change:
        if within < 1:
            return NOTHING
        self.burst = self.burst or Lesson(SECOND, -inf)
        self.burst.lower(within, seen)
        return Change(burst=True)

    def refused_since(self, moment: float) -> bool:
        """Whether there was a 429 after *moment*."""
        return bool(self._refusals) and self._refusals[-1][0] > moment

    def _late(self, seen: Rejection) -> Change | None:
        """Of an attempt that began before what was learned last: what it changes about that; None for any other."""
        burst, rate = self.burst, self.rate
        if self._doubt is not None and seen.started <= self._doubt[0]:
            moment, observed, bursting = self._doubt
            self._doubt = (moment, max(0, observed - seen.cost), bursting)
            return Change(burst=bursting and burst is not None and burst.recount(1))
        if burst is not None and burst.lowered > rate.lowered and seen.started <= burst.lowered:
            return Change(burst=seen.now - burst.lowered <= ONE_MINUTE and burst.recount(1))
        if seen.started > rate.lowered:
            return None
        return Change(rate=seen.now - rate.lowered <= rate.seconds and rate.recount(seen.cost))

    def _count(self, since: float) -> int:
        """Units that were refused after *since*."""
        return sum(cost for moment, cost in self._refusals if moment >= since)


class Strangers:
    """Finds out what others use of our keys, by what is left according to the provider."""

    __slots__ = ("_seen",)

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, int]] = {}
        """Limit -> how many answers in a row told of such use, and the least of it."""

    def use(self, limit: str, capacity: int, remaining: int, own: int) -> int:
        """Units of *limit* that others used, of which *own* of us are known; 0 while that is little, or not told by
        three answers in a row."""
        foreign = capacity - remaining - own
        if foreign <= FOREIGN * capacity:
            if self._seen:
                self._seen.pop(limit, None)
            return 0
        times, least = self._seen.pop(limit, (0, foreign))
        if times + 1 >= IN_A_ROW:
            return min(least, foreign)
        if len(self._seen) >= MOST_FOLLOWED:
            self._seen.clear()
        self._seen[limit] = (times + 1, min(least, foreign))
        return 0
