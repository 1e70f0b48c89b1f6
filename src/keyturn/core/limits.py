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
from dataclasses import dataclass, replace
from math import inf
from typing import NamedTuple

from .counters import FOR_OTHERS, FOR_TIME, NOBODY, Counter, Shift, counter_for
from .limitbook import METRICS, Limit, LimitBook, Metric, Source
from .message import Usage
from .pricing import Price, cost_of
from .windows import INFLIGHT, Window

__all__ = ["Claim", "Cost", "Denied", "Limit", "LimitRow", "Meters", "Window", "claims"]

REMEMBERED = 60.0
"""Seconds that a released id is refused, at least: longer than a reservation can be under way to a shared store."""
REST = 600.0
"""Seconds between two looks at whether a counter is still in use."""
LATE = frozenset(("output_tokens", "concurrency", "cost"))
"""What is not counted before an attempt is over."""


class Cost(NamedTuple):
    """What an attempt is charged at admission, in tokens. *output* 0: the provider does not count it."""

    input: int
    output: int
    floor: int = 0
    """The least that the input can be."""
    money: int = 0
    """The most that it is expected to cost, in nano-dollars."""
    price: Price | None = None
    """By which it is settled."""


class Claim(NamedTuple):
    """What one attempt needs of one limit."""

    limit: Limit
    cost: int
    floor: int = 0
    """The least it can cost; above the capacity it can never be sent. Of money that is all of it: no clamping."""
    output: int = 0
    """How much of the cost is output; 0 when real output is not to be counted either."""
    price: Price | None = None
    """Of a limit in money: what the real usage is charged by, unless the upstream itself says what it cost."""


def claims(limits: Iterable[Limit], cost: Cost) -> list[Claim]:
    """The claims of one attempt of *cost* on each of *limits*, which must be of different windows or scopes."""
    tokens, output, floor, money, price = cost
    found = []
    for limit in limits:
        metric = limit.metric
        if metric == "requests" or metric == "concurrency":
            found.append(Claim(limit, 1, 1))
        elif metric == "tokens":
            found.append(Claim(limit, tokens + output, floor, output))
        elif metric == "input_tokens":
            found.append(Claim(limit, tokens, floor))
        elif metric == "output_tokens":
            found.append(Claim(limit, output, 0, output))
        else:
            found.append(Claim(limit, money, money, 0, price))
    return found


@dataclass(frozen=True, slots=True)
class Denied:
    """Why nothing was reserved, and when asking again helps. Seconds."""

    wait: float
    """Until this cost fits if nothing else happens; infinite when only the end of other attempts can free it.

    Of money: until the budget begins anew when it is spent, infinite while it is only held by others.
    """
    limit: Limit
    """The limit with the longest wait; whenever a caller's own limit is in the way, that one."""
    wait_any: float
    """Until any call at all (one request, one token) would fit; 0: smaller calls fit now."""
    never: bool = False
    """Even the least this can cost is above a declared or reported limit."""

    @property
    def busy(self) -> bool:
        """Only the end of other attempts can free it: nothing is spent that time would give back."""
        return self.wait == inf and not self.never


RELEASED = Limit("released", "concurrency", INFLIGHT, 1)
"""Named by the denial of an id that was released before it could reserve."""


class LimitRow(NamedTuple):
    """One limit as it stands now."""

    metric: Metric
    window: Window
    capacity: int
    used: int
    """Counted; above the capacity while there is a debt."""
    reserved: int
    """Held by attempts under way."""
    free: int
    resets_in: float
    """Seconds until nothing is used any more, if nothing else is sent."""
    source: Source


_Part = tuple[Counter, int, Claim]
"""What a reservation took from one counter: the counter, the cost as it was held, the claim."""


