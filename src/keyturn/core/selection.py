"""Which credential answers next: the pool of one deployment and the strategies that choose from it.

A pool keeps its entries in two places: *ready*, a sorted list of positions that may be used as far as anyone knows, and
*parked*, a heap of those known to be blocked until a moment. A blocked entry is found out when it is chosen, parked
once, and not looked at again until its time comes or something frees it early. So the cost of a pick does not grow
with the pool.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple, Protocol

from .credentials import Block, Mark, ScopeKey, credential_scope, model_scope, scopes_of
from .limits import Cost
from .model import Candidate, Credential, Deployment, Draw

EXACT = 64
"""Up to so many eligible credentials `balanced` compares all; above that the best of `SAMPLE` drawn."""
SAMPLE = 8
FOREVER = float("inf")


class View(Protocol):
    """What a pick reads of the live state. `load`: the used share of the fullest limit, and until when that holds."""

    def blocked(self, scopes: Sequence[ScopeKey], now: float) -> Mark | None: ...
    def load(self, scope: str, now: float) -> tuple[float, float]: ...


class Entry:
    """A candidate in a pool, with what picking needs to know of it."""

    __slots__ = (
        "active",
        "answer_headers",
        "block",
        "candidate",
        "last_used",
        "limit_scopes",
        "load",
        "load_until",
        "order",
        "own_scopes",
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
        self.scopes = scopes_of(candidate)
        self.own_scopes = self.scopes[:-1]
        """All but the deployment's, which a pool looks at once for all its entries."""
        self.limit_scopes = (model_scope(candidate.deployment, credential.group), credential_scope(credential))
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
    def moved(self, pool: Pool, entry: Entry) -> None: ...


class Pool:
    """The credentials of one deployment. Mutable and deterministic."""

    __slots__ = (
        "_heap",
        "_uses",
        "blocks",
        "deployment",
        "entries",
        "heaviest",
        "limited",
        "ready",
        "scope",
        "strategy",
        "view",
    )

    def __init__(
        self, deployment: Deployment, credentials: Sequence[Credential], strategy: Strategy, view: View
    ) -> None:
        self.deployment = deployment
        self.entries = [Entry(Candidate(deployment, each), order) for order, each in enumerate(credentials)]
        self.ready = list(range(len(self.entries)))
        self.scope: tuple[ScopeKey, ...] = (("deployment", *deployment),)
        self.strategy = strategy
        self.view = view
        self.heaviest = max((each.weight for each in credentials), default=0.0)
        self.limited = False
        """Some entry has met a limit: what a call costs matters from then on."""
        self.blocks: dict[Block, int] = {"limit": 0, "busy": 0, "fault": 0, "dead": 0}
        self._heap: list[tuple[float, int]] = []
        self._uses = 0

    def park(self, entry: Entry, until: float, block: Block) -> None:
        """Set *entry* aside until a moment (infinite: until `unpark`)."""
        if entry.block is None:
            self.ready.pop(bisect_left(self.ready, entry.order))
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

    def closed(self, mark: Mark, now: float) -> Exhausted:
        """Nothing can be picked because of a mark on the whole deployment."""
        if mark.until <= now:
            return Exhausted(FOREVER, 0, 1, 0, 0)
        block = mark.block
        return Exhausted(mark.until - now, block == "limit", 0, block == "fault", block == "dead")


def pick(pool: Pool, cost: Cost, tried: Collection[int], now: float, draw: Draw) -> Entry | Exhausted:
    """The entry that should answer a call of *cost*, none of *tried* (positions); or when one will be able to."""
    shared = pool.view.blocked(pool.scope, now)
    if shared is not None:
        return pool.closed(shared, now)
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


def _eligible(pool: Pool, tokens: int, tried: Collection[int], now: float) -> list[Entry]:
    """All ready entries that fit: for pools small enough to look at each."""
    entries = pool.entries
    return [
        entry
        for order in pool.ready
        if order not in tried and not ((entry := entries[order]).short_until > now and tokens >= entry.short_cost)
    ]


