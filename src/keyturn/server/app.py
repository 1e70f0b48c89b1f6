"""The ASGI application: admits a request, reads it, has the gateway or a page answer it, and writes the answer."""

from __future__ import annotations

import asyncio
import logging
from itertools import chain

from keyturn.core import Call, Caller, Trail
from keyturn.dispatch import (
    CLASS_HEADER,
    DOORS,
    SMALL_BODY,
    CallEnded,
    Gateway,
    call_headers,
    count,
    new_id,
    read_call,
    request_ids,
    spoken,
)
from keyturn.errors import (
    Draining,
    HeadersTooLarge,
    InvalidCallerKey,
    KeyturnError,
    Overloaded,
    TooLarge,
    UpstreamInterrupted,
    WrongHost,
)
from keyturn.wire import dialect, error_headers

from .access import CALLER, Access, RawHeaders
from .body import announced, read_body
from .cycle import CLOSE
from .exchange import ClientLeft, Exchange, Headers, Receive, Scope, Send
from .pages import JSON, Asked, Pages
from .paths import WrongMethod, find
from .watch import DisconnectWatch, Watches

_log = logging.getLogger("keyturn.server")

LARGEST_ADMIN_BODY = 64 * 1024
LARGEST_QUESTION = 8 * 1024 * 1024
"""Bytes of a text whose tokens are to be counted."""
TRACE_HEADERS = (b"traceparent", b"tracestate")


