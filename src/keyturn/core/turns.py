"""Whose turn it is among calls that wait: classes by weight, callers by weight, first come first served within one.

Each class has an account of what its calls were given, divided by its weight; in it each caller has one likewise. Next
is the class that was given least, in it the caller who was, of it the call that came first. That is a deficit round
robin whose quantum is as small as can be: two callers who both wait never differ by more than one call of each. Who
comes after a while of silence begins where the others are: silence is not saved up.

Calls that the same keys may answer stand in one `Queue`. Queues that have a key in common keep one `Shares`, so that
who is given much in one stands back in the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import heapify, heappop, heappush

from .model import CallerClass

WEIGHTS: Mapping[CallerClass, float] = {"interactive": 8.0, "normal": 3.0, "batch": 1.0}
"""What each class is given of what there is, while calls of all three wait."""
SLACK = 16
"""Places that are over and may still stand in a row before it is written anew."""


class Place:
    """One call that waits. *cost* is what it takes, in tokens; *number* its place by arrival."""

    __slots__ = ("caller", "cost", "gone", "number", "rank", "weight")

    def __init__(self, number: int, rank: CallerClass, caller: str, weight: float, cost: int) -> None:
        self.number = number
        self.rank: CallerClass = rank
        self.caller = caller
        self.weight = weight
        self.cost = max(cost, 1)
        self.gone = False
        """It is served, or left."""


class Account:
    """What one caller was given in one class, divided by its weight, and what it waits for."""

    __slots__ = ("calls", "given", "weight", "work")

    def __init__(self, given: float) -> None:
        self.given = given
        self.weight = 1.0
        self.calls = 0
        """How many of its calls wait."""
        self.work = 0
        """Their cost together."""


class ClassShare:
    """One class: its own account and those of its callers."""

    __slots__ = ("accounts", "calls", "clock", "given", "work")

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.given = 0.0
        self.clock = 0.0
        """What who was served last had been given before: where newcomers begin."""
        self.calls = 0
        self.work = 0


class Shares:
    """Who was given how much, over all queues that have a key in common. Mutable and deterministic."""

    __slots__ = ("clock", "counts_tokens", "ranks")

    def __init__(self, *, counts_tokens: bool) -> None:
        self.counts_tokens = counts_tokens
        """Whether a call counts as its tokens; else each counts as one."""
        self.ranks: dict[CallerClass, ClassShare] = {}
        self.clock = 0.0

    @property
    def calls(self) -> int:
        """How many calls wait."""
        return sum(rank.calls for rank in self.ranks.values())

    @property
    def work(self) -> int:
        """Their cost together."""
        return sum(rank.work for rank in self.ranks.values())

    def cost(self, place: Place) -> int:
        """What *place* counts as."""
        return place.cost if self.counts_tokens else 1

    def enter(self, place: Place) -> Account:
        """*place* waits from now on."""
        share = self.ranks.get(place.rank)
        if share is None:
            share = self.ranks[place.rank] = ClassShare()
        if not share.calls:
            share.given = max(share.given, self.clock)
        account = share.accounts.get(place.caller)
        if account is None:
            account = share.accounts[place.caller] = Account(share.clock)
        if not account.calls:
            account.given = max(account.given, share.clock)
        account.weight = max(place.weight, 1e-6)
        cost = self.cost(place)
        account.calls += 1
        account.work += cost
        share.calls += 1
        share.work += cost
        return account

    def take_over(self, other: Shares) -> None:
        """Who is ahead of the others by *other* is so here as well. Nobody who waits there waits here by that."""
        for rank, theirs in other.ranks.items():
            share = self.ranks.setdefault(rank, ClassShare())
            share.given = max(share.given, self.clock + theirs.given - other.clock)
            for caller, account in theirs.accounts.items():
                own = share.accounts.setdefault(caller, Account(share.clock))
                own.given = max(own.given, share.clock + account.given - theirs.clock)

    def leave(self, place: Place) -> None:
        """*place* does not wait any more, and got nothing."""
        share = self.ranks[place.rank]
        account, cost = share.accounts[place.caller], self.cost(place)
        account.calls -= 1
        account.work -= cost
        share.calls -= 1
        share.work -= cost
        if not share.calls:  # nobody is left to be fair to
            share.clock = 0.0
            share.accounts.clear()

    def serve(self, place: Place) -> None:
        """*place* got what it waited for."""
        share = self.ranks[place.rank]
        account, cost = share.accounts[place.caller], self.cost(place)
        self.clock = max(self.clock, share.given)
        share.clock = max(share.clock, account.given)
        share.given += cost / WEIGHTS[place.rank]
        account.given += cost / account.weight
        self.leave(place)


class Row:
    """The calls of one caller and class in one queue, by arrival."""

    __slots__ = ("account", "alive", "at", "key", "owner", "places")

    def __init__(self, owner: tuple[CallerClass, str], account: Account) -> None:
        self.owner = owner
        self.account = account
        self.places: list[Place] = []
        self.alive = 0
        self.at = 0
        """Whose turn it is of them: the first, but for those that a walk passed over."""
        self.key: tuple[float, int] | None = None
        """By what it stands among the rows to choose from; None: it does not."""

    def insert(self, place: Place) -> None:
        """Put *place* in by its number."""
        self.begin_anew()
        places = self.places
        behind = len(places)
        while behind and places[behind - 1].number > place.number:
            behind -= 1
        places.insert(behind, place)
        self.alive += 1

    def begin_anew(self) -> None:
        """It is the turn of the first that waits."""
        if len(self.places) > 2 * self.alive + SLACK:
            self.places = [each for each in self.places if not each.gone]
        self.at = 0

    def current(self) -> Place | None:
        """Whose turn it is."""
        places, at = self.places, self.at
        while at < len(places) and places[at].gone:
            at += 1
        self.at = at
        return places[at] if at < len(places) else None


Key = tuple[float, float, int]
"""What was given to its class, to its caller, and its number: the smallest is next."""


class Queue:
    """Calls that the same keys may answer. Putting one in, taking one out and finding the next cost a few steps,
    however many wait."""

    __slots__ = ("_heaps", "_pushed", "_rows", "shares", "size", "steps")

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.size = 0
        """How many wait."""
        self.steps = 0
        """How many rows were looked at, ever: what finding the next costs."""
        self._rows: dict[tuple[CallerClass, str], Row] = {}
        self._heaps: dict[CallerClass, list[tuple[float, int, int, Row]]] = {}
        """By class, its callers. What is said of one may be less than is true by now, never more; what is said again
        stands there twice, and only the latest counts."""
        self._pushed = 0

    def __iter__(self) -> Iterator[Place]:
        """All that wait, in no order."""
        return (place for row in self._rows.values() for place in row.places if not place.gone)

    def add(self, place: Place) -> None:
        """*place* waits here from now on: behind those that came before it."""
        account = self.shares.enter(place)
        owner = (place.rank, place.caller)
        row = self._rows.get(owner)
        if row is None:
            row = self._rows[owner] = Row(owner, account)
        row.account = account
        row.insert(place)
        self.size += 1
        self._list(row)

    def remove(self, place: Place) -> None:
        """*place* leaves without having got anything."""
        self._take_out(place)
        self.shares.leave(place)

    def serve(self, place: Place) -> None:
        """*place* got what it waited for."""
        self._take_out(place)
        self.shares.serve(place)

    def move(self, shares: Shares) -> None:
        """Count by *shares* from now on, which everybody here enters."""
        self.shares = shares
        self._heaps.clear()
        self._rows = {owner: row for owner, row in self._rows.items() if row.alive}
        for row in self._rows.values():
            row.key = None
            for place in row.places:
                if not place.gone:
                    row.account = shares.enter(place)
            row.begin_anew()
            self._list(row)

    def walk(self) -> Walk:
        """A look through it in order."""
        return Walk(self)

    def top(self, rank: CallerClass) -> Row | None:
        """The row of *rank* whose turn it is."""
        heap = self._heaps.get(rank)
        while heap:
            self.steps += 1
            given, number, _, row = heap[0]
            if row.key != (given, number):
                heappop(heap)
                continue
            place = row.current()
            if place is None:
                heappop(heap)
                row.key = None
                if not row.alive and self._rows.get(row.owner) is row:
                    del self._rows[row.owner]
            elif row.key != (row.account.given, place.number):
                heappop(heap)
                row.key = None
                self._list(row)
            else:
                return row
        return None

    def row(self, owner: tuple[CallerClass, str]) -> Row | None:
        """Where the calls of a caller and class stand, if any do."""
        return self._rows.get(owner)

    def row_of(self, place: Place) -> Row:
        """Where *place* stands."""
        return self._rows[place.rank, place.caller]

    def stand_again(self, row: Row) -> None:
        """Those of *row* that were passed over count again."""
        row.begin_anew()
        if row.alive and self._rows.get(row.owner) is row:
            self._list(row)

    def _take_out(self, place: Place) -> None:
        place.gone = True
        self.size -= 1
        self.row_of(place).alive -= 1

    def _list(self, row: Row) -> None:
        """Let *row* stand among those to choose from, by whose turn it is of it."""
        place = row.current()
        if place is None or row.key == (row.account.given, place.number):
            return
        heap = self._heaps.setdefault(row.owner[0], [])
        if len(heap) > 4 * len(self._rows) + SLACK:
            heap[:] = [each for each in heap if each[3].key == each[:2]]
            heapify(heap)
        self._pushed += 1
        row.key = (row.account.given, place.number)
        heappush(heap, (*row.key, self._pushed, row))


class Walk:
    """One look through a queue, in order: who cannot go is passed over, who can is served. To be ended."""

    __slots__ = ("_passed", "_queue")

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._passed: list[Row] = []

    def next(self) -> tuple[Key, Place] | None:
        """Whose turn it is of those that were not passed over."""
        queue = self._queue
        best: tuple[Key, Place] | None = None
        for rank, share in queue.shares.ranks.items():
            row = queue.top(rank)
            place = None if row is None else row.current()
            if row is None or place is None:
                continue
            key = (share.given, row.account.given, place.number)
            if best is None or key < best[0]:
                best = key, place
        return best

    def pass_over(self, place: Place) -> None:
        """*place* cannot go now; it keeps its place for the next walk."""
        row = self._queue.row_of(place)
        row.at += 1
        self._passed.append(row)

    def end(self) -> None:
        """Who was passed over stands where it stood."""
        for row in self._passed:
            self._queue.stand_again(row)
        self._passed.clear()
