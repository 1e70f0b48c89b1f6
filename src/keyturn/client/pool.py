"""What a client needs of a pool beside its doors, in this process or in another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from keyturn.dispatch import Door, Reply
from keyturn.errors import Draining

from .doorway import NO_HEADERS, Doorway
from .hooks import Hook

LONGEST_LEAVE = 20.0
"""Seconds that a call waits for a gateway that is shutting down, before it gives up."""


class Gone(Draining):
    """The pool is no longer where it was, and nothing was asked of it: open the way to it anew.

    *leaving* is the process of a gateway that may still be shutting down.
    """

    def __init__(self, message: str, leaving: int | None = None) -> None:
        super().__init__(message)
        self.leaving = leaving


class Callback(NamedTuple):
    """The callback of a client, and whether its mistakes end the call."""

    hook: Hook
    abort: bool


class Pool(Doorway, Protocol):
    """A `Doorway`, and what the pool tells of itself. All of it raises KeyturnError, `Gone` among them."""

    async def ask(
        self,
        door: Door,
        body: bytes,
        headers: Mapping[str, str] = NO_HEADERS,
        argument: str = "",
        query: str = "",
        *,
        callback: Callback | None = None,
    ) -> Reply:
        """As `Doorway.ask`; *callback* is awaited before each attempt. What it raises is raised here."""
        ...

    async def leave(self) -> None:
        """As `close`, but streams under way go on to their end."""
        ...

    async def trail(self, call_id: str) -> dict[str, Any] | None:
        """The story of a recent call."""
        ...

    async def models(self) -> list[tuple[str, str]]:
        """Every name that can be asked for, with the provider that answers it."""
        ...

    async def quota_stats(self, provider: str | None) -> dict[str, Any]:
        """What `GET /v1/quota-stats` answers."""
        ...

    async def keys(self) -> list[dict[str, Any]]:
        """The rows of `keys list --json`."""
        ...

    async def reset(self, key: str | None) -> list[str]:
        """Clear the cooldowns of the keys that *key* names, None: of all."""
        ...

    async def providers(self) -> list[dict[str, Any]]:
        """The rows of `GET /v1/providers`."""
        ...

    async def tally(self) -> dict[str, tuple[int, int]]:
        """Provider -> attempts that were answered well, and others."""
        ...

    async def count_tokens(self, question: Mapping[str, Any]) -> int:
        """What `POST /v1/token-count` answers to *question*."""
        ...
