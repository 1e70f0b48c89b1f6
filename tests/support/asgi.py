"""Calling an ASGI application in process, without a server.

reply = await asgi.call(app, "POST", "/groq/v1/chat/completions", json={…}, key="gsk_a")
assert reply.status == 200 and reply.json()["choices"]

async with asgi.open_stream(app, "POST", path, json={…}) as stream:
    first = await stream.chunk()
    stream.leave()                      # the client disconnects
"""

from __future__ import annotations

import asyncio
import json as jsonlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Message = MutableMapping[str, Any]
App = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]


@dataclass(slots=True)
class Reply:
    """A whole answer. Header names are lower case; of repeated ones the last is in *headers*."""

    status: int
    headers: dict[str, str]
    body: bytes
    chunks: list[bytes] = field(default_factory=list)
    raw_headers: list[tuple[bytes, bytes]] = field(default_factory=list)

    def json(self) -> Any:
        return jsonlib.loads(self.body)

    def events(self) -> list[Any]:
        """The JSON of each SSE event; `[DONE]` as that text."""
        return list(_events(self.body))

    def text(self) -> str:
        """The content of a streamed or plain chat completion."""
        if self.headers.get("content-type", "").startswith("text/event-stream"):
            parts = [choice for event in self.events() if isinstance(event, dict) for choice in event["choices"]]
            return "".join(part["delta"].get("content") or "" for part in parts)
        return str(self.json()["choices"][0]["message"]["content"])


class Stream:
    """A running exchange: chunks as they come, and a client that may leave."""

    def __init__(self, app: App, scope: Message, body: bytes) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.raw_headers: list[tuple[bytes, bytes]] = []
        self._body = body
        self._asked = False
        self._left = asyncio.Event()
        self._started = asyncio.Event()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._run(app, scope))

    async def start(self) -> None:
        """Return when the status is there. Raises what the application raised before it."""
        await self._started.wait()
        if not self.status:
            await self._task
            raise AssertionError("the application returned without an answer")

    async def chunk(self) -> bytes | None:
        """The next piece of the body; None at its end. Raises what the application raised instead of ending it."""
        piece = await self._chunks.get()
        if piece is None:
            self._chunks.put_nowait(None)
            await self._task
        return piece

    async def rest(self) -> list[bytes]:
        pieces = []
        while (piece := await self.chunk()) is not None:
            pieces.append(piece)
        return pieces

    def leave(self) -> None:
        """The client disconnects."""
        self._left.set()

    async def gone(self) -> None:
        """Return when the application has ended, whatever it raised."""
        await asyncio.wait([self._task])

    async def close(self) -> None:
        """Leave; an application that then goes on is cancelled."""
        self.leave()
        for _ in range(20):
            if self._task.done():
                break
            await asyncio.sleep(0)
        self._task.cancel()
        await self.gone()
        if not self._task.cancelled():
            self._task.exception()

    async def _run(self, app: App, scope: Message) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._started.set()
            self._chunks.put_nowait(None)

    async def _receive(self) -> Message:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.raw_headers = list(message.get("headers", []))
            self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self.raw_headers}
            self._started.set()
        elif message.get("body") and not self._left.is_set():
            self._chunks.put_nowait(message["body"])


@asynccontextmanager
async def open_stream(
    app: App,
    method: str,
    path: str,
    *,
    json: Any = None,
    body: bytes = b"",
    key: str = "",
    headers: Iterable[tuple[str, str]] = (),
) -> AsyncIterator[Stream]:
    """A running exchange whose status has arrived; leaving the block disconnects the client."""
    stream = begin(app, method, path, json=json, body=body, key=key, headers=headers)
    try:
        await stream.start()
        yield stream
    finally:
        await stream.close()


def begin(
    app: App,
    method: str,
    path: str,
    *,
    json: Any = None,
    body: bytes = b"",
    key: str = "",
    headers: Iterable[tuple[str, str]] = (),
) -> Stream:
    """An exchange whose status may not have arrived yet; the caller must `close` it."""
    if json is not None:
        body = jsonlib.dumps(json).encode()
    given = [("host", "testserver"), ("content-type", "application/json"), ("content-length", str(len(body)))]
    given += [("authorization", f"Bearer {key}")] if key else []
    route, _, query = path.partition("?")
    merged = dict(given) | {name.lower(): value for name, value in headers}
    scope: Message = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": route,
        "raw_path": route.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in merged.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8000),
    }
    return Stream(app, scope, body)


async def call(
    app: App,
    method: str,
    path: str,
    *,
    json: Any = None,
    body: bytes = b"",
    key: str = "",
    headers: Iterable[tuple[str, str]] = (),
) -> Reply:
    """One whole exchange. Raises what the application raises."""
    async with open_stream(app, method, path, json=json, body=body, key=key, headers=headers) as stream:
        chunks = await stream.rest()
        return Reply(stream.status, stream.headers, b"".join(chunks), chunks, stream.raw_headers)


def _events(body: bytes) -> list[Any]:
    found: list[Any] = []
    for block in body.replace(b"\r\n", b"\n").split(b"\n\n"):
        data = b"\n".join(line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:"))
        if data:
            found.append("[DONE]" if data == b"[DONE]" else jsonlib.loads(data))
    return found
