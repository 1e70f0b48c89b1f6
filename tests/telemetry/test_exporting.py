"""OpenTelemetry by its standard variables: what they say, what is sent over OTLP, and a place that does not answer."""

from __future__ import annotations

import io
import logging
import sys
import threading
from pathlib import Path

import pytest

from keyturn.config import Config, OpenTelemetrySettings, load
from keyturn.core import Secret
from keyturn.errors import ConfigError, KeyturnError
from keyturn.telemetry import Telemetry, batches, export
from tests.support import virtual
from tests.support.world import World

from .receiver import attributes, receive

BASE = "http://collector:4318"
TOKEN = "planted-token-of-the-collector-0123456789"


def configured(**environ: str) -> Config:
    return load({"GROQ_API_KEY": "gsk_key_of_the_test", **environ}, cwd=Path("/nonexistent"))


@pytest.mark.parametrize(
    ("environ", "traces", "metrics"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": BASE}, f"{BASE}/v1/traces", f"{BASE}/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": f"{BASE}/otlp/"}, f"{BASE}/otlp/v1/traces", f"{BASE}/otlp/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://t/x"}, "https://t/x", ""),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "https://m/x"}, "", "https://m/x"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": BASE, "OTEL_TRACES_EXPORTER": "none"}, "", f"{BASE}/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": BASE, "OTEL_METRICS_EXPORTER": "none"}, f"{BASE}/v1/traces", ""),
    ],
)
def test_where_traces_and_metrics_go(environ: dict[str, str], traces: str, metrics: str) -> None:
    settings = configured(**environ).otel
    assert settings is not None
    assert (settings.traces, settings.metrics) == (traces, metrics)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "x"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": BASE, "OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": BASE, "OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"},
    ],
)
def test_nothing_is_exported(environ: dict[str, str]) -> None:
    assert configured(**environ).otel is None


def test_headers_and_the_service_are_taken_over_from_the_env_file_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(
        f"OTEL_EXPORTER_OTLP_ENDPOINT={BASE}\nOTEL_SERVICE_NAME=our-gateway\n"
        f"OTEL_EXPORTER_OTLP_HEADERS=Authorization=Bearer%20{TOKEN}, x-team = a\n"
    )
    config = load({}, cwd=tmp_path)
    assert config.otel is not None
    assert config.otel.service == "our-gateway"
    assert {name: value.reveal() for name, value in config.otel.headers.items()} == {
        "authorization": f"Bearer {TOKEN}",
        "x-team": "a",
    }
    assert TOKEN not in repr(config)


def test_addresses_and_headers_that_are_none_are_mistakes_that_quote_nothing() -> None:
    with pytest.raises(ConfigError) as caught:
        configured(
            OTEL_EXPORTER_OTLP_ENDPOINT="localhost:4318",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="http://h:99999/",
            OTEL_EXPORTER_OTLP_HEADERS=TOKEN,
        )
    problems = caught.value.problems
    assert [problem.partition(":")[0] for problem in problems] == [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_HEADERS",
    ]
    assert "http://localhost:4318" in problems[0]
    assert TOKEN not in "".join(problems)


def test_what_is_not_spoken_is_noted() -> None:
    notes = configured(
        OTEL_EXPORTER_OTLP_ENDPOINT=BASE, OTEL_EXPORTER_OTLP_PROTOCOL="grpc", OTEL_TRACES_EXPORTER="zipkin"
    ).notes
    assert any("http/protobuf" in note and "4318" in note for note in notes)
    assert any("'zipkin'" in note for note in notes)


def test_spans_and_metrics_are_sent_over_otlp_with_their_headers() -> None:
    async def main() -> None:
        async with World({"groq": 2}) as world:
            headers = {"authorization": Secret(f"Bearer {TOKEN}")}
            settings = OpenTelemetrySettings(f"{received.url}/v1/traces", f"{received.url}/v1/metrics", "", headers)
            telemetry = Telemetry(world.gateway, io.StringIO(), exporting=export(settings, world.gateway))
            assert (await world.chat("groq/llama-3.1-8b-instant")).status == 200
            assert telemetry.close()
            assert TOKEN not in world.gateway.redactor.text(f"Bearer {TOKEN}")

    with receive() as received:
        virtual.run(main)
    assert {each["authorization"] for each in received.headers} == {f"Bearer {TOKEN}"}
    assert {each["content-type"] for each in received.headers} == {"application/x-protobuf"}
    (attempt,) = received.named("chat llama-3.1-8b-instant")
    (call,) = received.named("keyturn chat")
    assert (attempt.trace_id, attempt.parent_span_id) == (call.trace_id, call.span_id)
    assert attributes(attempt)["gen_ai.provider.name"] == "groq"
    assert received.resource["service.name"] == "keyturn"
    assert len(received.resource["service.instance.id"]) == 36, "each process has its own"
    assert {"gen_ai.client.operation.duration", "gen_ai.client.token.usage"} <= received.metrics


@pytest.mark.realtime
def test_a_place_that_does_not_answer_holds_up_neither_calls_nor_the_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            settings = OpenTelemetrySettings("http://127.0.0.1:9/v1/traces", "")
            telemetry = Telemetry(world.gateway, io.StringIO(), exporting=export(settings, world.gateway))
            assert (await world.chat("groq/llama-3.1-8b-instant")).status == 200
            assert telemetry.close()

    monkeypatch.setattr(batches, "CLOSE_PATIENCE", 0.1)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")  # the SDK's own, which the end does not wait for
    with caplog.at_level(logging.CRITICAL, logger="opentelemetry"):
        virtual.run(main)
        for thread in threading.enumerate():
            if thread.name == "keyturn otel shutdown":
                thread.join()


def test_without_the_extra_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    async def main() -> None:
        async with World({"groq": 1}) as world:
            with pytest.raises(KeyturnError, match=r'pip install "keyturn\[otel\]"'):
                export(OpenTelemetrySettings(BASE, ""), world.gateway)
            assert (await world.chat("groq/llama-3.1-8b-instant")).status == 200

    virtual.run(main)


def test_metrics_alone_leave_requests_as_they_are() -> None:
    async def main() -> None:
        async with World({"groq": 1}, keep_bodies=True) as world:
            with receive() as received:
                settings = OpenTelemetrySettings("", f"{received.url}/v1/metrics", "mine")
                telemetry = Telemetry(world.gateway, io.StringIO(), exporting=export(settings, world.gateway))
                await world.chat("groq/llama-3.1-8b-instant")
                telemetry.close()
            assert not any("traceparent" in each.headers for each in world.upstream.log)
            assert received.spans == []
            assert "gen_ai.client.operation.duration" in received.metrics

    virtual.run(main)
