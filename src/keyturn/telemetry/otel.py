"""OpenTelemetry: a span for each call and one for each of its attempts, and their figures. Never what was said.

Spans begin when the call and the attempts do, so that upstreams and samplers are told of them; everything else about
them is filled in when the call has ended, from its trail. Loaded only where tracing is on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from keyturn import __version__
from keyturn.core import Attempt, Call, Clock, Trail
from keyturn.dispatch import CallEnded, Event, Gateway

from .catalog import OPERATION
from .meters import Attributes, Meters, failed
from .naming import asked, provider_name

SCOPE = "keyturn"
LONGEST = 500
"""Characters of one attribute."""
MOST_REFUSALS = 20
_W3C = TraceContextTextMapPropagator()
_PORTS = {"http": 80, "https": 443}


class CallTrace:
    """The spans of one call. Implements `keyturn.core.Trace`."""

    __slots__ = ("_clock", "_context", "_operation", "_tracer", "attempts", "span")

    def __init__(self, tracer: trace.Tracer, clock: Clock, span: trace.Span, kind: str) -> None:
        self._tracer = tracer
        self._clock = clock
        self._operation = OPERATION.get(kind, kind)
        self.span = span
        self._context = trace.set_span_in_context(span, Context())
        self.attempts: dict[str, trace.Span] = {}
        """By the attempt's id."""

    @property
    def trace_id(self) -> str:
        return trace.format_trace_id(self.span.get_span_context().trace_id)

    def sending(self, attempt: Attempt) -> tuple[tuple[str, str], ...]:
        span = self.attempts[attempt.id] = self.begin(attempt, self._clock.wall() - self._clock.mono())
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, trace.set_span_in_context(span, Context()))
        return tuple(carrier.items())

    def begin(self, attempt: Attempt, offset: float) -> trace.Span:
        """The span of *attempt*; *offset* makes Unix seconds of monotonic ones."""
        return self._tracer.start_span(
            f"{self._operation} {attempt.model[:LONGEST]}",
            self._context,
            trace.SpanKind.CLIENT,
            start_time=_ns(attempt.started + offset),
        )


