"""A conversation with Redis over one connection: messages go out in order, replies come back in order, each in time.

Two tasks own the connection, one writes and one reads. Whoever asked only awaits a future, so one who stops waiting
touches nothing: the reply still comes, and is dropped. A reply that comes too late is dropped in the same way.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable
from itertools import count
from typing import Any

from keyturn.core import Clock, TimerHandle

from .redis_port import Away
from .redis_wire import MEANINGS, Wire, breathe, code_of, ended, hang_up, packed

MOST_WAITING = 20_000
"""Messages without a reply, sent or not; beyond these none is taken."""
BATCH = 1_000
"""Messages that are written together."""
BREATH = 100
"""Replies that are taken in before others on the loop have their turn: some milliseconds."""
STRIKES = 3
"""Times that a reply fails to come in time, one after another, until the conversation is given up."""
ROUNDS = 4
"""Turns of the loop that a reply is given beyond its time: when it was us who were held up, it is here already. Where
many lie ready they are counted anew while some are taken in."""
MOST_ROUNDS = 200

_PING = packed(("PING",))
_log = logging.getLogger("keyturn")


class Message:
    """One command on its way. Without a future nobody waits for its reply."""

    __slots__ = ("again", "data", "future", "received", "since", "what")

    def __init__(self, data: bytes, what: str, future: asyncio.Future[Any] | None, since: float) -> None:
        self.data = data
        self.what = what
        """Which script it runs, for the log."""
        self.future = future
        self.since = since
        """When it was handed over: to us, and from when it is written, to the socket."""
        self.received = 0.0
        """When its reply came; 0.0 before."""
        self.again = False
        """It is on its way for the second time, for Redis did not know its script."""

    def fail(self, reason: str) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_exception(Away(reason))
            self.future.exception()  # seen: who stopped waiting leaves no complaint behind


class Broken(Exception):
    """The conversation is over; the text says why."""


class Conversation:
    """All that is said over *wire*, which is connected and greeted. *timeout*: seconds that a reply may take.

    `run` ends with the reason; after it, `left` has the messages without a future that may not have arrived.
    """

    def __init__(self, wire: Wire, clock: Clock, timeout: float, scripts: Iterable[str]) -> None:
        self.timeout = timeout
        self.began = clock.mono()
        self._wire = wire
        self._clock = clock
        self._scripts = scripts
        self._queue: deque[Message] = deque()
        self._sent: deque[Message] = deque()
        self._again: list[Message] = []
        self._asked: deque[Message] = deque()
        self._wake = asyncio.Event()
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._broken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._timer: TimerHandle | None = None
        self._rounds = 0
        self._looks = 0
        """Turns of the loop since a reply was found to be late."""
        self._taken = 0
        """Replies since the last look."""
        self._strikes = 0
        self._struck = 0.0
        self._complained: set[str] = set()
        self._closed = False
        self.left: list[Message] = []

    @property
    def waiting(self) -> int:
        """Messages that are not written yet."""
        return len(self._queue) + len(self._again)

    @property
    def over(self) -> bool:
        return self._closed or self._broken.done()

    @property
    def full(self) -> bool:
        return self.over or len(self._queue) + len(self._sent) + len(self._again) >= MOST_WAITING

    def ask(self, data: bytes, what: str) -> Message:
        """Hand over a command; its future gets the reply or fails with Away. Call only while it is not `full`."""
        message = Message(data, what, asyncio.get_running_loop().create_future(), self._clock.mono())
        self._asked.append(message)
        self._put(message)
        if self._timer is None:
            self._arm(message.since + self.timeout)
        return message

    def tell(self, data: bytes, what: str) -> None:
        """Hand over a command whose reply nobody waits for. Call only while it is not `full`."""
        self._put(Message(data, what, None, self._clock.mono()))

    def resume(self, left: Iterable[Message]) -> None:
        """Send before all else what an earlier conversation left."""
        for message in left:
            message.again = False
            self._put(message)

    async def quiet(self) -> None:
        """Returns when everything was answered, or nothing will be any more."""
        await self._quiet.wait()

    async def run(self) -> str:
        """Talk until the connection is lost or no longer worth keeping; the reason. Closes the connection."""
        tasks: list[asyncio.Task[None]] = [asyncio.create_task(self._write()), asyncio.create_task(self._read())]
        reason = "the link was closed"
        ends: list[asyncio.Future[Any]] = [*tasks, self._broken]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            reason = self._broken.result() if self._broken.done() else _reason(tasks)
            return reason
        finally:
            await self.close(reason)
            await ended(*tasks)

    def _put(self, message: Message) -> None:
        self._queue.append(message)
        self._wake.set()
        self._quiet.clear()

    async def close(self, reason: str) -> None:
        """End it, whether it runs or never did; again: nothing. Never suspends."""
        if self._closed:
            return
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        everything = [*self._sent, *self._again, *self._queue]
        for message in everything:
            message.fail(reason)
        self.left = [message for message in everything if message.future is None]
        for waiting in (self._sent, self._again, self._queue, self._asked):
            waiting.clear()
        self._quiet.set()
        await hang_up(self._wire)

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while batch := self._batch():
                if not self._wire.is_connected:  # redis-py would connect anew, and replies would go to others
                    raise Broken("the connection was lost")
                now = self._clock.mono()
                for message in batch:
                    message.since = now
                self._sent.extend(batch)
                await self._wire.send_packed_command([b"".join([m.data for m in batch])], check_health=False)

    def _batch(self) -> list[Message]:
        """What is to be written now, in order: first what Redis did not understand, with the scripts that it lost."""
        if self._again:
            if self._sent:  # more of what is on its way may come back: the order stays when all of it is here
                return []
            now = self._clock.mono()
            loads = [Message(packed(("SCRIPT", "LOAD", source)), "", None, now) for source in self._scripts]
            batch, self._again = [*loads, *self._again], []
            return batch
        batch = []
        while self._queue and len(batch) < BATCH:
            message = self._queue.popleft()
            if message.future is None or not message.future.done():
                batch.append(message)
        if not batch:
            self._rest()
        return batch

    async def _read(self) -> None:
        from redis.exceptions import NoScriptError, ResponseError

        for number in count(1):
            if number % BREATH == 0:
                await breathe()
            reply: Any
            try:
                reply = await self._wire.read_response(disable_decoding=True, disconnect_on_error=False)
            except ResponseError as error:
                reply = error
            if not self._sent:
                raise Broken("answered what nobody had asked")
            message = self._sent[0]
            if isinstance(reply, ResponseError) and code_of(reply):
                raise reply
            self._sent.popleft()
            message.received = self._clock.mono()
            self._taken += 1
            awaited = message.future is not None and not message.future.done()
            if awaited or message.received - message.since <= self.timeout:
                self._strikes = 0
            if isinstance(reply, NoScriptError) and not message.again:
                message.again = True
                self._again.append(message)
            elif isinstance(reply, ResponseError):
                self._complain(message, reply)
            elif message.future is not None and not message.future.done():
                message.future.set_result(reply)
            if not self._sent:
                self._rest()

    def _rest(self) -> None:
        """Nothing is on its way: now what came back goes out again; if nothing did, all is quiet."""
        if self._again:
            self._wake.set()
        elif not self._queue and not self._sent:
            self._quiet.set()

    def _complain(self, message: Message, error: Exception) -> None:
        """A script failed: for its caller as if Redis were away; for the log once, since it is a fault to be mended."""
        message.fail(f"{message.what}: {error}")
        if message.what not in self._complained:
            self._complained.add(message.what)
            _log.error("Redis answered %s with an error: %s", message.what or "a command", error)

    def _arm(self, due: float) -> None:
        self._timer = self._clock.call_at(due, self._look)

    def _look(self) -> None:
        """The timer: fail what was not answered in time."""
        self._timer = None
        now, asked = self._clock.mono(), self._asked
        while asked and (asked[0].future is None or asked[0].future.done()):
            asked.popleft()
        if not asked or asked[0].since + self.timeout > now:
            self._rounds = self._looks = 0
            if asked:
                self._arm(asked[0].since + self.timeout)
            return
        if self._taken and self._looks < MOST_ROUNDS:
            self._rounds = 0
        self._taken = 0
        if self._rounds < ROUNDS:
            self._rounds += 1
            self._looks += 1
            self._timer = asyncio.get_running_loop().call_soon(self._look)
            return
        self._rounds = self._looks = 0
        struck = False
        while asked and asked[0].since + self.timeout <= now:
            message = asked.popleft()
            if message.future is not None and not message.future.done():
                struck = struck or message.since >= self._struck
                message.fail("no answer in time")
        if asked:
            self._arm(asked[0].since + self.timeout)
        if struck:
            self._strike(now)

    def _strike(self, now: float) -> None:
        """Count a silence. What was asked during the last one does not count again: three take three timeouts."""
        self._strikes += 1
        self._struck = now
        if self._strikes < STRIKES:
            self.ask(_PING, "PING")  # so that a silence is known soon when nobody else asks
        elif not self._broken.done():
            self._broken.set_result(f"does not answer within {self.timeout * 1000:.0f} ms")


def _reason(tasks: Iterable[asyncio.Task[None]]) -> str:
    """Why one of the two tasks ended; a mistake of ours goes to the log as well."""
    from redis.exceptions import RedisError

    for task in tasks:
        error = task.exception() if task.done() and not task.cancelled() else None
        if error is None:
            continue
        if isinstance(error, Broken):
            return str(error)
        if meaning := MEANINGS.get(code_of(error)):
            return meaning
        if isinstance(error, ValueError) or type(error).__name__ == "InvalidResponse":
            return "answers by something that is not the protocol of Redis"
        if not isinstance(error, RedisError | OSError | EOFError):
            _log.error("the conversation with Redis failed", exc_info=error)
        return "the connection was lost"
    return "the connection was lost"
