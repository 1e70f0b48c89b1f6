"""Learns limits from 429s where nobody states one; loaded with the first such answer, or the first limit remembered.

A look once per window and limit, by a timer, says whether it was used up without a 429. So a success costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, NamedTuple

from keyturn.core import (
    UNKNOWN,
    Entry,
    Grounds,
    Learner,
    Lesson,
    Limit,
    Outcome,
    Rejection,
    TimerHandle,
    Window,
    limit_in_words,
    seconds_to_reset,
)

from .declared import SECONDS, window_of
from .events import LimitLearned

if TYPE_CHECKING:
    from .exchange import Exchange
    from .gateway import Gateway

PERIOD = 60.0
"""Seconds between two looks at a limit, at least."""
MOST = 5000
"""Limits that are being learned; then the oldest stays as it is."""
FORGOTTEN_AFTER = 3600.0
"""Seconds after a 429 in which use is counted, as long as nothing was learned."""
IN_VAIN = 5
"""Refusals in a row, each after the rest that the one before brought, from which on it is no minute's limit."""
LAST_STEP = 300.0
"""Seconds that such a key rests by the table; from then on twice as long each time."""
LONGEST_REST = 3600.0
AFTER_MIDNIGHT = 30.0
"""Seconds after the midnight at which most quotas of a day begin anew, as clocks differ."""
SLOT = 0.5
"""Seconds of a slot of a minute: so exactly is known when a request was sent."""
SECOND = Window("rolling", 1.0)
WINDOWS = {seconds: name for name, seconds in SECONDS.items()}


class Subject(NamedTuple):
    """What is being learned: the rate of one metric of a quota group and model."""

    scope: str
    metric: str
    seconds: float