class App:
    """Serves one gateway. Once *stopping* is set, who cancels its tasks is ending the server; clients are told so."""

    def __init__(self, gateway: Gateway, access: Access, pages: Pages) -> None:
        self.stopping = False
        self._gateway = gateway
        self._access = access
        self._pages = pages
        self._strain = gateway.strain
        self._watches = Watches(gateway.clock)
        self._max_body = gateway.config.server.max_body
        self._max_headers = gateway.config.server.max_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no lifespan and no websocket: the server that speaks ASGI to us is told so by silence
        clock = self._gateway.clock
        exchange = Exchange(scope, receive, send, new_id(clock.wall()))
        started = clock.mono()
        try:
            await self._respond(scope, exchange)
        except KeyturnError as error:
            self._record(exchange, error, started)
            await self._refuse(exchange, error, scope)
        except ClientLeft:
            pass
        except asyncio.CancelledError:
            if not self.stopping:
                raise
            await self._stop_short(exchange, scope)
        except Exception:
            _log.exception("call %s failed in the gateway itself", exchange.call_id)
            if not exchange.started:
                await self._refuse(exchange, KeyturnError("the gateway itself failed; its log says more"), scope)

    async def _respond(self, scope: Scope, exchange: Exchange) -> None:
        headers = self._admissible_headers(scope)
        endpoint, argument = find(scope["raw_path"])
        if scope["method"] != endpoint.method:
            endpoint.check_method(scope["method"], argument)
        query: bytes = scope.get("query_string", b"")
        try:
            caller = self._access.admit(endpoint.need, scope.get("client"), headers)
        except InvalidCallerKey as error:
            if b"key=" in query:
                error.message += "; a key in the query (`?key=`) is not read, since queries end up in logs"
            raise
        if endpoint.name in DOORS:
            if self._strain.on:
                body = await self._read_under_strain(exchange, headers, caller)
            else:
                body = await read_body(exchange.receive, headers, self._max_body)
            call = read_call(endpoint.name, body, call_headers(headers), argument, query.decode("latin-1"))
            if self._gateway.tracer is not None:
                call.served_at, call.trace_headers = endpoint.path, _trace_headers(headers)
            await self._answer_call(exchange, call, caller)
            return
        body = b""
        if endpoint.method == "POST":
            most = LARGEST_ADMIN_BODY if endpoint.need == "admin" else LARGEST_QUESTION
            body = await read_body(exchange.receive, headers, most)
        told = spoken(scope["raw_path"], headers) if endpoint.name in ("models", "model") else endpoint.dialect
        try:
            page = await self._pages.page(endpoint.name, Asked(caller, argument, query, body, told, scope["method"]))
        except KeyturnError as error:
            if endpoint.need != "admin":
                raise
            await self._refuse(exchange, error, scope)  # no call failed: who asked is told, and the log says nothing
            return
        await exchange.answer(page.status, [page.content_type, _mark(exchange)], page.body)

    async def _read_under_strain(self, exchange: Exchange, headers: RawHeaders, caller: Caller) -> bytes:
        """The body of a call that is taken although something is refused. Raises Overloaded for one that is not."""
        strain, stated = self._strain, headers.get(CLASS_HEADER, b"")
        strain.admit(caller, stated, announced(headers))
        if not strain.full:
            return await read_body(exchange.receive, headers, self._max_body)
        try:
            return await read_body(exchange.receive, headers, min(SMALL_BODY, self._max_body))
        except TooLarge as error:
            raise strain.too_full(caller, stated) from error

    def _admissible_headers(self, scope: Scope) -> RawHeaders:
        """The headers by name. Raises HeadersTooLarge, WrongHost, RouteNotAllowed."""
        raw = scope["headers"]
        if sum(map(len, chain.from_iterable(raw))) > self._max_headers:
            raise HeadersTooLarge(f"the request headers are larger than {self._max_headers // 1024} KiB")
        headers: RawHeaders = dict(raw)
        if len(headers) != len(raw) and sum(name == b"host" for name, _ in raw) > 1:
            raise WrongHost("the request names more than one host")
        self._access.check_host(headers)
        self._access.check_origin(headers)
        return headers

    async def _answer_call(self, exchange: Exchange, call: Call, caller: Caller) -> None:
        with DisconnectWatch(exchange.receive, self._watches):
            if call.kind == "count":
                reply = await count(self._gateway, call, caller, exchange.call_id)
            else:
                reply = await self._gateway.handle(call, caller, exchange.call_id)
            if reply.stream is None:
                await exchange.answer(reply.status, reply.headers, reply.body)
                return
            try:
                await exchange.begin_stream(reply.status, reply.headers)
                await exchange.relay(reply.stream)
                await exchange.end_stream()
            finally:
                reply.close()

    def _record(self, exchange: Exchange, error: KeyturnError, started: float) -> None:
        """A request that was refused before it became a call is in the log and in the figures all the same."""
        trail = Trail(exchange.call_id, "", started, refusals=[error.message], status=error.status, code=error.code)
        trail.ended = self._gateway.clock.mono()
        self._gateway.events.emit(CallEnded(None, CALLER, trail))

    async def _refuse(self, exchange: Exchange, error: KeyturnError, scope: Scope) -> None:
        error.message = self._gateway.redactor.text(error.message)  # it quotes the client
        told = spoken(scope["raw_path"], dict(scope["headers"]))
        headers: Headers = [JSON, *request_ids(told, exchange.call_id)]
        headers += [(name.encode(), value.encode()) for name, value in error_headers(error)]
        if isinstance(error, WrongMethod):
            headers.append((b"allow", error.allow.encode()))
        elif error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        elif isinstance(error, Overloaded) and not 0 <= announced(dict(scope["headers"]), -1) <= SMALL_BODY:
            headers.append(CLOSE)  # what it would still send is not worth reading
        await exchange.answer(error.status, headers, dialect(told).error_body(error, exchange.call_id, ()))

    async def _stop_short(self, exchange: Exchange, scope: Scope) -> None:
        """The server ends and this answer is not done: say so, in the form that it has by now."""
        if not exchange.started:
            await self._refuse(exchange, Draining("the gateway is shutting down", retry_after=1.0), scope)
            return
        if not exchange.streaming:
            return
        error = UpstreamInterrupted("the answer was interrupted: the gateway is shutting down")
        told = spoken(scope["raw_path"], dict(scope["headers"]))
        await exchange.write(dialect(told).error_event(error, exchange.call_id, ()))
        await exchange.end_stream()


def _trace_headers(headers: RawHeaders) -> dict[str, str]:
    """What the client says of the trace that its request belongs to."""
    return {name.decode(): headers[name].decode("latin-1") for name in TRACE_HEADERS if name in headers}


def _mark(exchange: Exchange) -> tuple[bytes, bytes]:
    return (b"x-keyturn-call", exchange.call_id.encode())
