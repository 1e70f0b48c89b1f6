"""Calls whose client leaves at a random moment: no reservation, lease, socket or task may be left over."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Mapping
from random import Random

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
TOGETHER = 50


def cancellations(size: int, seed: int) -> list[str]:
    """*size* calls on a gateway of its own, each cancelled at a random moment of its life, some twice."""
    random = Random(seed)
    found: list[str] = []
    seen: Counter[str] = Counter()

    async def one(world: World) -> None:
        task = asyncio.create_task(world.chat(MODEL, stream=random.random() < 0.5))
        await world.clock.sleep_until(world.clock.mono() + random.uniform(0, 0.8))
        seen["over before" if task.done() else "cancelled"] += 1
        task.cancel()
        if random.random() < 0.3:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def main() -> None:
        rules = [KeyRule(rpm=200, limiter="rolling", concurrency=4)] * 10
        environ: Mapping[str, str] = {"LIMITS_GROQ": "rpm=200 tpm=100000 concurrency=4"}
        async with World(
            {"groq": rules}, environ=environ, faults=FAULTS, latency=(0.0, 0.3), pace=0.02, log_limit=100
        ) as world:
            tasks = len(asyncio.all_tasks())
            for _ in range(0, size, TOGETHER):
                await asyncio.gather(*(one(world) for _ in range(TOGETHER)))
                await virtual.idle()
                left = {
                    "reservations": world.held(),
                    "calls": world.gateway.inflight,
                    "waiting": world.gateway.room.waiting,
                    "upstream exchanges": world.gateway.transport.acquired,  # type: ignore[attr-defined]
                    "busy entries": sum(entry.active for pool in world.gateway.pools for entry in pool.entries),
                }
                found.extend(f"{count} {what} are left over" for what, count in left.items() if count)
                if found:
                    return
            gc.collect()
            await virtual.idle()
            more = len(asyncio.all_tasks()) - tasks
            if more > 0:
                found.append(f"{more} tasks are left over")
            if world.upstream.own_429:
                found.append(f"the upstream answered {world.upstream.own_429} times 429")

    virtual.run(main)
    print(f"cancellations: {', '.join(f'{count:,} {what}' for what, count in seen.most_common())}")
    return found
