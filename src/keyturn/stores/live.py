"""The shape of live state: counters and cooldowns, kept in this process or shared by many.

Everything but awaiting a `Pending` is synchronous. On the usual path a reservation is therefore checked and taken
without an `await`, and whatever ends an attempt can run while its task is being cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, Protocol

from keyturn.core import Claim, Denied, Limit, LimitRow, Mark, ScopeKey, Transition, Usage, Window


class Reservation:
    """What one attempt holds. `close` gives back what is not settled; it may be called twice, also after settling."""

    __slots__ = ("_close", "id")

    def __init__(self, attempt_id: str, close: Callable[[str], None]) -> None:
        self.id = attempt_id
        self._close = close

    def close(self) -> None:
        self._close(self.id)


class Pending(Protocol):
    """A reservation that a shared store has still to decide. To be awaited in a task of its own.

    Whoever stops waiting calls `LiveState.release(id)`: a late grant is then refused by its id.
    """

    @property
    def id(self) -> str: ...
    def __await__(self) -> Generator[Any, None, Reservation | Denied]: ...


class View(Protocol):
    """What decisions read. Reading changes nothing that another reader could see."""

    def limits(self, scope: str) -> tuple[Limit, ...]:
        """The limits that hold for *scope*."""
        ...

    def load(self, scope: str, now: float) -> tuple[float, float]:
        """The used share of the fullest limit of *scope*, and until when it stays so if nothing happens."""
        ...

    def snapshot(self, scope: str, now: float) -> list[LimitRow]:
        """All limits of *scope* as they stand."""
        ...

    def used(self, limit: Limit, now: float) -> int:
        """What is used of *limit*, without what is held; it need not be declared."""
        ...

    def row(self, limit: Limit, now: float) -> LimitRow:
        """One limit as it stands, whether it is declared or only ever claimed."""
        ...

    def blocked(self, scopes: Sequence[ScopeKey], now: float) -> Mark | None:
        """The mark that forbids a candidate with these scopes; None when it may be used."""
        ...


class LiveState(Protocol):
    """Counters and cooldowns. `now` is monotonic seconds; attempt ids are made before anything is asked for."""

    wall_offset: float
    """Wall minus monotonic seconds, for limits of a day or month; set again when the wall clock is set."""

    def view(self, now: float) -> View:
        """What is known at *now*; it stays current."""
        ...

    def limits(self, scope: str) -> tuple[Limit, ...]:
        """The limits that hold for *scope*."""
        ...

    def declare(self, scope: str, limits: Iterable[Limit]) -> None:
        """Replace the declared limits of *scope*; what is counted stays."""
        ...

    def report(
        self, scope: str, metric: str, window: Window, capacity: int, now: float, remaining: int | None = None
    ) -> bool:
        """A provider stated a limit in its headers, of which *remaining* was left. True when it changed a limit."""
        ...

    def take(self, limit: Limit, amount: int, now: float) -> None:
        """Count *amount* as used of *limit* now: what was written down before this process began."""
        ...

    def reserve(self, attempt_id: str, claims: Sequence[Claim], now: float) -> Reservation | Denied | Pending:
        """Take all of *claims* or nothing. An id that was released is denied; one that is reserved stays so."""
        ...

    def counted(self, attempt_id: str, now: float) -> None:
        """The request was written in full: the provider counts it from now on."""
        ...

    def settle(self, attempt_id: str, usage: Usage | None, now: float) -> None:
        """The attempt used *usage*. Again, or an unknown id: nothing.

        None: unknown, what was charged stays; but nothing was delivered, so the caller's own limits get it back.
        """
        ...

    def release(self, attempt_id: str) -> None:
        """Give back what is held and not counted, and refuse a later reserve of this id for a minute."""
        ...

    def cool(self, transition: Transition) -> bool:
        """Change a mark. True when something became usable that was not."""
        ...

    def begin(self, scopes: Iterable[ScopeKey], attempt_id: str, now: float) -> None:
        """An attempt starts: it probes the marks of *scopes* whose time is up."""
        ...

    def end(self, attempt_id: str) -> list[ScopeKey]:
        """An attempt is over: the scopes that it probed without a verdict, free for the next probe."""
        ...

    def subscribe(self, wake: Callable[[str], None]) -> None:
        """Call *wake* with a scope when what a denial waited for comes free before its time.

        Never from within `reserve`, never when nobody was denied.
        """
        ...
