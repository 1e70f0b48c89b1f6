"""Live state that many gateways share through Redis: what one of them does, and what it asks and tells the others.

Each gateway counts its own use in meters of its own, as if it were alone. That use is a part of all use: so what they
deny is denied, without a question. What they grant is asked of Redis, one script and one round trip for all limits of
an attempt; what follows (counted, settled, released, marks) is told in order and not waited for.

While Redis is away each limit follows its policy, see `redis_away`; `redis_replay` says what is made up for afterwards.

What holds, as long as estimates are upper bounds:

    Redis is up             no limit is ever exceeded by all gateways together, at any concurrency
    it is away for all      by no more than what others were granted since Redis last told here how a limit stands (with
                            each claim, and each second of what was claimed lately), if no more gateways run than were
                            seen, or than `least_replicas` says
    it is away for some     and by the parts L/R of those: the others go on by Redis, which does not know of them
    it comes back empty     and by what those gateways used in the last window that are gone too, or did not tell within
                            5 s what they knew
    it comes back without   and by what those used since then that are gone too
    its last writes

Redis Cluster is not supported: all keys of one prefix would be on one node anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, Literal

from keyturn.core import (
    FOREVER,
    METRICS,
    RELEASED,
    Claim,
    Clock,
    Denied,
    Grounds,
    Limit,
    Marks,
    Meters,
    ScopeKey,
    Transition,
    Usage,
    Window,
    actual_of,
)

from .live import Learned, LiveStanding, Reservation
from .redis_asked import Asked
from .redis_away import Share, Without
from .redis_counts import Denials, Specs, answer_of, figures_of
from .redis_crowds import Crowds
from .redis_known import Known
from .redis_lessons import Lessons
from .redis_marks import SharedMarks, scope_text
from .redis_news import News
from .redis_port import Argument, Away, Link
from .redis_replay import CHUNK, WHOLE, Outbox, Replay
from .redis_scripts import base_of, channel_of

PULSE = 1.0
"""Seconds between two looks at what others changed, should a message of it have been lost."""
RENEW_EVERY = 20
"""Pulses between two renewals of what is held here; it ends by itself after 50 s."""
FEW = 32
"""Limits that are asked about in one script, so that it holds up nobody."""
MOST_EARLY = 10_000
"""Words of before `open` that are kept; what is more was told to no purpose, as nobody opened the state."""
ALONE = "!"
"""Follows the id, in Redis, of an attempt that was admitted without it: its own id may be refused there by now."""


_log = logging.getLogger("keyturn")


class RedisState:
    """The live state of one gateway among those with the same *prefix*. It belongs to one event loop."""

    def __init__(
        self,
        link: Link,
        marks: Marks,
        clock: Clock,
        *,
        name: str,
        prefix: str,
        without: Without = "local_share",
        least_replicas: int = 1,
    ) -> None:
        self.link = link
        self.clock = clock
        self.name = name
        self._without: Without = without
        self._least = least_replicas
        self.head: tuple[Argument, Argument] = (base_of(prefix), channel_of(prefix))
        self.meters = Meters(self._woken)
        self.meters.wall_offset = clock.wall() - clock.mono()
        self.marks = SharedMarks(marks)
        self.known = Known(self.meters, marks)
        self.lessons = Lessons(name, self.meters, clock.wall)
        self.specs = Specs()
        self._denials = Denials()
        self._crowds = Crowds(self._woken)
        self.opened: dict[str, str] = {}
        """The attempts that Redis knows or will know of, and what they are called there."""
        self.reduced: set[str] = set()
        """Those of which Redis knows concurrency and money alone, as it lost the rest; see `redis_replay`."""
        self.budgets: dict[str, Limit] = {}
        """Limits in money that were claimed or taken here, by key."""
        self.turned: dict[str, int] = {}
        """Where round robins stand, as far as this gateway moved them."""
        self.outbox = Outbox(link)
        self._replay = Replay(self, f"{{{prefix}}}:epoch")
        self._share: Share | None = None
        """While Redis is away: what is admitted without it."""
        self._wakes: list[Callable[[str], None]] = []
        self._hushed: deque[str] | None = None
        """While a reservation is being decided: the scopes to wake afterwards."""
        self.news = News(name, link, self.ask, clock, self.marks, self.lessons, self._denials, self._woken)
        self._pulse: asyncio.Task[None] | None = None
        self._early: list[Callable[[], None]] | None = []
        """What is to be told as soon as Redis's clock is known; None from then on."""

    @property
    def wall_offset(self) -> float:
        return self.meters.wall_offset

    @wall_offset.setter
    def wall_offset(self, seconds: float) -> None:
        self.meters.wall_offset = seconds
        if self._share is not None:
            self._share.wall_offset = seconds

    # --- its life

    async def open(self) -> None:
        await self.link.open(self._recover, self.news.hear)
        try:
            await self.news.load()
        except Away:
            pass  # the pulse asks again
        early, self._early = self._early or [], None
        for tell in early:
            tell()
        self._pulse = asyncio.create_task(self._beat())

    async def close(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            await asyncio.gather(self._pulse, return_exceptions=True)
            self._pulse = None
        for attempt_id in list(self.opened):
            self.release(attempt_id)
        await self.link.close()

    async def refresh(self, scopes: Iterable[str], limits: Iterable[Limit] = ()) -> None:
        try:
            await self._learn(list({each.key: each for each in (*self.known.of(scopes), *limits)}.values()), CHUNK)
        except Away:
            return

    async def _learn(self, limits: Sequence[Limit], at_once: int) -> None:
        """Know the newest figures of *limits*. Raises Away."""
        for start in range(0, len(limits), at_once):
            some = limits[start : start + at_once]
            _, rows = await self.ask("figures", [part for each in some for part in self.spec(each)])
            self.known.note(some, [figures_of(row) for row in rows], self.clock.mono())

    def standing(self) -> LiveStanding:
        link = self.link
        queued = link.queued + len(self.outbox)
        return LiveStanding("redis", link.reachable, link.replicas, self.meters.held(), queued, link.trouble)

    def held(self) -> int:
        """How many reservations are open: 0 when idle."""
        return self.meters.held()

    # --- limits

    def view(self, now: float) -> Known:
        return self.known

    def limits(self, scope: str) -> tuple[Limit, ...]:
        return self.meters.limits(scope)

    def declare(self, scope: str, limits: Iterable[Limit]) -> None:
        self.meters.declare(scope, limits)
        self._widened(scope)

    def charged(self, scope: str) -> tuple[Limit, ...]:
        return self.meters.charged(scope)

    def pin(self, scope: str, limits: Iterable[Limit]) -> None:
        self.meters.amend(scope, lambda book: book.pin(scope, limits))
        self._widened(scope)

    def learn(self, limit: Limit, grounds: Grounds, now: float) -> bool:
        changed = self.meters.amend(limit.scope, lambda book: book.learn(limit, grounds, now))
        self._soon(partial(self._tell, "learn", self.lessons.told(limit, grounds)))
        self._widened(limit.scope)
        return changed

    def forget(self, limit: Limit, source: Literal["reported", "learned"]) -> bool:
        known = self.meters.amend(limit.scope, lambda book: book.forget(limit, source))
        if known and source == "learned":
            self._soon(partial(self._tell, "learn", self.lessons.gone(limit)))
        self._widened(limit.scope)
        return known

    def report(
        self, scope: str, metric: str, window: Window, capacity: int, now: float, remaining: int | None = None
    ) -> bool:
        if capacity < 1 or metric not in METRICS:
            return False
        limit = Limit(scope, METRICS[metric], window, capacity, "reported")
        before = self.meters.used(limit, now)
        changed = self.meters.report(scope, metric, window, capacity, now, remaining)
        used = self.meters.used(limit, now)
        if used > before:  # its first report: what others used before is part of it
            self._soon(partial(self._tell_least, limit, used))
        if changed:
            self._widened(scope)
        return changed

    def take(self, limit: Limit, amount: int, now: float) -> None:
        self.meters.take(limit, amount, now)
        self._budget(limit)
        if amount > 0:
            self._soon(partial(self._tell_least, limit, amount))

    def wait(self, claims: Sequence[Claim], now: float, most: float = inf) -> tuple[float, Limit | None]:
        wait, limit = self.meters.wait(claims, now, most)
        known = self._denials.known(claims, now)
        return (known.wait, known.limit) if known is not None and known.wait > wait else (wait, limit)

    # --- the life of a reservation

    def reserve(
        self, attempt_id: str, claims: Sequence[Claim], now: float, scopes: Sequence[ScopeKey] = ()
    ) -> Reservation | Denied | Asked:
        """See `LiveState.reserve`. While Redis is away it raises LimiterUnavailable for what is then closed."""
        if claims and not self.link.reachable and not self.meters.holds(attempt_id):
            denied = self._hush(lambda: self._admit(attempt_id, claims, now))
            return Reservation(attempt_id, self._close) if denied is None else denied
        denied = self._denials.known(claims, now)
        if denied is None and not self.meters.holds(attempt_id):
            denied = self._crowds.denial(claims, now)
        denied = denied or self.meters.reserve(attempt_id, claims, now)
        if denied is not None:
            return denied
        if not claims or not self.link.reachable:
            return Reservation(attempt_id, self._close)
        self.opened.setdefault(attempt_id, attempt_id)
        for claim in claims:
            self._budget(claim.limit)
        asked = [attempt_id, self.marks.version, len(scopes), *map(scope_text, scopes), *self._written(claims, now)]
        return Asked(self, attempt_id, claims, partial(self._question, claims, asked))

    def answered(self, asked: Asked, reply: Any) -> Reservation | Denied | None:
        """Redis decided."""
        answer, now, attempt_id = answer_of(reply), self.clock.mono(), asked.id
        self._crowds.leave(asked.answer)
        self.news.told(answer.version, answer.changes)
        if not self.meters.holds(attempt_id):
            return Denied(FOREVER, RELEASED, FOREVER)
        if answer.rows:
            self.known.note((claim.limit for claim in asked.claims), answer.rows, now, claimed=True)
        if answer.code == 1:
            self._crowds.granted(asked.claims)
            return Reservation(attempt_id, self._close)
        self._forget(attempt_id)
        if answer.code == 2:
            return None
        if answer.code == 3:
            return Denied(FOREVER, RELEASED, FOREVER)
        for claim, row in zip(asked.claims, answer.rows, strict=True):
            if row.wait > 0.0:
                self._crowds.denied(claim.limit, now + (row.wait if row.wait < FOREVER else 0.0), now)
        return self._denials.note(asked.claims, answer.rows, now)

    def unanswered(self, asked: Asked) -> Reservation | Denied:
        """Redis did not say in time: decide as if it were away. Raises LimiterUnavailable."""
        attempt_id = asked.id
        self._tell("release", [attempt_id])
        if not self.meters.holds(attempt_id):
            return Denied(FOREVER, RELEASED, FOREVER)
        self._forget(attempt_id)
        denied = self._admit(attempt_id, asked.claims, self.clock.mono())
        if denied is None:
            return Reservation(attempt_id, self._close)
        if self.link.reachable:  # it only hesitates, and is asked again at the next beat
            denied = replace(denied, wait=min(denied.wait, PULSE), wait_any=min(denied.wait_any, PULSE))
        return denied

    def counted(self, attempt_id: str, now: float) -> None:
        self.meters.counted(attempt_id, now)
        if self._share is not None:
            self._share.counted(attempt_id, now)
        if attempt_id in self.opened:
            self._tell("counted", [self.opened[attempt_id]])

    def settle(self, attempt_id: str, usage: Usage | None, now: float) -> None:
        actuals = [actual_of(claim, cost, usage) for claim, cost in self._parts(attempt_id)]
        self.meters.settle(attempt_id, usage, now)
        if self._share is not None:
            self._share.settle(attempt_id, usage, now)
        called = self.opened.pop(attempt_id, None)
        if called is not None:
            self._tell("settle", [called, *actuals])
        self.reduced.discard(attempt_id)

    def release(self, attempt_id: str) -> None:
        self.meters.release(attempt_id)
        if self._share is not None:
            self._share.release(attempt_id)
        self.reduced.discard(attempt_id)
        called = self.opened.pop(attempt_id, None)
        if called is not None:
            self._tell("release", [called])

    def _close(self, attempt_id: str) -> None:
        if self.meters.holds(attempt_id):  # a settled id needs no tombstone: it will not be reserved again
            self.release(attempt_id)

    def _forget(self, attempt_id: str) -> None:
        """Take back what the own meters granted before Redis said no."""
        self.opened.pop(attempt_id, None)
        self.meters.release(attempt_id, refuse=False)

    def _admit(self, attempt_id: str, claims: Sequence[Claim], now: float) -> Denied | None:
        """Decide without Redis. Raises LimiterUnavailable."""
        share = self._share
        if share is None:
            parts = max(self.link.replicas, self._least)
            share = Share(self._without, parts, now, lambda limit: self.known.row(limit, now), self.meters, self._woken)
            share.wall_offset = self.wall_offset
            self._share = share
        denied = share.reserve(attempt_id, claims, now)
        if denied is not None:
            return denied
        denied = self.meters.reserve(attempt_id, share.uncounted(claims), now)
        if denied is not None:
            share.release(attempt_id)
            return denied
        self.opened[attempt_id] = called = attempt_id + ALONE
        self._tell("admit", [called, *self._written(claims, now)])
        return None

    # --- marks and round robins

    def cool(self, transition: Transition) -> bool:
        eased = self.marks.marks.apply(transition)
        self._soon(partial(self._tell_mark, transition))
        return eased

    def begin(self, scopes: Iterable[ScopeKey], attempt_id: str, now: float) -> None:
        self.marks.marks.begin(scopes, attempt_id, now)

    def end(self, attempt_id: str) -> list[ScopeKey]:
        return self.marks.marks.end(attempt_id)

    def turn(self, provider: str, index: int) -> None:
        self.turned[provider] = index
        self._soon(partial(self._tell, "turn", [self.name, provider, index]))

    def subscribe(self, wake: Callable[[str], None]) -> None:
        self._wakes.append(wake)

    def follow(self, learned: Callable[[Learned], None]) -> None:
        self.news.followers.append(learned)

    # --- in the background

    async def _beat(self) -> None:
        """The pulse: look for changes whose message was lost, renew what is held, wake who waits for others."""
        beats = 0
        while True:
            await self.clock.sleep_until(self.clock.mono() + PULSE)
            beats += 1
            try:
                await self._look_after(renew=beats % RENEW_EVERY == 0)
            except Away:
                continue
            except Exception:
                _log.exception("a look at the shared live state went wrong; the next one is in a second")

    async def _look_after(self, *, renew: bool) -> None:
        """One beat of the pulse. Raises Away."""
        for scope in self._denials.stale(self.clock.mono()):
            self._woken(scope)
        if self.link.reachable:
            self._back()
            if renew:
                await self._replay.renew(list(self.opened.items()))
            await self.news.sought()
            await self._learn(self.known.followed(self.clock.mono()), FEW)

    async def _recover(self, lost: bool) -> None:
        """Make up for the time without Redis. Raises Away when it is gone again."""
        await self._replay.run(lost)
        for scope in dict.fromkeys(self._denials.clear()):
            self._woken(scope)
        self._back()

    def _back(self) -> None:
        """Redis answers: it knows what was admitted without it, or will in a moment; our own part is no more."""
        share, self._share = self._share, None
        for scope in share.denied if share is not None else ():
            self._woken(scope)
        self.outbox.flush()

    # --- small change

    def ask(self, script: str, arguments: Sequence[Argument]) -> asyncio.Future[Any]:
        """The reply of *script*; it fails with Away."""
        return self.link.ask(script, (), [*self.head, *arguments])

    def _question(self, claims: Sequence[Claim], asked: Sequence[Argument]) -> asyncio.Future[Any]:
        """Ask for a reservation."""
        answer = self.ask("reserve", asked)
        self._crowds.enter(claims, answer)
        return answer

    def _tell(self, script: str, arguments: Sequence[Argument]) -> None:
        self.outbox.tell(script, [*self.head, *arguments])

    def _soon(self, tell: Callable[[], None]) -> None:
        """*tell* now, or at `open`: times are told by Redis's clock."""
        if self._early is None:
            tell()
        elif len(self._early) < MOST_EARLY:
            self._early.append(tell)

    def _tell_least(self, limit: Limit, amount: int) -> None:
        self._tell("atleast", [*self.spec(limit), amount])

    def _tell_mark(self, transition: Transition) -> None:
        told = self.marks.told(transition, self.link.shift)
        if told is not None:
            self._tell("mark", told)

    def _widened(self, scope: str) -> None:
        if len(self._denials) and self._denials.widen(scope, self.meters.limits(scope)):
            self._woken(scope)

    def _budget(self, limit: Limit) -> None:
        if limit.metric == "cost":
            self.budgets[limit.key] = limit

    def claimed(self, attempt_id: str) -> list[Argument]:
        """The claims of an open attempt, for `admit`."""
        claims = [claim for claim, _ in self._parts(attempt_id)]
        return self._written(claims, self.clock.mono())

    def _parts(self, attempt_id: str) -> list[tuple[Claim, int]]:
        """What Redis knows, or is to know, of an open attempt: each claim and its cost."""
        parts = self.meters.parts(attempt_id)
        return [each for each in parts if each[0].limit.metric in WHOLE] if attempt_id in self.reduced else parts

    def _written(self, claims: Sequence[Claim], now: float) -> list[Argument]:
        wall = now + self.link.shift
        return [part for claim in claims for part in self.specs.claim(claim, wall)]

    def spec(self, limit: Limit) -> list[Argument]:
        return self.specs.limit(limit, self.clock.mono() + self.link.shift)

    def _hush(self, decide: Callable[[], Denied | None]) -> Denied | None:
        """*decide*, and wake nobody before it has returned to who asked."""
        self._hushed = deque()
        try:
            return decide()
        finally:
            hushed, self._hushed = self._hushed, None
            for scope in hushed:
                asyncio.get_running_loop().call_soon(self._woken, scope)

    def _woken(self, scope: str) -> None:
        if self._hushed is not None:
            self._hushed.append(scope)
            return
        for wake in self._wakes:
            wake(scope)
