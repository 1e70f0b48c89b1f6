"""What a client needs of a pool beside its doors, in this process or in another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from keyturn.dispatch import Door, Reply
from keyturn.errors import KeyturnError

from .doorway import NO_HEADERS, Doorway
from .hooks import Hook


class Gone(KeyturnError):
    """The pool is no longer where it was, and nothing was asked of it: open the way to it anew."""

    code = "pool_gone"


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
