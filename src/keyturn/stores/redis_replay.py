"""What Redis missed while it was away, and what it is told again after it has forgotten everything."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from itertools import islice
from math import ceil, inf
from typing import TYPE_CHECKING

from keyturn.core import KeptUse, Limit, limit_of, slots_of

from .redis_port import Argument, Link

if TYPE_CHECKING:
    from .redis_state import RedisState

SHORT = 120.0
"""Seconds of the longest window of which is told again what was used when. A slot of a longer one is so long that it
would count much twice."""
CHUNK = 500
"""Messages on their way at once, and reservations renewed in one script."""
PATIENCE = 5.0
"""Seconds after a loss in which the first gateway waits for the others to tell what they know."""
ROUND = 0.2
"""Seconds between two looks at who has."""
WHOLE = ("concurrency", "cost")
"""Metrics whose reservations are told again as such after a loss; what else is held counts as used by then."""


class Outbox:
    """Messages in their order, kept while the link takes none.

    Full, it refuses what is new. Nothing is lost by that which is not made up for: a reservation whose end is not told
    is settled at what it reserved when its lease ends, and one that is open is told of by the renewal.
    """

    MOST = 50_000

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[tuple[str, list[Argument]]] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def tell(self, script: str, arguments: list[Argument]) -> None:
        """Hand over one message, after those before it."""
        self.flush()
        if (self._waiting or not self._link.tell(script, (), arguments)) and len(self._waiting) < self.MOST:
            self._waiting.append((script, arguments))

    def flush(self) -> None:
        """Hand over what waits, as far as the link takes it."""
        while self._waiting and self._link.tell(self._waiting[0][0], (), self._waiting[0][1]):
            self._waiting.popleft()

    def clear(self) -> None:
        self._waiting.clear()

    def drop(self, script: str) -> None:
        """Forget the messages that run *script*."""
        self._waiting = deque(each for each in self._waiting if each[0] != script)

    async def send(self) -> None:
        """Have all that waits done, before the link counts as reachable. Raises Away; what was not done stays.

        All of it may be done twice: each script changes nothing the second time. Bounded, should more come than goes:
        what is left then goes out as usual.
        """
        for _ in range(2 * self.MOST // CHUNK):
            if not self._waiting:
                return
            some = list(islice(self._waiting, CHUNK))
            await together(self._link, some)
            for _ in some:
                self._waiting.popleft()


async def together(link: Link, messages: Sequence[tuple[str, Sequence[Argument]]]) -> None:
    """Have *messages* done, in order. Raises Away."""
    futures = [link.ask(script, (), arguments) for script, arguments in messages]
    results = await asyncio.gather(*futures, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


class Replay:
    """Makes up for the time without Redis. Each step may be cut short and begun again."""

    def __init__(self, state: RedisState, epoch: str) -> None:
        self._state = state
        self._epoch = epoch
        """The key that names the data in Redis: another one after each loss."""
        self._losses = 0
        self._owes = False
        """Redis forgot everything, and was not told all of it again yet."""
        self._since = inf
        """The same of what was told it after this moment of its clock."""

    async def run(self, lost: bool) -> None:
        """Tell what was done meanwhile; after a loss all that is known here. Raises Away when Redis is gone again."""
        state = self._state
        if lost:
            self._losses += 1
            self._owes = True
        if self._owes:
            state.outbox.clear()
            await self._restore()
        else:
            if state.link.rewound < inf:
                await self._retell(state.link.rewound)
            await state.outbox.send()
        await state.news.load()
        shift, head = state.link.shift, state.head
        mine = state.marks.mine(state.clock.mono(), shift)
        await self._all([("mark", [*head, *each]) for each in mine])
        await self.renew(list(state.opened.items()))
        if self._owes:
            await self._others()
        await state.outbox.send()
        self._owes, self._since = False, inf

    async def renew(self, opened: Sequence[tuple[str, str]]) -> None:
        """Prolong what is held. What Redis forgot or settled is held again. Raises Away."""
        state = self._state
        for start in range(0, len(opened), CHUNK):
            some = opened[start : start + CHUNK]
            unknown = set(await state.ask("renew", [called for _, called in some]))
            missing = []
            for attempt_id, called in some:
                if called.encode() in unknown and state.opened.get(attempt_id) == called:
                    missing.append(("admit", [*state.head, called, *state.claimed(attempt_id)]))
            await self._all(missing)

    async def _restore(self) -> None:
        """Tell an empty Redis the own use of every limit that still counts, and what is under way."""
        state = self._state
        now, shift = state.clock.mono(), state.link.shift
        told: list[tuple[str, Sequence[Argument]]] = []
        for kept in state.meters.dump(state.meters.keys(), now, shift):
            limit = limit_of(kept.key, kept.capacity)
            amounts = [] if limit is None else _amounts(kept, limit, now + shift)
            if limit is not None and amounts:
                told.append(("restore", [*state.head, f"{state.name} {self._losses}", *state.spec(limit), *amounts]))
        for limit in state.budgets.values():
            told.append(("atleast", [*state.head, *state.spec(limit), state.known.used(limit, now)]))
        for attempt_id in list(state.opened):
            state.opened[attempt_id] = called = f"{attempt_id}~{self._losses}"
            state.reduced.add(attempt_id)
            told.append(("admit", [*state.head, called, *state.claimed(attempt_id)]))
        for provider, index in state.turned.items():
            told.append(("turn", [*state.head, state.name, provider, index]))
        told += (("learn", [*state.head, *each]) for each in state.lessons.mine())
        await self._all(told)

    async def _retell(self, since: float) -> None:
        """Tell a Redis that lost its last writes what was used here after *since*: of a short window each moment of
        it, of a long one what all had used at least, as far as it was known here. What is under way may count twice
        in a short window, until that is over."""
        state = self._state
        if self._since == inf:
            self._losses += 1
        self._since = min(self._since, since)
        state.outbox.drop("admit")  # what was admitted meanwhile is part of the own use; what is open is held again
        now, shift = state.clock.mono(), state.link.shift
        told: list[tuple[str, Sequence[Argument]]] = []
        least = dict(state.budgets)
        for kept in state.meters.dump(state.meters.keys(), now, shift):
            limit = limit_of(kept.key, kept.capacity)
            if limit is None:
                continue
            if limit.window.kind != "rolling" or limit.window.seconds > SHORT:
                least[limit.key] = limit
            elif amounts := _amounts(kept, limit, now + shift, self._since):
                told.append(("restore", [*state.head, f"{state.name} {self._losses}", *state.spec(limit), *amounts]))
        for limit in least.values():
            told.append(("atleast", [*state.head, *state.spec(limit), state.known.used(limit, now)]))
        await self._all(told)

    async def _others(self) -> None:
        """Wait until all gateways that were seen before have told what they know, at most PATIENCE."""
        state = self._state
        while True:
            count, waited = await state.ask("joined", [state.name, self._epoch])
            if int(count) >= state.link.replicas or float(waited) >= PATIENCE:
                return
            await state.clock.sleep_until(state.clock.mono() + ROUND)

    async def _all(self, messages: Sequence[tuple[str, Sequence[Argument]]]) -> None:
        for start in range(0, len(messages), CHUNK):
            await together(self._state.link, messages[start : start + CHUNK])


def _amounts(kept: KeptUse, limit: Limit, wall: float, since: float = 0.0) -> list[Argument]:
    """Moment, amount, moment, amount … in Redis's time, after *since*. A slot counts as used at its end."""
    if limit.window.kind == "rolling":
        slots, _ = slots_of(limit.window.seconds)
        width = limit.window.seconds / slots
        pairs = [(kept.at + (slot + 0.999) * width, amount) for slot, amount in kept.amounts]
    elif limit.window.kind == "bucket":
        pairs = [(wall, ceil(kept.level))]
    else:
        pairs = [(wall, amount) for _, amount in kept.amounts[-1:]]
    return [part for moment, amount in pairs if amount > 0 and moment >= since for part in (repr(moment), amount)]
