"""Calls that wait: first in, first out, nobody overtakes, a full room says so."""

from __future__ import annotations

import asyncio

import pytest

from tests.support import virtual
from tests.support.world import World

MODEL = "groq/llama-3.1-8b-instant"


def test_first_in_first_out() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "concurrency=1"}, latency=1.0) as world:
            order: list[int] = []

            async def one(number: int) -> None:
                await world.chat(MODEL)
                order.append(number)

            tasks = []
            for number in range(10):
                tasks.append(asyncio.create_task(one(number)))
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
            assert order == list(range(10))

    virtual.run(main)


def test_a_newcomer_does_not_overtake_a_larger_call() -> None:
    async def main() -> None:
        environ = {"LIMITS_GROQ": "tpm=4000"}
        async with World({"groq": 1}, environ=environ) as world:
            for _ in range(3):
                await world.chat(MODEL, text="x" * 2000, max_tokens=100)
            await world.clock.sleep_until(world.clock.mono() + 50)
            order: list[str] = []

            async def one(name: str, size: int) -> None:
                answer = await world.chat(MODEL, text="x" * size, max_tokens=10)
                assert answer.status == 200
                order.append(name)

            large = asyncio.create_task(one("large", 12_000))
            await virtual.idle()
            assert world.gateway.room.waiting == 1
            await asyncio.gather(large, one("small", 10))
            assert order == ["large", "small"]

    virtual.run(main)


def test_nothing_waits_while_another_provider_is_free() -> None:
    async def main() -> None:
        models = {"groq": ["shared"], "together": ["shared"]}
        environ = {"LIMITS_GROQ": "rpm=1"}
        async with World({"groq": 1, "together": 1}, environ=environ, models=models) as world:
            began = world.clock.mono()
            providers = [(await world.chat("shared")).headers["x-keyturn-provider"] for _ in range(3)]
            assert providers == ["groq", "together", "together"]
            assert world.clock.mono() == began

    virtual.run(main)


def test_TST_02_rpm_of_one_makes_the_second_call_wait_or_be_told() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "rpm=1"}) as world:
            assert (await world.chat(MODEL)).status == 200
            refused = await world.chat(MODEL)
            assert refused.status == 429
            assert 59 <= int(refused.headers["retry-after"]) <= 62
            began = world.clock.mono()
            assert (await world.chat(MODEL, timeout=70)).status == 200
            assert world.clock.mono() - began == pytest.approx(61, abs=1.1)

    virtual.run(main)


def test_a_request_above_every_limit_is_refused_for_good() -> None:
    async def main() -> None:
        async with World({"groq": 3}, environ={"LIMITS_GROQ": "tpm=100"}) as world:
            answer = await world.chat(MODEL, text="word " * 20_000)
            assert (answer.status, answer.code) == (400, "request_exceeds_limit")
            assert "100 tokens" in answer.json()["error"]["message"]
            assert world.seen() == []
            assert (await world.chat(MODEL, text="x" * 900, max_tokens=50)).status == 200

    virtual.run(main)


def test_draining_refuses_who_waits_and_lets_run_what_runs() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "concurrency=1"}, latency=5.0) as world:
            running = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            waiting = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            world.gateway.drain()
            refused, late = await waiting, await world.chat(MODEL)
            assert (refused.status, refused.code) == (503, "draining")
            assert (late.status, late.code) == (503, "draining")
            assert await world.gateway.drained(30)
            assert (await running).status == 200

    virtual.run(main)


def test_a_full_room_answers_at_once() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "concurrency=1"}, latency=5.0) as world:
            world.gateway.room.resize(2, 1 << 20)
            tasks = [asyncio.create_task(world.chat(MODEL)) for _ in range(3)]
            await virtual.idle()
            refused = await world.chat(MODEL)
            assert (refused.status, refused.code) == (429, "capacity")
            for task in tasks[1:]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    virtual.run(main)


def test_a_room_full_of_large_requests_answers_at_once() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "concurrency=1"}, latency=5.0) as world:
            room = world.gateway.room
            running = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            waiting = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            room.resize(1000, room.held * 2 - 1)
            refused = await world.chat(MODEL)
            assert (refused.status, refused.code) == (429, "capacity")
            waiting.cancel()
            await asyncio.gather(running, waiting, return_exceptions=True)
            assert room.held == 0

    virtual.run(main)
