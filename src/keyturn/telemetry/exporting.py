"""Switches OpenTelemetry on: over OTLP, as the standard variables say, or into the providers of a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyturn import __version__
from keyturn.config import OpenTelemetrySettings
from keyturn.dispatch import Gateway
from keyturn.errors import KeyturnError

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from .otel import OpenTelemetry

MISSING = 'OpenTelemetry is not installed, so nothing is exported: pip install "keyturn[otel]"'
SERVICE = "service.name"
UNNAMED = "unknown_service"
"""How the SDK begins the name of a service that nobody named."""


def export(settings: OpenTelemetrySettings, gateway: Gateway) -> OpenTelemetry:
    """Traces and metrics of *gateway*, sent where *settings* say; `Telemetry` hands the calls over.

    What *settings* do not hold (sampler, batches, resource, certificates) the SDK takes from the process environment.
    Raises KeyturnError when the extra `otel` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from .otel import OpenTelemetry
    except ImportError as error:
        raise KeyturnError(MISSING) from error
    headers = None
    if settings.headers:
        headers = {name: value.reveal() for name, value in settings.headers.items()}
        gateway.redactor.add(*settings.headers.values())
    about = {"service.version": __version__, **({SERVICE: settings.service} if settings.service else {})}
    resource = Resource.create(about)
    if str(resource.attributes.get(SERVICE, UNNAMED)).startswith(UNNAMED):
        resource = resource.merge(Resource({SERVICE: "keyturn"}))
    readers = []
    if settings.metrics:
        readers = [PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=settings.metrics, headers=headers))]
    meters = MeterProvider(readers, resource, shutdown_on_exit=False)
    if not settings.traces:
        from opentelemetry.trace import NoOpTracerProvider

        made = OpenTelemetry(gateway, NoOpTracerProvider(), meters, meters.shutdown)
        gateway.tracer = None
        return made
    tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=settings.traces, headers=headers)))

    def shut_down() -> None:
        tracers.shutdown()
        meters.shutdown()

    return OpenTelemetry(gateway, tracers, meters, shut_down)


def instrument(
    client: Any, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> OpenTelemetry:
    """Spans and figures of every call of *client*, a client object with a pool of its own or a `Gateway`.

    They go to the program's own providers, the global ones unless given; a call's span is a child of the span that is
    current where the call is made. Raises KeyturnError when the extra `otel` is not installed, and TypeError for a
    client that calls through another process, whose gateway exports by itself.
    """
    gateway = client if isinstance(client, Gateway) else getattr(client, "gateway", None)
    if not isinstance(gateway, Gateway):
        raise TypeError(f"{type(client).__name__} has no pool in this process, so there is nothing to trace here")
    try:
        from opentelemetry import metrics, trace

        from .otel import OpenTelemetry
    except ImportError as error:
        raise KeyturnError(MISSING) from error
    made = OpenTelemetry(
        gateway, tracer_provider or trace.get_tracer_provider(), meter_provider or metrics.get_meter_provider()
    )
    made.follow()
    return made
