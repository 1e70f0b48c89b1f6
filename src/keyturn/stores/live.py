"""The shape of live state: counters and cooldowns, kept in this process or shared by many.

Everything but awaiting a `Pending` is synchronous. On the usual path a reservation is therefore checked and taken
without an `await`, and whatever ends an attempt can run while its task is being cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from math import inf
from typing import Any, Literal, NamedTuple, Protocol

from keyturn.core import (
    Claim,
    Denied,
    Grounds,
    Limit,
    LimitRow,
    Mark,
    Meters,
    ScopeKey,
    Transition,
    Usage,
    Window,
)


class Reservation:
    """What one attempt holds. `close` gives back what is not settled; it may be called twice, also after settling."""

    __slots__ = ("_close", "id")

    def __init__(self, attempt_id: str, close: Callable[[str], None]) -> None:
        self.id = attempt_id
        self._close = close

    def close(self) -> None:
        self._close(self.id)


class Pending(Protocol):
    """A reservation that a shared store has still to decide; within a bounded time it does, or another one for it.

    Awaited: the reservation, the denial, or None when a cooldown became known with the answer: look again. Raises
    LimiterUnavailable. Whoever stops waiting may do so at any time, and calls `close`: a late grant is then refused by
    its id.
    """

    @property
    def id(self) -> str: ...
    def __await__(self) -> Generator[Any, None, Reservation | Denied | None]: ...
    def close(self) -> None: ...


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

    def taken(self, limit: Limit, now: float) -> int:
        """What is used of *limit* and what is held of it, together."""
        ...

    def row(self, limit: Limit, now: float) -> LimitRow:
        """One limit as it stands, whether it is declared or only ever claimed."""
        ...

    def shared(self, limit: Limit, now: float) -> LimitRow | None:
        """The same; None where only this process counts it at present, so that its counter tells all."""
        ...

    def blocked(self, scopes: Sequence[ScopeKey], now: float) -> Mark | None:
        """The mark that forbids a candidate with these scopes; None when it may be used."""
        ...


class Learned(NamedTuple):
    """What became known from other gateways."""

    freed: tuple[ScopeKey, ...] = ()
    """Scopes whose marks are gone."""
    turned: tuple[tuple[str, int], ...] = ()
    """Providers whose round robin moved, and where it stands."""
    taught: tuple[Limit, ...] = ()
    """Limits that were learned or forgotten; the book of limits says which by now."""


class LiveStanding(NamedTuple):
    """How the live state is doing, for `/readyz`, `/metrics` and `stores check`."""

    store: Literal["memory", "redis"]
    reachable: bool
    """False: the shared store is away, and each limit follows its policy."""
    replicas: int
    """Gateways that share it, this one included."""
    open: int
    """Reservations of this process that are not settled: 0 when idle."""
    queued: int = 0
    """Messages that wait to be sent to the shared store."""
    trouble: str = ""
    """What is wrong and what to do about it; empty while all is well."""


class LiveState(Protocol):
    """Counters and cooldowns. `now` is monotonic seconds; attempt ids are made before anything is asked for."""

    wall_offset: float
    """Wall minus monotonic seconds, for limits of a day or month; set again when the wall clock is set."""

    @property
    def meters(self) -> Meters:
        """What this process counted itself; to be read only."""
        ...

    async def open(self) -> None:
        """Reach the shared store and learn what stands there. Raises StoreError when it must not be used as it is."""
        ...

    async def close(self) -> None:
        """Give back what is still held, as far as the shared store can be told, and let go of it."""
        ...

    async def refresh(self, scopes: Iterable[str], limits: Iterable[Limit] = ()) -> None:
        """Have `view` know the newest figures of the limits of *scopes*, and of *limits* that are only ever claimed,
        for who wants to see them."""
        ...

    def standing(self) -> LiveStanding: ...

    def view(self, now: float) -> View:
        """What is known at *now*; it stays current."""
        ...

    def limits(self, scope: str) -> tuple[Limit, ...]:
        """The limits that hold for *scope*."""
        ...

    def charged(self, scope: str) -> tuple[Limit, ...]:
        """The same, with what is only counted so that a limit can be learned: what an attempt is to claim."""
        ...

    def declare(self, scope: str, limits: Iterable[Limit]) -> None:
        """Replace the declared limits of *scope*; what is counted stays."""
        ...

    def pin(self, scope: str, limits: Iterable[Limit]) -> None:
        """Replace the limits that the owner pinned for *scope*; what is counted stays."""
        ...

    def learn(self, limit: Limit, grounds: Grounds, now: float) -> bool:
        """*limit* was learned; of capacity `UNKNOWN`: it is only to be counted. True when it changed a limit."""
        ...

    def forget(self, limit: Limit, source: Literal["reported", "learned"]) -> bool:
        """Forget what was reported or learned of the metric and window of *limit*; False when that is nothing."""
        ...

    def report(
        self, scope: str, metric: str, window: Window, capacity: int, now: float, remaining: int | None = None
    ) -> bool:
        """A provider stated a limit in its headers, of which *remaining* was left. True when it changed a limit."""
        ...

    def take(self, limit: Limit, amount: int, now: float) -> None:
        """Count *amount* as used of *limit* now: what was written down before this process began.

        A shared store takes it as what is used at least, since every gateway tells it.
        """
        ...

    def reserve(
        self, attempt_id: str, claims: Sequence[Claim], now: float, scopes: Sequence[ScopeKey] = ()
    ) -> Reservation | Denied | Pending:
        """Take all of *claims* or nothing. An id that was released is denied; one that is reserved stays so.

        *scopes*: those whose marks the candidate obeys, so that a shared store can tell of a cooldown in time.
        """
        ...

    def wait(self, claims: Sequence[Claim], now: float, most: float = inf) -> tuple[float, Limit | None]:
        """Seconds until all of *claims* would fit, as far as is known, and the limit that is longest in the way; if one
        does not fit within *most* seconds, that is enough.

        Infinite when time alone will not help. Nothing is taken, and nobody is remembered as waiting.
        """
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

    def turn(self, provider: str, index: int) -> None:
        """The round robin of *provider* stands at *index* now."""
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

    def follow(self, learned: Callable[[Learned], None]) -> None:
        """Call *learned* with what other gateways changed, after this one's marks follow it."""
        ...
