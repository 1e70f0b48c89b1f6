"""Which credential answers next: the pool of one deployment, and a pick from it by its strategy.

A pool keeps its entries in two places: *ready*, a sorted list of positions that may be used as far as anyone knows, and
*parked*, a heap of those known to be blocked until a moment. A blocked entry is found out when it is chosen, parked
once, and not looked at again until its time comes or something frees it early. So the cost of a pick does not grow
with the pool.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush
from math import exp
from typing import NamedTuple, Protocol

from .credentials import Block, Mark, ScopeKey, credential_scope, model_scope, scopes_of
from .limits import Cost
from .model import Candidate, Credential, Deployment, Draw

FOREVER = float("inf")
FADING = 30.0
"""Seconds in which a measured time loses two thirds of its weight, and of its size while nothing new is measured."""


MOST_HOLDERS = 4096
"""Conversations whose prompt cache is remembered, per pool."""
FAR_FULLER = 0.75
"""The used share of its limits above which an entry is not preferred for its prompt cache any more."""


class View(Protocol):
    """What a pick reads of the live state. `load`: the used share of the fullest limit, and until when that holds."""

    def blocked(self, scopes: Sequence[ScopeKey], now: float) -> Mark | None: ...
    def load(self, scope: str, now: float) -> tuple[float, float]: ...


class Pace:
    """How long it takes until answers begin, lately: rises at once with a slow answer, falls slowly with quick ones.

    While nothing is measured it fades, so that what was slow once is tried again.
    """

    __slots__ = ("_at", "_seconds")

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._at = now

    def observe(self, seconds: float, now: float) -> None:
        """An answer began after *seconds*."""
        if seconds < self._seconds:
            old = exp((self._at - now) / FADING) if now > self._at else 1.0
            seconds = self._seconds * old + seconds * (1 - old)
        self._seconds, self._at = seconds, now

    def at(self, now: float) -> float:
        """What to expect, in seconds."""
        return self._seconds * exp((self._at - now) / FADING) if now > self._at else self._seconds


class Entry:
    """A candidate in a pool, with what picking needs to know of it."""

    __slots__ = (
        "active",
        "answer_headers",
        "block",
        "candidate",
        "free",
        "last_used",
        "limit_scopes",
        "load",
        "load_until",
        "order",
        "own_scopes",
        "pace",
        "parked_until",
        "report_due",
        "scopes",
        "short_cost",
        "short_until",
    )

    def __init__(self, candidate: Candidate, order: int) -> None:
        credential = candidate.credential
        self.candidate = candidate
        self.order = order
        self.free = credential.plan == "free"
        self.scopes = scopes_of(candidate)
        self.own_scopes = self.scopes[:-1]
        """All but the deployment's, which a pool looks at once for all its entries."""
        self.limit_scopes: tuple[str, ...] = (
            model_scope(candidate.deployment, credential.group),
            credential_scope(credential),
        )
        self.answer_headers: tuple[tuple[bytes, bytes], ...] | None = None
        """The response headers that name it, once they have been written."""
        self.active = 0
        """Attempts under way."""
        self.last_used = -1
        self.load = 0.0
        self.load_until = -FOREVER
        self.parked_until = -FOREVER
        self.block: Block | None = None
        """Why it is parked; None while it is ready."""
        self.report_due = -FOREVER
        """From when the limits in an answer's headers are worth a look again."""
        self.short_cost = 0
        """A call of at least so many tokens does not fit before `short_until`, though a smaller one would."""
        self.short_until = -FOREVER
        self.pace: Pace | None = None
        """None until it is measured."""


class Exhausted(NamedTuple):
    """Nothing can be picked now. *wait*: seconds until the earliest candidate returns, infinite when unknown."""

    wait: float
    limits: int
    """How many candidates only limits keep away; `busy`: until an attempt under way ends; `faults`, `dead` likewise."""
    busy: int
    faults: int
    dead: int
    by_size: bool = False
    """A smaller call would fit now."""


class Strategy(Protocol):
    """Chooses among the ready entries of a pool, leaving out those in *tried* and those too full for *tokens*."""

    def choose(self, pool: Pool, tokens: int, tried: Collection[int], now: float, draw: Draw) -> Entry | None: ...

    def moved(self, pool: Pool, entry: Entry, started: float = FOREVER, now: float = -FOREVER) -> None:
        """An attempt on *entry* that began at *started* met a limit (429, quota)."""
        ...

    def preview(self) -> Strategy:
        """One that chooses the same, and by which nothing moves."""
        ...


