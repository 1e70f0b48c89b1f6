"""What Redis told last of each limit, laid over what this process itself has used of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

from keyturn.core import Limit, LimitRow, Mark, Marks, Meters, ScopeKey

from .redis_counts import Figures, name_of

HELD_FOR = 10.0
"""Seconds for which what others held is taken to be held still: attempts come and go."""
FRESH = 1.0
"""Seconds for which a load that others have a part in may be relied on."""
MOST = 20_000
"""Limits that are remembered; then those at rest are forgotten, and at worst all: the next answer tells anew."""


class Others(NamedTuple):
    """What other gateways used and held of a limit when Redis told of it. Moments are monotonic seconds."""

    limit: Limit
    used: int
    used_until: float
    held: int
    held_until: float


class Known:
    """The view of a shared live state: the own meters, always current, and others' part as it was last told."""

    __slots__ = ("_marks", "_meters", "_others")

    def __init__(self, meters: Meters, marks: Marks) -> None:
        self._meters = meters
        self._marks = marks
        self._others: dict[str, Others] = {}

    def note(self, limits: Iterable[Limit], rows: Sequence[Figures], now: float) -> None:
        """Redis told *rows* of *limits*."""
        for limit, row in zip(limits, rows, strict=True):
            mine = self._meters.row(limit, now)
            used, held = max(0, row.used - mine.used), max(0, row.held - mine.reserved)
            if used or held:
                if len(self._others) >= MOST:
                    self._forget(now)
                self._others[name_of(limit)] = Others(limit, used, now + row.whole_in, held, now + HELD_FOR)
            else:
                self._others.pop(name_of(limit), None)

    def of(self, scopes: Iterable[str]) -> list[Limit]:
        """Limits of *scopes* that are declared or reported here, or that Redis told of."""
        wanted = set(scopes)
        found = {limit.key: limit for scope in wanted for limit in self._meters.limits(scope)}
        for each in self._others.values():
            if each.limit.scope in wanted:
                found.setdefault(each.limit.key, each.limit)
        return list(found.values())

    def _forget(self, now: float) -> None:
        self._others = {name: each for name, each in self._others.items() if each.used_until > now}
        if len(self._others) >= MOST:
            self._others.clear()

    def _part(self, limit: Limit, now: float) -> tuple[int, int, float]:
        """Used and held by others, and until when that is so."""
        each = self._others.get(name_of(limit)) if self._others else None
        if each is None:
            return 0, 0, inf
        used = each.used if now < each.used_until else 0
        held = each.held if now < each.held_until else 0
        return used, held, each.used_until if used else each.held_until

    # --- the view

    def limits(self, scope: str) -> tuple[Limit, ...]:
        return self._meters.limits(scope)

    def load(self, scope: str, now: float) -> tuple[float, float]:
        share, until = self._meters.load(scope, now)
        if not self._others:
            return share, until
        for limit in self._meters.limits(scope):
            used, held, _ = self._part(limit, now)
            if used or held:
                row = self._meters.row(limit, now)
                share = max(share, (row.used + row.reserved + used + held) / limit.capacity)
                until = min(until, now + FRESH)
        return share, until

    def snapshot(self, scope: str, now: float) -> list[LimitRow]:
        return [self.row(limit, now) for limit in self._meters.limits(scope)]

    def used(self, limit: Limit, now: float) -> int:
        return self._meters.used(limit, now) + self._part(limit, now)[0]

    def row(self, limit: Limit, now: float) -> LimitRow:
        row = self._meters.row(limit, now)
        used, held, until = self._part(limit, now)
        if not used and not held:
            return row
        free = max(0, limit.capacity - row.used - used - row.reserved - held)
        resets_in = max(row.resets_in, until - now) if used else row.resets_in
        return row._replace(used=row.used + used, reserved=row.reserved + held, free=free, resets_in=resets_in)

    def blocked(self, scopes: Sequence[ScopeKey], now: float) -> Mark | None:
        return self._marks.blocked(scopes, now)