class _Loan:
    """One open reservation."""

    __slots__ = ("counted", "marks", "parts")

    def __init__(self, parts: list[_Part]) -> None:
        self.parts = parts
        self.marks: list[float | None] = [None] * len(parts)
        """The marks of the charges; None for a part that is still held."""
        self.counted = False


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
        "_old_refused",
        "_refused",
        "_resting",
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

    @property
    def wall_offset(self) -> float:
        """Wall minus monotonic seconds. Calendar windows need it; to be set again when the wall clock is."""
        return self._shift.seconds

    @wall_offset.setter
    def wall_offset(self, seconds: float) -> None:
        self._shift.seconds = seconds

    def declare(self, scope: str, limits: Iterable[Limit]) -> None:
        """Replace the declared limits of *scope*. What was counted and reported so far stays."""
        before = self._book.of(scope)
        self._book.declare(scope, limits)
        self._wake_widened(before, self._book.of(scope))

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
        before = self._book.of(scope)
        limit = Limit(scope, known, window, capacity, "reported")
        changed = self._book.report(limit, now)
        if remaining is not None and limit.key not in self._counters:
            self._counter(limit, now).charge(min(max(capacity - remaining, 0), capacity), now)
        if changed:
            self._wake_widened(before, self._book.of(scope))
        return changed

    def limits(self, scope: str) -> tuple[Limit, ...]:
        """The limits that hold for *scope*; for each metric and window one."""
        return self._book.of(scope)

    def take(self, limit: Limit, amount: int, now: float) -> None:
        """Count *amount* as used of *limit* now: what was spent before this process began."""
        if amount > 0:
            self._counter(limit, now).charge(amount, now)

    def used(self, limit: Limit, now: float) -> int:
        """What is used of *limit*, whether it is declared or only ever claimed."""
        counter = self._counters.get(limit.key)
        return 0 if counter is None else counter.used(now)

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
            limit, cost, floor, _, _ = claim
            counter = counters.get(limit.key)
            if counter is None or counter.capacity != limit.capacity:
                counter = self._counter(limit, now)
            if cost > counter.most:
                cost = counter.most
            fits = counter.fits(cost, now) or (not cost and limit.metric == "cost")
            if not fits or (floor > limit.capacity and _stated(limit)):
                for taken, held, _ in parts:
                    taken.held -= held
                    taken.open -= 1
                return self._denied(claims, now)
            counter.held += cost
            counter.open += 1
            parts.append((counter, cost, claim))
        self._loans[attempt_id] = _Loan(parts)
        return None

    def wait(self, claims: Sequence[Claim], now: float) -> tuple[float, Limit | None]:
        """Seconds until all of *claims* would fit if nothing else happened, and the limit that is longest in the way.

        Infinite when that alone does not help. Nothing is taken, and nobody is remembered as waiting.
        """
        longest: float = 0.0
        found: Limit | None = None
        for claim in claims:
            counter, limit = self._counters.get(claim.limit.key), claim.limit
            never = claim.floor > limit.capacity and _stated(limit)
            wait = inf if never else 0.0 if counter is None else _wait(counter, limit, claim.cost, now)
            if wait > longest:
                longest, found = wait, limit
        return longest, found

    def counted(self, attempt_id: str, now: float) -> None:
        """The request was written in full: from now on the provider counts it. Again, or unknown: nothing."""
        loan = self._loans.get(attempt_id)
        if loan is None or loan.counted:
            return
        loan.counted = True
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
        if loan is None:
            return
        freed = []
        for (counter, cost, claim), mark in zip(loan.parts, loan.marks, strict=True):
            counter.open -= 1
            actual = _actual(claim, cost, usage)
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

    def release(self, attempt_id: str) -> None:
        """Give back what *attempt_id* holds and the provider has not counted; the id cannot reserve any more."""
        self._refused.add(attempt_id)
        loan = self._loans.pop(attempt_id, None)
        if loan is None:
            return
        freed = []
        for (counter, cost, _), mark in zip(loan.parts, loan.marks, strict=True):
            counter.open -= 1
            if mark is None:
                counter.held -= cost
                if counter.waiting:
                    freed.append(counter)
        if freed:
            self._wake(freed)

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
        share, until = 0.0, inf
        for limit in self._book.of(scope):
            counter = self._counters.get(limit.key)
            if counter is not None:
                part = (counter.used(now) + counter.held) / limit.capacity
                if part > share:
                    share, until = part, counter.steady(now)
        return share, until

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
            never = claim.floor > limit.capacity and _stated(limit)
            wait = _wait(counter, limit, claim.cost, now)
            if wait > 0.0:
                counter.waiting = FOR_OTHERS if wait == inf else counter.waiting or FOR_TIME
                wait_any = _wait(counter, limit, 1, now)
            found.append(Denied(inf if never else wait, limit, wait_any, never))
        own = [each for each in found if each.limit.owner == "caller" and each.wait > 0.0]
        found = own or found
        return replace(max(found, key=_gravity), wait_any=max(each.wait_any for each in found))

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


def _gravity(denied: Denied) -> tuple[bool, bool, float]:
    """Which of several denials is told: what time does not heal, then a spent budget, then the longest wait."""
    return denied.never, denied.limit.metric == "cost" and 0.0 < denied.wait < inf, denied.wait


def _stated(limit: Limit) -> bool:
    """Whether the owner or the provider says so: only then may a call be refused for ever. Only owners say budgets."""
    return (limit.source in ("declared", "reported", "cap") and not limit.yields) or limit.metric == "cost"


def _actual(claim: Claim, cost: int, usage: Usage | None) -> int:
    """What an attempt that was charged *cost* really used of the claim's limit."""
    metric = claim.limit.metric
    if metric == "concurrency":
        return 0
    if usage is None:
        return 0 if claim.limit.owner == "caller" and metric != "requests" else cost
    if metric == "requests":
        return cost
    if metric == "cost":
        return _spent(claim, cost, usage)
    if metric == "tokens":
        used = usage.input + usage.output if claim.output else usage.input
    else:
        used = usage.input if metric == "input_tokens" else usage.output
    return max(used, 0 if usage.exact else cost)


def charged(claim: Claim, usage: Usage | None) -> int:
    """Nano-dollars that a budget is charged by *claim*, once its attempt is settled with *usage*."""
    return 0 if usage is None else _spent(claim, claim.cost, usage)


def _spent(claim: Claim, cost: int, usage: Usage) -> int:
    """Nano-dollars that an attempt of *usage* cost: what the upstream says, else what its tokens cost."""
    money = cost_of(usage, claim.price)
    if money is None:
        return cost
    return money if usage.exact or usage.cost is not None else max(money, cost)
