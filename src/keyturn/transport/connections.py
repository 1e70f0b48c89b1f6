"""Connections to upstreams: made and parsed by aiohttp, with what it lacks for them to be safe to share.

aiohttp 3.14 was read and tried for this. Four things are added to it: a bound for each phase of connecting; knowing
whether a connection was used before and whether a byte of an answer came; telling a reset from an orderly end, where
aiohttp takes a body that ends with a reset for complete; and an end for a body whose framing breaks, where aiohttp
leaves its reader waiting for ever.

Between two exchanges connections are kept here, as lending one through aiohttp's pool costs more than all else of it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections import deque
from collections.abc import Callable
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import aiohappyeyeballs
import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http import RawResponseMessage
from yarl import URL

from keyturn.core import Clock, TimerHandle
from keyturn.errors import TransportError

KEEPALIVE = 60.0
"""Seconds that an idle connection is kept. A peer that closes earlier is noticed at once."""

_MAX_FIELD = 16 * 1024
"""Bytes of one header of an answer. aiohttp takes 128 of them, `headers.incoming` bounds their sum."""

_READ_BUFFER = 128 * 1024
"""Reading from the peer pauses at twice this: the most that one unread stream holds in memory."""

SWITCHING_PROTOCOLS = 101

STALE_WITHIN = 1.0
"""Seconds in which a peer that had closed an idle connection says so. One that dies later has had the request."""

_DNS_TTL = 60
_HAPPY_EYEBALLS = 0.25


class Wire(ResponseHandler):
    """One connection. *uses* counts its exchanges, *heard* tells whether the current one has received a byte."""

    held: Connection
    """What aiohttp's pool knows it by, from its making to its end."""
    place: deque[Wire]
    """Where it waits between two exchanges, with all others that lead there."""

    def __init__(self, loop: asyncio.AbstractEventLoop, pool: Connector) -> None:
        super().__init__(loop)
        self.pool = pool
        self.idle_since = 0.0
        self.uses = 0
        self.heard = False
        self.began = 0.0
        self._on_sent: Callable[[], None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # Writing pauses as soon as the kernel takes no more, so that a drained request is one that has left us.
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=1, low=0)

    @property
    def alive_for(self) -> float:
        """Seconds since the current exchange began."""
        return self._loop.time() - self.began

    @property
    def unsent(self) -> bool:
        """True while a part of the request is still here."""
        return self._on_sent is not None

    def begin(self, request: bytes, on_sent: Callable[[], None]) -> None:
        """A new exchange: writes *request* and calls *on_sent* once the kernel has taken all of it."""
        self.uses += 1
        self.heard = False
        self.began = self._loop.time()
        self.set_response_params(
            read_until_eof=True,
            auto_decompress=False,
            read_bufsize=_READ_BUFFER,
            max_line_size=_MAX_FIELD,
            max_field_size=_MAX_FIELD,
        )
        self._on_sent = on_sent
        if self.transport is not None:  # else it was lost by now, and reading tells why
            self.transport.write(request)
            if not self.writing_paused:
                self._all_sent()

    async def answer(self) -> tuple[RawResponseMessage, aiohttp.StreamReader]:
        """Head and body of the answer. What a peer says beforehand, such as 103 Early Hints, is left out."""
        while True:
            message, body = await self.read()
            if not 100 <= message.code < 200 or message.code == SWITCHING_PROTOCOLS:
                return message, body

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.is_connected():  # a lost connection takes everything and sends nothing
            self._all_sent()

    def _all_sent(self) -> None:
        on_sent, self._on_sent = self._on_sent, None
        if on_sent is not None:
            on_sent()

    def resume_reading(self, resume_parser: bool = True) -> None:
        """aiohttp asks for this at every read, and feeds its parser with nothing each time."""
        if self._reading_paused:
            super().resume_reading(resume_parser)

    def data_received(self, data: bytes) -> None:
        self.heard = True
        super().data_received(data)

    def close(self) -> None:
        """At once. Whoever closes has nothing left to say, and a peer that reads no more must not hold it open."""
        body = self._payload
        if body is not None and not body.is_eof() and body.exception() is None:  # aiohttp forgets who reads
            body.set_exception(TransportError("closed", "the connection was closed within the answer", sent=True))
        self.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        while self._reading_paused and self._parser is not None:
            # TLS reads on while its reader pauses: what came whole must be parsed before the parser is given up.
            self._reading_paused = False
            super().data_received(b"")
        body = self._payload
        if body is None or body.is_eof():
            super().connection_lost(exc)
            return
        fault: TransportError | None = None
        if exc is not None:
            fault = TransportError("reset", "the connection broke in the middle of the answer", sent=True)
            body.set_exception(fault)  # before aiohttp closes the body in good order
        super().connection_lost(exc)
        if not body.is_eof() and body.exception() is None:
            fault = TransportError("protocol", "the answer's framing is broken", sent=True)
        if fault is not None:
            body.set_exception(fault)
        if body.exception() is not None and self not in self.place:
            self.held.close()  # nobody else does where its answer was dropped, and it would be in use for ever