class Pool:
    """The credentials of one deployment. Mutable and deterministic."""

    __slots__ = (
        "_heap",
        "_uses",
        "blocks",
        "deployment",
        "entries",
        "free",
        "fresh",
        "heaviest",
        "holders",
        "limited",
        "pace",
        "places",
        "ready",
        "scope",
        "strategy",
        "view",
        "width",
    )

    def __init__(
        self,
        deployment: Deployment,
        credentials: Sequence[Credential],
        strategy: Strategy,
        view: View,
        among: Sequence[Credential] = (),
    ) -> None:
        """*among*: all credentials of the provider in their order, where *credentials* are not all of them."""
        self.deployment = deployment
        self.entries = [Entry(Candidate(deployment, each), order) for order, each in enumerate(credentials)]
        self.ready = list(range(len(self.entries)))
        self.free = [entry.order for entry in self.entries if entry.free]
        """Those of `ready` whose credential is of plan free."""
        self.fresh: deque[int] | None = None
        """Positions that may not have been measured yet; None until somebody asks for them."""
        self.width = len(among) or len(self.entries)
        """How many credentials the provider has."""
        self.places: list[int] | None = None
        """The position of each entry among those; None where it is the entry's own."""
        if self.width != len(self.entries):
            positions = {each: place for place, each in enumerate(among)}
            self.places = [positions[each] for each in credentials]
        self.pace: Pace | None = None
        """How soon the deployment begins to answer, over all its credentials; None until it is measured."""
        self.scope: tuple[ScopeKey, ...] = (("deployment", *deployment),)
        self.strategy = strategy
        self.view = view
        self.heaviest = max((each.weight for each in credentials), default=0.0)
        self.holders: OrderedDict[int, int] = OrderedDict()
        """Conversation -> the position of the entry that holds its prompt cache; the one used longest ago is first."""
        self.limited = False
        """Some entry has met a limit: what a call costs matters from then on."""
        self.blocks: dict[Block, int] = {"limit": 0, "busy": 0, "fault": 0, "dead": 0}
        self._heap: list[tuple[float, int]] = []
        self._uses = 0

    def place(self, entry: Entry) -> int:
        """The position of *entry* among all credentials of its provider, the same in all its pools."""
        return entry.order if self.places is None else self.places[entry.order]

    def park(self, entry: Entry, until: float, block: Block) -> None:
        """Set *entry* aside until a moment (infinite: until `unpark`)."""
        if entry.block is None:
            self.ready.pop(bisect_left(self.ready, entry.order))
            if entry.free:
                self.free.pop(bisect_left(self.free, entry.order))
        else:
            self.blocks[entry.block] -= 1
        entry.parked_until, entry.block = until, block
        self.blocks[block] += 1
        if until < FOREVER:
            heappush(self._heap, (until, entry.order))
            if len(self._heap) > 2 * len(self.entries) + 64:
                self._heap = [(each.parked_until, each.order) for each in self.entries if each.block is not None]
                heapify(self._heap)

    def unpark(self, entry: Entry) -> None:
        """Something that blocked *entry* may have gone: it is ready until the next look says otherwise."""
        entry.short_until = entry.load_until = -FOREVER
        if entry.block is not None:
            self.blocks[entry.block] -= 1
            entry.block = None
            entry.parked_until = -FOREVER
            insort(self.ready, entry.order)
            if entry.free:
                insort(self.free, entry.order)

    def revive(self, now: float) -> None:
        """Make ready what is parked no longer than *now*."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            until, order = heappop(heap)
            entry = self.entries[order]
            if entry.block is not None and entry.parked_until == until:
                self.unpark(entry)

    def used(self, entry: Entry) -> None:
        """An attempt on *entry* begins."""
        self._uses += 1
        entry.last_used = self._uses
        entry.active += 1
        entry.load_until = -FOREVER

    def done(self, entry: Entry) -> None:
        """An attempt on *entry* is over."""
        entry.active -= 1
        entry.load_until = -FOREVER

    def holds(self, entry: Entry, conversation: int) -> None:
        """*entry* has answered a call of *conversation*: its account holds the prompt cache."""
        self.holders[conversation] = entry.order
        self.holders.move_to_end(conversation)
        if len(self.holders) > MOST_HOLDERS:
            self.holders.popitem(last=False)

    def observed(self, entry: Entry, seconds: float, now: float) -> None:
        """An answer of *entry* began after *seconds*."""
        for each in (entry, self):
            if each.pace is None:
                each.pace = Pace(seconds, now)
            else:
                each.pace.observe(seconds, now)

    def load(self, entry: Entry, now: float) -> float:
        """The used share of the fullest limit of *entry*; computed again only when it may have changed."""
        if entry.load_until <= now:
            share, until = 0.0, FOREVER
            for scope in entry.limit_scopes:
                part, holds = self.view.load(scope, now)
                share, until = max(share, part), min(until, holds)
            entry.load, entry.load_until = share, until
        return entry.load

    def returns(self, tokens: int, tried: Collection[int], now: float) -> Exhausted:
        """Why nothing can be picked, and when something can be."""
        earliest, by_size, stuck = FOREVER, False, 0
        for order in self.ready:
            entry = self.entries[order]
            if order not in tried and entry.short_until > now and tokens >= entry.short_cost:
                earliest, by_size = min(earliest, entry.short_until), True
                stuck += entry.short_until == FOREVER
        heap = self._heap
        while heap and self.entries[heap[0][1]].parked_until != heap[0][0]:
            heappop(heap)
        if heap and heap[0][1] not in tried:
            earliest = min(earliest, heap[0][0])
        elif heap:
            waiting = (until for until, order in heap if order not in tried)
            earliest = min(earliest, min(waiting, default=FOREVER))
        blocks = self.blocks
        if tried:  # what was tried is of no use to this call, whenever it returns
            blocks = dict(blocks)
            for order in tried:
                block = self.entries[order].block
                if block is not None:
                    blocks[block] -= 1
        wait = max(earliest - now, 0.0)
        return Exhausted(
            wait, blocks["limit"] + by_size, blocks["busy"] + stuck, blocks["fault"], blocks["dead"], by_size
        )

    def closed(self, mark: Mark, tried: int, now: float) -> Exhausted:
        """Nothing can be picked because of a mark on the whole deployment; *tried* entries are of no use anyway."""
        if mark.until <= now:
            return Exhausted(FOREVER, 0, 1, 0, 0)
        block = mark.block
        wait = mark.until - now if tried < len(self.entries) else FOREVER
        return Exhausted(wait, block == "limit", 0, block == "fault", block == "dead")


def pick(pool: Pool, cost: Cost, tried: Collection[int], now: float, draw: Draw) -> Entry | Exhausted:
    """The entry that should answer a call of *cost*, none of *tried* (positions); or when one will be able to."""
    shared = pool.view.blocked(pool.scope, now)
    if shared is not None:
        return pool.closed(shared, len(tried), now)
    pool.revive(now)
    tokens = cost.input + cost.output
    while True:
        entry = pool.strategy.choose(pool, tokens, tried, now, draw)
        if entry is None:
            return pool.returns(tokens, tried, now)
        mark = pool.view.blocked(entry.own_scopes, now)
        if mark is None:
            return entry
        if mark.until > now:
            pool.park(entry, mark.until, mark.block)
        else:
            pool.park(entry, FOREVER, "busy")


def holder_in(pool: Pool, conversation: int, tokens: int, tried: Collection[int], now: float) -> Entry | None:
    """The entry that holds the prompt cache of *conversation*; None when it may not be asked, or is much fuller than
    others can be."""
    order = pool.holders.get(conversation)
    if order is None or order in tried or pool.view.blocked(pool.scope, now) is not None:
        return None
    pool.revive(now)
    entry = pool.entries[order]
    short = entry.short_until > now and tokens >= entry.short_cost
    if entry.block is not None or short or pool.view.blocked(entry.own_scopes, now) is not None:
        return None
    return entry if pool.load(entry, now) <= FAR_FULLER else None


def peek(pool: Pool, cost: Cost, tried: Collection[int], now: float, draw: Draw) -> Entry | Exhausted:
    """What `pick` would answer; no rotation moves by it."""
    strategy = pool.strategy
    pool.strategy = strategy.preview()
    try:
        return pick(pool, cost, tried, now, draw)
    finally:
        pool.strategy = strategy
