"""Answers that are kept and given again: to whom, for how long, and what never is."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from keyturn.core import Caller
from keyturn.dispatch import CallEnded
from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import Answer, World

MODEL = "groq/llama-3.1-8b-instant"
CACHED = {"CACHE_ROUTES": "groq/*"}


def cache_of(answer: Answer) -> str | None:
    return answer.headers.get("x-keyturn-cache")


def ended(world: World) -> list[CallEnded]:
    """The calls that end from now on."""
    found: list[CallEnded] = []
    world.gateway.events.subscribe(lambda event: found.append(event) if isinstance(event, CallEnded) else None)
    return found


@pytest.mark.parametrize("stream", [False, True])
def test_CAC_03_an_identical_call_gets_the_same_answer_and_nobody_is_asked(stream: bool) -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=CACHED, pace=0.01) as world:
            calls = ended(world)
            first = await world.chat(MODEL, stream=stream, tools=[])
            await world.clock.sleep_until(world.clock.mono() + 42.5)
            again = await world.chat(MODEL, stream=stream, tools=[])
            assert (cache_of(first), cache_of(again)) == ("miss", "hit")
            assert again.body == first.body
            assert again.events == first.events
            assert again.headers["content-type"] == first.headers["content-type"]
            assert (again.headers["age"], "age" in first.headers) == ("42", False)
            assert again.headers["x-keyturn-call"] != first.headers["x-keyturn-call"]
            assert again.headers["x-keyturn-key"] == first.headers["x-keyturn-key"]
            assert (first.headers["x-keyturn-attempts"], again.headers["x-keyturn-attempts"]) == ("1", "0")
            assert len(world.seen()) == 1
            assert [call.trail.shared for call in calls] == ["miss", "hit"]
            assert [call.trail.status for call in calls] == [200, 200]
            assert [len(call.trail.attempts) for call in calls] == [1, 0]
            assert calls[1].trail.notes == ["answered from the cache, 42 s old"]

    virtual.run(main)


def test_CAC_03_only_identical_calls_share_and_only_where_it_is_asked_for() -> None:
    async def main() -> None:
        files = {"settings.toml": '[cache]\nroutes = ["groq/llama-3.1*"]\n'}
        async with World({"groq": 1}, files=files) as world:
            variants: list[dict[str, Any]] = [
                {},
                {"text": "Hello!"},
                {"temperature": 0},
                {"user": "somebody"},
                {"stream": True},
                {"stream": True, "stream_options": {"include_usage": True}},
            ]
            for members in (*variants, *variants):
                await world.chat(MODEL, **members)
            assert len(world.seen()) == len(variants)
            other = [await world.chat("groq/llama-3.3-70b-versatile") for _ in range(2)]
            assert [cache_of(answer) for answer in other] == [None, None]
            embedded = {"model": MODEL, "input": "Hello"}
            reordered = {"input": "Hello", "model": MODEL}
            assert cache_of(await world.send("embeddings", embedded)) == "miss"
            assert cache_of(await world.send("embeddings", reordered)) == "hit"

    virtual.run(main)


def test_CAC_03_another_caller_gets_no_answer_but_where_it_is_shared() -> None:
    alice, bob = Caller("alice"), Caller("bob", routes=("groq/*",))

    async def main(scope: str) -> list[str | None]:
        async with World({"groq": 1}, environ={**CACHED, "CACHE_SCOPE": scope}) as world:
            return [cache_of(await world.chat(MODEL, caller=caller)) for caller in (alice, bob, alice, bob)]

    assert virtual.run(lambda: main("caller")) == ["miss", "miss", "hit", "hit"]
    assert virtual.run(lambda: main("shared")) == ["miss", "hit", "hit", "hit"]


def test_CAC_03_who_may_not_ask_for_a_name_gets_no_kept_answer() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={**CACHED, "CACHE_SCOPE": "shared"}) as world:
            assert (await world.chat(MODEL)).status == 200
            refused = await world.chat(MODEL, caller=Caller("carol", routes=("gemini/*",)))
            assert (refused.status, refused.code) == (403, "route_not_allowed")

    virtual.run(main)


def test_CAC_03_answers_expire_and_are_forgotten_with_the_configuration() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={**CACHED, "CACHE_TTL": "60"}) as world:
            await world.chat(MODEL)
            await world.clock.sleep_until(world.clock.mono() + 59)
            assert cache_of(await world.chat(MODEL)) == "hit"
            await world.clock.sleep_until(world.clock.mono() + 2)
            assert cache_of(await world.chat(MODEL)) == "miss"
            sharing = world.gateway.generation.sharing
            assert sharing is not None
            assert sharing.figures()[0] == 1
            world.gateway.adopt(world.config())
            assert sharing.figures() == (0, 0)
            assert cache_of(await world.chat(MODEL)) == "miss"
            world.gateway.adopt(replace(world.config(), cache=None))
            assert cache_of(await world.chat(MODEL)) is None

    virtual.run(main)


FAULTS = {
    "an error": Fault(status=400, times=1),
    "a cut": Fault(does="reset", at_chunk=3, times=1),
    "an early end": Fault(does="end", at_chunk=3, times=1),
}


@pytest.mark.parametrize("together", [{}, {"COALESCE_ROUTES": "*"}], ids=["alone", "coalesced"])
@pytest.mark.parametrize("fault", FAULTS)
def test_CAC_03_what_is_no_whole_answer_is_not_kept(fault: str, together: dict[str, str]) -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=CACHED | together, faults=[FAULTS[fault]]) as world:
            first = await world.chat(MODEL, stream=True)
            assert first.status == 400 or "upstream_interrupted" in first.body.decode()
            assert cache_of(await world.chat(MODEL, stream=True)) == "miss"
            assert cache_of(await world.chat(MODEL, stream=True)) == "hit"

    virtual.run(main)


def test_CAC_03_a_client_that_leaves_leaves_nothing_to_keep() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=CACHED, pace=1.0) as world:
            task = asyncio.create_task(world.chat(MODEL, stream=True))
            await world.clock.sleep_until(world.clock.mono() + 2.5)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert cache_of(await world.chat(MODEL, stream=True)) == "miss"
            replayed = asyncio.create_task(world.chat(MODEL, stream=True))
            assert cache_of(await replayed) == "hit"

    virtual.run(main)


def test_CAC_03_a_client_may_refuse_kept_answers_and_to_be_kept() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=CACHED) as world:
            body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}

            async def asked(said: str) -> str | None:
                return cache_of(await world.send("chat", body, headers={"cache-control": said}))

            assert await asked("no-store") == "miss"
            assert await asked("max-age=0") == "miss"
            assert await asked("No-Cache") == "miss"
            assert await asked("no-store") == "hit"
            assert len(world.seen()) == 3
            assert all("cache-control" not in each.headers for each in world.seen())

    virtual.run(main)


def test_CAC_03_a_kept_answer_costs_no_limit_of_anybody() -> None:
    async def main() -> None:
        environ = {**CACHED, "LIMITS_GROQ": "rpm=1"}
        files = {"callers.yaml": f"bob: {{ key_hash: 'sha256:{'0' * 64}', rpm: 1 }}\n"}
        async with World({"groq": 1}, environ=environ, files=files) as world:
            (bob,) = world.gateway.config.callers.values()
            for _ in range(5):
                assert (await world.chat(MODEL, caller=bob)).status == 200
            assert (await world.chat(MODEL, caller=bob, text="Else")).code == "caller_limit"

    virtual.run(main)


def test_CAC_03_every_dialect_in_its_own_words() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=CACHED) as world:
            message = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
            prompt = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
            doors: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
                ("messages", message, {"headers": {"anthropic-version": "2023-06-01"}}),
                ("messages", {**message, "stream": True}, {}),
                ("responses", {"model": MODEL, "input": "Hello", "stream": True, "store": False}, {}),
                ("gemini", prompt, {"argument": f"{MODEL}:streamGenerateContent"}),
                ("gemini", prompt, {"argument": f"{MODEL}:streamGenerateContent", "query": "alt=sse"}),
            ]
            for door, body, more in doors:
                first, again = [await world.send(door, body, **more) for _ in range(2)]
                assert (first.status, cache_of(first), cache_of(again)) == (200, "miss", "hit"), first.body
                assert again.body == first.body
                if door == "messages":
                    assert again.headers["request-id"] == again.headers["x-keyturn-call"]
            assert len(world.seen()) == len(doors)

    virtual.run(main)


def test_CAC_03_the_cache_is_bounded_and_large_answers_are_not_kept() -> None:
    async def main() -> None:
        environ = {**CACHED, "CACHE_MAX_ENTRIES": "2", "CACHE_MAX_ANSWER": "4000"}
        async with World({"groq": 1}, environ=environ) as world:
            for text in ("one", "two", "one", "three"):
                await world.chat(MODEL, text=text)
            assert cache_of(await world.chat(MODEL, text="one")) == "hit"
            assert cache_of(await world.chat(MODEL, text="two")) == "miss"
            long = [await world.chat(MODEL, text="long " * 800, stream=stream) for stream in (True, True, False, False)]
            sizes = [len(answer.body) for answer in long]
            assert [cache_of(answer) for answer in long] == [
                "miss" if size > 2976 or number in (0, 2) else "hit" for number, size in enumerate(sizes)
            ]

    virtual.run(main)


def test_CAC_03_a_kept_stream_is_one_that_a_client_can_leave() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ=CACHED) as world:
            await world.chat(MODEL, stream=True)
            calls = ended(world)
            body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "stream": True})
            reply = await _handled(world, body)
            reply.close()
            reply.close()
            assert [(call.trail.status, call.trail.code) for call in calls] == [(499, "client_left")]
            assert world.gateway.inflight == 0

    async def _handled(world: World, body: str) -> Any:
        from keyturn.dispatch import new_id, read_call

        call = read_call("chat", body.encode(), {})
        return await world.gateway.handle(call, world.gateway.config.default_caller, new_id(world.clock.wall()))

    virtual.run(main)
