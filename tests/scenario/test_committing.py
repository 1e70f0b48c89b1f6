"""Streams that begin before anybody has answered: comments, then the answer or the error; a client may leave at any
moment."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from keyturn.dispatch import Reply, new_id, read_call
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import World

MODEL = "groq/llama-3.1-8b-instant"
AFTER = {"STREAM_COMMIT_AFTER": "2"}
ASKED = {"messages": [{"role": "user", "content": "Hello"}]}
CHAT = ("chat", {"model": MODEL, "stream": True, **ASKED}, "")
DOORS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": CHAT,
    "responses": ("responses", {"model": MODEL, "stream": True, "input": "Hello"}, ""),
    "anthropic": ("messages", {"model": MODEL, "stream": True, "max_tokens": 50, **ASKED}, ""),
    "gemini": ("gemini", {"contents": [{"parts": [{"text": "Hello"}]}]}, f"{MODEL}:streamGenerateContent"),
}
ENDS = {"chat": "data: [DONE]", "responses": "response.completed", "anthropic": "message_stop", "gemini": "STOP"}


async def begin(world: World, door: str, **headers: str) -> Reply:
    name, body, argument = DOORS[door]
    told = {key.replace("_", "-"): value for key, value in headers.items()}
    query = "" if told.pop("array", "") else "alt=sse"
    call = read_call(name, json.dumps(body).encode(), told, argument, query)
    return await world.gateway.handle(call, world.gateway.config.default_caller, new_id(world.clock.wall()))


async def read(reply: Reply) -> str:
    assert reply.stream is not None
    try:
        return b"".join([piece async for piece in reply.stream]).decode()
    finally:
        reply.close()


@pytest.mark.parametrize("door", DOORS)
def test_a_stream_that_waits_says_so_and_is_answered_all_the_same(door: str) -> None:
    async def main() -> None:
        environ = AFTER | {"LIMITS_GROQ": "concurrency=1"}
        async with World({"groq": 1}, environ=environ, latency=12.0) as world:
            running = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            began = world.clock.mono()
            reply = await begin(world, door)
            assert world.clock.mono() - began == pytest.approx(2)
            assert (reply.status, dict(reply.headers)[b"content-type"]) == (200, b"text/event-stream; charset=utf-8")
            assert b"x-keyturn-call" in dict(reply.headers)
            assert b"x-keyturn-key" not in dict(reply.headers)
            text = await read(reply)
            if door == "gemini":  # its SDK fails on comments
                assert text.startswith("\r\n\r\n\r\n")
                assert ": keyturn" not in text
            else:
                assert text.startswith(": keyturn waiting, position 1\n\n: keyturn waiting, position 1\n\n")
                assert ": keyturn working\n\n" in text
            assert ENDS[door] in text
            assert "event: error" not in text
            await running
            trail = next(reversed(world.gateway.recent.values()))
            assert (trail.status, trail.code, trail.position) == (200, "", 1)
            assert 9.9 < trail.waited < 12.1

    virtual.run(main)


def test_a_comment_says_about_how_long_it_will_be() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "rpm=2"}) as world:
            await world.many(MODEL, 2)
            await world.clock.sleep_until(world.clock.mono() + 45)
            reply = await begin(world, "chat", x_keyturn_commit_after="1")
            lines = [line for line in (await read(reply)).splitlines() if line.startswith(":")]
            assert lines[0] in (
                ": keyturn waiting, position 1, about 15 s",
                ": keyturn waiting, position 1, about 14 s",
            )
            assert ": keyturn waiting, position 1, about 5 s" in lines

    virtual.run(main)


@pytest.mark.parametrize("door", DOORS)
def test_a_call_that_fails_after_that_ends_with_its_error(door: str) -> None:
    async def main() -> None:
        environ = AFTER | {"LIMITS_GROQ": "concurrency=1", "TIMEOUT_QUEUE_WAIT": "8"}
        async with World({"groq": 1}, environ=environ, latency=60.0) as world:
            running = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            text = await read(await begin(world, door))
            assert text.startswith("\r\n" if door == "gemini" else ": keyturn waiting")
            last = text.rstrip().split("\n\n")[-1].replace("\r", "")
            assert "capacity" in last.lower() or "RESOURCE_EXHAUSTED" in last
            assert ENDS[door] not in text
            trail = next(reversed(world.gateway.recent.values()))
            assert (trail.status, trail.code) == (200, "capacity")
            assert world.gateway.room.refused == {("normal", "late"): 1}
            await running

    virtual.run(main)


def test_the_upstreams_own_refusal_becomes_an_event_too() -> None:
    async def main() -> None:
        fault = Fault(status=400, latency=5.0)
        async with World({"groq": 1}, environ=AFTER, faults=[fault]) as world:
            text = await read(await begin(world, "anthropic"))
            assert text.startswith(": keyturn working\n\n")
            assert text.rstrip().split("\n\n")[-1].startswith("event: error\n")
            assert "message_stop" not in text

    virtual.run(main)


def test_what_comes_in_time_is_as_it_is_without() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=AFTER, latency=1.0) as world:
            reply = await begin(world, "chat")
            assert b"x-keyturn-key" in dict(reply.headers)
            assert (await read(reply)).startswith("data: ")
            assert world.gateway.adapting.early == set()

    virtual.run(main)


@pytest.mark.parametrize(("door", "headers"), [("gemini", {"array": "1"}), ("chat", {"x_keyturn_commit_after": "off"})])
def test_who_cannot_read_comments_or_does_not_want_them_gets_none(door: str, headers: dict[str, str]) -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=AFTER, latency=5.0) as world:
            reply = await begin(world, door, **headers)
            assert b"x-keyturn-key" in dict(reply.headers)
            assert "keyturn working" not in await read(reply)

    virtual.run(main)


def test_a_header_that_is_no_number_is_a_mistake() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            for text in ("-1", "soon", "nan"):
                with pytest.raises(Exception, match="x-keyturn-commit-after"):
                    await begin(world, "chat", x_keyturn_commit_after=text)

    virtual.run(main)


@pytest.mark.parametrize("seconds", [0.0, 1.0, 2.0, 3.0, 7.0, 12.0, 12.5, 23.9, 24.0, 24.5])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5])
def test_a_client_may_leave_at_any_moment(seconds: float, turns: int) -> None:
    """While it waits, in the moment of the early 200, while it reads comments, while the upstream answers."""

    async def main() -> None:
        environ = AFTER | {"LIMITS_GROQ": "concurrency=1"}
        async with World({"groq": 1}, environ=environ, latency=12.0) as world:
            running = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()

            async def client() -> None:
                await read(await begin(world, "chat"))

            leaving = asyncio.create_task(client())
            await world.clock.sleep_until(world.clock.mono() + seconds)
            for _ in range(turns):
                await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            await virtual.idle()
            assert world.gateway.room.waiting == 0
            assert world.gateway.adapting.early == set()
            assert (await running).status == 200
            assert world.held() == world.gateway.inflight == 0
            assert (await world.chat(MODEL)).status == 200

    virtual.run(main)


def test_a_gateway_that_closes_ends_what_waits() -> None:
    async def main() -> None:
        environ = AFTER | {"LIMITS_GROQ": "concurrency=1"}
        async with World({"groq": 1}, environ=environ, latency=50.0) as world:
            first = await begin(world, "chat")
            second = await begin(world, "chat")
            await world.gateway.close()
            assert world.gateway.adapting.early == set()
            assert "draining" in await read(first)
            assert "draining" in await read(second)

    virtual.run(main)
