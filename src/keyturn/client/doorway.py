"""The way from a client object to a pool: what every door of the library is made of."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from keyturn.dispatch import Door, Reply

NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Doorway(Protocol):
    """Hands requests to a pool, in this process or in the gateway that owns the data folder.

    `ask` answers as the gateway's HTTP does, errors included: a `Reply` with status, headers and body or stream, the
    latter to be closed by who takes it. Header names are lower case. It raises KeyturnError only when the pool itself
    cannot be reached, and asyncio.CancelledError, which leaves nothing behind.
    """

    async def ask(
        self, door: Door, body: bytes, headers: Mapping[str, str] = NO_HEADERS, argument: str = "", query: str = ""
    ) -> Reply: ...

    async def close(self) -> None:
        """Let go of the pool or of the connection to it. May be called twice."""
        ...
