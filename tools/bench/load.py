"""A load generator on asyncio.Protocol: each connection sends again once its answer is complete."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast

UNKNOWN, CHUNKED = 0, -1


SYSTEM = b'{"role":"system","content":"You are terse."},'


def request(port: int, *, stream: bool, translated: bool = False) -> bytes:
    """A question of ordinary size, as the official SDKs write it: of OpenAI's, or *translated* from Anthropic's."""
    body = (
        (b'{"system":"You are terse.","messages":[' if translated else b'{"messages":[' + SYSTEM)
        + b'{"role":"user","content":"'
        + b"How many keys does it take? " * 20
        + b'"}],"model":"bench/m","max_tokens":100,"temperature":0.2'
        + (b',"stream":true' if stream else b"")
        + b"}"
    )
    path = "/v1/messages" if translated else "/v1/chat/completions"
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer bench-caller-key\r\n"
        f"accept: application/json\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@dataclass
class Tally:
    """What came back during one sample."""

    done: int = 0
    failed: int = 0
    first_failure: bytes = b""
    running: bool = True
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    open: int = 0


class Connection(asyncio.Protocol):
    """One connection of the load: request, whole answer, next request."""

    def __init__(self, tally: Tally, payload: bytes, *, stream: bool) -> None:
        self._tally = tally
        self._payload = payload
        self._stream = stream
        self._parts: list[bytes] = []
        self._size = UNKNOWN

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._tally.open += 1
        self._transport.write(self._payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.open -= 1
        if self._tally.running:
            self._fail(b"connection lost " + repr(exc).encode())
        if not self._tally.open:
            self._tally.idle.set()

    def data_received(self, data: bytes) -> None:
        self._parts.append(data)
        if self._size == UNKNOWN and not self._read_head():
            return
        if self._size == CHUNKED:
            complete = data.endswith(b"0\r\n\r\n")
        else:
            complete = sum(map(len, self._parts)) >= self._size
        if complete:
            self._finish(b"".join(self._parts))

    def _read_head(self) -> bool:
        """Finds out how the answer ends; false while its head is incomplete."""
        head, found, _ = b"".join(self._parts).partition(b"\r\n\r\n")
        if found:
            start = head.lower().find(b"content-length:")
            length = int(head[start + 15 :].partition(b"\r\n")[0]) if start >= 0 else CHUNKED
            self._size = length if length == CHUNKED else len(head) + 4 + length
        return bool(found)

    def _finish(self, answer: bytes) -> None:
        if answer.startswith(b"HTTP/1.1 200") and (
            not self._stream or b"[DONE]" in answer or b"message_stop" in answer
        ):
            self._tally.done += 1
        else:
            self._fail(answer[:500])
        self._parts, self._size = [], UNKNOWN
        if self._tally.running:
            self._transport.write(self._payload)
        else:
            self._transport.close()

    def _fail(self, answer: bytes) -> None:
        self._tally.failed += 1
        self._tally.first_failure = self._tally.first_failure or answer


@contextmanager
def awake() -> Iterator[None]:
    """Has the loop never sleep meanwhile: who writes to one that sleeps has to wake it, with an interrupt to its core.
    That is paid by the process under measurement, the more often the slower it is."""
    loop, within = asyncio.get_running_loop(), True

    def again() -> None:
        if within:
            loop.call_soon(again)

    again()
    try:
        yield
    finally:
        within = False


async def load(
    port: int, *, stream: bool, connections: int, seconds: float, translated: bool = False
) -> tuple[Tally, float]:
    """Keeps *connections* busy for *seconds*; the tally and the seconds until the last answer was complete."""
    loop = asyncio.get_running_loop()
    tally, payload = Tally(), request(port, stream=stream, translated=translated)
    started = loop.time()
    with awake():
        for _ in range(connections):
            await loop.create_connection(lambda: Connection(tally, payload, stream=stream), "127.0.0.1", port)
        await asyncio.sleep(seconds)
        tally.running = False
        await asyncio.wait_for(tally.idle.wait(), 30)
    return tally, loop.time() - started
