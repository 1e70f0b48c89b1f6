"""What `handle` gives back: a status, headers, and a body or a stream of bytes."""

from __future__ import annotations

from typing import Protocol

from keyturn.errors import KeyturnError


class ByteStream(Protocol):
    """An answer as it comes. Must be closed, whether read to its end or not; `close` does not wait."""

    def __aiter__(self) -> ByteStream: ...
    async def __anext__(self) -> bytes: ...
    def close(self) -> None: ...


class Reply:
    """One answer to one call. *stream* is None when *body* is all of it. *error*: what it tells of, if one of ours."""

    __slots__ = ("body", "error", "headers", "status", "stream")

    def __init__(
        self, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"", stream: ByteStream | None = None
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.stream = stream
        self.error: KeyturnError | None = None

    def close(self) -> None:
        """Let go of everything that the answer still holds. May be called twice."""
        if self.stream is not None:
            self.stream.close()
