"""What Redis told last of each limit, laid over what this process itself has used of it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from math import inf
from typing import NamedTuple

from keyturn.core import Limit, LimitRow, Mark, Marks, Meters, ScopeKey

from .redis_counts import Figures, name_of

HELD_FOR = 10.0
"""Seconds for which what others held is taken to be held still: attempts come and go."""
FRESH = 1.0
"""Seconds for which a load that others have a part in may be relied on."""
FOLLOWED_FOR = 120.0
MOST_FOLLOWED = 128
"""Limits that are asked about anew after they were claimed here, for so many seconds: should Redis be lost, it is known
what the others have used by then."""
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

    __slots__ = ("_claimed", "_marks", "_meters", "_others")

    def __init__(self, meters: Meters, marks: Marks) -> None:
        self._meters = meters
        self._marks = marks
        self._others: dict[str, Others] = {}
        self._claimed: OrderedDict[str, tuple[Limit, float, float]] = OrderedDict()
        """When a limit was claimed and when it was told of last, the latest claim last."""

    def note(self, limits: Iterable[Limit], rows: Sequence[Figures], now: float, *, claimed: bool = False) -> None:
        """Redis told *rows* of *limits*, which were *claimed* here or only asked about."""
        for limit, row in zip(limits, rows, strict=True):
            self._follow(limit, now, claimed=claimed)
            mine = self._meters.row(limit, now)
            used, held = max(0, row.used - mine.used), max(0, row.held - mine.reserved)
            if used or held:
                if len(self._others) >= MOST:
                    self._forget(now)
                self._others[name_of(limit)] = Others(limit, used, now + row.whole_in, held, now + HELD_FOR)
            else:
                self._others.pop(name_of(limit), None)

    def followed(self, now: float) -> list[Limit]:
        """Limits that were claimed here lately, and not told of since the last beat."""
        while self._claimed and next(iter(self._claimed.values()))[1] < now - FOLLOWED_FOR:
            self._claimed.popitem(last=False)
        return [limit for limit, _, told in self._claimed.values() if told <= now - FRESH / 2]

    def _follow(self, limit: Limit, now: float, *, claimed: bool) -> None:
        name = name_of(limit)
        if claimed:
            self._claimed[name] = (limit, now, now)
            self._claimed.move_to_end(name)
            if len(self._claimed) > MOST_FOLLOWED:
                self._claimed.popitem(last=False)
        elif name in self._claimed:
            self._claimed[name] = (limit, self._claimed[name][1], now)

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

    def taken(self, limit: Limit, now: float) -> int:
        used, held, _ = self._part(limit, now)
        return self._meters.taken(limit, now) + used + held

    def row(self, limit: Limit, now: float) -> LimitRow:
        row = self._meters.row(limit, now)
        used, held, until = self._part(limit, now)
        if not used and not held:
            return row
        free = max(0, limit.capacity - row.used - used - row.reserved - held)
        resets_in = max(row.resets_in, until - now) if used else row.resets_in
        return row._replace(used=row.used + used, reserved=row.reserved + held, free=free, resets_in=resets_in)

    def shared(self, limit: Limit, now: float) -> LimitRow | None:
        used, held, _ = self._part(limit, now)
        return self.row(limit, now) if used or held else None

    def blocked(self, scopes: Sequence[ScopeKey], now: float) -> Mark | None:
        return self._marks.blocked(scopes, now)
