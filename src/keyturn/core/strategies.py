"""The strategies that choose from a pool, one per class.

    balanced       the least used share of its limits
    round_robin    the one that an index names, which moves on after a 429
    sequential     the same one for as long as it can be used
    weighted       drawn by weight
    fastest        the one that begins to answer soonest, of two drawn
    cheapest       those of plan free first, else as balanced

Each chooses within one rank of a pool, the best that has something for the call (see `selection`), and looks at a
bounded number of entries, however large the pool is; more only when few of those drawn fit.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Sequence

from .entries import Entry, Rank
from .model import Draw
from .pool import Pool, Strategy

EXACT = 64
"""Up to so many eligible credentials `balanced` compares all; above that the best of `SAMPLE` drawn."""
SAMPLE = 8
FOREVER = float("inf")


def _fits(entry: Entry, tokens: int, tried: Collection[int], now: float) -> bool:
    return entry.order not in tried and not (entry.short_until > now and tokens >= entry.short_cost)


def _eligible(pool: Pool, ready: Sequence[int], tokens: int, tried: Collection[int], now: float) -> list[Entry]:
    """All entries of *ready* that fit: for pools small enough to look at each."""
    entries = pool.entries
    return [
        entry
        for order in ready
        if order not in tried and not ((entry := entries[order]).short_until > now and tokens >= entry.short_cost)
    ]


def _drawn(
    pool: Pool, ready: Sequence[int], tokens: int, tried: Collection[int], now: float, draw: Draw, wanted: int
) -> list[Entry]:
    """Up to *wanted* entries of *ready* that fit, drawn; all of them when few of those drawn do."""
    entries = pool.entries
    found = []
    for _ in range(4 * wanted):
        order = ready[int(draw() * len(ready))]
        entry = entries[order]
        if order not in tried and not (entry.short_until > now and tokens >= entry.short_cost):
            found.append(entry)
            if len(found) == wanted:
                break
    return found or _eligible(pool, ready, tokens, tried, now)


def _least_used(
    pool: Pool, ready: Sequence[int], tokens: int, tried: Collection[int], now: float, draw: Draw
) -> Entry | None:
    """Of *ready*, the least used share of its limits; ties by attempts under way, then last use, then order."""
    if len(ready) == 1:
        only = pool.entries[ready[0]]
        return only if _fits(only, tokens, tried, now) else None
    if len(ready) <= EXACT:
        few = _eligible(pool, ready, tokens, tried, now)
    else:
        few = _drawn(pool, ready, tokens, tried, now, draw, SAMPLE)
    if len(few) < 2:
        return few[0] if few else None
    best, least, tied = few[0], FOREVER, (0, 0, 0)
    for entry in few:
        share = entry.load if entry.load_until > now else pool.load(entry, now)
        if share > least:
            continue
        standing = (entry.active, entry.last_used, entry.order)
        if share < least or standing < tied:
            best, least, tied = entry, share, standing
    return best


class Memoryless:
    """What all strategies share that keep nothing between two choices."""

    def moved(self, pool: Pool, entry: Entry, started: float = FOREVER, now: float = -FOREVER) -> None:
        """Nothing to remember."""


class Balanced(Memoryless):
    """Least used share of its limits; ties by attempts under way, then last use, then order."""

    def choose(
        self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float, draw: Draw
    ) -> Entry | None:
        return _least_used(pool, rank.ready, tokens, tried, now, draw) if rank.ready else None

    def preview(self) -> Strategy:
        return self


class Cheapest(Memoryless):
    """Credentials of plan free for as long as one is there, then the others; among them as balanced."""

    def choose(
        self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float, draw: Draw
    ) -> Entry | None:
        free = _least_used(pool, rank.free, tokens, tried, now, draw)
        return free or _least_used(pool, rank.ready, tokens, tried, now, draw)

    def preview(self) -> Strategy:
        return self


class KeyIndex:
    """The position of the credential whose turn it is, from 0: one for all pools of a provider.

    *moves* is called with each new position. Each further key priority has an index of its own, which is not
    remembered beyond this process.
    """

    __slots__ = ("_further", "_left", "index", "moves")

    def __init__(self, index: int = 0, moves: Callable[[int], object] = lambda index: None) -> None:
        self.index = index
        self.moves = moves
        self._left: dict[int, float] = {}
        """When a limit moved the index away from each position."""
        self._further: dict[int, KeyIndex] = {}

    def of(self, grade: int) -> KeyIndex:
        """The index among the keys of a priority: itself for the best (0)."""
        return self if not grade else self._further.setdefault(grade, KeyIndex())

    def copy(self) -> KeyIndex:
        """One that stands where this one does and tells nobody when it moves."""
        copied = KeyIndex(self.index)
        copied._further = {grade: KeyIndex(each.index) for grade, each in self._further.items()}
        return copied

    def within(self, count: int) -> int:
        """The position among *count* credentials, however many there were when it was remembered."""
        return self.index % count if count else 0

    def move(self, position: int) -> None:
        """It is the turn of *position* now."""
        if position != self.index:
            self.index = position
            self.moves(position)

    def limited(
        self, position: int, count: int, started: float, now: float, among: Sequence[int] | None = None
    ) -> None:
        """An attempt on *position* that began at *started* met a limit: move on, once for all that ran together.

        *among*: the positions that take turns, where those are not all.
        """
        named, following = self.within(count), (position + 1) % count
        if among is not None:
            named = among[bisect_left(among, named) % len(among)]
            following = among[bisect_left(among, position + 1) % len(among)]
        if position == named and started > self._left.get(position, -FOREVER):
            self._left[position] = now
            self.move(following)


class RoundRobin:
    """The credential that the index names, or the next one after it that is free; a limit moves the index on.

    With *each_call* every choice does.
    """

    def __init__(self, turn: KeyIndex | None = None, *, each_call: bool = False) -> None:
        self.turn = KeyIndex() if turn is None else turn
        self.each_call = each_call

    def choose(
        self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float, draw: Draw
    ) -> Entry | None:
        ready, entries = rank.ready, pool.entries
        start = bisect_left(ready, self.named(pool, rank))
        for step in range(len(ready)):
            entry = entries[ready[(start + step) % len(ready)]]
            if _fits(entry, tokens, tried, now):
                if self.each_call:
                    self.turn.of(rank.grade).move((pool.place(entry) + 1) % pool.width)
                return entry
        return None

    def named(self, pool: Pool, rank: Rank) -> int:
        """The position in *pool* of the credential whose turn it is, or of the next that the pool has."""
        order = self.turn.of(rank.grade).within(pool.width)
        return order if pool.places is None else bisect_left(pool.places, order)

    def moved(self, pool: Pool, entry: Entry, started: float = FOREVER, now: float = -FOREVER) -> None:
        if not self.each_call:
            turn = self.turn.of(entry.grade)
            turn.limited(pool.place(entry), pool.width, started, now, entry.rank.places)

    def preview(self) -> Strategy:
        return RoundRobin(self.turn.copy(), each_call=self.each_call)


class Sequential:
    """The same credential for as long as it can be used, then the next in order, which is then kept.

    One that is only above its soft target is kept all the same: it is asked again once it is below.
    """

    def __init__(self, kept: KeyIndex | None = None) -> None:
        self._walk = RoundRobin(kept)

    def choose(
        self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float, draw: Draw
    ) -> Entry | None:
        entry = self._walk.choose(pool, rank, tokens, tried, now, draw)
        if entry is not None and not tried and not (pool.soft and self._stacked(pool, rank, entry)):
            self._walk.turn.of(rank.grade).move(pool.place(entry))
        return entry

    def _stacked(self, pool: Pool, rank: Rank, entry: Entry) -> bool:
        """Whether *entry* stands in only because the kept one has enough to do."""
        members = rank.members
        kept = pool.entries[members[bisect_left(members, self._walk.named(pool, rank)) % len(members)]]
        return kept is not entry and kept.stacked and kept.block is None and kept.spent == entry.spent

    def moved(self, pool: Pool, entry: Entry, started: float = FOREVER, now: float = -FOREVER) -> None:
        self._walk.moved(pool, entry, started, now)

    def preview(self) -> Strategy:
        return Sequential(self._walk.turn.copy())


class Weighted(Memoryless):
    """Drawn in proportion to the weights of the credentials."""

    def choose(
        self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float, draw: Draw
    ) -> Entry | None:
        ready = rank.ready
        if len(ready) <= EXACT:
            few = _eligible(pool, ready, tokens, tried, now)
            point = draw() * sum(entry.candidate.credential.weight for entry in few)
            for entry in few:
                point -= entry.candidate.credential.weight
                if point < 0:
                    return entry
            return few[-1] if few else None
        heaviest, entry = rank.heaviest, pool.entries[ready[0]]
        for _ in range(SAMPLE * 4):
            few = _drawn(pool, ready, tokens, tried, now, draw, 1)
            if not few:
                return None
            entry = few[0]
            if draw() * heaviest < entry.candidate.credential.weight:
                return entry
        return entry

    def preview(self) -> Strategy:
        return self


class Fastest(Memoryless):
    """The better of two drawn, by the time until it begins to answer and by the attempts under way there.

    One that was never measured comes first, so that it gets measured, by one attempt at a time.
    """

    def __init__(self, *, turns: bool = True) -> None:
        self._turns = turns

    def choose(
        self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float, draw: Draw
    ) -> Entry | None:
        fresh = self._fresh(pool, rank, tokens, tried, now)
        if fresh is not None:
            return fresh
        few = self._two(pool, rank, tokens, tried, now, draw)
        if len(few) < 2:
            return few[0] if few else None
        return min((_delay(entry, now), entry.active, entry.last_used, entry.order, entry) for entry in few)[4]

    def preview(self) -> Strategy:
        return Fastest(turns=False)

    def _fresh(self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float) -> Entry | None:
        """An entry that was never measured and is not just being measured, of the few looked at longest ago."""
        fresh, entries = rank.fresh, pool.entries
        if fresh is None:
            fresh = rank.fresh = deque(rank.members)
        while fresh and entries[fresh[0]].pace is not None:
            fresh.popleft()
        for place in range(min(SAMPLE, len(fresh))):
            entry = entries[fresh[0 if self._turns else place]]
            if self._turns:
                fresh.rotate(-1)
            ready = entry.block is None and entry.rank is rank
            if ready and entry.pace is None and not entry.active and _fits(entry, tokens, tried, now):
                return entry
        return None

    def _two(self, pool: Pool, rank: Rank, tokens: int, tried: Collection[int], now: float, draw: Draw) -> list[Entry]:
        ready, entries = rank.ready, pool.entries
        count = len(ready)
        if count > 2:
            one, two = int(draw() * count), int(draw() * (count - 1))
            two += two >= one
            few = [entry for place in (one, two) if _fits(entry := entries[ready[place]], tokens, tried, now)]
            if few:
                return few
        if count <= EXACT:
            return _eligible(pool, ready, tokens, tried, now)
        return _drawn(pool, ready, tokens, tried, now, draw, 2)


def _delay(entry: Entry, now: float) -> float:
    """What an answer of *entry* would take, as far as is known; who is asked already answers later."""
    if entry.pace is None:
        return FOREVER if entry.active else 0.0
    return entry.pace.at(now) * (entry.active + 1)


_STRATEGIES: dict[str, Callable[[], Strategy]] = {
    "balanced": Balanced,
    "round_robin": RoundRobin,
    "sequential": Sequential,
    "weighted": Weighted,
    "fastest": Fastest,
    "cheapest": Cheapest,
}
STRATEGIES = tuple(_STRATEGIES)
"""The names that `ROTATION_MODE_<P>` accepts."""


def strategy_named(name: str, turn: KeyIndex | None = None, *, each_call: bool = False) -> Strategy:
    """A new strategy by its name; *turn* and *each_call* are for round robin. KeyError for one not in `STRATEGIES`."""
    if name == "round_robin":
        return RoundRobin(turn, each_call=each_call)
    return _STRATEGIES[name]()
