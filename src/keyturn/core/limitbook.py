"""Which limits are known: what the owner pinned and declared, what is shipped, reported by providers, and learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from heapq import heapify, heappop, heappush, heapreplace
from typing import Literal, NamedTuple, get_args

from .lasting import KeptLimit, left_of
from .windows import KINDS, Window

Metric = Literal["requests", "tokens", "input_tokens", "output_tokens", "concurrency", "cost"]
"""What is counted. `cost` is in nano-dollars."""
METRICS: dict[str, Metric] = {name: name for name in get_args(Metric)}
Source = Literal["declared", "reported", "learned", "default", "cap", "pinned"]
"""Who says so; `learned`: 429s; `cap`: the owner, below what the provider allows; `pinned`: the owner, whatever anybody
else says."""
Owner = Literal["candidate", "caller"]

BELIEVED = 24 * 3600.0
"""Seconds that a reported limit holds after it was last reported."""
LEARNED_FOR = 7 * 24 * 3600.0
"""Seconds that a learned limit holds after it last changed."""
UNKNOWN = 2**52
"""The capacity of what is counted, so that a limit can be learned, and has none yet."""
FEW_DROPPED = 64
MOST_LEARNED = 10_000
"""Learned limits that are kept; then the oldest is forgotten, as models come from clients."""


@dataclass(frozen=True, slots=True)
class Limit:
    """At most *capacity* units of *metric* over *window*, counted under the name *scope*.

    A capacity is at least 1: what is unlimited has no limit, and what is not offered is no question of limits. Raises
    ValueError otherwise.
    """

    scope: str
    metric: Metric
    window: Window
    capacity: int
    source: Source = "declared"
    owner: Owner = "candidate"
    """Whose limit it is: a denial by a caller's own limit ends the call, another candidate is no remedy."""
    yields: bool = False
    """A limit that the provider reports wins over it, and no call is refused for ever because of it: it is what a plan
    is said to allow."""
    key: str = field(init=False, repr=False, compare=False)
    """Names what is counted: limits that differ in capacity and source alone are one counter."""

    def __post_init__(self) -> None:
        if self.capacity < 1:
            raise ValueError(f"a limit of {self.capacity} {self.metric} for {self.scope}: at least 1 is needed")
        kind, seconds, zone = self.window
        object.__setattr__(self, "key", f"{self.metric} {kind} {seconds!r} {zone} {self.scope}")


@lru_cache(maxsize=4096)
def reported_limit(scope: str, metric: Metric, window: Window, capacity: int) -> Limit:
    """The limit that a provider reports so; kept, as it says the same in answer after answer."""
    return Limit(scope, metric, window, capacity, "reported")


def limit_of(key: str, capacity: int) -> Limit | None:
    """The limit that is counted under *key*; None for one that is not to be taken over."""
    metric, kind, seconds, zone, scope = [*key.split(" ", 4), "", "", "", ""][:5]
    known = METRICS.get(metric)
    if known is None or metric == "cost" or kind not in KINDS or not scope:
        return None
    return Limit(scope, known, Window(KINDS[kind], float(seconds), zone), max(1, capacity))


def stated(limit: Limit) -> bool:
    """Whether the owner or the provider says so: only then may a call be refused for ever. Only owners say budgets."""
    return (limit.source in ("declared", "reported", "cap") and not limit.yields) or limit.metric == "cost"


def scope_in(key: str) -> str:
    """The scope of the limit that is counted under *key*."""
    return key.split(" ", 4)[-1]


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


class Grounds(NamedTuple):
    """Why a learned limit is taken to be what it is, and how learning goes on from there."""

    at: float = 0.0
    """When it last changed, Unix seconds."""
    evidence: tuple[str, ...] = ()
    """The latest attempts that were refused with 429, by id."""
    reached: int = 0
    """What the provider had let through in one window when it refused last."""
    patience: int = 0
    """Windows to wait before more than that is tried again."""


NO_GROUNDS = Grounds()


