"""The ASGI application: what is answered to whom, and what happens when things go wrong."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from keyturn.core import Call, Caller
from keyturn.dispatch import Reply
from keyturn.errors import BadUpstream
from tests.support import virtual

from .fakes import ADMIN_KEY, CHAT, KEY, LOCAL, REMOTE, Answer, Client, FakeGateway, Pieces, ask, make_app


def answer_to(path: str | bytes = "/v1/chat/completions", method: str = "POST", **more: Any) -> Answer:
    """What an application over a gateway that works answers to one request."""

    async def main() -> Answer:
        return await ask(make_app(FakeGateway()), path, method, **more)

    return virtual.run(main)


def get(path: str, **more: Any) -> Answer:
    return answer_to(path, "GET", body=b"", **more)


# --- calls ----------------------------------------------------------------------------------------------------------


def test_a_call_is_answered_whole_with_its_length_and_its_id() -> None:
    async def main() -> None:
        gateway = FakeGateway()
        answer = await ask(make_app(gateway))
        call, caller, call_id = gateway.calls[0]
        assert (call.model, call.kind, caller.name) == ("groq/x", "chat", "default")
        assert (answer.status, answer.json) == (200, {"hello": True})
        assert answer.headers["content-length"] == str(len(answer.body))
        assert answer.headers["x-request-id"] == call_id
        assert answer.headers["x-keyturn-key"] == "groq-1:abcdef"
        assert len(answer.messages) == 2

    virtual.run(main)


def test_embeddings_are_calls_of_their_own_kind() -> None:
    async def main() -> None:
        gateway = FakeGateway()
        await ask(make_app(gateway), "/v1/embeddings", body=b'{"model": "m", "input": "x"}')
        assert gateway.calls[0][0].kind == "embeddings"

    virtual.run(main)


def test_a_body_that_comes_in_pieces_is_put_together() -> None:
    async def main() -> None:
        gateway = FakeGateway()
        await ask(make_app(gateway), body=[CHAT[:7], b"", CHAT[7:20], CHAT[20:]])
        assert gateway.calls[0][0].model == "groq/x"

    virtual.run(main)


def test_the_content_type_is_not_demanded() -> None:
    assert answer_to(headers={"content-type": "text/plain"}).status == 200


def test_the_callers_deadline_reaches_the_call() -> None:
    async def main() -> None:
        gateway = FakeGateway()
        await ask(make_app(gateway), headers={"x-request-timeout-ms": "1500"})
        assert gateway.calls[0][0].timeout == 1.5

    virtual.run(main)


def test_a_stream_is_passed_on_piece_by_piece() -> None:
    async def main() -> None:
        pieces = Pieces(b"data: 1\n\n", b"data: [DONE]\n\n")

        async def stream(call: Call) -> Reply:
            return Reply(200, [(b"content-type", b"text/event-stream")], stream=pieces)

        answer = await ask(make_app(FakeGateway(stream)))
        assert [message.get("body") for message in answer.messages[1:]] == [b"data: 1\n\n", b"data: [DONE]\n\n", b""]
        assert answer.complete
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert "content-length" not in answer.headers
        assert pieces.closed

    virtual.run(main)


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_of", "status", "code"),
    [
        ({"path": "/v1/nothing"}, 404, "unknown_path"),
        ({"path": "/v1/chat/completions", "method": "GET"}, 405, "method_not_allowed"),
        ({"key": None}, 401, "invalid_api_key"),
        ({"key": "wrong"}, 401, "invalid_api_key"),
        ({"host": "evil.example"}, 421, "wrong_host"),
        ({"host": None}, 421, "wrong_host"),
        ({"headers": [(b"host", b"localhost"), (b"host", b"evil.example")], "host": None}, 421, "wrong_host"),
        ({"headers": {"origin": "https://evil.example"}}, 403, "route_not_allowed"),
        ({"headers": {"content-encoding": "gzip"}}, 415, "unsupported_encoding"),
        ({"headers": {"x-filler": "x" * 33_000}}, 431, "headers_too_large"),
        ({"headers": {"content-length": "33554433"}}, 413, "too_large"),
        ({"headers": {"content-length": "9" * 4000}}, 413, "too_large"),
        ({"body": b"{"}, 400, "bad_request"),
        ({"body": b'{"messages": [{"role": "user", "content": "Hi"}]}'}, 400, "bad_request"),
        ({"body": b'{"model": "m", "messages": []}'}, 400, "bad_request"),
        ({"path": "/v1/models/groq/nothing", "method": "GET", "body": b""}, 404, "model_not_found"),
    ],
)
def test_a_refusal_has_status_code_and_id(request_of: dict[str, Any], status: int, code: str) -> None:
    answer = answer_to(**request_of)
    error = answer.json["error"]
    assert (answer.status, error["code"]) == (status, code)
    assert set(error) >= {"message", "type", "param", "code", "keyturn"}
    assert error["keyturn"]["call"] == answer.headers["x-keyturn-call"] == answer.headers["x-request-id"]
    assert answer.complete
    assert KEY not in answer.body.decode()


def test_a_refusal_is_told_to_telemetry() -> None:
    async def main() -> None:
        gateway = FakeGateway()
        answer = await ask(make_app(gateway), body=b"{")
        (event,) = gateway.ended
        assert event.call is None
        assert (event.trail.status, event.trail.code) == (400, "bad_request")
        assert event.trail.call == answer.headers["x-keyturn-call"]
        assert event.trail.refusals == [answer.json["error"]["message"]]

    virtual.run(main)


def test_identity_is_no_compression() -> None:
    assert answer_to(headers={"content-encoding": "identity"}).status == 200


def test_401_says_which_scheme_and_405_which_methods() -> None:
    assert answer_to(key=None).headers["www-authenticate"] == "Bearer"
    assert answer_to("/v1/models", "DELETE").headers["allow"] == "GET, HEAD"


def test_a_body_announced_too_large_is_refused_before_a_byte_is_read() -> None:
    async def main() -> None:
        client = Client(make_app(FakeGateway()), headers={"content-length": "33554433"})
        await client.start()
        assert client.answer.status == 413
        assert client.received == 0

    virtual.run(main)


def test_a_body_that_grows_too_large_is_refused_at_once() -> None:
    async def main() -> None:
        client = Client(make_app(FakeGateway(max_body=1000)), body=[b"x" * 600] * 5)
        await client.start()
        assert client.answer.status == 413
        assert client.received == 2

    virtual.run(main)


def test_an_error_of_ours_never_shows_what_went_wrong_inside(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(call: Call) -> Reply:
        raise RuntimeError("a bug, with gsk_planted_secret_of_groq_1")

    async def main() -> Answer:
        return await ask(make_app(FakeGateway(broken)))

    with caplog.at_level(logging.ERROR):
        answer = virtual.run(main)
    assert (answer.status, answer.code) == (500, "internal_error")
    assert "bug" not in answer.body.decode()
    assert answer.headers["x-keyturn-call"] in caplog.text


def test_a_stream_that_breaks_inside_is_left_incomplete_never_ended_well(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        pieces = Pieces(b"data: 1\n\n", RuntimeError("a bug"))

        async def stream(call: Call) -> Reply:
            return Reply(200, [], stream=pieces)

        answer = await ask(make_app(FakeGateway(stream)))
        assert answer.body == b"data: 1\n\n"
        assert not answer.complete
        assert pieces.closed

    with caplog.at_level(logging.ERROR):
        virtual.run(main)
    assert "a bug" in caplog.text


# --- pages ----------------------------------------------------------------------------------------------------------


def test_models_are_listed_as_the_sdk_reads_them() -> None:
    body = get("/v1/models").json
    assert body["object"] == "list"
    assert [row["id"] for row in body["data"]] == ["groq/llama-3.1-8b-instant", "openrouter/deepseek/r1:free"]


def test_one_model_may_be_asked_for_by_an_id_with_slashes() -> None:
    assert get("/v1/models/openrouter/deepseek/r1:free").json["id"] == "openrouter/deepseek/r1:free"


@pytest.mark.parametrize("name", ["llama-3.1-8b-instant", "GROQ/llama-3.1-8b-instant"])
def test_one_model_may_be_asked_for_by_every_name_that_a_call_may_use(name: str) -> None:
    assert get(f"/v1/models/{name}").json["owned_by"] == "groq"


@pytest.mark.parametrize("name", ["groq/llama-3.1-8b-instan", "llama-3.1-8b-instan", "groq%2Fllama-3.1-8b"])
def test_an_unknown_model_is_told_the_nearest_names(name: str) -> None:
    answer = get(f"/v1/models/{name}")
    assert "nearest: groq/llama-3.1-8b-instant" in answer.json["error"]["message"]


def test_home_and_health_are_open_to_everybody() -> None:
    for path in ("/", "/healthz", "/readyz"):
        answer = get(path, key=None, peer=REMOTE)
        assert answer.status == 200
        assert "groq" not in answer.body.decode()
    assert get("/", key=None).json["name"] == "keyturn"


@pytest.mark.parametrize("path", ["/v1/models", "/v1/providers", "/v1/models/groq/x"])
def test_pages_about_the_pool_need_the_caller_key(path: str) -> None:
    assert get(path, key=None).status == 401


def test_head_is_answered_like_get_without_a_body() -> None:
    whole, head = get("/v1/models"), answer_to("/v1/models", "HEAD", body=b"")
    assert head.body == b""
    assert head.headers["content-length"] == whole.headers["content-length"]


def test_readiness_ends_with_draining() -> None:
    async def main() -> Answer:
        gateway = FakeGateway()
        gateway.drain()
        return await ask(make_app(gateway), "/readyz", "GET", key=None)

    answer = virtual.run(main)
    assert (answer.status, answer.json["status"]) == (503, "shutting down")


def test_metrics_are_in_prometheus_format() -> None:
    answer = get("/metrics", key=None, peer=LOCAL)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert get("/metrics", key=None, peer=REMOTE).status == 401


# --- clients that leave ---------------------------------------------------------------------------------------------


def test_a_client_that_leaves_while_its_call_waits_cancels_it_within_250_ms() -> None:
    async def main() -> None:
        async def never(call: Call) -> Reply:
            await asyncio.Event().wait()
            raise AssertionError

        gateway = FakeGateway(never)
        client = Client(make_app(gateway))
        task = client.start()
        clock = virtual.VirtualClock()
        await clock.sleep_until(clock.mono() + 10.0)
        client.leave()
        left = clock.mono()
        await task
        assert clock.mono() - left <= 0.25
        assert gateway.cancelled == 1
        assert client.sent == []

    virtual.run(main)


def test_a_client_that_leaves_at_once_cancels_its_call_within_250_ms() -> None:
    async def main() -> None:
        async def never(call: Call) -> Reply:
            await asyncio.Event().wait()
            raise AssertionError

        gateway = FakeGateway(never)
        client = Client(make_app(gateway))
        client.leave()
        clock = virtual.VirtualClock()
        began = clock.mono()
        await client.start()
        assert clock.mono() - began <= 0.25
        assert gateway.cancelled == 1

    virtual.run(main)


def test_a_client_that_leaves_mid_stream_closes_the_stream_within_250_ms() -> None:
    async def main() -> None:
        stuck: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        pieces = Pieces(b"data: 1\n\n", stuck)

        async def stream(call: Call) -> Reply:
            return Reply(200, [], stream=pieces)

        client = Client(make_app(FakeGateway(stream)))
        task = client.start()
        clock = virtual.VirtualClock()
        await clock.sleep_until(clock.mono() + 5.0)
        client.leave()
        left = clock.mono()
        await task
        assert clock.mono() - left <= 0.25
        assert pieces.closed
        assert not client.answer.complete

    virtual.run(main)


def test_a_client_that_leaves_while_it_sends_is_nobodys_call() -> None:
    async def main() -> None:
        gateway = FakeGateway()
        client = Client(make_app(gateway), body=[CHAT[:5], CHAT[5:]])
        client._incoming.pop()
        client.leave()
        await client.start()
        assert gateway.calls == []
        assert client.sent == []

    virtual.run(main)


def test_a_quick_call_costs_no_task_and_no_second_receive() -> None:
    async def main() -> None:
        tasks: list[asyncio.Task[Any]] = []

        async def look(call: Call) -> Reply:
            await asyncio.sleep(0)
            tasks.extend(asyncio.all_tasks())
            return Reply(200, [], b"{}")

        client = Client(make_app(FakeGateway(look)))
        await client.start()
        assert len(tasks) == 2
        assert client.received == 1

    virtual.run(main)


def test_a_cancellation_that_is_not_the_clients_passes_through() -> None:
    async def main() -> None:
        async def never(call: Call) -> Reply:
            await asyncio.Event().wait()
            raise AssertionError

        gateway = FakeGateway(never)
        task = Client(make_app(gateway)).start()
        clock = virtual.VirtualClock()
        await clock.sleep_until(clock.mono() + 1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gateway.cancelled == 1

    virtual.run(main)


# --- the server stops -----------------------------------------------------------------------------------------------


def test_a_call_that_is_stopped_before_its_answer_began_is_told_draining() -> None:
    async def main() -> None:
        async def never(call: Call) -> Reply:
            await asyncio.Event().wait()
            raise AssertionError

        app = make_app(FakeGateway(never))
        client = Client(app)
        task = client.start()
        await virtual.idle()
        app.stopping = True
        task.cancel()
        await task
        assert (client.answer.status, client.answer.code) == (503, "draining")
        assert client.answer.headers["retry-after"] == "1"

    virtual.run(main)


def test_a_stream_that_is_stopped_ends_in_an_error_event_without_done() -> None:
    async def main() -> None:
        stuck: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        pieces = Pieces(b"data: 1\n\n", stuck)

        async def stream(call: Call) -> Reply:
            return Reply(200, [], stream=pieces)

        app = make_app(FakeGateway(stream))
        client = Client(app)
        task = client.start()
        await virtual.idle()
        app.stopping = True
        task.cancel()
        await task
        event = client.answer.body.removeprefix(b"data: 1\n\n")
        assert json.loads(event.removeprefix(b"data: "))["error"]["code"] == "upstream_interrupted"
        assert b"[DONE]" not in client.answer.body
        assert client.answer.complete
        assert pieces.closed

    virtual.run(main)


# --- admin ----------------------------------------------------------------------------------------------------------


def admin(folder: Path, path: str, body: object = None, **more: Any) -> tuple[Answer, FakeGateway]:
    async def main() -> tuple[Answer, FakeGateway]:
        gateway = FakeGateway()
        options: dict[str, Any] = {"key": None, "headers": {"x-keyturn-admin": ADMIN_KEY}, **more}
        raw = b"" if body is None else json.dumps(body).encode()
        method = "GET" if body is None else "POST"
        return await ask(make_app(gateway, folder), path, method, body=raw, **options), gateway

    return virtual.run(main)


def test_admin_lists_keys_models_and_status(tmp_path: Path) -> None:
    assert admin(tmp_path, "/admin/keys")[0].json[0]["state"] == "healthy"
    assert admin(tmp_path, "/admin/models")[0].json[0]["provider"] == "groq"
    status = admin(tmp_path, "/admin/status")[0].json
    assert (status["ready"], status["inflight"], status["waiting"]) == (None, 0, 0)


@pytest.mark.parametrize(
    "more",
    [
        {"headers": {}},
        {"headers": {"x-keyturn-admin": KEY}},
        {"headers": {}, "key": KEY},
        {"headers": {}, "key": ADMIN_KEY},
        {"headers": {"x-keyturn-admin": ADMIN_KEY, "x-forwarded-for": "203.0.113.7"}},
        {"peer": REMOTE},
        {"host": "evil.example"},
        {"headers": {"x-keyturn-admin": ADMIN_KEY, "origin": "https://evil.example"}},
    ],
)
def test_admin_is_refused_without_its_own_key_or_from_elsewhere(tmp_path: Path, more: dict[str, Any]) -> None:
    answer, gateway = admin(tmp_path, "/admin/keys/disable", {"key": "groq-1"}, **more)
    assert answer.status in (401, 403, 421)
    assert gateway.changes == []


def test_a_disabled_key_is_remembered_by_identity_and_an_enabled_one_forgotten(tmp_path: Path) -> None:
    answer, gateway = admin(tmp_path, "/admin/keys/disable", {"key": "groq-1"})
    shown = gateway.credential.shown
    assert answer.json == {"keys": [shown]}
    assert gateway.changes == [("disable", "groq-1")]
    remembered = json.loads((tmp_path / "disabled.json").read_bytes())
    assert remembered == {gateway.credential.fingerprint: shown}
    _, gateway = admin(tmp_path, "/admin/keys/enable", {"key": shown})
    assert gateway.changes == [("enable", shown)]
    assert json.loads((tmp_path / "disabled.json").read_bytes()) == {}


def test_reset_takes_one_key_or_all(tmp_path: Path) -> None:
    assert admin(tmp_path, "/admin/keys/reset", {"key": "groq-1"})[1].changes == [("reset", "groq-1")]
    assert admin(tmp_path, "/admin/keys/reset", {})[1].changes == [("reset", None)]


@pytest.mark.parametrize("body", [{}, {"key": "groq-9"}, {"key": 5}, []])
def test_a_key_that_is_not_there_is_told(tmp_path: Path, body: object) -> None:
    answer, gateway = admin(tmp_path, "/admin/keys/disable", body)
    assert (answer.status, answer.code) == (400, "bad_request")
    assert gateway.changes == []


def test_what_cannot_be_remembered_is_not_done(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "disabled.json").mkdir()
    answer, gateway = admin(folder, "/admin/keys/disable", {"key": "groq-1"})
    assert answer.status >= 500
    assert gateway.changes == []


def test_a_question_of_the_owner_that_fails_is_no_call(tmp_path: Path) -> None:
    answer, gateway = admin(tmp_path, "/admin/keys/disable", {"key": "groq-9"})
    assert answer.status == 400
    assert gateway.ended == []
    _, gateway = admin(tmp_path, "/admin/keys/disable", {"key": "groq-1"}, headers={"x-keyturn-admin": "guessed"})
    assert [event.trail.status for event in gateway.ended] == [401], "who may not ask is on record"


def test_errors_of_the_pool_keep_their_status() -> None:
    """Raised by a page, not by a call: a list of models that no provider gives, for instance."""

    async def main() -> Answer:
        gateway = FakeGateway()

        async def models(caller: Caller) -> list[Any]:
            raise BadUpstream("no provider gave its list")

        gateway.models = models  # type: ignore[method-assign]
        return await ask(make_app(gateway), "/v1/models", "GET")

    answer = virtual.run(main)
    assert (answer.status, answer.code) == (502, "bad_upstream")
