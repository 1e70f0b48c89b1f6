"""What reviewers found in the doors and translations: ways around gates, bodies for somebody else, late errors."""

from __future__ import annotations

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from keyturn.config import Options, load
from keyturn.dispatch import build, new_id, read_call
from keyturn.dispatch.counting import count
from keyturn.errors import BadRequest, UnknownPath
from keyturn.server.paths import find
from keyturn.simulator import Fault
from tests.scenario.shapes import ask, assert_whole, body, play
from tests.scenario.test_callers import callers, named
from tests.support import virtual
from tests.support.raw_upstream import RawUpstream, says, streamed
from tests.support.world import Answer, World

PAID = "provider_routes: [{ id: g25, provider: gemini, model: gemini-2.5-pro, is_paid: true }]"


@pytest.mark.parametrize(
    "rest",
    [
        "%2e%2e/fine_tuning/jobs",
        "..%2F..%2Fadmin",
        "x%3Fa=1",
        "%23frag",
        "a%20HTTP/1.1%0d%0aX:%201",
        "caf%C3%A9",
        "edit",
    ],
)
@pytest.mark.parametrize("kind", ["images", "audio"])
def test_only_known_operations_reach_an_upstream(kind: str, rest: str) -> None:
    with pytest.raises(UnknownPath):
        find(f"/v1/{kind}/{rest}".encode())
    with pytest.raises(BadRequest, match="there are"):
        read_call(kind, b'{"model":"openai/x"}', {}, rest)


@pytest.mark.parametrize(
    "model",
    ["gemini-2.5-pro", "models/gemini-2.5-pro", "models/models/gemini-2.5-pro", "./gemini-2.5-pro", "GEMINI-2.5-PRO"],
)
def test_no_spelling_of_a_model_goes_round_the_paid_gate(model: str) -> None:
    async def story() -> None:
        async with World({"gemini": 1}, files={"models.yaml": PAID}) as world:
            asked = {"model": f"gemini/{model}", "messages": [{"role": "user", "content": "Hi"}]}
            try:
                status = (await world.send("chat", asked)).status
            except BadRequest:
                status = 400
            assert status == 400
            assert not world.seen()

    virtual.run(story)


def test_who_counts_in_another_dialect_is_not_sent_this_one() -> None:
    roles = "  team: { model_chain: ['anthropic/claude-sonnet-4-5', 'gemini/gemini-2.5-flash'] }"

    async def story(world: World) -> None:
        given = {**body("anthropic", "team", "Hello " * 50), "model": "team"}
        given.pop("max_tokens")
        call = read_call("count_tokens", json.dumps(given).encode(), {})
        reply = await count(world.gateway, call, world.gateway.config.default_caller, new_id(world.clock.wall()))
        answer = Answer(reply, [])
        assert answer.status == 200, answer.body
        assert answer.headers["x-keyturn-estimated"] == "true"
        assert {each.provider for each in world.seen()} == {"anthropic"}

    play(story, roles=roles, faults=[Fault(provider="anthropic", status=503)])


def test_a_request_that_counts_names_the_model_of_the_upstream_only() -> None:
    async def story(world: World) -> None:
        inner = {"model": "models/gemini/gemini-3-pro", "contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}
        call = read_call(
            "gemini", json.dumps({"generateContentRequest": inner}).encode(), {}, "gemini/gemini-3-pro:countTokens"
        )
        await count(world.gateway, call, world.gateway.config.default_caller, new_id(world.clock.wall()))
        sent = json.loads(world.seen()[0].body)
        assert sent["generateContentRequest"] == {**inner, "model": "models/gemini-3-pro"}

    play(story)


def served(door: str, asked: dict[str, Any], argument: str, chunks: list[bytes], *, hangs: bool = False) -> bytes:
    """The bytes of the stream that a client at *door* gets from an upstream that says *chunks*."""

    async def main() -> bytes:
        upstream = says(*streamed(*chunks, end=not hangs), then="hang") if hangs else says(*streamed(*chunks))
        async with RawUpstream(upstream) as raw:
            with tempfile.TemporaryDirectory() as place:
                keys = {"GROQ_API_KEY": "k", "GROQ_API_BASE": raw.url}
                keys |= {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_API_BASE": raw.url}
                config = load(keys, cwd=Path(place), options=Options(data=Path("/nonexistent/data")))
            gateway = build(config)
            call = read_call(door, json.dumps(asked).encode(), {}, argument)
            reply = await gateway.handle(call, config.default_caller, "019cae6b-6600-710f-825e-941c9b5250dc")
            assert reply.stream is not None, reply.body
            try:
                return await asyncio.wait_for(_all(reply.stream), 5)
            finally:
                reply.close()
                await gateway.close()

    return asyncio.run(main())


async def _all(stream: Any) -> bytes:
    return b"".join([piece async for piece in stream])


@pytest.mark.parametrize("door", ["chat", "messages"])
def test_an_error_that_comes_with_content_is_told_at_once(door: str) -> None:
    """Also while the upstream keeps the connection open."""
    first = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    both = first + b'data: {"error":{"message":"boom"}}\n\n'
    asked = {"model": "groq/llama", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "x"}]}
    told = served(door, asked, "", [first, both], hangs=True)
    assert b"boom" in told
    assert told.count(b'"a"') == 2


