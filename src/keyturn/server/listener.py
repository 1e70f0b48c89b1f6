"""uvicorn's HTTP protocol with the bounds it lacks: on connections, a request's arrival, a client that does not read.

A connection beyond the bound is not admitted, but heard: who looks after the gateway is answered even then.

A request that arrives in one piece, as nearly all do, sets no timer. That of an idle connection is left to run when
the connection is used again, and finds out for itself.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from uvicorn.config import Config as UvicornConfig
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from keyturn.core import Clock, TimerHandle
from keyturn.dispatch import new_id
from keyturn.errors import BadRequest, HeadersTooLarge, KeyturnError, Overloaded
from keyturn.wire import error_body, error_headers

from .access import is_local
from .cycle import Cycle
from .guard import BOUNDS, MOST_LINGERING, Bound, Guard
from .paths import is_watching

GRACE = 30.0
"""Seconds that a whole request may take to arrive, whatever its rate."""
LEAST_RATE = 8 * 1024
"""Bytes per second, on average, beyond that."""
READ_PATIENCE = 60.0
"""Seconds that a client may leave an answer unread while we have more to write."""
BODIES_SKIPPED = 4
"""So many times the largest accepted body is read and dropped after a refusal, so that clients get to see it."""
MOST_PIPELINED = 8
"""Requests that may wait behind the one that is being answered."""
KEEP_ALIVE = 75.0
"""Seconds that an idle connection stays open: longer than clients and proxies keep theirs."""
LINGER = 2.0
"""Seconds that a connection which is closed in the middle of a request stays half open, so that its client sees why."""
HEARING = 2.0
"""Seconds that a connection beyond the bound has to say what it wants."""

_UPGRADE = re.compile(rb"(?<=\r\n)upgrade:", re.IGNORECASE)


def _without_upgrade(data: bytes) -> bytes:
    """The head without its offer of another protocol: the parser would take the body for that protocol's."""
    if b"pgrade:" not in data and b"PGRADE:" not in data:
        return data
    end = data.find(b"\r\n\r\n")
    head = data if end < 0 else data[:end]
    return _UPGRADE.sub(b"x-upgrade:", head) + data[len(head) :]


