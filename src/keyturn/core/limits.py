"""Limits, and what one process has used of them: every attempt reserves before it is sent and settles after it.

The life of a reservation, for each limit that it touches:

    reserve   the cost is held: it counts in full and does not age
    counted   the provider has it now: what it counts at admission (requests, input, the usual total of tokens) moves
              from held into the window at this moment. Output tokens, money and concurrency stay held
    settle    the real usage is known: too much is refunded where it was charged, too little is a debt of this moment.
              Without exact usage nothing is refunded, as the provider may well have counted it all; but who got nothing
              is charged no tokens and no money: without any usage the caller's own limits keep the request alone
    release   nothing (more) will be counted: what is held is given back

So what the provider counts is covered at every moment between reserving and settling, whenever it looks. Check and take
are one step without an `await`; any number of tasks may share a `Meters`.

Money is never clamped to a capacity as tokens are: as long as no attempt costs more than it reserved, no budget is
ever exceeded, however many attempts run at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import inf

from .claims import Claim, Cost, actual_of, claims
from .counters import FOR_OTHERS, FOR_TIME, NOBODY, Counter, Shift, counter_for
from .denials import Denied, gravest
from .lasting import KeptUse
from .limitbook import METRICS, Limit, LimitBook, LimitRow, limit_of, reported_limit, stated
from .message import Usage
from .windows import INFLIGHT, Window

__all__ = ["Claim", "Cost", "Denied", "Limit", "LimitRow", "Meters", "Window", "claims"]

REMEMBERED = 60.0
"""Seconds that a released id is refused, at least: longer than a reservation can be under way to a shared store."""
REST = 600.0
"""Seconds between two looks at whether a counter is still in use."""
BRIEF = 5.0
"""Seconds of a window that is not worth keeping: it is over before anybody asks again."""
LATE = frozenset(("output_tokens", "concurrency", "cost"))
"""What is not counted before an attempt is over."""


RELEASED = Limit("released", "concurrency", INFLIGHT, 1)
"""Named by the denial of an id that was released before it could reserve."""


_Part = tuple[Counter, int, Claim]
"""What a reservation took from one counter: the counter, the cost as it was held, the claim."""


class _Loan:
    """One open reservation."""

    __slots__ = ("counted", "marks", "noted", "parts")

    def __init__(self, parts: list[_Part], *, counted: bool = False) -> None:
        self.parts = parts
        self.marks: list[float | None] = [None] * len(parts)
        """The marks of the charges; None for a part that is still held."""
        self.counted = counted
        self.noted = 0
        """In which round of `Meters.changed` it was last noted."""


_NOTHING = _Loan([], counted=True)
"""That of an attempt that no limit applies to: the same for all, as nothing about it changes."""


class Meters:
    """All counters of one process. Pure and deterministic; `now` is monotonic seconds.

    *wake* is called with a scope when something that a denial waited for comes free before its time: once for each
    denial, after the change is complete, never from within `reserve`.

    A limit that becomes known while attempts are under way counts from then on; what its first report says is gone
    already is taken as used at that moment.
    """

    __slots__ = (
        "_book",
        "_counters",
        "_loans",
        "_noted",
        "_old_refused",
        "_refused",
        "_resting",
        "_round",
        "_shift",
        "_tidied",
        "_turned",
        "wake",
    )

    def __init__(self, wake: Callable[[str], None] = lambda scope: None) -> None:
        self.wake = wake
        self._book = LimitBook()
        self._counters: dict[str, Counter] = {}
        self._resting: deque[tuple[float, str]] = deque()
        """When to look whether each counter is still in use."""
        self._loans: dict[str, _Loan] = {}
        self._refused: set[str] = set()
        self._old_refused: set[str] = set()
        """Tombstones: ids that were released, of this minute and of the one before."""
        self._shift = Shift()
        self._tidied = self._turned = -inf
        self._noted: set[str] = set()
        """The keys of what changed since `changed` was last asked."""
        self._round = 0
        """How often it was asked; 0: nobody wants to know."""

    @property
    def wall_offset(self) -> float:
        """Wall minus monotonic seconds. Calendar windows need it; to be set again when the wall clock is."""
        return self._shift.seconds

    @wall_offset.setter
    def wall_offset(self, seconds: float) -> None:
        self._shift.seconds = seconds

    @property
    def shift(self) -> Shift:
        """What holds that: the same object for as long as these meters are."""
        return self._shift

    def declare(self, scope: str, limits: Iterable[Limit]) -> None:
        """Replace the declared limits of *scope*. What was counted and reported so far stays."""
        self.amend(scope, lambda book: book.declare(scope, limits))

    def amend(self, scope: str, change: Callable[[LimitBook], bool]) -> bool:
        """Have *change* change what is known of the limits of *scope*, and say what it says."""
        before = self._book.of(scope)
        changed = change(self._book)
        if changed:
            self._wake_widened(before, self._book.of(scope))
        return changed

    def report(
        self, scope: str, metric: str, window: Window, capacity: int, now: float, remaining: int | None = None
    ) -> bool:
        """A provider reported a limit in its headers, of which *remaining* was left. True when it changed a limit.

        *remaining* matters when nothing is counted for this limit yet: the rest was used before we knew of it. Metrics
        that we do not count are ignored, and so is a capacity below 1, which says nothing about a rate.
        """
        known = METRICS.get(metric)
        if known is None or capacity < 1:
            return False
        limit, before = reported_limit(scope, known, window, capacity), self._book.of(scope)
        changed = self._book.report(limit, now)
        if changed:
            self._wake_widened(before, self._book.of(scope))
        if remaining is not None and limit.key not in self._counters:
            self._counter(limit, now)
            self.take(limit, min(max(capacity - remaining, 0), capacity), now)
        return changed

    def limits(self, scope: str) -> tuple[Limit, ...]:
        """The limits that hold for *scope*; for each metric and window one."""
        return self._book.of(scope)

    def charged(self, scope: str) -> tuple[Limit, ...]:
        """The same, with what is only counted."""
        return self._book.charged(scope)

    def take(self, limit: Limit, amount: int, now: float) -> None:
        """Count *amount* as used of *limit* now: what was spent before this process began."""
        if amount > 0:
            counter = self._counter(limit, now)
            counter.charge(amount, now)
            if self._round:
                self._noted.add(limit.key)

    def used(self, limit: Limit, now: float) -> int:
        """What is used of *limit*, whether it is declared or only ever claimed."""
        counter = self._counters.get(limit.key)
        return 0 if counter is None else counter.used(now)

    def taken(self, limit: Limit, now: float) -> int:
        """What is used of *limit* and what is held of it, together."""
        counter = self._counters.get(limit.key)
        return 0 if counter is None else counter.used(now) + counter.held

    def lately(self, limit: Limit, since: float) -> int:
        """What of it was used after *since*, give or take a slot; 0 where that is not known."""
        counter = self._counters.get(limit.key)
        return 0 if counter is None else counter.lately(since)

    def reserve(self, attempt_id: str, claims: Sequence[Claim], now: float) -> Denied | None:
        """Hold what *claims* ask for, all of it or nothing. None: reserved, also when this id already was."""
        if attempt_id in self._loans:
            return None
        if now >= self._tidied + 1.0:
            self._tidy(now)
        if attempt_id in self._refused or attempt_id in self._old_refused:
            return Denied(inf, RELEASED, inf)
        counters = self._counters
        parts: list[_Part] = []
        for claim in claims:
            limit, cost, floor = claim.limit, claim.cost, claim.floor
            counter = counters.get(limit.key)
            if counter is None or counter.capacity != limit.capacity:
                counter = self._counter(limit, now)
            if cost > counter.most:
                cost = counter.most
            fits = counter.fits(cost, now) or (not cost and limit.metric == "cost")
            if not fits or (floor > limit.capacity and stated(limit)):
                for taken, held, _ in parts:
                    taken.held -= held
                    taken.open -= 1
                return self._denied(claims, now)
            counter.held += cost
            counter.open += 1
            parts.append((counter, cost, claim))
        loan = self._loans[attempt_id] = _Loan(parts) if parts else _NOTHING
        if self._round and parts:
            self._note(loan)
        return None

    def wait(self, claims: Sequence[Claim], now: float, most: float = inf) -> tuple[float, Limit | None]:
        """Seconds until all of *claims* would fit if nothing else happened, and the limit that is longest in the way.
        If one does not fit within *most* seconds, that is enough. Infinite when time alone does not help. Nothing is
        taken, and nobody is remembered as waiting."""
        longest = 0.0
        found: Limit | None = None
        for claim in claims:
            counter, limit = self._counters.get(claim.limit.key), claim.limit
            never = claim.floor > limit.capacity and stated(limit)
            wait = inf if never else 0.0 if counter is None else _wait(counter, limit, claim.cost, now)
            if wait > longest:
                longest, found = wait, limit
            if wait >= most:
                break
        return longest, found

    def counted(self, attempt_id: str, now: float) -> None:
        """The request was written in full: from now on the provider counts it. Again, or unknown: nothing."""
        loan = self._loans.get(attempt_id)
        if loan is None or loan.counted:
            return
        loan.counted = True
        if loan.noted != self._round:
            self._note(loan)
        dated = []
        for place, (counter, cost, claim) in enumerate(loan.parts):
            if claim.limit.metric not in LATE:
                counter.held -= cost
                loan.marks[place] = counter.charge(cost, now)
                if counter.waiting == FOR_OTHERS:
                    dated.append(counter)
        if dated:
            self._wake(dated)

    def settle(self, attempt_id: str, usage: Usage | None, now: float) -> None:
        """The attempt is over and used *usage*; inexact: at least what was charged. Again: nothing.

        None: nothing was delivered. What was charged stays; of what the caller's own limits hold the request alone.
        """
        loan = self._loans.pop(attempt_id, None)
        if loan is None or loan is _NOTHING:
            return
        if loan.noted != self._round:
            self._note(loan)
        freed = []
        for (counter, cost, claim), mark in zip(loan.parts, loan.marks, strict=True):
            counter.open -= 1
            actual = actual_of(claim, cost, usage)
            if mark is None:
                counter.held -= cost
                counter.charge(actual, now)
                eased = actual < cost or counter.waiting == FOR_OTHERS
            elif actual < cost:
                eased = counter.refund(cost - actual, mark, now)
            else:
                eased = False
                if actual > cost:
                    counter.charge(actual - cost, now)
            if eased and counter.waiting:
                freed.append(counter)
        if freed:
            self._wake(freed)

    def parts(self, attempt_id: str) -> list[tuple[Claim, int]]:
        """What *attempt_id* has reserved: each claim, and what it was charged. Empty for an unknown id."""
        loan = self._loans.get(attempt_id)
        return [] if loan is None else [(claim, cost) for _, cost, claim in loan.parts]

    def release(self, attempt_id: str, *, refuse: bool = True) -> None:
        """Give back what *attempt_id* holds and the provider has not counted; the id cannot reserve any more.

        Without *refuse* it can: another store has said no.
        """
        if refuse:
            self._refused.add(attempt_id)
        loan = self._loans.pop(attempt_id, None)
        if loan is None:
            return
        if loan.noted != self._round:
            self._note(loan)
        freed = []
        for (counter, cost, _), mark in zip(loan.parts, loan.marks, strict=True):
            counter.open -= 1
            if mark is None:
                counter.held -= cost
                if counter.waiting:
                    freed.append(counter)
        if freed:
            self._wake(freed)

    def changed(self) -> set[str]:
        """The keys of the limits whose use changed since this was last asked. Asked once, changes are noted: it is to
        be asked again and again."""
        noted, self._noted = self._noted, set()
        self._round += 1
        return noted

    def _note(self, loan: _Loan) -> None:
        loan.noted = self._round
        for _, _, claim in loan.parts:
            self._noted.add(claim.limit.key)

    def keys(self) -> list[str]:
        """The keys of all limits of which something is or was used."""
        return list(self._counters)

    def dump(self, keys: Iterable[str], now: float, offset: float) -> list[KeptUse]:
        """What is used of the limits with these *keys*, what is held included; those at rest are absent. Moments are
        written *offset* later. Money is no part of it: the ledger knows that; nor are windows of a few seconds."""
        found = (_dumped(key, self._counters.get(key), now, offset) for key in keys)
        return [each for each in found if each is not None]

    def restore(self, kept: Iterable[KeptUse], now: float, offset: float) -> None:
        """Take over what an earlier process counted. Of what is counted here already, all is taken as used now."""
        for each in kept:
            limit = limit_of(each.key, each.capacity)
            if limit is None:
                continue
            counter = self._counters.get(limit.key)
            if counter is None:
                self._counter(limit, now).restore(each, now, offset)
            else:
                fresh = counter_for(limit.window, limit.scope, limit.capacity, self._shift)
                fresh.restore(each, now, offset)
                self.take(limit, fresh.used(now), now)

    @property
    def book(self) -> LimitBook:
        """The limits that are known."""
        return self._book

    def holds(self, attempt_id: str) -> bool:
        """Whether *attempt_id* has reserved and is not settled yet."""
        return attempt_id in self._loans

    def held(self) -> int:
        """How many reservations are open: 0 when idle."""
        return len(self._loans)

    def load(self, scope: str, now: float) -> tuple[float, float]:
        """The used share of the fullest limit of *scope* (above 1 in debt), held units included.

        And until when that stays so, give or take a hundredth, if nothing is reserved or settled.
        """
        share, fullest, counters = 0.0, None, self._counters
        for limit in self._book.holding.get(scope, ()):
            counter = counters.get(limit.key)
            if counter is not None:
                part = (counter.used(now) + counter.held) / limit.capacity
                if part > share:
                    share, fullest = part, counter
        return share, inf if fullest is None else fullest.steady(now)

    def snapshot(self, scope: str, now: float) -> list[LimitRow]:
        """All limits of *scope* as they stand."""
        return [self.row(limit, now) for limit in self._book.of(scope)]

    def row(self, limit: Limit, now: float) -> LimitRow:
        """*limit* as it stands, whether it is declared or only ever claimed."""
        counter = self._counters.get(limit.key)
        used, held, resets_in = 0, 0, 0.0
        if counter is not None:
            used, held, resets_in = counter.used(now), counter.held, counter.whole_in(now)
        free = max(0, limit.capacity - used - held)
        return LimitRow(limit.metric, limit.window, limit.capacity, used, held, free, resets_in, limit.source)

    def counter(self, limit: Limit) -> Counter | None:
        """What counts *limit*, to be read only; None while nothing was ever counted."""
        return self._counters.get(limit.key)

    def _counter(self, limit: Limit, now: float) -> Counter:
        """The counter of *limit*, with its capacity."""
        counter = self._counters.get(limit.key)
        if counter is None:
            counter = self._counters[limit.key] = counter_for(limit.window, limit.scope, limit.capacity, self._shift)
            self._resting.append((now + REST, limit.key))
        elif counter.capacity != limit.capacity:
            counter.resize(limit.capacity, now)
        return counter

    def _denied(self, claims: Sequence[Claim], now: float) -> Denied:
        """Why *claims* do not fit, and when they will; each counter in the way remembers that somebody waits."""
        found: list[Denied] = []
        for claim in claims:
            limit, wait_any = claim.limit, 0.0
            counter = self._counter(limit, now)
            never = claim.floor > limit.capacity and stated(limit)
            wait = _wait(counter, limit, claim.cost, now)
            if wait > 0.0:
                counter.waiting = FOR_OTHERS if wait == inf else counter.waiting or FOR_TIME
                wait_any = _wait(counter, limit, 1, now)
            found.append(Denied(inf if never else wait, limit, wait_any, never))
        return gravest(found)

    def _wake_widened(self, before: Sequence[Limit], after: Sequence[Limit]) -> None:
        """Wake whoever waits for a limit that is larger than before, or gone."""
        capacities = {limit.key: limit.capacity for limit in after}
        widened = []
        for limit in before:
            counter = self._counters.get(limit.key)
            if counter is not None and counter.waiting and capacities.get(limit.key, inf) > limit.capacity:
                widened.append(counter)
        self._wake(widened)

    def _wake(self, counters: list[Counter]) -> None:
        for counter in counters:
            counter.waiting = NOBODY
        for scope in dict.fromkeys(counter.scope for counter in counters):
            self.wake(scope)

    def _tidy(self, now: float) -> None:
        """Let go of what nobody will ask for: old tombstones, counters at rest, limits no longer reported."""
        self._tidied = now
        if now >= self._turned + REMEMBERED:
            self._turned = now
            self._old_refused, self._refused = self._refused, set()
        while self._resting and self._resting[0][0] <= now:
            _, key = self._resting.popleft()
            counter = self._counters[key]
            if counter.open or counter.used(now) or counter.remembers:
                self._resting.append((now + REST, key))
            else:
                del self._counters[key]
        self._book.expire(now)


def _wait(counter: Counter, limit: Limit, cost: int, now: float) -> float:
    """Seconds until *cost* fits. A budget that is too small even without what others hold is waited for without it.

    A cost of 0 needs no budget.
    """
    if limit.metric != "cost":
        return counter.wait(min(cost, counter.most), now)
    if not cost or counter.fits(cost, now):
        return 0.0
    if counter.used(now) + cost <= limit.capacity:
        return inf
    held, counter.held = counter.held, 0
    wait = counter.wait(cost, now)
    counter.held = held
    return wait


def _dumped(key: str, counter: Counter | None, now: float, offset: float) -> KeptUse | None:
    metric, _, window = key.partition(" ")
    if counter is None or metric == "cost" or 0.0 < float(window.split(" ", 2)[1]) <= BRIEF:
        return None
    return counter.dump(key, now, offset)
