"""Which limits are known: what the owner declared, what is shipped, and what providers report in their headers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, get_args

from .lasting import KeptLimit, left_of
from .windows import KINDS, Window

Metric = Literal["requests", "tokens", "input_tokens", "output_tokens", "concurrency", "cost"]
"""What is counted. `cost` is in nano-dollars."""
METRICS: dict[str, Metric] = {name: name for name in get_args(Metric)}
Source = Literal["declared", "reported", "learned", "default", "cap"]
"""Who says so; `cap`: the owner, below what the provider allows."""
Owner = Literal["candidate", "caller"]

BELIEVED = 24 * 3600.0
"""Seconds that a reported limit holds after it was last reported."""


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


def limit_of(key: str, capacity: int) -> Limit | None:
    """The limit that is counted under *key*; None for one that is not to be taken over."""
    metric, kind, seconds, zone, scope = [*key.split(" ", 4), "", "", "", ""][:5]
    known = METRICS.get(metric)
    if known is None or metric == "cost" or kind not in KINDS or not scope:
        return None
    return Limit(scope, known, Window(KINDS[kind], float(seconds), zone), max(1, capacity))


def scope_in(key: str) -> str:
    """The scope of the limit that is counted under *key*."""
    return key.split(" ", 4)[-1]


@dataclass(slots=True)
class _Reported:
    limit: Limit
    until: float


class LimitBook:
    """The limits of every scope, merged: of the same metric and window one holds.

    A reported limit wins over one that was shipped or learned. Beside one that the owner declared, the tighter of the
    two holds: an owner may keep below a provider's limit, and a provider knows when an owner hopes for too much.
    """

    __slots__ = ("_declared", "_due", "_merged", "_reported", "touched")

    def __init__(self) -> None:
        self.touched: set[str] | None = None
        """The scopes of which other limits are reported than before, for who wants to know and empties it; None:
        nobody."""
        self._declared: dict[str, tuple[Limit, ...]] = {}
        self._reported: dict[str, dict[str, _Reported]] = {}
        self._merged: dict[str, tuple[Limit, ...]] = {}
        self._due: deque[tuple[float, Limit]] = deque()
        """When to look whether a reported limit is still reported."""

    def of(self, scope: str) -> tuple[Limit, ...]:
        """The limits that hold for *scope*."""
        return self._merged.get(scope, ())

    def declare(self, scope: str, limits: Iterable[Limit]) -> None:
        """Replace what is declared for *scope*; none forgets it."""
        declared = tuple(limits)
        if declared:
            self._declared[scope] = declared
        else:
            self._declared.pop(scope, None)
        self._merge(scope)

    def report(self, limit: Limit, now: float) -> bool:
        """A provider reported *limit*; believed for a day. True when another limit holds now than before."""
        rows = self._reported.setdefault(limit.scope, {})
        row = rows.get(limit.key)
        if row is None:
            rows[limit.key] = _Reported(limit, now + BELIEVED)
            self._due.append((now + BELIEVED, limit))
        else:
            row.until = now + BELIEVED
            if row.limit == limit:
                return False
            row.limit = limit
        if self.touched is not None:
            self.touched.add(limit.scope)
        return self._merge(limit.scope)

    def scopes(self) -> list[str]:
        """The scopes of which a provider reported limits."""
        return list(self._reported)

    def dump(self, scope: str, offset: float) -> list[KeptLimit]:
        """What was reported of *scope*, with the moments until which it is believed *offset* later."""
        return [
            KeptLimit(scope, row.limit.metric, *row.limit.window, row.limit.capacity, row.until + offset)
            for row in self._reported.get(scope, {}).values()
        ]

    def restore(self, kept: Iterable[KeptLimit], now: float, offset: float) -> None:
        """Take over what was reported to an earlier process, unless it was reported to this one too."""
        scopes = set()
        for each in sorted(kept, key=lambda each: each.until):
            until = left_of(each.until, offset, now, BELIEVED)
            metric, kind = METRICS.get(each.metric), KINDS.get(each.kind)
            if until <= now or metric is None or kind is None or each.capacity < 1:
                continue
            limit = Limit(each.scope, metric, Window(kind, each.seconds, each.zone), each.capacity, "reported")
            rows = self._reported.setdefault(limit.scope, {})
            if limit.key not in rows:
                rows[limit.key] = _Reported(limit, until)
                self._due.append((until, limit))
                scopes.add(limit.scope)
        self._due = deque(sorted(self._due, key=lambda due: due[0]))
        for scope in scopes:
            self._merge(scope)

    def expire(self, now: float) -> None:
        """Forget what was not reported for a day."""
        while self._due and self._due[0][0] <= now:
            _, limit = self._due.popleft()
            rows = self._reported[limit.scope]
            row = rows[limit.key]
            if row.until > now:
                self._due.append((row.until, limit))
                continue
            del rows[limit.key]
            if self.touched is not None:
                self.touched.add(limit.scope)
            if not rows:
                del self._reported[limit.scope]
            self._merge(limit.scope)

    def _merge(self, scope: str) -> bool:
        chosen: dict[str, Limit] = {}
        for limit in self._declared.get(scope, ()):
            other = chosen.get(limit.key)
            if other is None or limit.capacity < other.capacity:
                chosen[limit.key] = limit
        for row in self._reported.get(scope, {}).values():
            other = chosen.get(row.limit.key)
            if other is None or other.yields or other.source != "declared" or row.limit.capacity < other.capacity:
                chosen[row.limit.key] = row.limit
        before, after = self.of(scope), tuple(chosen.values())
        if after:
            self._merged[scope] = after
        else:
            self._merged.pop(scope, None)
        return before != after
