"""Slow calls are sent a second time, to another quota group: who answers first is relayed, the other is let go.

Loaded only where the owner named routes for it. A call that was sent twice is not tried again: whatever comes of the
two is its answer.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from fnmatch import translate
from typing import TYPE_CHECKING, NamedTuple

from keyturn.config import HedgingSettings
from keyturn.core import (
    ROOMY,
    Refuse,
    Relay,
    Spent,
    Times,
    Usage,
    advance,
    affordable,
    cost_of,
    hedgeable,
    sent,
    sent_twice,
)
from keyturn.errors import Draining, KeyturnError

from . import unanswered
from .bounds import like_of
from .exchange import Exchange
from .preparing import prepared
from .run import Failed, Grant, Run

if TYPE_CHECKING:
    from .gateway import Gateway

UNUSED = "another request for the same call answered first"


class Watched:
    """What all configurations of a gateway have seen of calls that may be sent twice."""

    def __init__(self) -> None:
        self.times = Times()
        self.spent = Spent()
        self.results: Counter[str] = Counter()
        """What became of second requests: `won`, `lost`, `failed` (neither answered), `left` (the client did)."""


class Sent(NamedTuple):
    """One of the two requests, with the task that has it answered."""

    grant: Grant
    exchange: Exchange
    task: asyncio.Task[Failed | None]


class Hedging:
    """Belongs to one configuration."""

    def __init__(self, settings: HedgingSettings, gateway: Gateway) -> None:
        self._gateway = gateway
        self._settings = settings
        self._names = re.compile("|".join(map(translate, settings.routes))).match
        if gateway.adapting.watched is None:
            gateway.adapting.watched = Watched()
        self._watched = gateway.adapting.watched
        self._tasks: set[asyncio.Task[Failed | None]] = set()

    def watches(self, run: Run) -> bool:
        """Whether *run* may be sent twice: only its first attempt."""
        return not run.progress.attempts and self._names(run.call.model) is not None and hedgeable(run.call)

    async def attempt(self, run: Run, grant: Grant, exchange: Exchange) -> tuple[Grant, Exchange, Failed | None]:
        """The attempt of *grant*, and another beside it when it is slow: the one that answered, or the one that failed.
        Raises what an attempt raises, and BadUpstream when both failed."""
        watched, settings = self._watched, self._settings
        kind = like_of(run, grant)
        slow = watched.times.slow(kind, settings.percentile)
        watched.spent = sent(watched.spent, *self._cost(run, grant))
        if slow is None:
            failed = await self._gateway.attempt(run, exchange)
        else:
            first = self._send(run, grant, exchange)
            await self._until_slow(first, slow)
            if not first.task.done():
                second = await self._beside(run, first)
                if second is not None:
                    return await self._race(run, first, second)
            failed = await self._result(first)
        if failed is None:
            watched.times.observe(kind, self._gateway.clock.mono() - grant.attempt.started)
        return grant, exchange, failed

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _send(self, run: Run, grant: Grant, exchange: Exchange) -> Sent:
        task = asyncio.get_running_loop().create_task(self._gateway.attempt(run, exchange))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return Sent(grant, exchange, task)

    def _done(self, task: asyncio.Task[Failed | None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever wanted it has seen it

    async def _until_slow(self, first: Sent, slow: float) -> None:
        """Return when *first* is over, or has taken so many seconds."""
        late: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        clock, over = self._gateway.clock, False
        timer = clock.call_at(first.grant.attempt.started + slow, lambda: _over(late))
        try:
            await asyncio.wait((first.task, late), return_when=asyncio.FIRST_COMPLETED)
            over = True
        finally:
            timer.cancel()
            if not over:
                _let_go(first, "")

    async def _result(self, sent: Sent) -> Failed | None:
        """What becomes of *sent*, which nobody else waits for."""
        over = False
        try:
            await asyncio.wait((sent.task,))
            over = True
        finally:
            if not over:
                _let_go(sent, "")
        return _result_of(sent)

    async def _beside(self, run: Run, first: Sent) -> Sent | None:
        """A second request, to another quota group that has plenty of room; None when there is none, or no longer any
        need of it."""
        gateway, over = self._gateway, False
        grant: Grant | None = None
        exchange: Exchange | None = None
        tokens, money = self._cost(run, first.grant)
        if gateway.draining or not affordable(
            self._watched.spent, tokens, money, self._settings.most_requests, self._settings.most_cost
        ):
            return None
        try:
            counted, run.counted = run.counted, True  # one call, however often it is sent
            try:
                grant = run.generation.reserving.beside(run, first.grant, ROOMY)
                if grant is not None and (not grant.pending or await run.generation.reserving.confirmed(run, grant)):
                    exchange = await prepared(gateway, run, grant)
            except KeyturnError:  # a limit of its caller: the first request goes on
                exchange = None
            over = True
        finally:
            if not over:
                _let_go(first, "")
        if grant is None or exchange is None:
            run.counted = counted or first.grant.sent
            return None
        if first.task.done():
            exchange.watch.close()
            grant.close()
            run.counted = counted or first.grant.sent
            return None
        self._watched.spent = sent_twice(self._watched.spent, tokens, money)
        seconds = gateway.clock.mono() - first.grant.attempt.started
        run.trail.notes.append(f"no answer after {seconds:.2f} s, which is slow: also sent to {grant.attempt.key}")
        return self._send(run, grant, exchange)

    async def _race(self, run: Run, first: Sent, second: Sent) -> tuple[Grant, Exchange, Failed | None]:
        """Who answers first; when both fail, what the first one that is final said."""
        winner: Sent | None = None
        left = [first, second]
        try:
            while winner is None and left:
                await asyncio.wait([each.task for each in left], return_when=asyncio.FIRST_COMPLETED)
                for each in [each for each in left if each.task.done()]:
                    left.remove(each)
                    if winner is None and _answered(each.task):
                        winner = each
                    elif _answered(each.task):
                        left.append(each)
        finally:
            for each in left:
                _let_go(each, UNUSED if winner is not None else "")
            if winner is None and left:
                self._watched.results["left"] += 1
        if winner is None:
            return self._both_failed(run, first, second)
        self._won(run, first, second, winner)
        return winner.grant, winner.exchange, None

    def _won(self, run: Run, first: Sent, second: Sent, winner: Sent) -> None:
        """The attempt that answers stands last in the trail, as everywhere."""
        attempts, now = run.trail.attempts, self._gateway.clock.mono()
        attempts.remove(winner.grant.attempt)
        attempts.append(winner.grant.attempt)
        self._watched.results["won" if winner is second else "lost"] += 1
        for each in {first, winner}:  # the first one took as long at least
            self._watched.times.observe(like_of(run, each.grant), now - each.grant.attempt.started)

    def _both_failed(self, run: Run, first: Sent, second: Sent) -> tuple[Grant, Exchange, Failed | None]:
        self._watched.results["failed"] += 1
        for each in (first, second):
            failed = _result_of(each)
            if failed is None:
                continue
            move = advance(run.progress, each.grant.entry, failed.outcome, self._gateway.clock.mono())
            if isinstance(move, Relay):
                return each.grant, each.exchange, failed
            run.remember(failed)
        raise unanswered.stopped(run, Refuse("it was slow, and the second request failed as well as the first"))

    def _cost(self, run: Run, grant: Grant) -> tuple[int, int]:
        """What an attempt probably costs: tokens, and nano-dollars where its price is known."""
        deployment = grant.entry.candidate.deployment
        estimator = self._gateway.estimator
        usage = Usage(estimator.estimate(run.call).likely, estimator.output(str(deployment)))
        return usage.input + usage.output, cost_of(usage, run.generation.prices.of(deployment)) or 0


def _answered(task: asyncio.Task[Failed | None]) -> bool:
    return not task.cancelled() and task.exception() is None and task.result() is None


def _result_of(sent: Sent) -> Failed | None:
    """What became of *sent*. Raises what its attempt raised, and Draining when it was ended as the gateway closes."""
    if sent.task.cancelled():
        raise Draining("the gateway is shutting down", retry_after=1.0)
    return sent.task.result()


def _let_go(sent: Sent, why: str) -> None:
    """Close the connection of *sent* at once; what was observed of it stays charged."""
    if why and sent.grant.open:
        sent.grant.attempt.detail = why
    sent.exchange.close()
    sent.task.cancel()


def _over(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
