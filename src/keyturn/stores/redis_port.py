"""The shape of the link between the shared live state and its Redis: scripts in, replies out, news, presence."""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

Argument = bytes | str | int


class Away(Exception):
    """Redis does not answer in time, or not at all: what was asked may or may not have been done."""


class Link(Protocol):
    """One multiplexed way to Redis. Nothing here blocks; whoever stops waiting for a reply harms nobody.

    Scripts are named by their files in `lua/`; `redis_scripts.script` gives their whole text. They go out in the order
    in which they were handed over, `ask` and `tell` alike, several at once in one pipeline. Redis's clock is the clock
    of all of it.
    """

    @property
    def reachable(self) -> bool:
        """False while the breaker is open, and after that until *recover* (see `open`) has run."""
        ...

    @property
    def trouble(self) -> str:
        """Why Redis is away, and what to do about it; empty while it is reachable."""
        ...

    @property
    def replicas(self) -> int:
        """Gateways that were seen within the last heartbeats, this one included; at least 1. Kept while away."""
        ...

    @property
    def shift(self) -> float:
        """Redis time minus our monotonic time, in seconds."""
        ...

    @property
    def rewound(self) -> float:
        """While *recover* runs (see `open`): the moment of Redis's clock after which it lost what it was told, as one
        that comes back from its disk or from a replica may have. Infinite: it lost nothing, or all."""
        ...

    async def open(self, recover: Callable[[bool], Awaitable[None]], news: Callable[[bytes], None]) -> None:
        """Connect, check the server (version, eviction policy, scripts), join the others. Raises StoreError.

        *recover* is awaited each time the link comes back, before it counts as reachable; its argument says whether
        Redis lost all that it knew (restarted empty, was emptied). It uses `ask`, which works by then. *news* gets each
        message on the channel of our prefix.
        """
        ...

    def ask(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> Future[Any]:
        """The reply of *script*, within the bounded time of one operation. The future fails with Away."""
        ...

    def tell(self, script: str, keys: Sequence[str], arguments: Sequence[Argument]) -> bool:
        """The same without a reply. False when it was not taken: the link is away, or its queue is full.

        What was taken and may not have arrived is sent again after a loss, so it must do no harm twice.
        """
        ...

    @property
    def queued(self) -> int:
        """Messages that wait to be sent."""
        ...

    async def close(self) -> None:
        """Send what waits, within a bounded time, leave the others, disconnect."""
        ...
