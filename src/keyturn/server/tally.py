"""Calls of the last minute by route, counted only while somebody watches."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from keyturn.core import Trail
from keyturn.dispatch import CallEnded, Event

if TYPE_CHECKING:
    from keyturn.dispatch import Gateway

SPAN = 60
"""Seconds that are counted."""
UNWATCHED = 120.0
"""Seconds without a question after which counting ends."""
MOST_ROUTES = 200
OTHER = "other"
"""Stands for what goes beyond: names of routes come from clients."""


class Tally:
    """Counts the calls that end in one process, from the first question on until nobody asks any more."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._seconds: deque[tuple[int, dict[str, list[int]]]] = deque(maxlen=SPAN + 1)
        """Per second with calls: route -> how many ended, and how many of these failed."""
        self._since: float | None = None
        self._asked = 0.0

    def told(self) -> dict[str, list[int]]:
        """Route -> calls that ended in the last minute, and how many of these failed. The first question is answered
        from the latest calls that are remembered."""
        now = self._gateway.clock.mono()
        self._asked = now
        if self._since is None:
            self._since = now
            for trail in self._gateway.recent.values():
                if trail.ended is not None and trail.ended > now - SPAN:
                    self._count(trail)
            self._gateway.events.subscribe(self._take)
        sums: dict[str, list[int]] = {}
        for second, routes in self._seconds:
            if second > now - SPAN:
                for route, (calls, errors) in routes.items():
                    total = sums.setdefault(route if route in sums or len(sums) < MOST_ROUTES else OTHER, [0, 0])
                    total[0] += calls
                    total[1] += errors
        return sums

    def _take(self, event: Event) -> None:
        if not isinstance(event, CallEnded):
            return
        if self._gateway.clock.mono() > self._asked + UNWATCHED:
            self._gateway.events.unsubscribe(self._take)
            self._since = None
            self._seconds.clear()
        else:
            self._count(event.trail)

    def _count(self, trail: Trail) -> None:
        second = int(trail.ended if trail.ended is not None else self._gateway.clock.mono())
        if not self._seconds or self._seconds[-1][0] < second:
            self._seconds.append((second, {}))
        routes = self._seconds[-1][1]
        name = trail.route[:200]
        counts = routes.setdefault(name if name in routes or len(routes) < MOST_ROUTES else OTHER, [0, 0])
        counts[0] += 1
        counts[1] += trail.status >= 400 and trail.status != 499
