"""A pool under more load than it can bear: no upstream 429, hardly anything lost, and refusals that tell the truth."""

from __future__ import annotations

import asyncio
import gc
import random
from collections import deque
from collections.abc import Sequence

from keyturn.dispatch.run import Run
from keyturn.simulator import KeyRule
from tests.support import virtual
from tests.support.world import Answer, World

MODEL = "groq/llama-3.1-8b-instant"
KEYS, RPM, SECONDS = 20, 30, 180.0
LOAD = 2.0
PATIENCE = 20.0


def arrivals(seed: int, load: float = LOAD) -> list[float]:
    """A Poisson stream of *load* times what the pool can bear."""
    draw, now, moments = random.Random(seed), 0.0, []
    rate = load * KEYS * RPM / 60.0
    while (now := now + draw.expovariate(rate)) < SECONDS:
        moments.append(now)
    return moments


def admitted_by_exact_log(moments: Sequence[float]) -> int:
    """What one exact rolling log per key would admit of the same calls, waiting just as long."""
    logs = [deque[float]() for _ in range(KEYS)]
    admitted, free_at = 0, 0.0
    for moment in moments:
        log = min(logs, key=lambda each: each[0] if len(each) == RPM else -1.0)
        start = max(moment, free_at, log[0] + 60.0 if len(log) == RPM else 0.0)
        if start - moment > PATIENCE or start >= SECONDS:
            continue
        if len(log) == RPM:
            log.popleft()
        log.append(start)
        free_at, admitted = start, admitted + 1
    return admitted


def run_day(seed: int) -> tuple[World, list[tuple[float, Answer]]]:
    async def main() -> tuple[World, list[tuple[float, Answer]]]:
        rules = [KeyRule(rpm=RPM, limiter="rolling")] * KEYS
        world = World({"groq": rules}, environ={"LIMITS_GROQ": f"rpm={RPM}"}, latency=(0.02, 0.4), seed=seed)
        async with world:
            began = world.clock.mono()

            async def one(moment: float) -> tuple[float, Answer]:
                await world.clock.sleep_until(began + moment)
                answer = await world.chat(MODEL)
                return world.clock.mono() - began, answer

            return world, await asyncio.gather(*(one(moment) for moment in arrivals(seed)))

    return virtual.run(main)


def test_twenty_keys_under_twice_their_load() -> None:
    """Counted by the upstream: no 429; at least 98 % of what an exact rolling log would admit."""
    world, answers = run_day(1)
    assert world.upstream.own_429 == 0
    served = len([each for each in world.seen(result="served") if each.started < world.upstream._began + SECONDS])
    bound = admitted_by_exact_log(arrivals(1))
    assert served >= 0.98 * bound, f"{served} of {bound}"
    statuses = {answer.status for _, answer in answers}
    assert statuses == {200, 429}
    refused = [answer for _, answer in answers if answer.status == 429]
    assert all(answer.code == "capacity" for answer in refused)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert all(float(answer.headers["retry-after-ms"]) > 0 for answer in refused)


def test_a_retry_after_that_is_obeyed_is_kept() -> None:
    """Callers who come back exactly when they were told to are then answered, waiting as everybody does."""

    async def main() -> None:
        rules = [KeyRule(rpm=RPM, limiter="rolling")] * 5
        async with World({"groq": rules}, environ={"LIMITS_GROQ": f"rpm={RPM}"}) as world:
            answers = await world.many(MODEL, 5 * RPM)
            assert {answer.status for answer in answers} == {200}
            told = await world.many(MODEL, 100)
            assert {answer.status for answer in told} == {429}

            async def again(answer: Answer) -> int:
                await world.clock.sleep_until(world.clock.mono() + float(answer.headers["retry-after-ms"]) / 1000)
                return (await world.chat(MODEL)).status

            back = await asyncio.gather(*(again(answer) for answer in told))
            assert back.count(200) >= 0.95 * len(back)
            assert world.upstream.own_429 == 0

    virtual.run(main)


def test_who_was_told_to_come_back_while_others_stood_in_line_is_served_then() -> None:
    """A fifth too much for three minutes: the wait that is stated counts those who stand in line."""

    async def main() -> None:
        rules = [KeyRule(rpm=RPM, limiter="rolling")] * KEYS
        world = World({"groq": rules}, environ={"LIMITS_GROQ": f"rpm={RPM}"}, latency=(0.02, 0.4))
        async with world:
            began = world.clock.mono()
            back: list[int] = []

            async def one(moment: float) -> None:
                await world.clock.sleep_until(began + moment)
                answer = await world.chat(MODEL)
                if answer.status == 429:
                    wait = float(answer.headers["retry-after-ms"]) / 1000
                    await world.clock.sleep_until(world.clock.mono() + wait)
                    back.append((await world.chat(MODEL)).status)

            await asyncio.gather(*(one(moment) for moment in arrivals(1, load=1.2)))
            assert len(back) > 100
            assert back.count(200) >= 0.95 * len(back)
            assert world.upstream.own_429 == 0

    virtual.run(main)


def test_a_refusal_leaves_nothing_for_the_collector_of_garbage() -> None:
    """A pool that is full refuses by the thousand: each must be gone with its answer."""

    async def main() -> None:
        async with World({"groq": [KeyRule(rpm=1)]}, environ={"LIMITS_GROQ": "rpm=1"}) as world:
            gc.collect()
            gc.disable()
            try:
                answers = [await world.chat(MODEL, timeout=1.0) for _ in range(20)]
                await virtual.idle()
                left = [each for each in gc.get_objects() if isinstance(each, Run) and each.trail.status == 429]
            finally:
                gc.enable()
            assert [answer.status for answer in answers] == [200] + [429] * 19
            assert not left

    virtual.run(main)
