"""A strategy for a while: calls go to one key first, and to some others as soon as it cannot be asked."""

from __future__ import annotations

from collections.abc import Callable, Collection

from .entries import FOREVER, Entry, Rank
from .model import Draw
from .pool import Pool, Strategy

FEW_KEYS = 8
"""In a pool of no more keys one may lead however many calls it has under way."""
MOST_AT_ONCE = 8
"""Calls under way from which on it does not lead in larger pools: with nobody sure of its limit, many would fail."""

WIDEST = 256
"""Keys that are ready up to which all are looked at; nobody leads in larger pools."""
HOLD = 3.0
"""Seconds that the leader is waited for rather than ask a follower a second time."""


class Leading:
    """Chooses as *usual* does, but for who leads: *names* gives the quota groups of the leader and of its followers, or
    nothing. A follower is asked once each time that the leader cannot be, and else only after everybody, and not at
    all while the leader is back in a moment."""

    __slots__ = ("_asked", "_names", "usual")

    def __init__(self, usual: Strategy, names: Callable[[], tuple[str, ...]]) -> None:
        self.usual = usual
        self._names = names
        self._asked: set[int] = set()
        """The followers that were asked since the leader last was."""

    def choose(
        self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float, draw: Draw
    ) -> Entry | None:
        names = self._names() if len(rank.ready) <= WIDEST else ()
        if not names:
            return self.usual.choose(pool, rank, tokens, tried, now, draw)
        places: dict[str, list[int]] = {name: [] for name in names}
        for order in rank.ready:
            name = pool.entries[order].candidate.credential.group
            if name in places and _fits(pool.entries[order], tokens, tried, now):
                places[name].append(order)
        for order in places[names[0]]:
            if len(pool.entries) <= FEW_KEYS or pool.entries[order].active < MOST_AT_ONCE:
                self._asked.clear()
                return pool.entries[order]
        followers = [order for name in names[1:] for order in places[name]]
        if not places[names[0]]:
            for order in followers:
                if order not in self._asked:
                    self._asked.add(order)
                    return pool.entries[order]
        last = self.usual.choose(pool, rank, tokens, {*tried, *followers}, now, draw)
        if last is None and followers and any(_is_back_soon(each, names[0], tried, now) for each in pool.entries):
            return None
        return last or self.usual.choose(pool, rank, tokens, tried, now, draw)

    def moved(self, pool: Pool, entry: Entry, started: float = FOREVER, now: float = -FOREVER) -> None:
        """As *usual* does."""
        self.usual.moved(pool, entry, started, now)

    def preview(self) -> Strategy:
        """One that chooses the same, and by which nothing moves."""
        copied = Leading(self.usual.preview(), self._names)
        copied._asked = set(self._asked)
        return copied


def _is_back_soon(entry: Entry, name: str, tried: Collection[int], now: float) -> bool:
    """Whether *entry* is the leader and worth waiting for."""
    own = entry.candidate.credential.group == name and entry.order not in tried
    return own and entry.block == "limit" and entry.parked_until - now <= HOLD


def _fits(entry: Entry, tokens: int, tried: Collection[int], now: float) -> bool:
    return entry.order not in tried and not (entry.short_until > now and tokens >= entry.short_cost)
