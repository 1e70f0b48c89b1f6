"""A strategy for a while: calls go to one key first, and to some others as soon as it cannot be asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from .entries import FOREVER, Entry, Rank
from .model import Draw
from .pool import Pool, Strategy

FEW_KEYS = 8
"""In a pool of no more keys one may lead however many calls it has under way."""
MOST_AT_ONCE = 8
"""Calls under way from which on it does not lead in larger pools: with nobody sure of its limit, many would fail."""

WIDEST = 256
"""Keys that are ready up to which all are looked at; nobody leads in larger pools."""
HOLD = 3.2
"""Seconds that the leader is waited for rather than ask a follower a second time."""


class Leading:
    """Chooses as *usual* does, but for who leads: *names* gives groups of keys (by quota group), in each the leader
    first and then its followers. A leader is asked before anybody else. A follower is asked once each time that its
    leader cannot be, and else only after everybody, and not at all while the leader is back in a moment."""

    __slots__ = ("_asked", "_held", "_names", "usual")

    def __init__(self, usual: Strategy, names: Callable[[], Sequence[Sequence[str]]]) -> None:
        self.usual = usual
        self._names = names
        self._asked: set[int] = set()
        """The followers that were asked since their leader last was."""
        self._held: dict[int, float] = {}
        """Until when who follows a leader that is being tried is held back."""

    def choose(
        self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float, draw: Draw
    ) -> Entry | None:
        groups = self._names() if len(rank.ready) <= WIDEST else ()
        if not groups:
            return self.usual.choose(pool, rank, tokens, tried, now, draw)
        places: dict[str, list[int]] = {name: [] for names in groups for name in names}
        for order in rank.ready:
            name = pool.entries[order].candidate.credential.group
            if name in places and _fits(pool.entries[order], tokens, tried, now):
                places[name].append(order)
        followers: list[int] = []
        waits = False
        for names in groups:
            following = [order for name in names[1:] for order in places[name]]
            for order in places[names[0]]:
                if len(pool.entries) <= FEW_KEYS or pool.entries[order].active < MOST_AT_ONCE:
                    self._asked.difference_update(following)
                    if not pool.entries[order].active or self._held.get(order, now) < now - HOLD:
                        self._held.pop(order, None)  # the next time that it is tried is another one
                    return pool.entries[order]
            if not following:
                continue
            followers += following
            if not places[names[0]] and self._is_back_soon(pool, names[0], tried, now):
                waits = True
                continue
            if not places[names[0]]:
                for order in following:
                    if order not in self._asked:
                        self._asked.add(order)
                        return pool.entries[order]
        last = self.usual.choose(pool, rank, tokens, {*tried, *followers}, now, draw)
        if last is None and waits:
            return None
        return last or self.usual.choose(pool, rank, tokens, tried, now, draw)

    def _is_back_soon(self, pool: Pool, name: str, tried: Collection[int], now: float) -> bool:
        """Whether the leader *name* is worth waiting for: its rest ends, or it is being tried after one."""
        for entry in pool.entries:
            if entry.candidate.credential.group != name or entry.order in tried:
                continue
            if entry.block == "limit" and entry.parked_until - now <= HOLD:
                return True
            if entry.block == "busy" and entry.active and now < self._held.setdefault(entry.order, now + HOLD):
                if entry.parked_until == FOREVER:  # who waits is to look again then
                    pool.park(entry, self._held[entry.order], "busy")
                return True
        return False

    def moved(self, pool: Pool, entry: Entry, started: float = FOREVER, now: float = -FOREVER) -> None:
        """As *usual* does."""
        self.usual.moved(pool, entry, started, now)

    def preview(self) -> Strategy:
        """One that chooses the same, and by which nothing moves."""
        copied = Leading(self.usual.preview(), self._names)
        copied._asked, copied._held = set(self._asked), dict(self._held)
        return copied


def _fits(entry: Entry, tokens: int, tried: Collection[int], now: float) -> bool:
    return entry.order not in tried and not (entry.short_until > now and tokens >= entry.short_cost)
