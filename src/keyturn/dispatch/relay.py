"""Streams on their way to the client: what was held back, then events as they come; a cut ends in an error event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from keyturn.core import Facts, Outcome, Usage, classify
from keyturn.errors import TransportError, UpstreamInterrupted
from keyturn.wire import dialect

from .exchange import BYTES_PER_TOKEN, OK, Exchange
from .run import Run

LINGER = 0.2
"""Seconds that a stream whose last event was relayed may take to end, so that its connection can be used again."""


class RelayStream:
    """The bytes of one stream after its first content. Nothing is re-tried from here on, but where a route asks for it:
    see `holding`.

    Deadlines move with what arrives: `silence` with any byte, `no_content` with content; the call's own never. To be
    read by one task.
    """

    __slots__ = (
        "_begun",
        "_byte_at",
        "_content_at",
        "_ended",
        "_exchange",
        "_held",
        "_keep",
        "_next_chunk",
        "_now",
        "_output",
        "_stream",
        "_task",
        "_watch",
        "attempt",
        "complete",
        "kept",
        "run",
    )

    def __init__(self, exchange: Exchange, run: Run, ended: Callable[[RelayStream], None], keep: int) -> None:
        self._task: asyncio.Task[object] | None = None
        self._now = exchange.now
        self.run = run
        self._ended: Callable[[RelayStream], None] | None = ended
        self._begun = False
        self._keep = keep
        self._follow(exchange)
        self.complete = False
        """All of it was relayed, up to its proper end."""
        self.kept = b""
        """The first bytes that were relayed, as many as recording asks for."""

    def _follow(self, exchange: Exchange) -> None:
        """Read the stream of *exchange* from here on."""
        assert exchange.stream is not None
        assert exchange.chunks is not None
        self._exchange = exchange
        self._stream = exchange.stream
        self._next_chunk = exchange.chunks.__anext__
        self._watch = exchange.watch
        self._watch.extend = self._extend
        self._watch.close()
        self.attempt = exchange.grant.attempt
        self._held = exchange.held
        self._output = self._stream.relayed_bytes
        self._byte_at = self._content_at = exchange.now()
        self._extend()

    def __aiter__(self) -> RelayStream:
        return self

    async def __anext__(self) -> bytes:
        """The next events as they came; at a cut an error event, the last there is."""
        if self._task is None:
            self._task = asyncio.current_task()
        if self._held:
            piece, self._held = self._held, b""
        elif self._ended is None:
            raise StopAsyncIteration
        else:
            stream, watch = self._stream, self._watch
            try:
                while True:
                    if stream.error is not None:  # it came with the last piece
                        raise StopAsyncIteration
                    watch.task = self._task
                    if watch.timer is None:
                        watch.arm()
                    chunk = await self._next_chunk()
                    watch.task = None
                    self._byte_at = self._now()
                    piece = stream.feed(chunk)
                    if stream.done:
                        watch.tighten(self._byte_at + LINGER, "silence")
                    if piece:
                        break
            except StopAsyncIteration:
                piece = self._last("cut", "the stream ended without its terminal event")
            except TransportError as error:
                piece = self._last(error.kind, error.message)
            except asyncio.CancelledError:
                if not watch.ours():
                    self.close()
                    raise
                piece = self._last(watch.reason, f"nothing came in time ({watch.reason})")
            if not piece:
                raise StopAsyncIteration
            if stream.relayed_bytes != self._output:
                self._output, self._content_at = stream.relayed_bytes, self._byte_at
        if not self._begun:
            self._begun = not piece.isspace()
        if self._keep > len(self.kept):
            self.kept += piece[: self._keep - len(self.kept)]
        return piece

    def _extend(self) -> None:
        """Until when the next bytes must come."""
        watch, timeouts = self._watch, self._exchange.timeouts
        if self._stream.done:
            watch.deadline = self._byte_at + LINGER
            return
        silent, empty = self._byte_at + timeouts.silence, self._content_at + timeouts.no_content
        watch.deadline, watch.reason = (silent, "silence") if silent <= empty else (empty, "no_content")
        if self.run.deadline < watch.deadline:
            watch.deadline, watch.reason = self.run.deadline, "deadline"

    def _last(self, fault: str, detail: str) -> bytes:
        """What the client gets when nothing more comes: nothing when it has all, an error event when it was cut."""
        stream = self._stream
        if stream.done or (fault == "cut" and stream.end()):
            return self._complete()
        return self._cut(fault, "the upstream reported an error" if stream.error is not None else detail)

    def _usage(self) -> Usage:
        """What the upstream said, else our own estimate of what has been observed."""
        stream = self._stream
        if stream.usage is not None:
            return stream.usage
        estimate = self._exchange.estimate()
        return Usage(estimate, -(-stream.output_bytes // BYTES_PER_TOKEN), exact=False)

    def _complete(self) -> bytes:
        """The end as it should be; the bytes of a last event that came without its blank line."""
        self._exchange.finish(OK, self._usage())
        self._exchange.remember_signatures()
        self.complete = True
        self._over()
        return self._stream.tail

    def _cut(self, fault: str, detail: str) -> bytes:
        """Tell the client, in its own dialect, that what it has is not all."""
        return self._interrupted(self._failed(fault, detail)[1])

    def _failed(self, fault: str, detail: str) -> tuple[Outcome | None, str]:
        """Settle and judge the attempt that was cut: its outcome, None when only the call's own time is up, and what
        happened in words."""
        exchange = self._exchange
        body = exchange.redactor.data(self._stream.error or b"")
        usage = self._usage()
        if fault == "deadline":
            exchange.close(usage)
            return None, "the call's deadline passed"
        outcome = classify(
            Facts(None, {}, body, exchange.wall(), True, None if body else fault, exchange.provider.rules)
        )
        detail = exchange.redactor.text(outcome.message) or detail
        exchange.finish(outcome, usage, detail)
        return outcome, detail

    def _interrupted(self, detail: str) -> bytes:
        """The last event there is, which says that what the client has is not all."""
        run = self.run
        run.trail.code = "upstream_interrupted"
        error = UpstreamInterrupted(f"the answer was interrupted after output had begun: {detail}")
        event = interruption(run, error, begun=self._begun)
        self._over()
        return event

    def _over(self) -> None:
        self._watch.extend = None  # it leads back here: without it nothing needs the garbage collector
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)

    def close(self) -> None:
        """The client left, or has everything. Closes the upstream at once."""
        if self._ended is not None:
            self._exchange.close(self._usage())
            self._over()


def interruption(run: Run, error: UpstreamInterrupted, *, begun: bool) -> bytes:
    """What ends a stream that was cut, in the client's dialect; *begun*: something was relayed before."""
    attempts = [attempt.brief() for attempt in run.trail.attempts]
    spoken = dialect(run.call.dialect)
    if run.call.form == "array":
        return (b",\r\n" if begun else b"[") + spoken.error_body(error, run.trail.call, attempts) + b"]"
    return spoken.error_event(error, run.trail.call, attempts)