class Learning:
    """What one gateway learns. Outlives its configurations."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._clock = gateway.clock
        self._live = gateway.live
        self._learners: OrderedDict[Subject, tuple[Learner, Limit]] = OrderedDict()
        self._due: deque[tuple[float, Subject]] = deque()
        """When to look at each, in order but for the few of an hour."""
        self._queued: set[Subject] = set()
        self._timer: TimerHandle | None = None
        self._closed = False

    def refused(self, exchange: Exchange, outcome: Outcome) -> None:
        """An attempt was refused with 429 for a limit of its key."""
        said = limit_in_words(outcome.code, outcome.message)
        if said is None:
            return
        (metric, seconds), secondly = said, said[1] == SECOND.seconds
        if secondly and metric != "requests":
            return
        now, entry, attempt = self._clock.mono(), exchange.grant.entry, exchange.grant.attempt
        window = window_of(exchange.provider, metric, WINDOWS[PERIOD if secondly else seconds])
        limit = Limit(entry.limit_scopes[0], metric, window, UNKNOWN, "learned")
        book = self._live.meters.book
        if book.stated(replace(limit, window=SECOND) if secondly else limit):
            return
        learner = self._learner(limit, now)
        learner.rate.trusted = self._trusted(entry, limit)
        cost, lately = 1, 0
        if metric == "tokens":
            charged = exchange.run.costs.get(entry.candidate.deployment)
            cost = exchange.estimate() if charged is None else charged.input + charged.output
        else:
            meters, sent = self._live.meters, attempt.started
            lately = meters.lately(limit, sent - SECOND.seconds) - meters.lately(limit, sent + SLOT)
        used = self._live.view(now).row(limit, now).used
        seen = Rejection(attempt.id, attempt.started, now, self._clock.wall(), used, cost, lately, secondly)
        change = learner.refused(seen)
        if change.rate:
            self._learned(limit, learner.rate, now)
        if change.burst:
            self._learned(replace(limit, window=SECOND), learner.burst, now)
        if (change.rate or change.burst) and exchange.grant.pool.capped:
            exchange.run.generation.pools.cap(exchange.grant.pool, entry)

    def told(self, exchange: Exchange, metric: str, window: str, capacity: int) -> None:
        """A refusal named the limit that it was for: as good as a header, and believed as long."""
        entry, pool = exchange.grant.entry, exchange.grant.pool
        span = window_of(exchange.provider, metric, window)
        # How much of it is left is for the rest that follows the refusal, which the owner may end.
        changed = self._live.report(entry.limit_scopes[0], metric, span, capacity, self._clock.mono(), None)
        if changed and pool.capped:
            exchange.run.generation.pools.cap(pool, entry)

    def lasting(self, exchange: Exchange) -> float | None:
        """Seconds that a key is to rest which was refused each time that it was asked, after ever longer rests, while
        others of its pool stand well: a quota of days or months is spent, of which its provider says nothing. None:
        that is not so."""
        gateway, grant, now = self._gateway, exchange.grant, self._clock.mono()
        marks, entry = gateway.marks, grant.entry
        mark = marks.get(entry.scopes[2])
        if (
            mark is None
            or mark.reason != "rate_limited"
            or mark.strikes < IN_VAIN
            or grant.attempt.started < mark.since
        ):
            return None
        own = entry.candidate.credential.group
        others = (each for each in grant.pool.entries if each.candidate.credential.group != own)
        if not any(marks.blocked(each.scopes, now) is None for each in others):
            return None  # its provider is in trouble
        wall = self._clock.wall()
        midnights = (seconds_to_reset(exchange.provider.rules, wall), SECONDS["day"] - wall % SECONDS["day"])
        longest = min(LONGEST_REST, *(left + AFTER_MIDNIGHT for left in midnights if left is not None))
        return min(longest, LAST_STEP * 2.0 ** min(mark.strikes + 1 - IN_VAIN, 16))

    def hindered(self, limit: Limit) -> None:
        """A call was kept away by *limit*, which was learned."""
        for subject in _subjects(limit):
            found = self._learners.get(subject)
            lesson = None if found is None else _lesson(found[0], limit)
            if lesson is not None:
                lesson.hindered = True

    def resume(self) -> None:
        """Go on from what was remembered, or others learned."""
        self.heard([limit for limit, _ in self._live.meters.book.every_learned()])

    def heard(self, limits: Iterable[Limit]) -> None:
        """Something became known of *limits*, which another process learned or forgot."""
        now, book = self._clock.mono(), self._live.meters.book
        for limit in limits:
            if limit.metric == "concurrency":  # no rate: see `narrowing`
                continue
            known, burst = book.learned(limit), limit.window == SECOND
            subject = _subjects(limit)[-1]
            if known is None:
                found = self._learners.get(subject)
                if found is not None and burst:
                    found[0].burst = None
                elif found is not None:
                    del self._learners[subject]
                continue
            stated, grounds = known
            whole = replace(limit, window=Window("rolling", PERIOD), capacity=UNKNOWN) if burst else limit
            learner = self._learner(whole, now)
            if burst:
                learner.burst = learner.burst or Lesson(SECOND.seconds, -inf)
                learner.burst.go_on(stated.capacity, grounds, now)
            elif stated.capacity < UNKNOWN:
                learner.rate.go_on(stated.capacity, grounds, now)

    def cleared(self) -> None:
        """Learn anew what is not in the book of limits any more."""
        book = self._live.meters.book
        for subject, (learner, limit) in list(self._learners.items()):
            if learner.rate.capacity is not None and book.learned(limit) is None:
                del self._learners[subject]
            elif learner.burst is not None and book.learned(replace(limit, window=SECOND)) is None:
                learner.burst = None

    def close(self) -> None:
        """No look any more. May be called twice."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _learner(self, limit: Limit, now: float) -> Learner:
        """Who learns the rate of *limit*; a new one has its use counted from now on, where that is not done already."""
        subject = _subjects(limit)[-1]
        found = self._learners.get(subject)
        if found is not None:
            return found[0]
        book = self._live.meters.book
        known = any(each.key == limit.key for each in book.of(limit.scope))
        learner = Learner(Lesson(limit.window.seconds, -inf if known else now))
        if not known and book.learned(limit) is None:
            self._live.learn(replace(limit, capacity=UNKNOWN), Grounds(self._clock.wall()), now)
        self._learners[subject] = (learner, replace(limit, capacity=UNKNOWN, source="learned"))
        if len(self._learners) > MOST:
            self._learners.popitem(last=False)
        self._queue(subject, now)
        self._arm()
        return learner

    def _queue(self, subject: Subject, now: float) -> None:
        if subject not in self._queued:
            self._queued.add(subject)
            self._due.append((now + max(PERIOD, subject.seconds), subject))

    def _trusted(self, entry: Entry, limit: Limit) -> int | None:
        """The least that is declared or reported for *entry* of the same metric and length."""
        book = self._live.meters.book
        limits = [each for scope in entry.limit_scopes for each in book.of(scope)] + list(book.declared(limit.scope))
        seconds = limit.window.seconds
        stated = (each for each in limits if each.metric == limit.metric and each.window.seconds == seconds)
        return min((each.capacity for each in stated if each.source != "learned"), default=None)

    def _learned(self, limit: Limit, lesson: Lesson | None, now: float) -> None:
        """*lesson* has another number for *limit* by now; None: it turned out to be none."""
        if lesson is None or lesson.capacity is None:
            self._live.forget(limit, "learned")
            return
        taken = replace(limit, capacity=lesson.whole)
        self._live.learn(taken, lesson.grounds, now)
        provider, _, counted = taken.scope.partition("/")
        owner, _, model = counted.partition("|")
        text = f"{taken.capacity} {taken.metric} in {taken.window.seconds:g} s are taken to be the limit of {model}"
        self._gateway.events.emit(LimitLearned(provider, f"{text}, {provider} {owner[:6]}"))

    def _arm(self) -> None:
        if self._timer is None and self._due and not self._closed:
            self._timer = self._clock.call_at(self._due[0][0], self._look)

    def _look(self) -> None:
        """The timer: look at those whose window is over."""
        self._timer, now = None, self._clock.mono()
        while self._due and self._due[0][0] <= now:
            _, subject = self._due.popleft()
            self._queued.discard(subject)
            found = self._learners.get(subject)
            if found is not None and self._looked(subject, *found, now):
                self._queue(subject, now)
        self._arm()

    def _looked(self, subject: Subject, learner: Learner, limit: Limit, now: float) -> bool:
        """Whether *limit* is to be looked at again."""
        book, wall = self._live.meters.book, self._clock.wall()
        rate, burst, brief = learner.rate, learner.burst, replace(limit, window=SECOND)
        refused = learner.refused_since(now - max(PERIOD, subject.seconds))
        if burst is not None and book.learned(brief) is None:
            learner.burst = burst = None
        if burst is not None and burst.window_over(burst.whole if burst.hindered else 0, refused, now, wall):
            self._learned(brief, burst, now)
        if rate.capacity is None:
            used = self._live.view(now).row(limit, now).used
            rate.window_over(used, refused, now, wall)
            if burst is None and not learner.refused_since(now - FORGOTTEN_AFTER):
                return self._let_go(subject, limit)
            return True
        if book.learned(limit) is None:
            return self._let_go(subject, limit)
        if any(each.key == limit.key and each.source == "learned" for each in book.of(limit.scope)):
            used = self._live.view(now).row(limit, now).used
            if rate.window_over(used, refused, now, wall):
                if rate.trusted is not None and rate.whole >= rate.trusted:
                    rate.capacity = None
                    self._live.forget(limit, "learned")
                    return burst is not None or self._let_go(subject, limit)
                self._learned(limit, rate, now)
        return True

    def _let_go(self, subject: Subject, limit: Limit) -> bool:
        """Nothing is to be learned here any more."""
        self._learners.pop(subject, None)
        self._live.forget(limit, "learned")
        return False


def _subjects(limit: Limit) -> tuple[Subject, ...]:
    """Who may learn *limit*: a limit per second is learned beside the one per minute."""
    own = Subject(limit.scope, limit.metric, limit.window.seconds)
    return (own, own._replace(seconds=PERIOD)) if limit.window == SECOND else (own,)


def _lesson(learner: Learner, limit: Limit) -> Lesson | None:
    """The lesson of *learner* about *limit*."""
    return learner.burst if limit.window == SECOND else learner.rate