def _drawn(pool: Pool, tokens: int, tried: Collection[int], now: float, draw: Draw, wanted: int) -> list[Entry]:
    """Up to *wanted* ready entries that fit, drawn; all of them when few of those drawn do."""
    ready, entries = pool.ready, pool.entries
    found = []
    for _ in range(4 * wanted):
        order = ready[int(draw() * len(ready))]
        entry = entries[order]
        if order not in tried and not (entry.short_until > now and tokens >= entry.short_cost):
            found.append(entry)
            if len(found) == wanted:
                break
    return found or _eligible(pool, tokens, tried, now)


class Balanced:
    """Least used share of its limits; ties by attempts under way, then last use, then order."""

    def choose(self, pool: Pool, tokens: int, tried: Collection[int], now: float, draw: Draw) -> Entry | None:
        if len(pool.ready) <= EXACT:
            few = _eligible(pool, tokens, tried, now)
        else:
            few = _drawn(pool, tokens, tried, now, draw, SAMPLE)
        if len(few) < 2:
            return few[0] if few else None
        return min((pool.load(entry, now), entry.active, entry.last_used, entry.order, entry) for entry in few)[4]

    def moved(self, pool: Pool, entry: Entry) -> None:
        """Nothing to remember: the shares tell."""


class RoundRobin:
    """The credential that the index names, or the next one after it that is free; `moved` advances the index."""

    def __init__(self, index: int = 0, *, each_call: bool = False) -> None:
        self.index = index
        self.each_call = each_call

    def choose(self, pool: Pool, tokens: int, tried: Collection[int], now: float, draw: Draw) -> Entry | None:
        ready, entries = pool.ready, pool.entries
        start = bisect_left(ready, self.index % len(entries)) if entries else 0
        for step in range(len(ready)):
            entry = entries[ready[(start + step) % len(ready)]]
            if entry.order not in tried and not (entry.short_until > now and tokens >= entry.short_cost):
                if self.each_call:
                    self.index = (entry.order + 1) % len(entries)
                return entry
        return None

    def moved(self, pool: Pool, entry: Entry) -> None:
        if not self.each_call and entry.order == self.index % len(pool.entries):
            self.index = (entry.order + 1) % len(pool.entries)


class Sequential:
    """The same credential for as long as it can be used, then the next in order, which is then kept."""

    def __init__(self) -> None:
        self._walk = RoundRobin()

    def choose(self, pool: Pool, tokens: int, tried: Collection[int], now: float, draw: Draw) -> Entry | None:
        entry = self._walk.choose(pool, tokens, tried, now, draw)
        if entry is not None and not tried:
            self._walk.index = entry.order
        return entry

    def moved(self, pool: Pool, entry: Entry) -> None:
        self._walk.moved(pool, entry)


class Weighted:
    """Drawn in proportion to the weights of the credentials."""

    def choose(self, pool: Pool, tokens: int, tried: Collection[int], now: float, draw: Draw) -> Entry | None:
        if len(pool.ready) <= EXACT:
            few = _eligible(pool, tokens, tried, now)
            point = draw() * sum(entry.candidate.credential.weight for entry in few)
            for entry in few:
                point -= entry.candidate.credential.weight
                if point < 0:
                    return entry
            return few[-1] if few else None
        heaviest, entry = pool.heaviest, pool.entries[pool.ready[0]]
        for _ in range(SAMPLE * 4):
            few = _drawn(pool, tokens, tried, now, draw, 1)
            if not few:
                return None
            entry = few[0]
            if draw() * heaviest < entry.candidate.credential.weight:
                return entry
        return entry

    def moved(self, pool: Pool, entry: Entry) -> None:
        """Nothing to remember: every call is drawn anew."""


_STRATEGIES: dict[str, type[Balanced] | type[RoundRobin] | type[Sequential] | type[Weighted]] = {
    "balanced": Balanced,
    "round_robin": RoundRobin,
    "sequential": Sequential,
    "weighted": Weighted,
}
STRATEGIES = tuple(_STRATEGIES)
"""The names that `ROTATION_MODE_<P>` accepts."""


def strategy_named(name: str) -> Strategy:
    """A new strategy by its name. Raises KeyError for a name not in `STRATEGIES`."""
    return _STRATEGIES[name]()
