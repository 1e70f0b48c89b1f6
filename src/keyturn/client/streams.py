"""Streams of a call: its events as objects, one by one; a cut is an exception, leaving one closes the upstream."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

import msgspec

from keyturn.dispatch import Reply
from keyturn.errors import KeyturnError, TransportError, UpstreamInterrupted
from keyturn.wire import Splitter, read_event, split

from .failures import failed
from .values import Told, Value

DONE = b"[DONE]"
LARGEST_EVENT = 16 * 1024 * 1024
_decode = msgspec.json.Decoder().decode


class Stream:
    """The events of one answer, for `async for`; each is an object such as the provider's own SDK has.

    It ends when the answer is complete. An answer that is cut raises UpstreamInterrupted, after the events that came.
    It must be read to its end or closed: by `close`, by an `async with` block, or by letting go of it.
    """

    def __init__(self, reply: Reply, tell: Callable[[KeyturnError], Awaitable[None]] | None = None) -> None:
        assert reply.stream is not None
        self._reply = reply
        self._pieces = reply.stream
        self._splitter = Splitter(LARGEST_EVENT)
        self._ready: deque[Value] = deque()
        self._error: KeyturnError | None = None
        self._tell = tell
        self._over = False

    @property
    def keyturn(self) -> Told:
        """What is known of the call: its id, the provider, model and key that answer, how many were asked."""
        return Told.of(self._reply.headers)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Value:
        """The next event. Raises UpstreamInterrupted when the answer was cut."""
        ready = self._ready
        while not ready:
            if self._error is not None:
                await self._raise(self._error)
            if self._over:
                raise StopAsyncIteration
            try:
                piece = await self._pieces.__anext__()
            except StopAsyncIteration:
                self._read(bytes(self._splitter.rest), last=True)
                self._splitter.rest.clear()
                if ready or self._error is not None:
                    continue
                self.close()
                raise
            except BaseException:  # who was interrupted and reads on must not take what there is for all
                self._error = UpstreamInterrupted("reading this answer was interrupted, and the rest of it let go")
                self.close()
                raise
            try:
                self._read(self._splitter.feed(piece))
            except TransportError as error:
                self._error = UpstreamInterrupted(f"the answer was interrupted: {error.message}")
        return ready.popleft()

    async def aclose(self) -> None:
        """As `close`."""
        self.close()

    def close(self) -> None:
        """Let go of the answer: what still runs upstream ends. May be called twice."""
        self._over = True
        self._ready.clear()
        self._reply.close()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_reply"):
            self._reply.close()

    def _read(self, block: bytes, *, last: bool = False) -> None:
        """Takes in the events of *block*; *last* is an event that may lack its end."""
        for raw in split(block):
            data = read_event(raw).data
            if not data or data == DONE:
                continue
            try:
                found = _decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError):
                if not last:
                    self._error = UpstreamInterrupted("the answer holds an event that is no JSON")
                return
            if not isinstance(found, dict):
                continue
            if _is_error(found):
                self._error = _cut(found)
                return
            self._ready.append(Value(found))

    async def _raise(self, error: KeyturnError) -> None:
        self.close()
        if self._tell is not None:
            await self._tell(error)
        raise error


def _is_error(event: dict[str, Any]) -> bool:
    """Whether *event* tells, in any dialect, that the answer failed."""
    kind = event.get("type")
    return kind == "error" or (kind is None and isinstance(event.get("error"), dict) and not event.get("choices"))


def _cut(event: dict[str, Any]) -> KeyturnError:
    error = failed(event, 502)
    if isinstance(error, UpstreamInterrupted):
        return error
    told = UpstreamInterrupted(error.message)
    told.trail = error.trail
    return told


def text_of(content: Any) -> str:
    """The text of a message: its content, or the parts of it that are text (where a model thinks aloud, others are)."""
    if isinstance(content, list):
        return "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


class TextStream:
    """The text of a chat stream, piece by piece, for `async for`. To be read to its end or closed, as `Stream`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    @property
    def keyturn(self) -> Told:
        """What is known of the call."""
        return self._stream.keyturn

    def __aiter__(self) -> TextStream:
        return self

    async def __anext__(self) -> str:
        """The next piece. Raises UpstreamInterrupted when the answer was cut."""
        while True:
            event = await self._stream.__anext__()
            choices = event.get("choices")
            text = text_of((choices[0].get("delta") or {}).get("content")) if choices else ""
            if text:
                return text

    async def aclose(self) -> None:
        """As `close`."""
        self._stream.close()

    def close(self) -> None:
        """Let go of the answer. May be called twice."""
        self._stream.close()

    async def __aenter__(self) -> TextStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()
