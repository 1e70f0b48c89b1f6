"""Calls that wait for a credential: in a fair order, woken one by one when something fits.

A waiter leaves a function that tries to take what it needs, without waiting. When something is freed, or the earliest
return comes, the room calls these functions, whose turn it is first, and hands each grant over. So nobody is woken in
vain. Calls that may be answered by the same deployments stand in one line; lines that have a deployment in common are
served together, as if they were one. Of lines that have none, the one served longest ago comes first.

Whose turn it is: `keyturn.core.turns`. Who cannot go keeps those behind it waiting, with two exceptions:

    hindered   it has tried candidates already: the next in line may be able to use what it cannot
    too large  it does not fit, though a smaller one would: the key where it will fit first is kept for it, and smaller
               ones may use all others. Where nobody knows when it will fit, they wait behind it
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from typing import Generic

from keyturn.core import (
    Answers,
    CallerClass,
    Clock,
    Demand,
    Deployment,
    Exhausted,
    Promises,
    TimerHandle,
    Walk,
    Weighed,
    work_before,
)
from keyturn.errors import Draining, KeyturnError

from .lines import FOREVER, Bundle, G, Holdings, Line, Lines, Standing, Waiter

MOST_WAITERS = 1000
MOST_BYTES = 256 * 1024 * 1024
"""Bytes of the requests that wait, all together."""
JUDGED = 32
"""How many are judged again at a time."""
LOOKED_AT = 64
"""How many that cannot go are passed over in one line before it is left for the next time."""
SHORTEST = 0.001
"""Seconds after which who could not go asks again, at least."""


class MovedOn(Exception):
    """Another configuration is in use: who waits should look again by that one."""


class _Look(Generic[G]):
    """One line while it is served."""

    __slots__ = ("known", "over", "passed", "standing", "walk")

    def __init__(self, standing: Standing[G]) -> None:
        self.standing = standing
        self.walk: Walk = standing.queue.walk()
        self.passed = 0
        self.over = False
        self.known = False
        """Nothing is under way that somebody who waits could hope for: what comes back when, is known."""

    def pass_over(self, waiter: Waiter[G]) -> None:
        """*waiter* cannot go: look at the next."""
        self.walk.pass_over(waiter)
        self.passed += 1
        self.over = self.over or self.passed >= LOOKED_AT


class WaitingRoom(Generic[G]):
    """All lines of one gateway.

    A full room (1,000 waiters, or 256 MiB of requests, unless the owner says otherwise) lets nobody in. But a caller
    that has less than a tenth of it does come in, as long as somebody has more: of who has most, the newest goes.
    """

    def __init__(self, clock: Clock, most: int = MOST_WAITERS, most_bytes: int = MOST_BYTES) -> None:
        self._clock = clock
        self._lines: Lines[G] = Lines()
        self._holdings: Holdings[G] = Holdings(most, most_bytes)
        self._dues: list[tuple[float, int, Standing[G]]] = []
        """When lines are to be looked at; what a line itself says counts."""
        self._timer: TimerHandle | None = None
        self._timer_at = FOREVER
        self._counted = 0
        self._arrivals = 0
        self.promises = Promises()
        """Who was told when to come back."""
        self.demand = Demand()
        """Who asks for how much, of those who cannot be answered at once."""
        self.answers = Answers()
        """How long answers take for those who waited."""
        self.refused: Counter[tuple[str, str]] = Counter()
        """Calls that were told to come back, by class and reason: `predicted`, `full`, `evicted`, `late`, `never`."""

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._holdings.count

    @property
    def anybody(self) -> bool:
        """Whether there is any line: who frees something looks at nothing else, most of the time."""
        return bool(self._lines.lines)

    @property
    def held(self) -> int:
        """Bytes of the requests that wait."""
        return self._holdings.bytes

    @property
    def classes(self) -> Mapping[CallerClass, int]:
        """How many wait, by class."""
        return self._holdings.classes

    def resize(self, most: int, most_bytes: int) -> None:
        """So many may wait from now on. Nobody has to go for it."""
        self._holdings.most, self._holdings.most_bytes = most, most_bytes

    def has_room(self, caller: str, size: int) -> bool:
        """Whether a request of *caller*, *size* bytes large, may come in; who has too much makes room for it."""
        holdings = self._holdings
        while not holdings.fits(size):
            goes = holdings.gives_way(caller, size)
            if goes is None:
                return False
            self._send_away(goes, "evicted")
            self._leave(goes)
        return True

    def wanted(self, deployment: Deployment, generation: int = 0) -> bool:
        """Whether somebody waits for *deployment*: who comes now, by the same configuration, must not overtake."""
        return bool(self._lines.lines) and self._lines.wanted(generation, deployment)

    def due(self, line: Line) -> float:
        """Seconds until the first of *line* may get something; infinite when an attempt under way must end first."""
        return max(self._lines.due(line) - self._clock.mono(), 0.0)

    def bundle(self, line: Line) -> Bundle[G] | None:
        """What *line* is, or would be, served together with; None when nobody waits for any of the same."""
        return self._lines.bundle(line)

    def arrival(self) -> int:
        """A place behind everybody who has come so far."""
        self._arrivals += 1
        return self._arrivals

    def line_of(self, number: int) -> Line | None:
        """Where the waiter *number* stands; None when it does not wait."""
        waiter = self._holdings.waiters.get(number)
        return None if waiter is None else waiter.standing.line

    def before(self, number: int) -> tuple[float, float]:
        """The work until the waiter *number* is served, its own included, and how many calls that is."""
        waiter = self._holdings.waiters[number]
        shares, wants = waiter.standing.bundle.shares, waiter.standing.bundle.wants()
        ahead = self.earlier(waiter.standing.line, (waiter.rank, waiter.caller), number)
        wants[waiter.rank][waiter.caller] = ahead._replace(weight=waiter.weight)
        return work_before(wants, waiter.rank, waiter.caller, waiter.weight, shares.cost(waiter))

    def earlier(self, line: Line, owner: tuple[CallerClass, str], number: int) -> Weighed:
        """What waits in *line* of the same caller and class, and came before *number*."""
        standing = self._lines.lines.get(line)
        row = None if standing is None else standing.queue.row(owner)
        if standing is None or row is None:
            return Weighed(1.0, 0.0, 0.0)
        costs = [standing.bundle.shares.cost(each) for each in row.places if not each.gone and each.number < number]
        return Weighed(1.0, float(sum(costs)), float(len(costs)))

    async def wait(
        self, line: Line, waiter: Waiter[G], *, returns: float, latest: float, counts_tokens: bool, unsure: bool = False
    ) -> G | None:
        """Stand in *line* until it can take something; None when *latest* comes first (monotonic seconds), or who has
        less of the room needs the place.

        *returns* is when the earliest candidate comes back. *counts_tokens*: what waits here counts by its tokens.
        *unsure*: whether it can get anything in time is not known before attempts under way are over; None as soon as
        it is known that it cannot. A waiter that is cancelled leaves its place at once.
        """
        standing = self._lines.stand(line, waiter, counts_tokens=counts_tokens)
        self._holdings.come(waiter)
        waiter.latest = latest
        if unsure:
            standing.unjudged[waiter.number] = waiter
        expiry = self._clock.call_at(latest, lambda: self._send_away(waiter, "late"))
        self._arm(standing, self._clock.mono() if waiter.cost < standing.small else returns)
        try:
            return await waiter.future
        except asyncio.CancelledError:
            if waiter.future.done() and not waiter.future.cancelled() and waiter.future.exception() is None:
                grant = waiter.future.result()
                if grant is not None:
                    grant.close()
            raise
        finally:
            expiry.cancel()
            self._leave(waiter)
            waiter.asks = None

    def freed(self, deployment: Deployment) -> None:
        """Something of *deployment* came free before its time: look at every line that may use it, soon."""
        if self._lines.lines:
            now = self._clock.mono()
            for standing in self._lines.at(deployment):
                self._arm(standing, now)

    def move_on(self, generation: int) -> None:
        """Send away by `MovedOn` who waits by the configuration *generation* and has not been asked for anywhere."""
        for waiter in list(self._holdings.waiters.values()):
            old = waiter.standing.line.generation <= generation
            if old and not waiter.future.done() and waiter.asks is not None and not waiter.asks.sent:
                waiter.future.set_exception(MovedOn())

    def forget_promises(self) -> None:
        """Nobody is expected at a certain time any more: what it was told by is gone."""
        self.promises = Promises()

    def dismiss(self, error: KeyturnError | None = None) -> None:
        """Send everybody away, with *error* (draining by default)."""
        for waiter in list(self._holdings.waiters.values()):
            if not waiter.future.done():
                waiter.future.set_exception(error or Draining("shutting down", retry_after=1.0))

    def _send_away(self, waiter: Waiter[G], why: str) -> None:
        if not waiter.future.done():
            self.refused[waiter.rank, why] += 1
            waiter.future.set_result(None)

    def _leave(self, waiter: Waiter[G]) -> None:
        """*waiter* does not wait any more, and got nothing; unless it is known to have gone."""
        if not waiter.present:
            return
        standing = waiter.standing
        standing.queue.remove(waiter)
        standing.let_go(waiter.number)
        standing.unjudged.pop(waiter.number, None)
        self._holdings.go(waiter)
        if standing.queue.size:
            self._arm(standing, self._clock.mono())  # who stood behind may fit where it did not
        else:
            self._lines.close(standing)
            for deployment in standing.line.deployments:
                self.freed(deployment)  # who let this line go first need not any more

    def _arm(self, standing: Standing[G], when: float, *, timer: bool = True) -> None:
        """Serve the line at *when*, unless that is to happen earlier anyway."""
        if when >= standing.due:
            return
        standing.due = when
        self._counted += 1
        if len(self._dues) > 4 * len(self._lines.lines) + LOOKED_AT:
            self._dues = [each for each in self._dues if each[2].due == each[0]]
            heapify(self._dues)
        heappush(self._dues, (when, self._counted, standing))
        if timer and when < self._timer_at:
            self._set_timer(when)

    def _set_timer(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._clock.call_at(when, self._serve)

    def _serve(self) -> None:
        """Serve the lines whose time has come, until nobody gets anything any more."""
        self._timer, self._timer_at = None, FOREVER
        now = self._clock.mono()
        rounds: dict[Bundle[G], list[_Look[G]]] = {}
        while self._dues and self._dues[0][0] <= now:
            when, _, standing = heappop(self._dues)
            if standing.due == when:
                standing.due, standing.small = FOREVER, 0.0
                rounds.setdefault(standing.bundle, []).append(_Look(standing))
        order = [(bundle.turn, number, bundle) for number, bundle in enumerate(rounds)]
        heapify(order)
        while order:
            _, number, bundle = heappop(order)
            if self._give(rounds[bundle], now):
                self._counted += 1
                bundle.turn = self._counted
                heappush(order, (bundle.turn, number, bundle))
        for look in (each for looks in rounds.values() for each in looks):
            look.walk.end()
        for look in (each for looks in rounds.values() for each in looks):
            if not look.standing.queue.size:
                self._lines.close(look.standing)
        while self._dues and self._dues[0][2].due != self._dues[0][0]:
            heappop(self._dues)
        if self._dues and self._dues[0][0] < self._timer_at:
            self._set_timer(self._dues[0][0])
        for look in (each for looks in rounds.values() for each in looks):
            if look.known and look.standing.unjudged:
                self._judge(look.standing, now)

    def _judge(self, standing: Standing[G], now: float) -> None:
        """What was under way when some came is over, and left them nothing: who cannot get anything in time is told.
        Each is judged once, and not too many at a time."""
        for number in list(standing.unjudged)[:JUDGED]:
            waiter = standing.unjudged.pop(number)
            if waiter.asks is None or waiter.future.done():
                continue
            why = waiter.asks.hopeless(waiter.latest)
            if why:
                self._send_away(waiter, why)
                self._leave(waiter)
        if standing.unjudged:
            self._arm(standing, now + SHORTEST)

    def _give(self, looks: list[_Look[G]], now: float) -> bool:
        """Let one by one try, whose turn it is first, until one gets something. False: nobody does."""
        while True:
            best = None
            for look in looks:
                found = None if look.over else look.walk.next()
                if found is None:
                    look.over = True
                elif best is None or found[0] < best[1]:
                    best = look, *found
            if best is None:
                return False
            look, _, place = best
            assert isinstance(place, Waiter)
            if self._offer(look, place, now):
                return True

    def _offer(self, look: _Look[G], waiter: Waiter[G], now: float) -> bool:
        """Let *waiter* try. True when it got something."""
        standing, asks = look.standing, waiter.asks
        if asks is None or waiter.future.done() or 0.0 < standing.small <= waiter.cost:
            look.pass_over(waiter)
            return False
        try:
            grant = asks.take(standing.bundle.kept(waiter))
        except Exception as error:  # who waits is told; the others must be served all the same
            waiter.future.set_exception(error)
            look.pass_over(waiter)
            return False
        if isinstance(grant, Exhausted):
            look.known = look.known or not grant.busy
            self._arm(standing, now + max(grant.wait, SHORTEST), timer=False)
            if grant.by_size and not standing.small:  # the first of this round for which there is no room
                before = standing.kept if standing.holder == waiter.number else None
                standing.kept, standing.holder = asks.fits_first(before), waiter.number
            if grant.by_size and standing.kept is not None:
                standing.small = min(standing.small or FOREVER, waiter.cost)
                look.pass_over(waiter)
            elif grant.by_size or not asks.hindered:
                look.over = True
            else:
                look.pass_over(waiter)
            return False
        standing.queue.serve(waiter)
        standing.let_go(waiter.number)
        standing.unjudged.pop(waiter.number, None)
        self._holdings.go(waiter)
        standing.bundle.served.append(now)
        standing.bundle.taken += 1
        waiter.future.set_result(grant)
        return True
