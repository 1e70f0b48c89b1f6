"""A World whose calls are traced into memory, with the application in front of it."""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, format_span_id, format_trace_id

from keyturn.config import DataFolder
from keyturn.core import Secret
from keyturn.server import Access, App, Pages
from keyturn.telemetry import Telemetry
from keyturn.telemetry.otel import OpenTelemetry
from tests.support import asgi, virtual
from tests.support.world import World

CALLER_KEY = "kt-the-callers-key-0123456789"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CHAT = "/v1/chat/completions"


class Traced:
    """What was exported. The spans of attempts are in the order in which they ended."""

    def __init__(self, world: World, **provider: Any) -> None:
        self.world = world
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self._tracers = TracerProvider(shutdown_on_exit=False, **provider)
        self._tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.tracers, self.meters = self._tracers, MeterProvider([self._reader], shutdown_on_exit=False)
        self.log = io.StringIO()
        self.telemetry: Telemetry | None = None

    def serve(self) -> App:
        """The application, telemetry behind it as in `keyturn serve`."""
        gateway = self.world.gateway
        exporting = OpenTelemetry(gateway, self.tracers, self.meters)
        self.telemetry = Telemetry(gateway, self.log, as_json=True, exporting=exporting)
        access = Access(
            bound_host="testserver", allowed_hosts=("testserver",), caller_key=Secret(CALLER_KEY), admin_key=Secret("a")
        )
        return App(gateway, access, Pages(gateway, self.telemetry, DataFolder(Path("/nonexistent"))))

    async def ask(self, model: str, headers: tuple[tuple[str, str], ...] = (), **members: Any) -> asgi.Reply:
        """One chat over HTTP; everything is exported when it returns."""
        body = {"model": model, "messages": [{"role": "user", "content": "the prompt itself"}], **members}
        app = self.serve()
        reply = await asgi.call(app, "POST", CHAT, json=body, key=CALLER_KEY, headers=headers)
        assert self.telemetry is not None
        assert self.telemetry.close()
        return reply

    @property
    def all(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    @property
    def call(self) -> ReadableSpan:
        (span,) = (each for each in self.all if each.kind is not SpanKind.CLIENT)
        return span

    @property
    def attempts(self) -> list[ReadableSpan]:
        return [each for each in self.all if each.kind is SpanKind.CLIENT]

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


def ids(span: ReadableSpan) -> tuple[str, str]:
    """Trace and span, as `traceparent` has them."""
    context = span.get_span_context()
    assert context is not None
    return format_trace_id(context.trace_id), format_span_id(context.span_id)


def play(story: Callable[[Traced], Awaitable[None]], world: World, **provider: Any) -> None:
    """Runs *story* in virtual time."""

    async def main() -> None:
        async with world:
            await story(Traced(world, **provider))

    virtual.run(main)