class Told(NamedTuple):
    """One thing that is said of a limit, by whom, since when and until when."""

    limit: Limit
    holds: bool
    """It is the one that is obeyed; else something that is trusted more, or is tighter, stands before it."""
    at: float | None = None
    """When it was said last, Unix seconds; None where that is not known."""
    until: float | None = None
    """Until when it is believed, Unix seconds; None: until it is changed."""
    evidence: tuple[str, ...] = ()


@dataclass(slots=True)
class _Row:
    limit: Limit
    until: float
    grounds: Grounds = NO_GROUNDS


class _Rows:
    """Limits of one source, each of which is believed for *lifetime* seconds after it was said last."""

    __slots__ = ("_due", "_number", "by_scope", "count", "lifetime")

    def __init__(self, lifetime: float) -> None:
        self.by_scope: dict[str, dict[str, _Row]] = {}
        self.count = 0
        self._due: list[tuple[float, int, _Row]] = []
        """A heap: when to look whether each is still believed, the earliest first. Rows that were dropped stay in it
        until they are half of it."""
        self._number = 0
        self.lifetime = lifetime

    def of(self, scope: str) -> Mapping[str, _Row]:
        return self.by_scope.get(scope, {})

    def put(self, limit: Limit, until: float, grounds: Grounds = NO_GROUNDS) -> bool:
        """*limit* is said to hold until *until*. True when another one was said before."""
        rows = self.by_scope.setdefault(limit.scope, {})
        row = rows.get(limit.key)
        if row is None:
            row = rows[limit.key] = _Row(limit, until, grounds)
            self.count += 1
            self._number += 1
            heappush(self._due, (until, self._number, row))
            return True
        changed = row.limit is not limit and row.limit != limit
        row.limit, row.until, row.grounds = limit, until, grounds
        return changed

    def drop(self, limit: Limit) -> bool:
        """Forget it; False when nothing was said."""
        rows = self.by_scope.get(limit.scope)
        if rows is None or rows.pop(limit.key, None) is None:
            return False
        self.count -= 1
        if not rows:
            del self.by_scope[limit.scope]
        if len(self._due) > 2 * self.count + FEW_DROPPED:
            self._due = [due for due in self._due if self._holds(due[2])]
            heapify(self._due)
        return True

    def _holds(self, row: _Row) -> bool:
        return self.of(row.limit.scope).get(row.limit.key) is row

    def first(self) -> _Row | None:
        """The one that ends first, of those that are still believed; None when there is none."""
        while self._due:
            due, number, row = self._due[0]
            if not self._holds(row):
                heappop(self._due)
            elif row.until > due:
                heapreplace(self._due, (row.until, number, row))
            else:
                return row
        return None

    def over(self, now: float) -> Iterator[Limit]:
        """Forget what is not believed any more, and say what it was."""
        while self._due and self._due[0][0] <= now and (row := self.first()) is not None and row.until <= now:
            if self.drop(row.limit):
                yield row.limit