class OpenTelemetry:
    """Traces the calls of a gateway and counts them. *shut_down* ends the providers, if they are ours."""

    def __init__(
        self,
        gateway: Gateway,
        tracer_provider: trace.TracerProvider,
        meter_provider: metrics.MeterProvider,
        shut_down: Callable[[], None] | None = None,
    ) -> None:
        self._gateway = gateway
        self._tracer = tracer_provider.get_tracer(SCOPE, __version__)
        self._meters = Meters(meter_provider.get_meter(SCOPE, __version__))
        self._shut_down = shut_down
        gateway.tracer = self._begin

    def follow(self) -> None:
        """Take every event as it happens: for a pool inside a program, which has no telemetry of its own."""
        self._gateway.events.subscribe(self._note)

    def take(self, calls: Iterable[tuple[float, CallEnded]]) -> None:
        """These calls ended, each at that moment (Unix seconds)."""
        for wall, event in calls:
            self._end(event, wall)

    def close(self, patience: float) -> None:
        """Send what is left; what takes longer than *patience* seconds is given up."""
        if self._shut_down is not None:
            thread = threading.Thread(target=self._shut_down, name="keyturn otel shutdown", daemon=True)
            thread.start()
            thread.join(patience)

    def _note(self, event: Event) -> None:
        if isinstance(event, CallEnded):
            self._end(event, self._gateway.clock.wall())

    def _begin(self, call: Call, call_id: str) -> CallTrace:
        """The call's own span: a server's for what came over HTTP, below the client's; in a program below its own."""
        served = bool(call.served_at)
        span = self._tracer.start_span(
            f"POST {call.served_at}" if served else f"keyturn {call.kind}",
            _W3C.extract(call.trace_headers, Context()) if served else None,
            trace.SpanKind.SERVER if served else trace.SpanKind.INTERNAL,
            start_time=_ns(self._gateway.clock.wall()),
        )
        return CallTrace(self._tracer, self._gateway.clock, span, call.kind)

    def _end(self, event: CallEnded, wall: float) -> None:
        trail, call = event.trail, event.call
        offset = wall - (trail.ended or trail.started)
        self._meters.call(event, _served(event))
        if call is None:
            return
        followed = trail.trace if isinstance(trail.trace, CallTrace) else None
        before: Attempt | None = None
        for number, attempt in enumerate(trail.attempts, 1):
            address = self._address(attempt.provider)
            self._meters.attempt(attempt, call.kind, call.stream, address)
            if followed is not None:
                span = followed.attempts.get(attempt.id) or followed.begin(attempt, offset)
                if span.is_recording():
                    span.set_attributes(self._attempt(call, trail, attempt, number, before) | address)
                    self._blame(span, attempt)
                span.end(_ns((attempt.ended or trail.ended or trail.started) + offset))
            before = attempt
        if followed is not None:
            if followed.span.is_recording():
                self._describe(followed.span, event)
            followed.span.end(_ns(wall))

    def _describe(self, span: trace.Span, event: CallEnded) -> None:
        """Everything about a call but what was said in it."""
        trail, call = event.trail, event.call
        assert call is not None
        about: dict[str, Any] = {
            "keyturn.call": trail.call,
            "keyturn.caller": self._clean(event.caller.name),
            "keyturn.inbound_api": call.dialect,
            "keyturn.model_alias": self._clean(trail.route),
            "keyturn.attempts": len(trail.attempts),
            "keyturn.fallback": trail.fallback,
            **_served(event),
            **failed(trail),
        }
        if trail.code:
            about["keyturn.code"] = self._clean(trail.code)
        if trail.waited:
            about["keyturn.waited"] = trail.waited
        if trail.refusals:
            about["keyturn.refusals"] = [self._clean(text) for text in trail.refusals[:MOST_REFUSALS]]
        span.set_attributes(about)
        if "error.type" in about:
            span.set_status(trace.StatusCode.ERROR)

    def _attempt(
        self, call: Call, trail: Trail, attempt: Attempt, number: int, before: Attempt | None
    ) -> dict[str, Any]:
        """The attributes of one attempt, as the GenAI conventions have them, and ours."""
        about: dict[str, Any] = {
            "gen_ai.operation.name": OPERATION.get(call.kind, call.kind),
            "gen_ai.provider.name": provider_name(attempt.provider),
            "gen_ai.request.model": self._clean(attempt.model),
            "keyturn.provider": attempt.provider,
            "keyturn.tier": attempt.tier,
            "keyturn.key": attempt.key,
            "keyturn.attempt": number,
            "keyturn.inbound_api": call.dialect,
            "keyturn.model_alias": self._clean(trail.route),
            "keyturn.resend": attempt.resend,
            **dict(asked(call)),
        }
        if before is not None and not attempt.resend:
            about["keyturn.failover.reason"] = before.meaning
        if call.stream:
            about["gen_ai.request.stream"] = True
        if call.max_output is not None:
            about["gen_ai.request.max_tokens"] = call.max_output
        if "json" in call.needs:
            about["gen_ai.output.type"] = "json"
        if attempt.status is not None:
            about["http.response.status_code"] = attempt.status
        if attempt.first_token is not None:
            about["gen_ai.response.time_to_first_chunk"] = attempt.first_token - attempt.started
        if attempt.answered_as:
            about["gen_ai.response.model"] = self._clean(attempt.answered_as)
        if attempt.stop:
            about["gen_ai.response.finish_reasons"] = [attempt.stop]
        usage = attempt.usage
        if usage is not None and usage.exact:
            about["gen_ai.usage.input_tokens"] = usage.input
            about["gen_ai.usage.output_tokens"] = usage.output
            if usage.cached:
                about["gen_ai.usage.cache_read.input_tokens"] = usage.cached
            if usage.reasoning:
                about["gen_ai.usage.reasoning.output_tokens"] = usage.reasoning
        return about

    def _blame(self, span: trace.Span, attempt: Attempt) -> None:
        """Say what went wrong. A client that left is no error of the upstream."""
        if attempt.meaning == "ok":
            return
        span.set_attribute("error.type", attempt.meaning or "_OTHER")
        if attempt.meaning != "cancelled":
            span.set_status(trace.StatusCode.ERROR, self._clean(attempt.detail) or None)

    def _address(self, provider: str) -> Attributes:
        """Where *provider* is reached; nothing when it is a command line tool, or gone by now."""
        row = self._gateway.config.providers.get(provider)
        if row is None or row.tool is not None:
            return {}
        parts = urlsplit(row.base_url)
        port = parts.port or _PORTS.get(parts.scheme, 0)
        return {"server.address": parts.hostname or "", **({"server.port": port} if port else {})}

    def _clean(self, text: str) -> str:
        """*text* without secrets, not longer than an attribute can bear."""
        return self._gateway.redactor.text(text)[:LONGEST]


def _served(event: CallEnded) -> Attributes:
    """How a call came in over HTTP; nothing for one of the library. What was refused unread tells its status only."""
    trail, call = event.trail, event.call
    if call is not None and not call.served_at:
        return {}
    about: Attributes = {"http.request.method": "_OTHER" if call is None else "POST", "url.scheme": "http"}
    if call is not None:
        about["http.route"] = call.served_at
    if trail.status:
        about["http.response.status_code"] = trail.status
    return about


def _ns(seconds: float) -> int:
    return int(seconds * 1e9)
