"""`keyturn serve` with OpenTelemetry: over real sockets, from the client's `traceparent` to the collector."""

from __future__ import annotations

from pathlib import Path

from keyturn.dispatch import SystemClock, draw
from keyturn.simulator import KeyRule, Simulator
from tests.support.serving import ask, serve, simulate

from .receiver import attributes, receive
from .traced import CHAT, PARENT

MODEL = "groq/llama-3.1-8b-instant"


def test_a_gateway_joins_the_clients_trace_tells_its_upstream_and_sends_what_it_has_when_it_ends(
    tmp_path: Path,
) -> None:
    keys = {"groq": {"gsk_first_key_of_two": KeyRule(), "gsk_second_key_of_two": KeyRule()}}
    simulator = Simulator(SystemClock(), draw, keys=keys, keep_bodies=True)
    with receive() as received, simulate(simulator) as upstreams:
        environ = {
            "GROQ_API_KEY_1": "gsk_first_key_of_two",
            "GROQ_API_KEY_2": "gsk_second_key_of_two",
            "GROQ_API_BASE": f"{upstreams.url}/groq/v1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": received.url,
            "METRICS_ENABLED": "false",
        }
        with serve(tmp_path, environ) as gateway:
            headers = {"authorization": f"Bearer {gateway.caller_key}", "traceparent": PARENT}
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
            upstreams.script({"kind": "chat", "status": 429, "times": 1})
            answer = ask(gateway.url, "POST", CHAT, headers=headers, body=body)
            assert (answer.status, answer.headers["x-keyturn-attempts"]) == (200, "2")
            ask(gateway.url, "POST", CHAT, headers=headers, body={**body, "stream": True})
            assert ask(gateway.url, "GET", "/metrics", headers=headers).status == 404, "only over OTLP"
        said = (tmp_path / "log.txt").read_text()
    assert f"OpenTelemetry: traces and metrics go to {received.url.removeprefix('http://')}" in said
    first, second = received.named(f"POST {CHAT}")
    assert first.trace_id.hex() == second.trace_id.hex() == PARENT[3:35]
    assert first.parent_span_id.hex() == PARENT[36:52]
    attempts = received.named("chat llama-3.1-8b-instant")
    assert len(attempts) == 3
    told = {each.headers["traceparent"] for each in upstreams.seen()}
    assert told == {f"00-{PARENT[3:35]}-{each.span_id.hex()}-01" for each in attempts}
    assert attributes(attempts[1])["keyturn.failover.reason"] == "rate_limited"
    assert attributes(first)["keyturn.call"] == answer.headers["x-keyturn-call"]
    assert {"http.server.request.duration", "gen_ai.client.operation.time_to_first_chunk"} <= received.metrics
    assert "gsk_" not in repr(received.spans)
