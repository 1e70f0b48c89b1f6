"""A stand-in for Redis at the level of bytes, which fails as it is told, and a clock that is moved by hand.

async with StandIn(clock) as server:
    server.silent = True            # takes everything and answers nothing, until it is False again
    server.refuse = b"-OOM …"       # what the script `echo` is answered from now on
"""

from __future__ import annotations

import asyncio
import heapq
import ssl
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Self

from keyturn.core import Secret
from keyturn.stores.redis_link import RedisLink

ECHO = {"echo": "return ARGV[1]", "also": "return ARGV[1] .. ''"}
"""Scripts for a link under test."""


class HandClock:
    """A Clock that stands still unless it is moved; its timers fire, in order, while it moves."""

    def __init__(self) -> None:
        self._mono = 1000.0
        self._timers: list[tuple[float, int, HandTimer]] = []
        self._numbers = count()

    def mono(self) -> float:
        return self._mono

    def wall(self) -> float:
        return self._mono + 1_772_452_800.0

    def call_at(self, when: float, callback: Callable[[], object]) -> HandTimer:
        timer = HandTimer(callback)
        heapq.heappush(self._timers, (when, next(self._numbers), timer))
        return timer

    async def sleep_until(self, when: float) -> None:
        due = asyncio.Event()
        timer = self.call_at(when, due.set)
        try:
            await due.wait()
        finally:
            timer.cancel()

    def advance(self, seconds: float) -> None:
        until = self._mono + seconds
        while self._timers and self._timers[0][0] <= until:
            when, _, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._mono = max(self._mono, when)
                timer.callback()
        self._mono = until

    @property
    def set_timers(self) -> int:
        return sum(timer.callback is not None for _, _, timer in self._timers)


class HandTimer:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


async def turns(number: int = 30) -> None:
    """Let what is ready run, sockets too."""
    for _ in range(number):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Let the loop run until *condition* holds; fails when it does not after many turns."""
    for _ in range(200_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"never came to be: {what or condition}")


async def passing(
    clock: HandClock, condition: Callable[[], object], step: float = 0.1, most: float = 30.0, rest: int = 60
) -> float:
    """Move the clock in steps until *condition* holds; how many seconds that took. *rest*: loop turns between two."""
    for number in range(int(most / step)):
        for _ in range(rest):
            if condition():
                break
            await asyncio.sleep(0)
        if condition():
            return number * step
        clock.advance(step)
    raise AssertionError(f"not within {most} s: {condition}")


class StandIn:
    """Answers what a link asks at boot, the heartbeat, and the script `echo`; the rest by +OK."""

    def __init__(
        self, clock: HandClock, facts: Mapping[str, str] | None = None, *, tls: ssl.SSLContext | None = None
    ) -> None:
        self.clock = clock
        self.facts = {
            "redis_version": "7.2.4", "redis_mode": "standalone", "run_id": "r1", "role": "master",
            "maxmemory_policy": "noeviction", "aof_enabled": "1", **(facts or {}),
        }  # fmt: skip
        self.epoch = "e1"
        self.seen = b""
        """When the last heartbeat came, in ms."""
        self.count = 1
        self.silent = False
        self.deaf = False
        """Subscribers are not answered any more."""
        self.latency = 0.0
        self.refuse = b""
        self.answers: dict[str, bytes] = {}
        """By the first word of a command (`EVALSHA` for the heartbeat): what to answer instead."""
        self.unknown: set[str] = set()
        """Scripts that were flushed."""
        self.echoed: list[str] = []
        """What `echo` was called with, and answered."""
        self.heard: list[str] = []
        self.lines: list[Line] = []
        self._tls = tls

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"redis{'s' if self._tls else ''}://127.0.0.1:{self.port}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        await turns()  # who was accepted is on the list of lines by then
        self._server.close()
        for line in self.lines:
            line.task.cancel()
        await asyncio.gather(*(line.task for line in self.lines), return_exceptions=True)
        await turns()

    def link(self, *, draw: Callable[[], float] = lambda: 0.5, at: str = "") -> RedisLink:
        return RedisLink(Secret(at or self.url), "t", self.clock, draw, scripts=ECHO)

    def say(self, data: bytes, *, subscribers: bool = False) -> None:
        """Send something unasked, on connections of that kind."""
        for line in self.lines:
            if line.subscribed == subscribers and not line.writer.is_closing():
                line.writer.write(data)

    def drop(self, *, subscribers: bool | None = None) -> None:
        """Close connections as a killed server does."""
        for line in self.lines:
            if subscribers is None or line.subscribed == subscribers:
                line.writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        line = Line(writer, task)
        self.lines.append(line)
        held: list[bytes] = []
        try:
            while True:
                parts = await _command(reader)
                self.heard.append(" ".join(parts)[:200])
                answer = self._answer(line, parts)
                if self.latency:
                    await self.clock.sleep_until(self.clock.mono() + self.latency)
                held.append(answer)
                if not self.silent:
                    line.held = []
                    writer.write(b"".join(held))
                    held.clear()
                line.held = held
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()

    def release(self) -> None:
        """Answer what was held back while it was silent."""
        self.silent = False
        for line in self.lines:
            if line.held and not line.writer.is_closing():
                line.writer.write(b"".join(line.held))
                line.held.clear()

    def _answer(self, line: Line, parts: list[str]) -> bytes:
        name = parts[0].upper()
        if name == "EVALSHA" and len(parts) == 4:
            return self._echo(parts)
        if name in self.answers:
            return self.answers[name]
        if name == "PING":
            return b"" if line.subscribed and self.deaf else _array(b"pong", b"") if line.subscribed else b"+PONG\r\n"
        if name == "INFO":
            return _bulk("".join(f"{key}:{value}\r\n" for key, value in self.facts.items()).encode())
        if name == "SCRIPT":
            self.unknown.clear()
            return _bulk(b"0" * 40)
        if name == "EVALSHA":
            before, self.seen = self.seen, b"%d" % (int(self.clock.wall()) * 1000)
            return _array(b"%d" % self.clock.wall(), b"0", b"%d" % self.count, self.epoch.encode(), before)
        if name == "SUBSCRIBE":
            line.subscribed = True
            return _array(b"subscribe", parts[1].encode(), b"1")
        return b"+OK\r\n"

    def _echo(self, parts: list[str]) -> bytes:
        if parts[1] in self.unknown:
            return b"-NOSCRIPT No matching script. Please use EVAL.\r\n"
        if self.refuse:
            return self.refuse
        self.echoed.append(parts[3])
        return _bulk(parts[3].encode())


class Line:
    """One connection."""

    def __init__(self, writer: asyncio.StreamWriter, task: asyncio.Task[object]) -> None:
        self.writer = writer
        self.task = task
        self.subscribed = False
        self.held: list[bytes] = []


def message(channel: str, text: bytes) -> bytes:
    return _array(b"message", channel.encode(), text)


async def _command(reader: asyncio.StreamReader) -> list[str]:
    head = await reader.readuntil(b"\r\n")
    parts = []
    for _ in range(int(head[1:])):
        size = int((await reader.readuntil(b"\r\n"))[1:])
        parts.append((await reader.readexactly(size + 2))[:-2].decode())
    return parts


def _bulk(text: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text)


def _array(*items: bytes) -> bytes:
    return b"*%d\r\n" % len(items) + b"".join(map(_bulk, items))


def words(lines: Iterable[str]) -> list[str]:
    """The first word of each command."""
    return [line.partition(" ")[0] for line in lines]
