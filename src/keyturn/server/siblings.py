"""A worker's way to the workers beside it: through the process that started them all."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import msgspec

from keyturn.core import Clock
from keyturn.errors import KeyturnError

from .channel import Channel, Frame

PATIENCE = 1.5
"""Seconds that an answer may take; who gathers it waits 1 s for each worker."""
MOST_OPEN = 64
"""Questions that may be under way, each way; one more finds nobody."""

_log = logging.getLogger("keyturn.server")


class Answers(msgspec.Struct, array_like=True):
    """What the other workers said, by their numbers."""

    said: dict[int, bytes] = {}
    silent: list[int] = []
    """Those that did not answer in time, or are just being started."""
    lost: bool = False
    """Nobody could be asked, or who gathers the answers did not give them."""


class Seat(NamedTuple):
    """A worker's place: its number from 1, and what it was handed by who started it."""

    number: int
    listening: socket.socket
    channel: socket.socket


class Siblings:
    """One worker's end. *answer* is set before `open`: it is awaited for each question of another one."""

    def __init__(self, seat: Seat, clock: Clock) -> None:
        self.number = seat.number
        self.answer: Callable[[str, bytes], Awaitable[bytes]] | None = None
        self._sock = seat.channel
        self._clock = clock
        self._asked: dict[int, asyncio.Future[Answers]] = {}
        self._answering: set[asyncio.Task[None]] = set()
        self._count = 0
        self._orphaned: Callable[[], object] = lambda: None
        self._channel = Channel(self._took, self._gone)

    async def open(self, orphaned: Callable[[], object]) -> None:
        """Answer from now on. *orphaned* is called when the process that started this one is gone."""
        self._orphaned = orphaned
        await self._channel.open(self._sock)

    def ready(self) -> None:
        """Tell that this worker takes connections."""
        self._channel.send(Frame("ready"))

    async def ask(self, what: str, content: bytes = b"") -> Answers:
        """What all other workers answer to *what*, within 1.5 seconds."""
        if len(self._asked) >= MOST_OPEN:
            return Answers(lost=True)
        self._count += 1
        number = self._count
        waiting: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._asked[number] = waiting
        timer = self._clock.call_at(self._clock.mono() + PATIENCE, lambda: _resolve(waiting, Answers(lost=True)))
        try:
            if not self._channel.send(Frame("question", number, what, content)):
                return Answers(lost=True)
            return await waiting
        finally:
            timer.cancel()
            del self._asked[number]

    async def close(self) -> None:
        """Ask and answer no more."""
        await self._channel.close()
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    def _took(self, frame: Frame) -> None:
        if frame.kind == "question" and len(self._answering) < MOST_OPEN:
            task = asyncio.create_task(self._reply(frame))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)
        elif frame.kind == "answers" and frame.number in self._asked:
            _resolve(self._asked[frame.number], msgspec.msgpack.decode(frame.content, type=Answers))

    async def _reply(self, frame: Frame) -> None:
        content = b""
        try:
            if self.answer is not None:
                content = await self.answer(frame.what, frame.content)
        except (KeyturnError, OSError, LookupError, ValueError) as error:
            _log.warning("a question of another worker (%s) found no answer: %s", frame.what, error)
        self._channel.send(Frame("answer", frame.number, frame.what, content))

    def _gone(self) -> None:
        _log.error("the process that started this worker is gone: it takes no more calls, and ends")
        self._orphaned()


def _resolve(waiting: asyncio.Future[Answers], answers: Answers) -> None:
    if not waiting.done():
        waiting.set_result(answers)
