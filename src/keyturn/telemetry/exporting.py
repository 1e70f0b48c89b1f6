"""Switches OpenTelemetry on: over OTLP, as the standard variables say, or into the providers of a program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyturn import __version__
from keyturn.config import OpenTelemetrySettings
from keyturn.dispatch import BUILT, Gateway, new_id
from keyturn.errors import KeyturnError

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from .otel import OpenTelemetry

MISSING = 'OpenTelemetry is not installed, so nothing is exported: pip install "keyturn[otel]"'
SERVICE = "service.name"
INSTANCE = "service.instance.id"
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
    if INSTANCE not in resource.attributes:  # one of several workers or replicas must not pass for another
        resource = resource.merge(Resource({INSTANCE: new_id(gateway.clock.wall())}))
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
    pool: Gateway | None = None,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
) -> None:
    """Spans and figures of every call that *pool* answers; without it, of every pool that this process makes after
    this. For programs that use the library: call it once, before the first client.

    They go to the program's own providers, the global ones unless given; a call's span is a child of the span that is
    current where the call is made. What a client asks of a gateway in another process is traced there. Raises
    KeyturnError when the extra `otel` is not installed.
    """
    try:
        from opentelemetry import metrics, trace

        from .otel import OpenTelemetry
    except ImportError as error:
        raise KeyturnError(MISSING) from error

    def follow(gateway: Gateway) -> None:
        tracers = tracer_provider or trace.get_tracer_provider()
        OpenTelemetry(gateway, tracers, meter_provider or metrics.get_meter_provider()).follow()

    if pool is None:
        BUILT.append(follow)
    else:
        follow(pool)
