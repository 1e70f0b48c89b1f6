"""One call upstream that answers several identical calls: each gets what has come so far, then follows as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING

from keyturn.core import TimerHandle
from keyturn.errors import DeadlineExceeded, Draining, UpstreamInterrupted

from .answering import request_ids
from .closing import ended
from .kept import lasting
from .relay import RelayStream, interruption
from .reply import Reply
from .run import Run

if TYPE_CHECKING:
    from .gateway import Gateway

JOINED = (b"x-keyturn-cache", b"joined")
NOTHING_SENT = (b"x-keyturn-attempts", b"0")


class Flight:
    """The call upstream, in a task of its own: it goes on while anybody wants its answer, whoever began it.

    What has come is kept for who joins later, up to *most* bytes; from then on nobody joins, and what all have read is
    let go. Who then stays behind by as much while another waits for more is cut off; if nobody waits, the upstream
    does. Each call has a trail of its own; the attempts stand in that of one, who began or else who came after.
    """

    def __init__(self, gateway: Gateway, run: Run, most: int, landed: Callable[[Flight], None]) -> None:
        self.gateway = gateway
        self._most = most
        self._landed = landed
        self.run = copy(run)
        self.run.joint = True
        self.run.trail = copy(run.trail)  # its lists are those of the first reader's
        timeouts = run.generation.config.timeouts
        self.run.deadline = run.started + timeouts.total  # each reader keeps its own
        self.run.patience = max(run.patience, timeouts.queue_wait)
        self.run.generation.calls += 1
        self.reply: Reply | None = None
        self.error: BaseException | None = None
        self.pieces: list[bytes] = []
        self.first = 0
        """Which piece of the stream is the first of `pieces`."""
        self.size = 0
        """Bytes in `pieces`."""
        self.open = True
        """Another call may join."""
        self.over = False
        self.told = False
        """The answer came to its end, or to the event that says that it was cut."""
        self.complete = False
        """A good answer, all of it."""
        self.readers: dict[Reader, None] = {}
        self.carrier: Reader | None = None
        """Whose trail has the attempts: one of the readers, while there are any."""
        self._last: Reader | None = None
        """Who left last, and is recorded once the upstream is closed."""
        self._paused: asyncio.Future[None] | None = None
        self._task = asyncio.get_running_loop().create_task(self._fly())
        self._task.add_done_callback(self._land)

    async def join(self, run: Run) -> Reply:
        """The answer, for one more call. Raises what kept it from coming, and DeadlineExceeded at the call's own."""
        reader, streams = Reader(self, run), False
        try:
            while not self.over and (self.reply is None or self.reply.stream is None):
                await reader.wait("the call's deadline passed before an upstream had answered")
            reply = self._reply(reader)
            streams = reply.stream is not None
            return reply
        finally:
            if not streams:
                reader.close_timer()
                try:
                    if self.leave(reader):
                        await self.ended()
                finally:
                    self.tell(reader)

    def _reply(self, reader: Reader) -> Reply:
        reply, run = self.reply, reader.run
        if not reader.leads:
            run.trail.shared = "joined"
            run.trail.notes.append(f"answered together with call {self.run.trail.call}")
        if reply is None:
            raise self.error or Draining("the gateway is shutting down; ask again in a moment", retry_after=1.0)
        headers = reply.headers.copy()
        if not reader.leads:
            headers = [*lasting(reply), *request_ids(run.call.dialect, run.trail.call), NOTHING_SENT, JOINED]
        if reply.stream is None:
            return Reply(reply.status, headers, reply.body)
        run.trail.status = reply.status
        return Reply(reply.status, headers, stream=reader)

    def leave(self, reader: Reader) -> bool:
        """*reader* wants nothing more. True when it was the last, and the upstream is being closed."""
        if reader not in self.readers:
            return False
        del self.readers[reader]
        if self.over or reader is not self.carrier:
            return False
        heir = next(iter(self.readers), None)
        if heir is None:
            self.open = False
            return self._task.cancel()
        self.carrier = heir
        heir.run.trail.attempts = self.run.trail.attempts
        reader.run.trail.attempts = []
        reader.run.trail.notes.append("others went on with its answer")
        return False

    def leave_last(self, reader: Reader) -> None:
        """As it was the last to leave, *reader* is recorded with what became of the attempt."""
        self._last = reader

    def tell(self, reader: Reader) -> None:
        """What the call upstream met is told in the trail of *reader*."""
        trail, own = reader.run.trail, self.run.trail
        if self.over and not trail.code:
            trail.code = own.code
        if reader is self.carrier:
            trail.waited, trail.fallback = own.waited, own.fallback

    def moved(self) -> None:
        """A reader has read on."""
        if self._paused is not None and not self._paused.done():
            self._paused.set_result(None)

    def cancel(self) -> None:
        """Nobody is to be answered any more."""
        self.open = False
        self._task.cancel()

    async def ended(self) -> None:
        """Wait until nothing is left of it; a cancellation that comes meanwhile is raised afterwards."""
        await ended(self._task)

    async def _fly(self) -> None:
        reply = self.reply = await self.gateway.ask(self.run)
        try:
            if reply.stream is None:
                self.complete = reply.status == 200
            else:
                self._wake()
                async for piece in reply.stream:
                    self.pieces.append(piece)
                    self.size += len(piece)
                    self.open = self.open and self.size <= self._most
                    self._wake()
                    if not self.open:
                        await self._make_room()
                self.complete = isinstance(reply.stream, RelayStream) and reply.stream.complete
            self.told = True
        finally:
            reply.close()

    async def _make_room(self) -> None:
        """Let go of what all have read. Who stays behind must not hold up who waits for more; else wait for them."""
        while self.readers:
            slowest = min(self.readers, key=lambda reader: reader.at)
            if read := slowest.at - self.first:
                self.size -= sum(map(len, self.pieces[:read]))
                del self.pieces[:read]
                self.first += read
            if self.size <= self._most:
                return
            newest = self.first + len(self.pieces) - 1
            if slowest.at < newest and any(reader.at >= newest for reader in self.readers):
                slowest.lost = True
                self.leave(slowest)
                continue
            self._paused = asyncio.get_running_loop().create_future()
            await self._paused

    def _wake(self) -> None:
        for reader in self.readers:
            reader.wake()

    def _land(self, task: asyncio.Task[None]) -> None:
        """It is over, however it ended."""
        if not task.cancelled():
            self.error = task.exception()
        self.over, self.open = True, False
        self.gateway.landed(self.run)
        self._landed(self)
        self._wake()
        if self._last is not None:
            self._last.record()


