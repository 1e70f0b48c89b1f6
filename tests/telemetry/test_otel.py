"""Traces and metrics for OpenTelemetry: which spans a call leaves, what they say, and what they never say."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from keyturn.client import AsyncClient
from keyturn.core import Call
from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import Fault, Simulator
from keyturn.telemetry import exporting, instrument
from keyturn.telemetry.naming import asked
from tests.support.serving import simulate
from tests.support.world import World

from .traced import CHAT, PARENT, Traced, ids, play

MODEL = "groq/llama-3.1-8b-instant"


def failing(**more: object) -> World:
    """Two keys, the first of which meets a rate limit."""
    return World({"groq": 2}, faults=[Fault(kind="chat", times=1, status=429, **more)], keep_bodies=True)  # type: ignore[arg-type]


def about(span: object) -> Mapping[str, object]:
    attributes = getattr(span, "attributes", None)
    assert attributes is not None
    return dict(attributes)


def test_MON_02_a_failover_is_one_server_span_and_a_client_span_per_attempt() -> None:
    async def story(traced: Traced) -> None:
        reply = await traced.ask(MODEL, temperature=0.5, max_tokens=9, seed=7)
        assert reply.status == 200
        call, (first, second) = traced.call, traced.attempts
        assert (call.name, call.kind) == (f"POST {CHAT}", SpanKind.SERVER)
        assert first.name == second.name == "chat llama-3.1-8b-instant"
        trace, span = ids(call)
        assert {ids(each)[0] for each in traced.all} == {trace}
        parents = {f"{each.parent.span_id:016x}" for each in (first, second) if each.parent is not None}
        assert parents == {span}
        told = about(call)
        assert told["http.response.status_code"] == 200
        assert told["http.route"] == CHAT
        assert told["keyturn.call"] == reply.headers["x-keyturn-call"]
        assert told["keyturn.attempts"] == 2
        lost, won = about(first), about(second)
        assert lost["error.type"] == "rate_limited"
        assert first.status.status_code is StatusCode.ERROR
        assert second.status.status_code is StatusCode.UNSET
        assert won["keyturn.failover.reason"] == "rate_limited"
        assert (lost["keyturn.attempt"], won["keyturn.attempt"]) == (1, 2)
        assert won["keyturn.key"] == reply.headers["x-keyturn-key"] != lost["keyturn.key"]
        assert (won["keyturn.tier"], won["keyturn.model_alias"], won["keyturn.inbound_api"]) == (
            2,
            MODEL,
            "openai_chat",
        )
        assert won["gen_ai.operation.name"] == "chat"
        assert won["gen_ai.provider.name"] == "groq"
        assert won["gen_ai.request.model"] == "llama-3.1-8b-instant"
        assert (won["gen_ai.request.temperature"], won["gen_ai.request.max_tokens"]) == (0.5, 9)
        assert won["gen_ai.request.seed"] == 7
        assert won["gen_ai.response.model"] == "llama-3.1-8b-instant"
        assert won["gen_ai.response.finish_reasons"] == ("length",)
        assert won["server.address"] == "simulator"
        assert won["gen_ai.usage.input_tokens"] == reply.json()["usage"]["prompt_tokens"]
        assert first.end_time is not None
        assert first.start_time is not None
        assert first.start_time <= first.end_time <= (second.start_time or 0)

    play(story, failing(latency=0.5))


def test_the_clients_trace_goes_on_through_us_to_the_upstream() -> None:
    async def story(traced: Traced) -> None:
        await traced.ask(MODEL, (("traceparent", PARENT), ("tracestate", "vendor=opaque")))
        trace, _ = ids(traced.call)
        assert trace == PARENT[3:35]
        assert traced.call.parent is not None
        assert f"{traced.call.parent.span_id:016x}" == PARENT[36:52]
        seen = [each.headers for each in traced.world.upstream.log if each.kind == "chat"]
        assert [each["traceparent"] for each in seen] == [
            f"00-{trace}-{ids(attempt)[1]}-01" for attempt in traced.attempts
        ]
        assert {each["tracestate"] for each in seen} == {"vendor=opaque"}
        (line,) = (row for row in map(json.loads, traced.log.getvalue().splitlines()) if row["event"] == "call")
        assert line["trace"] == trace

    play(story, failing())


@pytest.mark.parametrize(
    "told", ["", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\tx", "garbage", "0" * 600]
)
def test_what_is_no_traceparent_begins_a_trace_of_its_own(told: str) -> None:
    async def story(traced: Traced) -> None:
        await traced.ask(MODEL, (("traceparent", told),))
        assert traced.call.parent is None
        assert ids(traced.call)[0] != PARENT[3:35]

    play(story, World({"groq": 1}))


def test_a_caller_that_does_not_sample_is_obeyed_and_its_upstream_is_told() -> None:
    async def story(traced: Traced) -> None:
        reply = await traced.ask(MODEL, (("traceparent", PARENT[:-1] + "0"),))
        assert reply.status == 200
        assert traced.all == []
        (seen,) = (each.headers["traceparent"] for each in traced.world.upstream.log if each.kind == "chat")
        assert seen.startswith(PARENT[:36])
        assert seen.endswith("-00")

    play(story, World({"groq": 1}, keep_bodies=True), sampler=ParentBased(ALWAYS_OFF))


def test_a_stream_tells_when_its_first_content_came() -> None:
    async def story(traced: Traced) -> None:
        reply = await traced.ask(MODEL, stream=True)
        assert reply.text()
        (attempt,) = traced.attempts
        assert about(attempt)["gen_ai.request.stream"] is True
        assert about(attempt)["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.75)
        (point,) = traced.points("gen_ai.client.operation.time_to_first_chunk")
        assert point.sum == pytest.approx(0.75)
        assert attempt.end_time == traced.call.end_time

    play(story, World({"groq": 1}, latency=0.5, pace=0.25))


def test_a_stream_that_is_cut_is_an_error_of_its_call() -> None:
    async def story(traced: Traced) -> None:
        await traced.ask(MODEL, stream=True)
        assert about(traced.call)["error.type"] == "upstream_interrupted"
        assert traced.call.status.status_code is StatusCode.ERROR
        assert about(traced.attempts[0])["error.type"] == "server_error"

    play(story, World({"groq": 1}, faults=[Fault(kind="chat", does="reset", at_chunk=3)]))


def test_what_nobody_can_answer_tells_why() -> None:
    async def story(traced: Traced) -> None:
        reply = await traced.ask(MODEL)
        assert reply.status == 503
        told = about(traced.call)
        assert told["error.type"] == told["keyturn.code"] == "no_valid_credentials"
        assert told["keyturn.refusals"]

    play(story, World({"groq": 1}, faults=[Fault(kind="chat", status=401)]))


def test_spans_and_metrics_hold_neither_prompt_nor_answer_nor_key() -> None:
    async def story(traced: Traced) -> None:
        reply = await traced.ask(MODEL, stop=["the stop words"], user="the user's name")
        said = reply.text()
        everything = "".join(each.to_json() for each in traced.all) + repr(
            [traced.points(name) for name in ("gen_ai.client.operation.duration", "http.server.request.duration")]
        )
        planted = ["the prompt itself", said, "the stop words", "the user's name", "groq-secret-key"]
        assert [text for text in planted if text in everything] == []

    play(story, failing(quirks=frozenset({"echo_key"}), error="rate_limited"))


def test_MON_03_metrics_have_the_conventions_names() -> None:
    async def story(traced: Traced) -> None:
        await traced.ask(MODEL)
        durations = traced.points("gen_ai.client.operation.duration")
        assert {point.attributes.get("error.type") for point in durations} == {None, "rate_limited"}
        assert durations[0].explicit_bounds[:3] == (0.01, 0.02, 0.04)
        kinds = {point.attributes["gen_ai.token.type"] for point in traced.points("gen_ai.client.token.usage")}
        assert kinds == {"input", "output"}
        (request,) = traced.points("http.server.request.duration")
        assert dict(request.attributes) == {
            "http.request.method": "POST",
            "http.route": CHAT,
            "http.response.status_code": 200,
            "url.scheme": "http",
        }

    play(story, failing())


def test_what_is_refused_unread_is_counted_and_leaves_no_span() -> None:
    async def story(traced: Traced) -> None:
        from tests.support import asgi

        reply = await asgi.call(traced.serve(), "POST", CHAT, json={}, key="wrong")
        assert reply.status == 401
        assert traced.telemetry is not None
        traced.telemetry.close()
        assert traced.all == []
        (point,) = traced.points("http.server.request.duration")
        assert point.attributes["http.response.status_code"] == 401

    play(story, World({"groq": 1}))


def test_in_a_program_a_call_is_a_child_of_what_the_program_does() -> None:
    async def story(traced: Traced) -> None:
        instrument(traced.world.gateway, tracer_provider=traced.tracers, meter_provider=traced.meters)
        with traced.tracers.get_tracer("program").start_as_current_span("its own work") as work:
            assert (await traced.world.chat(MODEL)).status == 200
        spans = {each.name: each for each in traced.all}
        call = spans["keyturn chat"]
        assert call.kind is SpanKind.INTERNAL
        assert call.parent is not None
        assert call.parent.span_id == work.get_span_context().span_id
        assert [each.name for each in traced.attempts] == ["chat llama-3.1-8b-instant"] * 2
        assert traced.points("http.server.request.duration") == []
        assert len(traced.points("gen_ai.client.operation.duration")) == 2

    play(story, failing())


@pytest.mark.realtime
def test_every_client_that_a_program_makes_is_traced_once_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hooks: list[object] = []
    monkeypatch.setattr(exporting, "BUILT", hooks)
    monkeypatch.setattr(sys.modules["keyturn.dispatch.build"], "BUILT", hooks)
    spans = InMemorySpanExporter()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    instrument(tracer_provider=tracers)

    async def main() -> None:
        async with AsyncClient(api_keys={"groq": "gsk_key_of_the_program"}, data_dir=tmp_path / "data") as client:
            with tracers.get_tracer("program").start_as_current_span("its own work"):
                assert await client.chat("Hello", MODEL)

    with simulate(Simulator(SystemClock(), draw)) as upstreams:
        monkeypatch.setenv("GROQ_API_BASE", f"{upstreams.url}/groq/v1")
        asyncio.run(main())
    found = {each.name: each for each in spans.get_finished_spans()}
    assert set(found) == {"its own work", "keyturn chat", "chat llama-3.1-8b-instant"}
    parents = [each.parent.span_id if each.parent is not None else 0 for each in found.values()]
    assert len(set(parents)) == 3, "one below the other"


def test_without_tracing_nothing_is_added_to_what_is_sent() -> None:
    async def story(traced: Traced) -> None:
        await traced.world.chat(MODEL)
        (seen,) = (each.headers for each in traced.world.upstream.log if each.kind == "chat")
        assert "authorization" in seen
        assert not {"traceparent", "tracestate"} & seen.keys()

    play(story, World({"groq": 1}, keep_bodies=True))


def test_a_client_that_leaves_is_no_error_of_the_upstream() -> None:
    async def story(traced: Traced) -> None:
        from tests.support import asgi

        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        app = traced.serve()
        async with asgi.open_stream(app, "POST", CHAT, json=body, key="kt-the-callers-key-0123456789") as stream:
            await stream.chunk()
        await traced.world.clock.sleep_until(traced.world.clock.mono() + 1)
        assert traced.telemetry is not None
        traced.telemetry.close()
        (attempt,) = traced.attempts
        assert about(attempt)["error.type"] == "cancelled"
        assert attempt.status.status_code is StatusCode.UNSET

    play(story, World({"groq": 1}, pace=0.5))


@pytest.mark.parametrize(
    ("members", "found"),
    [
        ({"temperature": b"0.2", "top_p": b"1", "n": b"2"}, {"temperature": 0.2, "top_p": 1.0, "choice.count": 2}),
        ({"top_k": b"40", "seed": b'"x"', "temperature": b"null"}, {"top_k": 40}),
        (
            {"generationConfig": b'{"topK": 3, "topP": 0.5, "seed": true}'},
            {"top_k": 3, "top_p": 0.5},
        ),
        ({"generationConfig": b"[]"}, {}),
    ],
)
def test_the_numbers_that_a_request_sets(members: dict[str, bytes], found: dict[str, float]) -> None:
    call = Call("openai_chat", "chat", "m", members, 0)
    assert dict(asked(call)) == {f"gen_ai.request.{name}": value for name, value in found.items()}
