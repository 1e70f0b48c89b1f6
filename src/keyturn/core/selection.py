"""Which credential answers next: the pool of one deployment, and a pick from it by its strategy.

A pool keeps its entries in two places: *ready*, sorted lists of positions that may be used as far as anyone knows, and
*parked*, a heap of those known to be blocked until a moment. A blocked entry is found out when it is chosen, parked
once, and not looked at again until its time comes or something frees it early. So the cost of a pick does not grow
with the pool.

What is ready is kept by rank, and a strategy chooses within the best rank that has something for the call:

    spent      who was exhausted in this fair cycle comes after who was not
    priority   then the key priority, 1 first, keys without one last
    stacked    then who has fewer calls under way than the soft target comes before who has as many

Most pools have one rank.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

from .entries import Entry, Rank
from .limits import Cost
from .model import Deployment, Draw
from .pool import MOST_HOLDERS, Exhausted, Pool

__all__ = ["FAR_FULLER", "MOST_HOLDERS", "holder_in", "peek", "pick", "standing"]

FAR_FULLER = 0.75
"""The used share of its limits above which an entry is not preferred for its prompt cache any more."""


LOOKED_AT = 8
"""How many of a better rank are looked at before its being there is believed."""


def pick(pool: Pool, cost: Cost, tried: Collection[int], now: float, draw: Draw) -> Entry | Exhausted:
    """The entry that should answer a call of *cost*, none of *tried* (positions); or when one will be able to."""
    shared = pool.view.blocked(pool.scope, now)
    if shared is not None:
        return pool.closed(shared, len(tried), now)
    pool.revive(now)
    cycle = pool.cycle
    if cycle is not None and (cycle.version != pool.followed or cycle.ends <= now):
        pool.follow(now)
    tokens = cost.input + cost.output
    while True:
        for rank in pool.ranks:
            entry = pool.strategy.choose(pool, rank, tokens, tried, now, draw)
            if entry is not None:
                break
        else:
            return pool.returns(tokens, tried, now)
        mark = pool.view.blocked(entry.own_scopes, now)
        if mark is None:
            return entry
        pool.found_blocked(entry, mark, now)


def holder_in(pool: Pool, conversation: int, tokens: int, tried: Collection[int], now: float) -> Entry | None:
    """The entry that holds the prompt cache of *conversation*; None when it may not be asked, is much fuller than
    others can be, or others come before it by their key priority or in the fair cycle."""
    held = pool.holders.get(conversation)
    if held is None:
        return None
    order, until = held
    if until <= now:
        del pool.holders[conversation]
        return None
    if order in tried or pool.view.blocked(pool.scope, now) is not None:
        return None
    pool.revive(now)
    entry = pool.entries[order]
    short = entry.short_until > now and tokens >= entry.short_cost
    if entry.block is not None or short or pool.view.blocked(entry.own_scopes, now) is not None:
        return None
    for rank in pool.ranks:
        if rank.level >= entry.rank.level:
            break
        if _has_somebody(pool, rank, tokens, tried, now):
            return None
    return entry if pool.load(entry, now) <= FAR_FULLER else None


def _has_somebody(pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float) -> bool:
    """Whether somebody of *rank* can be asked, as far as a few of it tell. Who is found out to be blocked is parked."""
    few = rank.ready[:LOOKED_AT]
    for entry in (pool.entries[order] for order in few):
        if entry.order in tried or (entry.short_until > now and tokens >= entry.short_cost):
            continue
        mark = pool.view.blocked(entry.own_scopes, now)
        if mark is None:
            return True
        pool.found_blocked(entry, mark, now)
    return len(few) == LOOKED_AT


def peek(pool: Pool, cost: Cost, tried: Collection[int], now: float, draw: Draw) -> Entry | Exhausted:
    """What `pick` would answer; no rotation moves by it."""
    strategy = pool.strategy
    pool.strategy = strategy.preview()
    try:
        return pick(pool, cost, tried, now, draw)
    finally:
        pool.strategy = strategy


def standing(pool: Pool, tried: Collection[int], now: float) -> str:
    """Why *pool* has nobody for a call that has *tried* some of its keys: how many are kept away, and by what.

    The cost of it does not grow with the pool.
    """
    blocks, entries, at_cap, ready = pool.blocks, pool.entries, pool.at_cap, 0
    for rank in pool.ranks:
        ready += len(rank.ready)
    if tried:
        blocks = dict(blocks)
        for entry in (entries[order] for order in tried):
            at_cap -= entry.capped
            if entry.block is None:
                ready -= 1
            else:
                blocks[entry.block] -= 1
    mark = pool.view.blocked(pool.scope, now)
    counts = (
        len(tried),
        blocks["limit"] - at_cap,
        at_cap,
        blocks["busy"],
        blocks["fault"],
        blocks["dead"],
        ready if mark is None else 0,
        len(pool.cycle.spent) if pool.cycle is not None else 0,
    )
    return _worded(pool.deployment, len(entries), counts, None if mark is None else mark.reason)


KEPT_AWAY = (
    "tried",
    "at a limit",
    "at a cap of yours",
    "full",
    "resting after a fault",
    "not usable",
    "without room for a call of this size",
    "exhausted in this fair cycle",
)


@lru_cache(maxsize=1024)  # many calls in a row find the same
def _worded(deployment: Deployment, keys: int, counts: tuple[int, ...], resting: str | None) -> str:
    told = [f"{count} {what}" for count, what in zip(counts, KEPT_AWAY, strict=True) if count > 0]
    if resting is not None:
        told.append(f"all resting: {resting}")
    return f"{deployment}: none of {keys} keys is free ({', '.join(told) or 'none was asked'})"
