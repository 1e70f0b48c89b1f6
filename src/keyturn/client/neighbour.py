"""A pool that lives on another event loop of this process: each request crosses to it, its answer crosses back."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, NamedTuple, TypeVar

from keyturn.dispatch import Door, Reply
from keyturn.errors import KeyturnError, UpstreamInterrupted

from .crossing import ENDED, Pump, awaited, close_on, start
from .doorway import NO_HEADERS
from .local import LocalDoorway
from .pool import Callback, Gone

T = TypeVar("T")


class Crossed(NamedTuple):
    """An answer, and who reads its stream on the loop that it belongs to."""

    reply: Reply
    pump: Pump[bytes] | None

    def close(self) -> None:
        """Nobody wants it."""
        (self.pump or self.reply).close()


class NeighbourDoorway:
    """The way to *inner*, which is used on *loop* only."""

    def __init__(self, inner: LocalDoorway, loop: asyncio.AbstractEventLoop) -> None:
        self._inner = inner
        self._loop = loop

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
        """As `LocalDoorway.ask`. *callback* runs on the loop of the pool."""

        async def asked() -> Crossed:
            reply = await self._inner.ask(door, body, headers, argument, query, callback=callback)
            return Crossed(reply, None if reply.stream is None else Pump(reply.stream))

        reply, pump = await self._cross(asked)
        if pump is None:
            return reply
        return Reply(reply.status, reply.headers, stream=CrossingStream(pump, self._loop))

    async def close(self) -> None:
        if self._loop.is_running():
            await self._cross(self._inner.close)
        elif self._loop.is_closed():  # nobody else can let go of it any more
            self._inner.forsake()

    async def leave(self) -> None:
        await self.close()

    async def trail(self, call_id: str) -> dict[str, Any] | None:
        return await self._cross(lambda: self._inner.trail(call_id))

    async def models(self) -> list[tuple[str, str]]:
        return await self._cross(self._inner.models)

    async def quota_stats(self, provider: str | None) -> dict[str, Any]:
        return await self._cross(lambda: self._inner.quota_stats(provider))

    async def keys(self) -> list[dict[str, Any]]:
        return await self._cross(self._inner.keys)

    async def reset(self, key: str | None) -> list[str]:
        return await self._cross(lambda: self._inner.reset(key))

    async def providers(self) -> list[dict[str, Any]]:
        return await self._cross(self._inner.providers)

    async def tally(self) -> dict[str, tuple[int, int]]:
        return await self._cross(self._inner.tally)

    async def count_tokens(self, question: Mapping[str, Any]) -> int:
        return await self._cross(lambda: self._inner.count_tokens(question))

    async def _cross(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Raises Gone when the other loop does not run any more."""
        if not self._loop.is_running():
            raise Gone("the event loop that the pool lived on has ended")
        return await awaited(start(self._loop, make))


class CrossingStream:
    """A stream of another loop, read there by one task."""

    def __init__(self, pump: Pump[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._pump = pump
        self._loop = loop
        self._pieces: deque[bytes] = deque()

    def __aiter__(self) -> CrossingStream:
        return self

    async def __anext__(self) -> bytes:
        if not self._pieces:
            try:
                if not self._loop.is_running():
                    raise KeyturnError(ENDED)
                self._pieces.extend(await awaited(start(self._loop, self._pump.take)))
            except asyncio.CancelledError:
                self.close()
                raise
            except UpstreamInterrupted:
                raise
            except KeyturnError as error:
                raise UpstreamInterrupted(f"the answer was interrupted: {error.message}") from error
            if not self._pieces:
                raise StopAsyncIteration
        return self._pieces.popleft()

    def close(self) -> None:
        close_on(self._loop, self._pump)