class Target(aiohttp.ClientRequest):
    """Where requests go, as aiohttp's pool wants to be told, with our own bounds for connecting, in seconds.

    One for all requests to the same place: they are written by us. Raises ValueError for an address of no use.
    """

    def __init__(
        self, method: str, url: str, connect_timeout: float, tls_timeout: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        address = URL(url, encoded=True)
        if address.scheme not in ("http", "https") or not address.raw_host:
            raise ValueError("no address of http or https")
        super().__init__(method, address, loop=loop)
        self.connect_timeout = connect_timeout
        self.tls_timeout = tls_timeout

    def update_auto_headers(self, skip_auto_headers: Any) -> None:
        """Nothing: what is sent is what the provider's row says."""

    @cached_property
    def connection_key(self) -> ConnectionKey:
        """Which connections will do."""
        return super().connection_key


class Connector(aiohttp.TCPConnector):
    """The pool. It has no size of its own: how much is sent is decided by the limits of the keys.

    aiohttp makes and ends its connections; those between two exchanges are kept here, where lending one costs next to
    nothing.
    """

    def __init__(self, clock: Clock, tls: ssl.SSLContext | None, resolver: AbstractResolver | None) -> None:
        super().__init__(
            limit=0, keepalive_timeout=KEEPALIVE, ttl_dns_cache=_DNS_TTL, ssl=tls or True, resolver=resolver
        )
        self._clock = clock
        self._idle: dict[ConnectionKey, deque[Wire]] = {}
        """By where they lead; the longest idle first."""
        self._sweeping: TimerHandle | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    @property
    def acquired(self) -> int:
        """Connections in use or being made."""
        return len(self._acquired) - self.idle

    @property
    def idle(self) -> int:
        return sum(map(len, self._idle.values()))

    async def lend(self, target: Target) -> Wire:
        """A connection to *target*, to be given back or closed. Raises TransportError when none can be made."""
        idle = self._idle.get(target.connection_key)
        while idle:
            wire = idle.popleft()
            if self._usable(wire):
                return wire
            wire.held.close()
        try:
            connection = await self.connect(target, [], _UNBOUNDED)
        except aiohttp.ClientConnectionError:
            raise TransportError("closed", "the transport was closed while it connected") from None
        made = connection.protocol
        assert isinstance(made, Wire)
        made.held = connection
        made.place = self._idle.setdefault(target.connection_key, deque())
        return made

    def give_back(self, wire: Wire) -> None:
        """An exchange is over in good order."""
        if self.closed or wire.should_close:
            wire.held.close()
            return
        wire.idle_since = self._clock.mono()
        wire.place.append(wire)
        if self._sweeping is None:
            self._sweeping = self._clock.call_at(wire.idle_since + KEEPALIVE, self._sweep)

    def forget(self, target: Target) -> None:
        """Closes the idle connections to *target*: what took one of them has most likely taken all."""
        idle = self._idle.get(target.connection_key)
        while idle:
            idle.popleft().held.close()

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Closes all connections."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        idle = [wire for each in self._idle.values() for wire in each]
        for each in self._idle.values():
            each.clear()
        try:
            await super().close(abort_ssl=abort_ssl)
        finally:
            for wire in idle:
                wire.held.close()

    def _usable(self, wire: Wire) -> bool:
        """Whether an idle connection may be lent. What a peer says unasked, behind an answer or while idle, would be
        taken for the answer to the next request."""
        kept = self._clock.mono() - wire.idle_since
        return kept <= KEEPALIVE and wire.is_connected() and not wire.should_close

    def _sweep(self) -> None:
        """Closes what was idle for too long, or is lost."""
        self._sweeping = None
        for idle in self._idle.values():
            for _ in range(len(idle)):
                wire = idle.popleft()
                if self._usable(wire):
                    idle.append(wire)
                else:
                    wire.held.close()
        if self.idle:
            self._sweeping = self._clock.call_at(self._clock.mono() + KEEPALIVE, self._sweep)

    async def _create_connection(self, req: aiohttp.ClientRequest, traces: Any, timeout: Any) -> Wire:
        assert isinstance(req, Target)
        host = (req.url.raw_host or "").rstrip(".")
        peer = f"{host}:{req.port}"
        raw = await self._dial(req, host, peer)
        tls = self._get_ssl_context(req)
        try:
            with _Within(self._clock, req.tls_timeout):
                _, wire = await self._loop.create_connection(
                    lambda: Wire(self._loop, self), sock=raw, ssl=tls, server_hostname=host if tls else None
                )
        except TimeoutError:
            raise TransportError("tls", f"no TLS handshake with {peer} in {req.tls_timeout:g} s") from None
        except ssl.SSLError as error:
            reason = getattr(error, "verify_message", "") or error.reason or "handshake failed"
            raise TransportError("tls", f"TLS with {peer}: {reason}") from None
        except (OSError, ValueError, RuntimeError) as error:
            kind = "tls" if tls else "reset"
            raise TransportError(kind, f"{peer} broke off: {_cause(error)}") from None
        return wire

    async def _dial(self, req: Target, host: str, peer: str) -> socket.socket:
        """Look the name up and connect to the first address that answers, both within the bound for connecting."""
        phase = "dns"
        try:
            with _Within(self._clock, req.connect_timeout):
                hosts = await self._resolve_host(host, req.port or 0)
                phase = "connect"
                return await aiohappyeyeballs.start_connection(
                    self._convert_hosts_to_addr_infos(hosts), happy_eyeballs_delay=_HAPPY_EYEBALLS, loop=self._loop
                )
        except TimeoutError:
            what = "the name did not resolve" if phase == "dns" else "no connection"
            raise TransportError("connect_timeout", f"{peer}: {what} in {req.connect_timeout:g} s") from None
        except (OSError, ValueError, RuntimeError) as error:
            kind = "dns" if phase == "dns" else _refusal(error)
            raise TransportError(kind, f"{peer}: {_cause(error)}") from None


class _Within:
    """Ends what is awaited inside after *seconds* with TimeoutError. A cancellation from outside stays one."""

    __slots__ = ("_cancelling", "_clock", "_fired", "_seconds", "_task", "_timer")

    _task: asyncio.Task[Any]
    _timer: TimerHandle

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._fired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._timer = self._clock.call_at(self._clock.mono() + self._seconds, self._fire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._fired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _fire(self) -> None:
        self._fired = True
        self._task.cancel()


_UNBOUNDED = aiohttp.ClientTimeout()
"""No bound of aiohttp's own; `Target` carries them."""


def _refusal(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if number == errno.ECONNREFUSED or isinstance(error, ConnectionRefusedError):
        return "refused"
    return "connect_timeout" if number == errno.ETIMEDOUT else "unreachable"


def _cause(error: Exception) -> str:
    """The system's own words about a connection that could not be made; nothing that is sent later is in them."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