class Listener(HttpToolsProtocol):
    """One client connection.

    A request is *arriving* from its first byte (a connection's first one: from the start) to its last.
    """

    def __init__(
        self,
        config: UvicornConfig,
        state: ServerState,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        guard: Guard,
        max_body: int,
        max_headers: int,
    ) -> None:
        super().__init__(config, state, {}, loop)
        self._clock = clock
        self._guard = guard
        self._ip: str | None = None
        """Under which the guard counts it; None: it does not, or no more."""
        self._bound: Bound = ""
        """Why it is not admitted."""
        self._lingers = False
        self._most = BODIES_SKIPPED * max_body
        self._max_headers = max_headers
        self._arriving = True
        self._in_head = True
        self._refused = False
        self._received = 0
        """Bytes of the request that is arriving, those of its first piece left out."""
        self._began = 0.0
        self._arrival: TimerHandle | None = None
        self._unread: TimerHandle | None = None
        self._idle: TimerHandle | None = None
        self._idle_since: float | None = None
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._enter():
            self._expect()
            self._guard.idle[self] = self._began
        elif self._guard.hear(self):
            self._arrival = self._clock.call_at(self._clock.mono() + HEARING, self._unheard)
        else:
            self.refuse()

    def _enter(self) -> Bound:
        """Takes a place among the connections if there is one; else the bound that this would break."""
        ip = self.client[0] if self.client else ""
        self._bound = self._guard.admit(ip)
        if not self._bound:
            self._ip = ip
        return self._bound

    def _release(self) -> None:
        """Gives the place back, whichever it is."""
        self._guard.idle.pop(self, None)
        if self._ip is not None:
            self._guard.release(self._ip)
            self._ip = None
        elif self._bound:
            self._guard.leave(self)

    def refuse(self) -> None:
        """Tells the client that there is no room for its connection, and ends that."""
        self._guard.leave(self)
        if self.transport.is_closing():
            return
        self._guard.refused(self._bound)
        error = Overloaded(f"the gateway has {BOUNDS[self._bound]}; ask again", retry_after=1.0)
        self._answer("503 Service Unavailable", error)
        self._linger()

    def make_room(self) -> bool:
        """Ends at once, for another connection's sake, unless the client has an answer left to read."""
        if self.transport.get_write_buffer_size():
            return False
        self._release()
        self.transport.abort()
        return True

    def _unheard(self) -> None:
        """The request of a connection beyond the bound is not here yet."""
        self._arrival = None
        if self._guard.is_unheard(self):
            self.refuse()
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._release()
        if self._lingers:
            self._lingers = False
            self._guard.lingering -= 1
        for timer in (self._arrival, self._unread, self._idle):
            if timer is not None:
                timer.cancel()
        running = self._running
        super().connection_lost(exc)
        if running is not None and not running.response_complete:
            # uvicorn tells only the newest request that the client left; with pipelining, an older one is being served.
            running.disconnected = True
            running.message_event.set()
        # They know this connection: a ring of objects stays in memory until the collector comes by, which is rarely.
        self.cycle = self._running = None  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        if self._received > self._most:
            self.transport.abort()
            return
        if self._refused:
            return
        if self._in_head or not self._arriving:
            data = _without_upgrade(data)
        super().data_received(data)
        if self._is_refused():
            return
        if self._arriving or self._is_forgotten():
            if self._arrival is None:
                self._expect()
            if self._in_head and self._received > self._max_headers:
                self._refuse_head()
        elif self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _is_refused(self) -> bool:
        """Asked anew after each piece."""
        return self._refused

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._arriving = self._in_head = True
        self._received = 0
        self._began = self._clock.mono()

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._in_head = False
        if self.pipeline:
            if len(self.pipeline) > MOST_PIPELINED:
                self.transport.abort()
            else:
                self.flow.resume_reading()  # uvicorn stops here, and would not see the client leave

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._arriving = False
        self._received = 0

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            self._bound_unread()
            return
        self.flow.resume_reading()
        if self._lingers:
            return  # what was sent ahead is not answered any more: our side is closed
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self._clock.mono()
        if not self._arriving:
            self._guard.idle[self] = self._idle_since
        if self._idle is None:
            self._idle = self._clock.call_at(self._idle_since + KEEP_ALIVE, self._end_idle)

    def last_call(self) -> None:
        """The server stops soon: an idle connection is closed now, any other with its next answer."""
        begun = bool(self.scope) and self._arriving and self._in_head
        if not begun:
            self.shutdown()

    def leave(self) -> None:
        """The last answer of this connection is written."""
        if self._arriving:
            self._linger()
        else:
            self.transport.close()

    def _linger(self) -> None:
        """Closes our side and drops what still comes, for a moment: closing it all at once would take the answer away
        from a client that still sends."""
        self._refused = True
        self._guard.leave(self)
        if self._guard.lingering >= MOST_LINGERING or not self.transport.can_write_eof():
            self.transport.close()
            self._bound_unread()
            return
        try:
            self.transport.write_eof()
        except (OSError, RuntimeError):  # the client has gone meanwhile
            self.transport.abort()
            return
        self._lingers = True
        self._guard.lingering += 1
        if self._arrival is not None:
            self._arrival.cancel()
        self._arrival = self._clock.call_at(self._clock.mono() + LINGER, self.transport.abort)

    def _unset_keepalive_if_required(self) -> None:
        """What uvicorn calls when the connection is in use again."""
        self._idle_since = None
        self._guard.idle.pop(self, None)

    def _end_idle(self) -> None:
        self._idle = None
        if self._idle_since is None:
            return
        until = self._idle_since + KEEP_ALIVE
        if self._clock.mono() < until:
            self._idle = self._clock.call_at(until, self._end_idle)
        else:
            self.transport.abort()  # `close` would wait for ever for a client that left its answer unread

    def pause_writing(self) -> None:
        super().pause_writing()
        self._bound_unread()

    def _bound_unread(self) -> None:
        """From now on the client has so long to read what is written, or what it leaves in the way of closing."""
        if self._unread is None:
            self._unread = self._clock.call_at(self._clock.mono() + READ_PATIENCE, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
        if self.transport.is_closing():
            self._bound_unread()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        if self._bound and not self._is_answered(cycle):
            cycle.response_complete = True  # so that uvicorn drops what still comes of it
            return
        self._running = cycle
        cycle.__class__ = Cycle  # uvicorn makes its own; ours adds no state that needs an __init__
        cycle.listener = self  # type: ignore[attr-defined]
        if self._guard.closing:
            cycle.keep_alive = False
        super()._start_asgi_task(cycle, app)

    def _is_answered(self, cycle: RequestResponseCycle) -> bool:
        """Whether a request is, although its connection came when there was no room; if not, the client is told."""
        if self._refused:
            return False
        if not self._enter():  # there is room by now
            self._guard.leave(self)
            if self._arrival is not None:
                self._arrival.cancel()
                self._arrival = None
            return True
        local = is_local(self.client, dict(cycle.scope["headers"]))
        if is_watching(cycle.scope["raw_path"], local=local):
            self._guard.answer(self)
            cycle.keep_alive = False
            return True
        self.refuse()
        return False

    def _is_forgotten(self) -> bool:
        """True when nothing is under way but bytes came that began nothing, so that it no longer counts as idle."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn declares it as always there
        return cycle is not None and cycle.response_complete and self._idle_since is None

    def _expect(self) -> None:
        self._began = self._clock.mono()
        self._arrival = self._clock.call_at(self._began + GRACE, self._late)

    def _late(self) -> None:
        """The request is not here yet: close, unless it keeps coming at the least rate."""
        allowed = self._began + GRACE + self._received / LEAST_RATE
        if self._clock.mono() < allowed:
            self._arrival = self._clock.call_at(allowed, self._late)
        else:
            self._arrival = None
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, as uvicorn tells; nothing behind it is read."""
        self._guard.leave(self)
        cycle: RequestResponseCycle | None = self.cycle
        unread = cycle is not None and cycle.more_body and not cycle.response_started and not self.pipeline
        if cycle is None or cycle.response_complete or unread:
            self._answer("400 Bad Request", BadRequest("this is no valid HTTP request"))
            self.transport.close()
        else:
            self.transport.abort()  # an answer is due or under way: this one would be taken for it, or land within it

    def _answer(self, status: str, error: KeyturnError) -> None:
        """An answer of our own to a request that never reaches the application."""
        call = new_id(self._clock.wall())
        body = error_body(error, call, ())
        more = "".join(f"{name}: {value}\r\n" for name, value in error_headers(error))
        self.transport.write(
            f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"x-keyturn-call: {call}\r\n{more}connection: close\r\n\r\n".encode()
            + body
        )

    def _refuse_head(self) -> None:
        """Answers 431 and reads on for a while: closing at once would take the answer away from who still sends."""
        self._refused = True
        self._guard.leave(self)
        if self._arrival is None:
            self._expect()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            error = HeadersTooLarge(f"the request headers are larger than {self._max_headers // 1024} KiB")
            self._answer("431 Request Header Fields Too Large", error)
        else:
            self.transport.abort()
