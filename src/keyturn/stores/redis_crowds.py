"""How many may ask Redis at once for a limit that has said no lately: one, and twice as many after each yes.

Else all who wait here ask as soon as a limit may have room, on every gateway, and nearly all of them in vain: Redis
would be busy with saying no for longer than an answer may take.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keyturn.core import Claim, Denied, Limit

from .redis_counts import name_of

AGAIN = 0.05
"""Seconds after which it is worth asking again; the next answer wakes who waits before that."""
WIDE = 64
"""So many at once are no crowd."""
REMEMBERED = 5.0
"""Seconds for which a no is remembered, after the time until which it held."""


class Crowds:
    """Counts the questions under way for each limit. *woken* is called with the scope where there is room to ask."""

    MOST = 4096

    def __init__(self, woken: Callable[[str], None]) -> None:
        self._woken = woken
        self._under_way: dict[asyncio.Future[Any], list[str]] = {}
        self._asking: dict[str, int] = {}
        self._narrow: dict[str, tuple[int, float]] = {}
        """By name of a limit: how many may ask at once, and until when that holds."""
        self._turned_away: dict[str, str] = {}
        """Names of limits for which somebody had to wait until others are answered, and their scopes."""

    def denial(self, claims: Iterable[Claim], now: float) -> Denied | None:
        """Denies *claims* while as many ask as may. Callers' own limits deny nobody: that would be an error."""
        if not self._narrow:
            return None
        for claim in claims:
            limit = claim.limit
            name = name_of(limit)
            most, until = self._narrow.get(name, (WIDE, now))
            if limit.owner != "caller" and now < until and self._asking.get(name, 0) >= most:
                self._turned_away[name] = limit.scope
                return Denied(AGAIN, limit, 0.0)
        return None

    def enter(self, claims: Iterable[Claim], answer: asyncio.Future[Any]) -> None:
        """Somebody asks for *claims*, until *answer* is there or was given up."""
        names = self._under_way[answer] = [name_of(claim.limit) for claim in claims]
        for name in names:
            self._asking[name] = self._asking.get(name, 0) + 1
        answer.add_done_callback(self.leave)

    def leave(self, answer: asyncio.Future[Any]) -> None:
        """*answer* is there, or nobody waits for it; again: nothing."""
        for name in self._under_way.pop(answer, ()):
            left = self._asking[name] - 1
            if left:
                self._asking[name] = left
            else:
                del self._asking[name]
            scope = self._turned_away.pop(name, None)
            if scope is not None:
                self._woken(scope)

    def denied(self, limit: Limit, until: float, now: float) -> None:
        """Redis said now that *limit* has no room until *until*."""
        if len(self._narrow) >= self.MOST:
            self._narrow = {name: each for name, each in self._narrow.items() if now < each[1]}
            if len(self._narrow) >= self.MOST:
                self._narrow.clear()
        self._narrow[name_of(limit)] = (1, until + REMEMBERED)

    def granted(self, claims: Sequence[Claim]) -> None:
        """Redis said yes."""
        for claim in claims if self._narrow else ():
            name = name_of(claim.limit)
            most, until = self._narrow.get(name, (WIDE, 0.0))
            if most < WIDE:
                self._narrow[name] = (2 * most, until)
            else:
                self._narrow.pop(name, None)
