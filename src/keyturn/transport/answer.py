"""What the answers of all transports share: reading with a limit, chunks as they come, decoding."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from keyturn.errors import TransportError

from .decoding import Inflater


class Answer(ABC):
    """An `UpstreamResponse` over `take()`, which a transport fills in. It is its own iterator of chunks.

    An iterator written out, and no async generator: one of those that is dropped half-way needs a task to be closed.
    """

    __slots__ = ("_inflater", "headers", "status")

    headers: Mapping[str, str]

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers
        self._inflater: Inflater | None = None
        encoding = headers.get("content-encoding")
        if encoding is not None and encoding.lower() != "identity":
            self._inflater = Inflater(encoding)
            del headers["content-encoding"]
            headers.pop("content-length", None)

    @abstractmethod
    async def take(self) -> bytes:
        """The bytes that have arrived since the last call, waiting for the first; b"" at the end of the body."""

    @abstractmethod
    def close(self) -> None:
        """Let go at once. May be called twice."""

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises TransportError: `too_large` above *limit* bytes, `closed` when it is cut."""
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            raise self._too_large(limit)
        take = self.take if self._inflater is None else self._take_decoded
        parts: list[bytes] = []
        size = 0
        while data := await take():
            parts.append(data)
            size += len(data)
            if size > limit:
                raise self._too_large(limit)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def chunks(self) -> Answer:
        """The body as it arrives, several waiting chunks joined into one."""
        return self

    def __aiter__(self) -> Answer:
        return self

    async def __anext__(self) -> bytes:
        data = await (self.take() if self._inflater is None else self._take_decoded())
        if not data:
            raise StopAsyncIteration
        return data

    async def _take_decoded(self) -> bytes:
        assert self._inflater is not None
        try:
            while data := await self.take():
                if decoded := self._inflater.feed(data):
                    return decoded
            self._inflater.end()
        except TransportError:
            self.close()
            raise
        return b""

    def _too_large(self, limit: int) -> TransportError:
        self.close()
        return TransportError("too_large", f"the answer is larger than {limit:,} bytes", sent=True)