class LimitBook:
    """The limits of every scope, merged: of the same metric and window one holds.

    A pinned limit wins over everything. A reported one wins over one that was shipped. Beside one that the owner
    declared, the tighter of the two holds: an owner may keep below a provider's limit, and a provider knows when an
    owner hopes for too much. A learned one holds where the provider reports none, and never above what is declared.
    """

    __slots__ = ("_charged", "_declared", "_learned", "_pinned", "_reported", "holding", "touched")

    def __init__(self) -> None:
        self.touched: set[str] | None = None
        """The scopes of which other limits are reported or learned than before, for who wants to know and empties it;
        None: nobody."""
        self._declared: dict[str, tuple[Limit, ...]] = {}
        self._pinned: dict[str, tuple[Limit, ...]] = {}
        self._reported = _Rows(BELIEVED)
        self._learned = _Rows(LEARNED_FOR)
        self.holding: dict[str, tuple[Limit, ...]] = {}
        """Scope -> the limits that hold for it, to be read only: absent where there is none."""
        self._charged: dict[str, tuple[Limit, ...]] = {}
        """Those of `holding`, and what is only counted."""

    def of(self, scope: str) -> tuple[Limit, ...]:
        """The limits that hold for *scope*."""
        return self.holding.get(scope, ())

    def charged(self, scope: str) -> tuple[Limit, ...]:
        """The same with what is only counted, so that a limit can be learned: what an attempt is charged to."""
        return self._charged.get(scope, ())

    def declared(self, scope: str) -> tuple[Limit, ...]:
        """What is declared for *scope*, whether or not it holds."""
        return self._declared.get(scope, ())

    def declare(self, scope: str, limits: Iterable[Limit]) -> bool:
        """Replace what is declared for *scope*; none forgets it. True when other limits hold now than before."""
        return self._replace(self._declared, scope, limits)

    def pin(self, scope: str, limits: Iterable[Limit]) -> bool:
        """Replace what the owner pinned for *scope*; none forgets it. True when other limits hold now than before."""
        return self._replace(self._pinned, scope, limits)

    def _replace(self, table: dict[str, tuple[Limit, ...]], scope: str, limits: Iterable[Limit]) -> bool:
        said = tuple(limits)
        if said:
            table[scope] = said
        else:
            table.pop(scope, None)
        return self._merge(scope)

    def report(self, limit: Limit, now: float) -> bool:
        """A provider reported *limit*; believed for a day. True when another limit holds now than before."""
        return self._reported.put(limit, now + BELIEVED) and self._changed(limit.scope)

    def learn(self, limit: Limit, grounds: Grounds, now: float) -> bool:
        """*limit* was learned; of capacity `UNKNOWN`: it is only counted. True when another limit holds now than
        before."""
        if self._learned.count >= MOST_LEARNED and limit.key not in self._learned.of(limit.scope):
            self._drop_oldest()
        self._learned.put(limit, now + LEARNED_FOR, grounds)
        return self._changed(limit.scope)

    def forget(self, limit: Limit, source: Literal["reported", "learned"]) -> bool:
        """Forget what was reported or learned of the metric and window of *limit*; False when that is nothing."""
        known = self._rows(source).drop(limit)
        if known:
            self._changed(limit.scope)
        return known

    def learned(self, limit: Limit) -> tuple[Limit, Grounds] | None:
        """What was learned of the metric and window of *limit*, whether or not it holds."""
        row = self._learned.of(limit.scope).get(limit.key)
        return None if row is None else (row.limit, row.grounds)

    def every_learned(self) -> list[tuple[Limit, Grounds]]:
        """All that was learned."""
        return [(row.limit, row.grounds) for rows in self._learned.by_scope.values() for row in rows.values()]

    def stated(self, limit: Limit) -> bool:
        """Whether the owner pinned this metric and window, or the provider reports it: nothing is to be learned."""
        pinned = any(_alike(each, limit) for each in self._pinned.get(limit.scope, ()))
        return pinned or limit.key in self._reported.of(limit.scope)

    def told(self, scope: str, offset: float) -> list[Told]:
        """All that is said of the limits of *scope*. *offset*: Unix less monotonic seconds."""
        said = [Told(each, False) for each in (*self._pinned.get(scope, ()), *self._declared.get(scope, ()))]
        for row in self._reported.of(scope).values():
            said.append(Told(row.limit, False, row.until - BELIEVED + offset, row.until + offset))
        for row in self._learned.of(scope).values():
            if row.limit.capacity < UNKNOWN:
                said.append(Told(row.limit, False, row.grounds.at, row.until + offset, row.grounds.evidence))
        holding = self.of(scope)
        return [each._replace(holds=each.limit in holding) for each in said]

    def scopes(self) -> list[str]:
        """The scopes of which limits were reported or learned."""
        return list(self._reported.by_scope | self._learned.by_scope)

    def every_scope(self) -> list[str]:
        """The scopes of whose limits anything is said."""
        said: tuple[Mapping[str, object], ...] = (
            self._pinned, self._declared, self._reported.by_scope, self._learned.by_scope
        )  # fmt: skip
        return list(dict.fromkeys(scope for table in said for scope in table))

    def dump(self, scope: str, offset: float) -> list[KeptLimit]:
        """What was reported and learned of *scope*, with the moments until which it is believed *offset* later."""
        found = []
        for rows in (self._reported, self._learned):
            for limit, until, grounds in ((row.limit, row.until, row.grounds) for row in rows.of(scope).values()):
                if limit.capacity < UNKNOWN:
                    found.append(kept_limit(limit, grounds, until + offset))
        return found

    def restore(self, kept: Iterable[KeptLimit], now: float, offset: float) -> None:
        """Take over what was known to an earlier process, unless this one knows better already."""
        scopes = set()
        for each in kept:
            rows = self._rows("learned" if each.source == "learned" else "reported")
            until = left_of(each.until, offset, now, rows.lifetime)
            limit = limit_kept(each)
            if until > now and limit is not None and limit.key not in rows.of(limit.scope):
                rows.put(limit, until, grounds_kept(each))
                scopes.add(limit.scope)
        for scope in scopes:
            self._merge(scope)

    def expire(self, now: float) -> None:
        """Forget what was not said for so long that it is not believed any more."""
        for rows in (self._reported, self._learned):
            for limit in rows.over(now):
                self._changed(limit.scope)

    def _rows(self, source: Literal["reported", "learned"]) -> _Rows:
        return self._learned if source == "learned" else self._reported

    def _drop_oldest(self) -> None:
        oldest = self._learned.first()
        if oldest is not None and self._learned.drop(oldest.limit):
            self._changed(oldest.limit.scope)

    def _changed(self, scope: str) -> bool:
        if self.touched is not None:
            self.touched.add(scope)
        return self._merge(scope)

    def _merge(self, scope: str) -> bool:
        chosen: dict[str, Limit] = {}
        for limit in self._declared.get(scope, ()):
            other = chosen.get(limit.key)
            if other is None or limit.capacity < other.capacity:
                chosen[limit.key] = limit
        reported, only_counted = self._reported.of(scope), []
        for key, row in reported.items():
            other = chosen.get(key)
            if other is None or other.yields or other.source != "declared" or row.limit.capacity < other.capacity:
                chosen[key] = row.limit
        pinned = self._pinned.get(scope, ())
        for key, row in self._learned.of(scope).items():
            other, limit = chosen.get(key), row.limit
            if key in reported or any(_alike(each, limit) for each in pinned):
                continue
            if limit.capacity >= UNKNOWN:
                only_counted += [] if other is not None else [limit]
            elif other is None or limit.capacity < other.capacity:
                chosen[key] = limit
        for limit in pinned:
            chosen = {key: each for key, each in chosen.items() if not _alike(each, limit)} | {limit.key: limit}
        before, after = self.of(scope), tuple(chosen.values())
        for table, limits in ((self.holding, after), (self._charged, (*after, *only_counted))):
            if limits:
                table[scope] = limits
            else:
                table.pop(scope, None)
        return before != after


def _alike(one: Limit, other: Limit) -> bool:
    """Whether both are of the same metric over a window of the same length, however that is laid on the clock."""
    return one.metric == other.metric and one.window.seconds == other.window.seconds


def kept_limit(limit: Limit, grounds: Grounds, until: float) -> KeptLimit:
    """*limit* as it is written down."""
    at, evidence, reached, patience = grounds
    return KeptLimit(
        limit.scope, limit.metric, *limit.window, limit.capacity, until, limit.source, at, evidence, reached, patience
    )


def limit_kept(kept: KeptLimit) -> Limit | None:
    """The limit that was written down so; None for what is none."""
    metric, kind = METRICS.get(kept.metric), KINDS.get(kept.kind)
    if metric is None or kind is None or kept.capacity < 1:
        return None
    source: Source = "learned" if kept.source == "learned" else "reported"
    return Limit(kept.scope, metric, Window(kind, kept.seconds, kept.zone), kept.capacity, source)


def grounds_kept(kept: KeptLimit) -> Grounds:
    """Why it is so, as it was written down."""
    return Grounds(kept.at, tuple(kept.evidence), kept.reached, kept.patience)
