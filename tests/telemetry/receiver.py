"""A receiver of OTLP over HTTP on loopback: keeps what is sent to it, decoded."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Received:
    """Everything that came. *url* is the base, as OTEL_EXPORTER_OTLP_ENDPOINT has it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.headers: list[Mapping[str, str]] = []
        self.spans: list[Span] = []
        self.metrics: set[str] = set()
        self.resource: dict[str, str] = {}

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.headers.append(headers)
        if path == "/v1/traces":
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                self.resource |= {each.key: each.value.string_value for each in resource.resource.attributes}
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
        elif path == "/v1/metrics":
            for collected in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                self.metrics |= {metric.name for scope in collected.scope_metrics for metric in scope.metrics}

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


def attributes(span: Span) -> dict[str, Any]:
    """Text and numbers of a span by name."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@contextmanager
def receive() -> Iterator[Received]:
    """A receiver on a free port."""

    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            received.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    received = Received(f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, name="otlp receiver")
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
