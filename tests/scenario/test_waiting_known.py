"""Calls that wait until it is known what attempts under way leave, and what a call is told then."""

from __future__ import annotations

import asyncio

import pytest

from keyturn.simulator import KeyRule
from tests.support import virtual
from tests.support.world import Answer, World

MODEL = "groq/llama-3.1-8b-instant"
RULES = [KeyRule(rpm=3, limiter="rolling")] * 2
THREE = {"LIMITS_GROQ": "rpm=3"}


async def timed(world: World, began: float, **members: object) -> tuple[Answer, float]:
    answer = await world.chat(MODEL, **members)  # type: ignore[arg-type]
    return answer, world.clock.mono() - began


def test_a_burst_beyond_the_minute_is_refused_as_soon_as_the_minute_is_full() -> None:
    async def main() -> None:
        async with World({"groq": RULES}, environ=THREE, latency=0.03) as world:
            began = world.clock.mono()
            done = await asyncio.gather(*(timed(world, began) for _ in range(10)))
            refused = [answer for answer, took in done if answer.status == 429 and took < 0.1]
            assert len(refused) == 4
            assert sum(answer.status == 200 for answer, _ in done) == 6
            assert all(60 < float(each.headers["retry-after-ms"]) / 1000 < 62 for each in refused)
            positions = [each.json()["error"]["keyturn"]["queue_position"] for each in refused]
            assert sorted(positions) == [1, 2, 3, 4]
            assert world.gateway.room.refused["normal", "never"] == 4
            wait = float(refused[-1].headers["retry-after-ms"]) / 1000
            await world.clock.sleep_until(began + wait + 0.05)
            assert {answer.status for answer in await world.many(MODEL, 4)} == {200}
            assert world.upstream.own_429 == 0

    virtual.run(main)


def test_of_a_burst_who_has_the_time_waits_and_who_stands_too_far_behind_is_told() -> None:
    async def main() -> None:
        async with World({"groq": RULES}, environ=THREE, latency=0.03) as world:
            began = world.clock.mono()
            done = await asyncio.gather(*(timed(world, began, timeout=70) for _ in range(15)))
            assert sum(answer.status == 200 for answer, _ in done) == 12
            refused = [(answer, took) for answer, took in done if answer.status == 429]
            assert len(refused) == 3
            assert all(took < 0.1 for _, took in refused)
            assert all(float(answer.headers["retry-after-ms"]) > 115_000 for answer, _ in refused)
            assert all("your turn comes in about 1" in answer.json()["error"]["message"] for answer, _ in refused)
            assert world.gateway.room.refused["normal", "predicted"] == 3

    virtual.run(main)


def test_each_who_waits_is_judged_once() -> None:
    async def main() -> None:
        async with World({"groq": RULES}, environ=THREE, latency=0.03) as world:
            calls = [asyncio.create_task(world.chat(MODEL, timeout=3600)) for _ in range(60)]
            await virtual.idle()
            await world.clock.sleep_until(world.clock.mono() + 1.0)
            (standing,) = world.gateway.room._lines.lines.values()
            assert not standing.unjudged
            assert standing.queue.size == 54
            for each in calls:
                each.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
            assert not world.gateway.room.waiting

    virtual.run(main)


def test_when_the_days_of_all_keys_are_spent_a_call_is_told_so_at_once() -> None:
    """Buckets of a day that refill one call in minutes: who cannot be served in its time does not wait for it."""

    async def main() -> None:
        environ = {"LIMITS_GROQ": "rpm=300,rpd=720", "WAITING_MOST": "5"}
        async with World({"groq": 4}, environ=environ, latency=0.03) as world:
            statuses: list[int] = []
            for _ in range(29):
                statuses += [answer.status for answer in await world.many(MODEL, 100)]
                await world.clock.sleep_until(world.clock.mono() + 10)
            assert 4 * 712 <= statuses.count(200) <= 4 * 716
            began = world.clock.mono()
            done = await asyncio.gather(*(timed(world, began, timeout=30) for _ in range(40)))
            late = [answer for answer, _ in done if answer.status != 200]
            assert len(late) >= 38
            assert {answer.status for answer in late} == {429}
            told = sorted(float(answer.headers["retry-after-ms"]) / 1000 for answer in late)
            assert told[-1] > 400  # a call in half a minute comes back: the last has so many before it
            assert len({round(each) for each in told}) > len(told) / 2
            assert sum(took > 0.1 for _, took in done) <= 2

    virtual.run(main)


def test_a_wait_leaves_the_time_that_an_answer_takes() -> None:
    async def main() -> None:
        environ = {"LIMITS_GROQ": "concurrency=1"}
        async with World({"groq": 1}, environ=environ, latency=4.0) as world:
            assert {answer.status for answer in await world.many(MODEL, 4)} == {200}  # three of them waited
            running = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            began = world.clock.mono()
            answer, took = await timed(world, began, timeout=7)  # 4 s until it could begin, and 4 s more
            assert (answer.status, answer.code) == (429, "capacity")
            assert took == pytest.approx(3.0, abs=0.2)
            assert (await running).status == 200
            assert len(world.seen()) == 5

    virtual.run(main)


def test_who_is_told_to_come_back_is_never_told_to_do_so_at_once() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "concurrency=1"}, latency=1.0) as world:
            world.gateway.room.resize(3, 1 << 20)
            done = await asyncio.gather(*(timed(world, world.clock.mono()) for _ in range(30)))
            refused = [answer for answer, _ in done if answer.status == 429]
            assert len(refused) > 20
            for each in refused:
                assert int(each.headers["retry-after-ms"]) >= 1
                assert " 0.0 s" not in each.json()["error"]["message"]

    virtual.run(main)
