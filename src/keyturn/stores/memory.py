"""Live state of one process, in plain memory: never awaited, gone at exit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Literal

from keyturn.core import (
    Claim,
    Denied,
    Grounds,
    Limit,
    LimitRow,
    Marks,
    Meters,
    ScopeKey,
    Transition,
    Window,
)

from .live import Learned, LiveStanding, Reservation


class MemoryState:
    """The meters and marks of this process, behind the shape that a shared store has too."""

    __slots__ = ("_listeners", "_marks", "_meters", "_shift", "begin", "blocked", "charged", "counted", "end", "settle")

    def __init__(self, marks: Marks, *, wall_offset: float = 0.0) -> None:
        self._marks = marks
        self._meters = meters = Meters(self._wake)
        # What each call asks is asked without a step between.
        self.blocked, self.begin, self.end = marks.blocked, marks.begin, marks.end
        self.charged, self.counted, self.settle = meters.book.charged, meters.counted, meters.settle
        self._shift = self._meters.shift
        self._shift.seconds = wall_offset
        self._listeners: list[Callable[[str], None]] = []

    @property
    def wall_offset(self) -> float:
        return self._shift.seconds

    @wall_offset.setter
    def wall_offset(self, seconds: float) -> None:
        self._shift.seconds = seconds

    @property
    def meters(self) -> Meters:
        """What is counted: for the snapshot that outlives the process."""
        return self._meters

    @property
    def marks(self) -> Marks:
        """What stands against credentials."""
        return self._marks

    async def open(self) -> None:
        return None

    async def close(self) -> None:
        return None

    async def refresh(self, scopes: Iterable[str], limits: Iterable[Limit] = ()) -> None:
        return None

    def standing(self) -> LiveStanding:
        return LiveStanding("memory", True, 1, self._meters.held())

    def view(self, now: float) -> MemoryState:
        return self

    def limits(self, scope: str) -> tuple[Limit, ...]:
        return self._meters.limits(scope)

    def load(self, scope: str, now: float) -> tuple[float, float]:
        return self._meters.load(scope, now)

    def snapshot(self, scope: str, now: float) -> list[LimitRow]:
        return self._meters.snapshot(scope, now)

    def used(self, limit: Limit, now: float) -> int:
        return self._meters.used(limit, now)

    def taken(self, limit: Limit, now: float) -> int:
        return self._meters.taken(limit, now)

    def row(self, limit: Limit, now: float) -> LimitRow:
        return self._meters.row(limit, now)

    def shared(self, limit: Limit, now: float) -> None:
        return None

    def declare(self, scope: str, limits: Iterable[Limit]) -> None:
        self._meters.declare(scope, limits)

    def pin(self, scope: str, limits: Iterable[Limit]) -> None:
        self._meters.amend(scope, lambda book: book.pin(scope, limits))

    def learn(self, limit: Limit, grounds: Grounds, now: float) -> bool:
        return self._meters.amend(limit.scope, lambda book: book.learn(limit, grounds, now))

    def forget(self, limit: Limit, source: Literal["reported", "learned"]) -> bool:
        return self._meters.amend(limit.scope, lambda book: book.forget(limit, source))

    def report(
        self, scope: str, metric: str, window: Window, capacity: int, now: float, remaining: int | None = None
    ) -> bool:
        return self._meters.report(scope, metric, window, capacity, now, remaining)

    def take(self, limit: Limit, amount: int, now: float) -> None:
        self._meters.take(limit, amount, now)

    def reserve(
        self, attempt_id: str, claims: Sequence[Claim], now: float, scopes: Sequence[ScopeKey] = ()
    ) -> Reservation | Denied:
        denied = self._meters.reserve(attempt_id, claims, now)
        return Reservation(attempt_id, self._close) if denied is None else denied

    def wait(self, claims: Sequence[Claim], now: float, most: float = inf) -> tuple[float, Limit | None]:
        return self._meters.wait(claims, now, most)

    def release(self, attempt_id: str) -> None:
        self._meters.release(attempt_id)

    def held(self) -> int:
        """How many reservations are open: 0 when idle."""
        return self._meters.held()

    def cool(self, transition: Transition) -> bool:
        return self._marks.apply(transition)

    def turn(self, provider: str, index: int) -> None:
        return None

    def follow(self, learned: Callable[[Learned], None]) -> None:
        return None

    def subscribe(self, wake: Callable[[str], None]) -> None:
        self._listeners.append(wake)

    def _close(self, attempt_id: str) -> None:
        if self._meters.holds(attempt_id):  # a settled id needs no tombstone: it will not be reserved again
            self._meters.release(attempt_id)

    def _wake(self, scope: str) -> None:
        for wake in self._listeners:
            wake(scope)