def test_a_cut_array_is_json_whatever_came_before() -> None:
    events = [
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":1}}}\n\n',
        b'event: ping\ndata: {"type":"ping"}\n\n',
        b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"tool_use",'
        b'"id":"t","name":"f","input":{}}}\n\n',
        b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n',
    ]
    asked = {"contents": [{"parts": [{"text": "x"}]}]}
    told = served("gemini", asked, "anthropic/claude-opus-4-6:streamGenerateContent", events)
    (error,) = json.loads(told)
    assert "busy" in error["error"]["message"]


@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic", "gemini", "openai_responses"])
def test_a_prompt_that_is_too_long_is_told_so_although_other_keys_are_dead(dialect: str) -> None:
    """Who has no usable key says nothing of the request."""
    roles = "  dev: { model_chain: ['anthropic/claude-sonnet-4-5', 'openai/gpt-4o', 'groq/llama-3.3-70b-versatile'] }"
    faults = [Fault(provider="anthropic", error="invalid_key"), Fault(error="context_length")]

    async def story(world: World) -> None:
        for _ in range(2):
            answer = await ask(world, dialect, "dev", body(dialect, "dev"))
            assert answer.status == 400, answer.body

    play(story, {"anthropic": 1, "openai": 1, "groq": 1}, roles=roles, faults=faults)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", ["openai_chat", "anthropic", "gemini", "openai_responses"])
def test_an_answer_without_words_is_an_answer_to_all(dialect: str, stream: bool) -> None:
    async def story(world: World) -> None:
        model = "anthropic/claude-sonnet-4-5"
        answer = await ask(world, dialect, model, body(dialect, model), stream=stream)
        assert answer.status == 200, answer.body
        if stream:
            assert_whole(dialect, answer)

    play(story, {"anthropic": 1}, faults=[Fault(quirks=frozenset({"empty"}))])


def test_counting_takes_nothing_of_a_quota() -> None:
    async def story(world: World) -> None:
        given = body("gemini", "gemini/gemini-2.5-flash")
        for _ in range(5):
            call = read_call("gemini", json.dumps(given).encode(), {}, "gemini/gemini-2.5-flash:countTokens")
            reply = await count(world.gateway, call, world.gateway.config.default_caller, new_id(world.clock.wall()))
            assert "x-keyturn-estimated" not in Answer(reply, []).headers
        assert (await ask(world, "gemini", "gemini/gemini-2.5-flash", given)).status == 200

    play(story, {"gemini": 1}, environ={"LIMITS_GEMINI": "rpm=1"})


@pytest.mark.parametrize("method", ["batchGenerateContent", "predict", "generateAnswer"])
def test_a_method_of_gemini_that_is_not_served_is_unknown(method: str) -> None:
    endpoint, argument = find(f"/v1beta/models/dev:{method}".encode())
    with pytest.raises(UnknownPath, match="streamGenerateContent"):
        endpoint.check_method("POST", argument)
    assert find(b"/v1/models/deepseek/r1:free")[0].check_method("GET", "deepseek/r1:free") is None


def test_counting_is_a_request_of_its_caller_all_the_same() -> None:
    """Beyond the caller's own limit nobody is asked, and the answer is an estimate."""

    async def story() -> None:
        async with World({"gemini": 1}, files={"callers.yaml": callers({"ci": "rpm: 2"})}) as world:
            asked = json.dumps(body("gemini", "gemini/gemini-2.5-flash")).encode()
            for number in range(4):
                call = read_call("gemini", asked, {}, "gemini/gemini-2.5-flash:countTokens")
                reply = await count(world.gateway, call, named(world, "ci"), new_id(world.clock.wall()))
                assert ("x-keyturn-estimated" in Answer(reply, []).headers) == (number > 1)
            assert len(world.seen()) == 2

    virtual.run(story)
