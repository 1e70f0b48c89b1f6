"""Streams on their way to the client: what was held back, then events as they come; a cut ends in an error event."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from keyturn.core import Facts, Usage, classify
from keyturn.errors import TransportError, UpstreamInterrupted
from keyturn.wire import error_event

from .exchange import OK, Exchange
from .run import Run

BYTES_PER_TOKEN = 4
LINGER = 0.2
"""Seconds that a stream whose last event was relayed may take to end, so that its connection can be used again."""


class RelayStream:
    """The bytes of one stream after its first content. Nothing is re-tried from here on.

    Deadlines move with what arrives: `silence` with any byte, `no_content` with content; the call's own never.
    """

    __slots__ = ("_content_at", "_ended", "_exchange", "_held", "_keep", "_output", "attempt", "kept", "run")

    def __init__(self, exchange: Exchange, run: Run, ended: Callable[[RelayStream], None], keep: int) -> None:
        self._exchange = exchange
        self.run = run
        self.attempt = run.trail.attempts[-1]
        self._ended: Callable[[RelayStream], None] | None = ended
        self._held = exchange.held
        self._output = 0
        self._content_at = exchange.now()
        self._keep = keep
        self.kept = b""
        """The first bytes that were relayed, as many as recording asks for."""

    def __aiter__(self) -> RelayStream:
        return self

    async def __anext__(self) -> bytes:
        if self._held:
            piece, self._held = self._held, b""
        elif self._ended is None:
            raise StopAsyncIteration
        else:
            piece = await self._next()
            if not piece:
                raise StopAsyncIteration
        if self._keep > len(self.kept):
            self.kept += piece[: self._keep - len(self.kept)]
        return piece

    async def _next(self) -> bytes:
        """The next events; nothing when the stream is complete, an error event when it was cut."""
        exchange = self._exchange
        stream, chunks, watch = exchange.stream, exchange.chunks, exchange.watch
        if stream is None or chunks is None:
            return b""
        try:
            while stream.error is None:
                self._extend()
                with watch:
                    chunk = await chunks.__anext__()
                piece = stream.feed(chunk)
                if piece:
                    return piece
        except StopAsyncIteration:
            if stream.end():
                return self._complete()
            if stream.error is None:
                return self._cut("cut", "the stream ended without its terminal event")
        except TransportError as error:
            if stream.done:
                return self._complete()
            return self._cut(watch.reason if watch.expired else error.kind, error.message)
        except asyncio.CancelledError:
            self.close()
            raise
        return self._cut("cut", "the upstream reported an error")

    def _extend(self) -> None:
        exchange, watch, stream = self._exchange, self._exchange.watch, self._exchange.stream
        timeouts, now = exchange.timeouts, exchange.now()
        if stream is not None and stream.done:
            watch.tighten(now + LINGER, "silence")
            return
        if stream is not None and stream.output_bytes != self._output:
            self._output, self._content_at = stream.output_bytes, now
        silent, empty = now + timeouts.silence, self._content_at + timeouts.no_content
        watch.deadline, watch.reason = (silent, "silence") if silent <= empty else (empty, "no_content")
        if self.run.deadline < watch.deadline:
            watch.deadline, watch.reason = self.run.deadline, "deadline"

    def _usage(self) -> Usage | None:
        """What the upstream said, else our own estimate of what has been observed."""
        stream = self._exchange.stream
        if stream is None or stream.usage is not None:
            return stream.usage if stream is not None else None
        estimate = self._exchange.estimate()
        return Usage(estimate, -(-stream.output_bytes // BYTES_PER_TOKEN), exact=False)

    def _complete(self) -> bytes:
        """The end as it should be; the bytes of a last event that came without its blank line."""
        self._exchange.finish(OK, self._usage())
        self._over()
        stream = self._exchange.stream
        return stream.tail if stream is not None else b""

    def _cut(self, fault: str, detail: str) -> bytes:
        """Tell the client, in its own dialect, that what it has is not all."""
        exchange, run = self._exchange, self.run
        stream = exchange.stream
        body = stream.error if stream is not None and stream.error is not None else b""
        usage = self._usage()
        if fault == "deadline":
            exchange.close()
            detail = "the call's deadline passed"
        else:
            outcome = classify(
                Facts(None, {}, body, exchange.wall(), True, None if body else fault, exchange.provider.rules)
            )
            detail = exchange.redact(outcome.message) or detail
            exchange.finish(outcome, usage, detail)
        run.trail.code = "upstream_interrupted"
        error = UpstreamInterrupted(f"the answer was interrupted after output had begun: {detail}")
        attempts = [attempt.brief() for attempt in run.trail.attempts]
        event = error_event(error, run.trail.call, attempts)
        self._over()
        return event

    def _over(self) -> None:
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)

    def close(self) -> None:
        """The client left, or has everything. Closes the upstream at once."""
        if self._ended is not None:
            self._exchange.close(self._usage())
            self._over()
