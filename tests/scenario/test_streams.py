"""Streams: invisible failover before the first content, an honest end after it."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

from keyturn.core import Caller
from keyturn.dispatch import new_id, read_call
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import Answer, World

LLAMA = "groq/llama-3.1-8b-instant"
WHOLE = "This is the Keyturn simulator (groq/llama-3.1-8b-instant): … You said: Hello"
Story = Callable[[World], Coroutine[Any, Any, None]]


def play(story: Story, pool: dict[str, Any], **options: Any) -> None:
    async def main() -> None:
        async with World(pool, **options) as world:
            await story(world)

    virtual.run(main)


def assert_cut(answer: Answer) -> None:
    """The stream ends with one error event: no finish reason and no `[DONE]` were made up."""
    assert answer.status == 200
    assert "[DONE]" not in answer.events
    last = json.loads(answer.events[-1])
    assert last["error"]["code"] == "upstream_interrupted"
    for event in answer.events[:-1]:
        assert all(choice["finish_reason"] is None for choice in json.loads(event)["choices"])


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, times=1),
        Fault(does="reset", times=1),
        Fault(does="reset", at_chunk=0, times=1),
        Fault(does="end", at_chunk=0, times=1),
        Fault(does="end", at_chunk=1, times=1),
        Fault(error="overloaded", at_chunk=0, times=1),
        Fault(error="server_error", at_chunk=1, times=1),
        Fault(does="reset", at_chunk=0, inside="event", times=1),
        Fault(quirks=frozenset({"html"}), times=1),
        Fault(status=429, times=1),
    ],
)
def test_STR_05_failover_before_the_first_content_is_invisible(fault: Fault) -> None:
    async def story(world: World) -> None:
        answer = await world.chat("llama-shared", stream=True)
        assert answer.status == 200
        assert answer.text.endswith("Hello")
        assert answer.text.count("This is") == 1
        assert answer.events[-1] == "[DONE]"
        assert answer.headers["x-keyturn-attempts"] == "2"

    models = {"groq": ["llama-shared"], "together": ["llama-shared"]}
    play(story, {"groq": 2, "together": 2}, models=models, faults=[replace(fault, kind="chat")])


@pytest.mark.parametrize("does", ["reset", "end"])
@pytest.mark.parametrize("inside", ["", "event", "character"])
@pytest.mark.parametrize("chunk", [2, 5, 7])
def test_a_cut_after_output_ends_in_an_error_event(does: Any, inside: Any, chunk: int) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA, stream=True)
        assert_cut(answer)
        assert len(world.seen()) == 1
        body = b"".join(answer.chunks).decode()
        assert body.endswith("\n\n")

    play(story, {"groq": 3}, faults=[Fault(does=does, at_chunk=chunk, inside=inside)])


@pytest.mark.parametrize("position", range(120, 900, 60))
def test_a_cut_at_any_byte_is_never_silent(position: int) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA, stream=True)
        if answer.status != 200:
            assert answer.code == "bad_upstream"
        elif answer.events[-1] != "[DONE]":
            assert_cut(answer)
        else:
            assert answer.text == WHOLE

    play(story, {"groq": 3}, faults=[Fault(does="end", at_byte=position)])


def test_an_error_event_after_output_is_told_without_the_upstreams_key() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA, stream=True)
        assert_cut(answer)
        assert "secret-key" not in answer.body.decode()

    fault = Fault(error="invalid_key", at_chunk=3, quirks=frozenset({"echo_key"}))
    play(story, {"groq": 3}, faults=[fault], pace=0.1)


@pytest.mark.parametrize("quirk", ["bytewise", "crlf", "pings", "no_usage"])
def test_STR_01_whatever_the_chunking_the_text_arrives(quirk: str) -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA, stream=True)
        assert answer.text == WHOLE
        assert answer.events[-1] == "[DONE]"

    play(story, {"groq": 1}, faults=[Fault(quirks=frozenset({quirk}))])


def test_a_stream_without_done_but_with_a_finish_is_complete() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA, stream=True)
        assert answer.text == WHOLE
        assert json.loads(answer.events[-1]).get("error") is None

    play(story, {"groq": 1}, faults=[Fault(quirks=frozenset({"no_done"}))])


def test_pings_alone_are_not_content() -> None:
    async def story(world: World) -> None:
        began = world.clock.mono()
        answer = await world.chat(LLAMA, stream=True)
        assert answer.text == WHOLE
        assert world.clock.mono() - began == pytest.approx(60.0, abs=1.5)

    play(story, {"groq": 2}, faults=[Fault(quirks=frozenset({"pings_only"}), times=1)])


def test_STR_11_silence_after_output_is_a_cut() -> None:
    async def story(world: World) -> None:
        began = world.clock.mono()
        answer = await world.chat(LLAMA, stream=True)
        assert_cut(answer)
        assert world.clock.mono() - began == pytest.approx(120.0, abs=0.1)

    play(story, {"groq": 2}, faults=[Fault(does="hang", at_chunk=3)])


def test_the_calls_deadline_ends_a_stream_with_an_error_event() -> None:
    async def story(world: World) -> None:
        answer = await world.chat(LLAMA, stream=True, timeout=3.0)
        assert_cut(answer)
        assert {row["state"] for row in world.gateway.keys()} == {"healthy"}

    play(story, {"groq": 2}, pace=1.0)


def test_STR_02_usage_is_read_though_the_client_did_not_ask_and_does_not_see_it() -> None:
    async def story(world: World) -> None:
        answer = await world.chat("openai/gpt-4o", stream=True)
        assert not any(json.loads(event).get("usage") for event in answer.events[:-1])
        asked = await world.chat("openai/gpt-4o", stream=True, stream_options={"include_usage": True})
        assert json.loads(asked.events[-2])["usage"]["total_tokens"] > 0
        rows: Any = world.gateway.keys()[0]["limits"]
        tokens = [row for row in rows if row["metric"] == "tokens"]
        told = [each.input_tokens + each.output_tokens for each in world.seen()]
        assert [row["used"] for row in tokens] == [sum(told)]

    play(story, {"openai": 1}, environ={"LIMITS_OPENAI": "tpm=100000"})


@pytest.mark.parametrize("after", [0, 1, 3])
def test_STR_07_a_client_that_leaves_closes_the_upstream_at_once(after: int) -> None:
    async def story(world: World) -> None:
        body = {"model": LLAMA, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        call = read_call("chat", json.dumps(body).encode(), {})
        reply = await world.gateway.handle(call, Caller(), new_id(world.clock.wall()))
        assert reply.stream is not None
        for _ in range(after):
            await anext(reply.stream)
        left = world.clock.mono()
        reply.close()
        reply.close()
        await virtual.idle()
        assert [each.result for each in world.seen()] == ["cancelled"]
        assert world.seen()[0].ended - left <= 0.25
        assert world.held() == 0

    play(story, {"groq": 1}, pace=1.0)