class Reader:
    """One call that is answered by a flight; of a streamed answer, the bytes as they come to this client."""

    __slots__ = ("_closed", "_expired", "_flight", "_kept", "_timer", "_waiting", "at", "leads", "lost", "run")

    def __init__(self, flight: Flight, run: Run) -> None:
        self._flight = flight
        self.run = run
        self.at = 0
        """The next piece of the stream."""
        self.lost = False
        """It stayed behind too far: what it would read next is gone."""
        self._closed = self._expired = False
        self._waiting: asyncio.Future[None] | None = None
        self._kept = b""
        self._timer: TimerHandle | None = None
        if run.call.timeout is not None:
            self._timer = flight.gateway.clock.call_at(run.deadline, self._expire)
        self.leads = flight.carrier is None
        if self.leads:
            flight.carrier = self
        flight.readers[self] = None

    def __aiter__(self) -> Reader:
        return self

    async def __anext__(self) -> bytes:
        """The next piece; an error event, the last there is, when no more can come to this client."""
        flight = self._flight
        while True:
            if self._closed:
                raise StopAsyncIteration
            if self.lost:
                return self._cut("this client read too slowly for an answer that others wait for")
            if self.at - flight.first < len(flight.pieces):
                piece = flight.pieces[self.at - flight.first]
                self.at += 1
                flight.moved()
                return self._noted(piece)
            if flight.over:
                break
            try:
                await self.wait("the call's deadline passed")
            except DeadlineExceeded as error:
                return self._cut(error.message)
        if flight.error is not None:
            self.close()
            raise flight.error
        if not flight.told:
            return self._cut("the gateway is shutting down")
        self._over()
        raise StopAsyncIteration

    async def wait(self, late: str) -> None:
        """Wait for anything new. Raises DeadlineExceeded(*late*) when the call's own time is up."""
        if self._expired:
            raise DeadlineExceeded(late)
        self._waiting = asyncio.get_running_loop().create_future()
        try:
            await self._waiting
        finally:
            self._waiting = None

    def wake(self) -> None:
        """There is something new."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def close(self) -> None:
        """The client left, or has everything."""
        if self._closed:
            return
        flight = self._flight
        if not (flight.over and flight.told and not self.lost and self.at - flight.first >= len(flight.pieces)):
            self.run.trail.status, self.run.trail.code = 499, "client_left"
        self._over()

    def record(self) -> None:
        """The call is over: write it down."""
        self._flight.tell(self)
        self._flight.gateway.record(self.run, self._kept)

    def close_timer(self) -> None:
        """Its deadline does not matter any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _over(self) -> None:
        self._closed = True
        self.close_timer()
        if self._flight.leave(self):
            self._flight.leave_last(self)
        else:
            self.record()

    def _cut(self, why: str) -> bytes:
        """Tell the client that what it has is not all."""
        self.run.trail.code = "upstream_interrupted"
        error = UpstreamInterrupted(f"the answer was interrupted after output had begun: {why}")
        event = interruption(self.run, error, begun=self.at > 0)
        self._over()
        return self._noted(event)

    def _expire(self) -> None:
        self._timer, self._expired = None, True
        self.wake()

    def _noted(self, piece: bytes) -> bytes:
        """*piece*; its beginning is kept where calls are recorded."""
        most = self._flight.gateway.keep_answer
        if most > len(self._kept):
            self._kept += piece[: most - len(self._kept)]
        return piece
