"""Where traces and metrics go, by the standard variables of OpenTelemetry. Off while none names a place."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from keyturn.core import Secret

from .model import OpenTelemetrySettings
from .settings import Settings

PROTOCOL = "http/protobuf"
EXPORTERS = ("otlp", "none")


def otel_of(settings: Settings) -> OpenTelemetrySettings | None:
    """What is exported where; None when nothing is."""
    base = _address(settings.text("OTEL_EXPORTER_OTLP_ENDPOINT"), "OTEL_EXPORTER_OTLP_ENDPOINT", settings)
    traces = _address(
        settings.text("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"), "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", settings
    )
    metrics = _address(
        settings.text("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"), "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", settings
    )
    if base:
        traces, metrics = traces or f"{base.rstrip('/')}/v1/traces", metrics or f"{base.rstrip('/')}/v1/metrics"
    if not _wanted(settings.text("OTEL_TRACES_EXPORTER"), "OTEL_TRACES_EXPORTER", settings):
        traces = ""
    if not _wanted(settings.text("OTEL_METRICS_EXPORTER"), "OTEL_METRICS_EXPORTER", settings):
        metrics = ""
    headers = _headers(settings)
    service = settings.text("OTEL_SERVICE_NAME") or ""
    # By its specification, whatever is not "true" is false here.
    disabled = (settings.text("OTEL_SDK_DISABLED") or "").lower() == "true"
    if disabled or not (traces or metrics):
        return None
    spoken = settings.text("OTEL_EXPORTER_OTLP_PROTOCOL") or PROTOCOL
    if spoken != PROTOCOL:
        settings.report.note(
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            f"{settings.report.quote(spoken)} is not spoken; {PROTOCOL} is, usually at port 4318",
        )
    return OpenTelemetrySettings(traces, metrics, service, headers)


def _address(text: str | None, name: str, settings: Settings) -> str:
    """The URL *text*; empty, with a problem, when it is none."""
    if not text:
        return ""
    try:
        parts = urlsplit(text)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        fine = False
    if not fine or not text.isprintable():
        settings.report.problem(name, "is not an address such as http://localhost:4318")
        return ""
    return text


def _wanted(text: str | None, name: str, settings: Settings) -> bool:
    """Whether the exporter that *text* names is ours; others are noted and take nothing from us."""
    if text and text.lower() not in EXPORTERS:
        settings.report.note(name, f"{settings.report.quote(text)} is not known; otlp or none is, and otlp holds")
    return (text or "").lower() != "none"


def _headers(settings: Settings) -> dict[str, Secret]:
    """`name=value,name=value`, percent-encoded, as the specification has it."""
    found: dict[str, Secret] = {}
    for part in settings.words("OTEL_EXPORTER_OTLP_HEADERS"):
        name, equals, value = part.partition("=")
        name, value = unquote(name.strip()).lower(), unquote(value.strip())
        if not (equals and name and name.isascii() and value.isprintable()):
            settings.report.problem("OTEL_EXPORTER_OTLP_HEADERS", "must be like `authorization=Bearer%20…,x-team=a`")
            return {}
        found[name] = Secret(value)
    return found
