"""Clients of all dialects that leave at any moment: nothing is left over, whichever dialect the upstream speaks."""

from __future__ import annotations

import asyncio
import random

from keyturn.simulator import Fault, KeyRule
from tests.scenario.shapes import DIALECTS, UPSTREAMS, ask, body, play, said
from tests.support import virtual
from tests.support.world import World

ROLES = f"  team: {{ model_chain: [{', '.join(UPSTREAMS.values())}] }}\n"
FAULTS = (
    Fault(share=0.1, status=503),
    Fault(share=0.1, error="rate_limited", wait=1.0),
    Fault(share=0.1, does="hang"),
    Fault(share=0.1, does="reset", at_chunk=4),
    Fault(share=0.1, error="overloaded", at_chunk=6),
)


async def left_after(world: World, draw: random.Random) -> None:
    """One call of some dialect, to some upstream or to all, cancelled after a while; sometimes twice."""
    dialect = draw.choice(DIALECTS)
    model = draw.choice(["team", *UPSTREAMS.values()])
    asked = body(dialect, model, draw.choice(["Hello", "Use the weather tool", "word " * 1000]), tools=True)
    stream, array = draw.random() < 0.6, draw.random() < 0.5
    task = asyncio.create_task(ask(world, dialect, model, asked, stream=stream, array=array))
    await world.clock.sleep_until(world.clock.mono() + draw.uniform(0, 0.8))
    task.cancel()
    if draw.random() < 0.3:
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_three_hundred_calls_of_mixed_dialects_cancelled_at_random_moments() -> None:
    async def story(world: World) -> None:
        draw = random.Random(23)
        for _ in range(15):
            await asyncio.gather(*(left_after(world, draw) for _ in range(20)))
            await virtual.idle()
            assert world.held() == 0
            assert world.gateway.inflight == 0
            assert world.gateway.room.waiting == 0
            assert all(entry.active == 0 for pool in world.gateway.pools for entry in pool.entries)
        assert len({each.dialect for each in world.seen()}) == 4
        assert not [each for each in world.seen() if each.status == 400]
        world.upstream.script.clear()
        world.gateway.reset(None)
        await world.clock.sleep_until(world.clock.mono() + 70)
        for dialect in DIALECTS:
            for model in UPSTREAMS.values():
                assert said(dialect, await ask(world, dialect, model, stream=True)).endswith("Hello")

    names = [name.partition("/")[0] for name in UPSTREAMS.values()]
    pool = {name: [KeyRule(rpm=200, concurrency=4)] * 4 for name in names}
    environ = {f"LIMITS_{name.upper()}": "rpm=200 concurrency=4" for name in names}
    play(story, pool, roles=ROLES, environ=environ, faults=FAULTS, latency=(0.0, 0.3), pace=0.02)
