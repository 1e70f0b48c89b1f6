"""Streams that begin before anybody has answered: a 200 with comments, then the answer, or the error that ends it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from keyturn.errors import Draining, UpstreamRefused
from keyturn.wire import dialect, upstream_message

from .answering import CODES, SSE, refused, request_ids
from .closing import ended
from .reply import ByteStream, Reply
from .run import Run

if TYPE_CHECKING:
    from .gateway import Gateway

EVERY = 5.0
"""Seconds between two comments."""
KINDS = frozenset({"chat", "completions"})
"""Calls whose streams are events, among which comments may stand."""


def commits(run: Run) -> float | None:
    """Seconds after which the stream of *run* begins with comments, if nothing else has come by then; None: never."""
    call = run.call
    if call.kind not in KINDS or call.form == "array":
        return None
    stated = run.generation.config.stream.commit_after if call.commit_after is None else call.commit_after
    return stated if stated is not None and stated < float("inf") else None


class Early:
    """A call that is answered in a task of its own, and what its client gets meanwhile. To be closed."""

    __slots__ = ("_answer", "_closed", "_gateway", "_over", "_run", "_spoken", "_task", "_waiting")

    def __init__(self, gateway: Gateway, run: Run) -> None:
        self._gateway = gateway
        self._run = run
        self._answer: ByteStream | None = None
        self._spoken = False
        """A comment was sent."""
        self._over = self._closed = False
        self._waiting: asyncio.Future[None] | None = None
        self._task = asyncio.get_running_loop().create_task(gateway.answered(run))
        gateway.adapting.early.add(self)
        self._task.add_done_callback(self._landed)

    async def begin(self, after: float) -> Reply:
        """The answer as it is, if it comes within *after* seconds; else a stream that begins with comments."""
        clock = self._gateway.clock
        begun = False
        try:
            await self._news(clock.mono() + after)
            begun = True
        finally:
            if not begun:  # the client left
                self.close()
                await self.ended()
        if self._task.done():
            return self._reply()
        self._run.committed = True
        self._run.trail.status = 200
        return Reply(200, [SSE, *request_ids(self._run.call.dialect, self._run.trail.call)], stream=self)

    def __aiter__(self) -> Early:
        return self

    async def __anext__(self) -> bytes:
        """A comment every few seconds, then the answer; where there is none, the error event that says why."""
        if self._answer is not None:
            return await self._answer.__anext__()
        if self._over:
            raise StopAsyncIteration
        if not self._task.done():
            if self._spoken:
                await self._news(self._gateway.clock.mono() + EVERY)
            if not self._task.done():
                self._spoken = True
                return self._comment()
        self._over = True
        reply = self._reply()
        if reply.stream is not None:
            self._answer = reply.stream
            return await reply.stream.__anext__()
        return self._ending(reply)

    def close(self) -> None:
        """The client left, or has everything."""
        self._over = self._closed = True
        if self._answer is not None:
            self._answer.close()
        elif not self._task.done():
            self._task.cancel()
        elif not self._task.cancelled() and self._task.exception() is None:
            self._task.result().close()

    def stop(self) -> None:
        """The gateway closes: who reads is told so."""
        self._task.cancel()

    async def ended(self) -> None:
        """Wait until nothing is left of the call; a cancellation that comes meanwhile is raised afterwards."""
        await ended(self._task)

    async def _news(self, until: float) -> None:
        """Wait until the call is answered, but no longer than that."""
        if self._task.done():
            return
        self._waiting = asyncio.get_running_loop().create_future()
        timer = self._gateway.clock.call_at(until, self._wake)
        try:
            await self._waiting
        finally:
            timer.cancel()
            self._waiting = None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _landed(self, task: asyncio.Task[Reply]) -> None:
        self._gateway.adapting.early.discard(self)
        if self._closed and not task.cancelled() and task.exception() is None:
            task.result().close()  # nobody is there any more to read it
        self._wake()

    def _reply(self) -> Reply:
        """The answer. Of a call that was ended, as the gateway closes, that."""
        if self._task.cancelled():
            return refused(self._gateway, self._run, Draining("the gateway is shutting down", retry_after=1.0))
        return self._task.result()

    def _comment(self) -> bytes:
        if self._run.call.dialect == "gemini":  # its SDK fails on comments
            return b"\r\n"
        seen = self._run.generation.reserving.expected(self._run)
        if seen is None:
            return b": keyturn working\n\n"
        about = b"" if seen.wait is None else b", about %d s" % max(1, round(seen.wait))
        return b": keyturn waiting, position %d%b\n\n" % (seen.position, about)

    def _ending(self, reply: Reply) -> bytes:
        """The event that says why there is no answer."""
        run, error = self._run, reply.error
        if error is None:
            if reply.status < 400:
                return reply.body
            message = upstream_message(reply.body) or "the upstream refused the request"
            error = UpstreamRefused(message, reply.status, CODES.get(run.trail.code, "bad_request"))
        attempts = [attempt.brief() for attempt in run.trail.attempts]
        return dialect(run.call.dialect).error_event(error, run.trail.call, attempts)


async def committed(gateway: Gateway, run: Run, after: float) -> Reply:
    """The answer to *run*, or after so many seconds a stream that begins without it."""
    return await Early(gateway, run).begin(after)
