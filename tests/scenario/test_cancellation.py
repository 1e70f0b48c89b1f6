"""Clients that leave at any moment: no reservation, connection or task is left over (checked as each World ends)."""

from __future__ import annotations

import asyncio
import random

import pytest

from keyturn.simulator import Fault, KeyRule
from tests.support import virtual
from tests.support.world import World

MODEL = "groq/llama-3.1-8b-instant"
FAULTS = (
    Fault(share=0.1, status=500),
    Fault(share=0.1, error="rate_limited", wait=1.0),
    Fault(share=0.1, does="hang"),
    Fault(share=0.1, does="reset", at_chunk=3),
)


async def cancelled_after(world: World, seconds: float, *, stream: bool, twice: bool) -> None:
    task = asyncio.create_task(world.chat(MODEL, stream=stream))
    await world.clock.sleep_until(world.clock.mono() + seconds)
    task.cancel()
    if twice:
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_two_thousand_calls_cancelled_at_random_moments() -> None:
    async def main() -> None:
        draw = random.Random(11)
        rules = [KeyRule(rpm=200, limiter="rolling", concurrency=4)] * 10
        environ = {"LIMITS_GROQ": "rpm=200 tpm=100000 concurrency=4"}
        async with World({"groq": rules}, environ=environ, faults=FAULTS, latency=(0.0, 0.3), pace=0.02) as world:
            for _ in range(100):
                await asyncio.gather(
                    *(
                        cancelled_after(
                            world, draw.uniform(0, 0.8), stream=draw.random() < 0.5, twice=draw.random() < 0.3
                        )
                        for _ in range(20)
                    )
                )
                await virtual.idle()
                assert world.held() == 0
                assert world.gateway.inflight == 0
                assert world.gateway.room.waiting == 0
                assert all(entry.active == 0 for pool in world.gateway.pools for entry in pool.entries)
            assert world.upstream.own_429 == 0
            world.upstream.script.clear()
            world.gateway.reset(None)
            await world.clock.sleep_until(world.clock.mono() + 70)
            answers = await world.many(MODEL, 10)
            assert {answer.status for answer in answers} == {200}

    virtual.run(main)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("story", ["plain", "failover", "waiting"])
def test_cancelled_at_every_single_step(stream: bool, story: str) -> None:
    """One call of each kind, cancelled at its first await, its second, and so on to its end."""

    async def cancelled_at(world: World, step: int) -> bool:
        task = asyncio.create_task(world.chat(MODEL, stream=stream))
        for _ in range(step):
            await asyncio.sleep(0)
            if task.done():
                break
        done = task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return done

    async def main(step: int) -> bool:
        faults = [Fault(kind="chat", status=500, times=1)] if story == "failover" else []
        environ = {"LIMITS_GROQ": "concurrency=1"} if story == "waiting" else {}
        async with World({"groq": 1 if story == "waiting" else 2}, faults=faults, environ=environ) as world:
            other = asyncio.create_task(world.chat(MODEL)) if story == "waiting" else None
            done = await cancelled_at(world, step)
            if other is not None:
                assert (await other).status == 200
            return done

    for step in range(400):
        if virtual.run(lambda step=step: main(step)):  # type: ignore[misc]
            break
    else:
        pytest.fail("the call never came to its end")
    assert step >= 3


def test_a_waiter_that_leaves_frees_its_place() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "concurrency=1"}, latency=5.0) as world:
            first = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            gone = asyncio.create_task(world.chat(MODEL))
            last = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            assert world.gateway.room.waiting == 2
            gone.cancel()
            await virtual.idle()
            assert world.gateway.room.waiting == 1
            began = world.clock.mono()
            assert {(await first).status, (await last).status} == {200}
            assert world.clock.mono() - began == pytest.approx(10.0, abs=0.1)
            await asyncio.gather(gone, return_exceptions=True)

    virtual.run(main)


def test_a_grant_that_comes_as_its_waiter_leaves_is_given_back() -> None:
    async def main() -> None:
        async with World({"groq": 1}, environ={"LIMITS_GROQ": "concurrency=1"}, latency=5.0) as world:
            first = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            second = asyncio.create_task(world.chat(MODEL))
            third = asyncio.create_task(world.chat(MODEL))
            await virtual.idle()
            first.add_done_callback(lambda _: second.cancel())
            assert (await third).status == 200
            await asyncio.gather(first, second, return_exceptions=True)

    virtual.run(main)
