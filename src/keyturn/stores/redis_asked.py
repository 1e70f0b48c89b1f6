"""A reservation that Redis has been asked for: its answer is awaited, for a bounded time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any

from keyturn.core import Claim, Denied

from .live import Reservation
from .redis_port import Away

if TYPE_CHECKING:
    from .redis_state import RedisState

TRIES = 3
"""Times that a reservation is asked for while Redis hesitates, each within the time of one operation."""


class Asked:
    """`Pending` of a shared state. *ask* asks once; asked again with the same id, Redis gives the same answer."""

    __slots__ = ("_again", "_closed", "_state", "answer", "claims", "id")

    def __init__(
        self, state: RedisState, attempt_id: str, claims: Sequence[Claim], ask: Callable[[], asyncio.Future[Any]]
    ) -> None:
        self.id = attempt_id
        self.claims = claims
        self._state = state
        self._again = ask
        self.answer = ask()
        self._closed = False

    def __await__(self) -> Generator[Any, None, Reservation | Denied | None]:
        got: Reservation | Denied | None
        for tries_left in range(TRIES, 0, -1):
            try:
                reply = yield from self.answer.__await__()
            except Away:
                if tries_left > 1 and self._state.link.reachable:
                    # It only hesitates, and grants to others: to decide alone now could exceed the limit.
                    self.answer = self._again()
                    continue
                got = self._state.unanswered(self)
            else:
                got = self._state.answered(self, reply)
            break
        if not isinstance(got, Reservation):
            self._closed = True
        return got

    def close(self) -> None:
        """Give up: refuse a late grant, or give back what was granted."""
        if not self._closed:
            self._closed = True
            self._state.release(self.id)
