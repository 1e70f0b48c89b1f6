"""Some keys of a provider answer 500 to everything, the others work: whatever comes at one moment, it goes on.

The judge is the simulator, which counts what reaches it.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from keyturn.simulator import Fault
from tests.support import virtual
from tests.support.world import World

KEYS = 4


def broken(*numbers: int) -> list[Fault]:
    return [Fault(provider="groq", key=f"groq-secret-key-{each}", status=500, kind="chat") for each in numbers]


@pytest.mark.parametrize("bad", [1, 2])
@pytest.mark.parametrize("burst", [30, 200])
def test_calls_that_find_it_at_one_moment_do_not_close_the_provider(bad: int, burst: int) -> None:
    async def story() -> None:
        async with World({"groq": KEYS}, faults=broken(*range(1, bad + 1)), latency=0.03) as world:
            await asyncio.gather(*(world.chat("groq/llama") for _ in range(burst)))
            assert world.gateway.adapting.steadiness.opened == Counter()
            began = world.clock.mono()
            for _ in range(100):
                assert (await world.chat("groq/llama")).status == 200
            assert world.clock.mono() - began < 100 * 0.03 + 1, "nobody waits for anything"

    virtual.run(story, max_turns=5_000_000)


def test_where_the_others_are_out_of_use_one_key_is_the_provider() -> None:
    async def story() -> None:
        async with World({"groq": 2}, faults=broken(1, 2), latency=0.03) as world:
            world.gateway.disable("groq-2")
            await asyncio.gather(*(world.chat("groq/llama") for _ in range(30)))
            assert world.gateway.adapting.steadiness.opened == Counter({"groq": 1})

    virtual.run(story, max_turns=5_000_000)


def test_a_probe_that_fails_leaves_the_next_one_to_another_key() -> None:
    async def story() -> None:
        down = Fault(provider="groq", status=503, kind="chat", until=30.0)
        async with World({"groq": KEYS}, faults=[down, *broken(1, 2)], latency=0.03) as world:
            start = world.clock.mono()
            while world.clock.mono() < start + 30:
                await asyncio.gather(*(world.chat("groq/llama", timeout=1.0) for _ in range(10)))
                await world.clock.sleep_until(world.clock.mono() + 1)
            assert world.gateway.adapting.steadiness.opened["groq"] >= 2
            while (await world.chat("groq/llama", timeout=1.0)).status != 200:
                await world.clock.sleep_until(world.clock.mono() + 1)
            assert world.clock.mono() < start + 30 + 2 * 8, "two probes at most find the ones that work"
            later = Counter([(await world.chat("groq/llama")).status for _ in range(20)])
            assert later[200] >= 18, "each broken key is found once more"

    virtual.run(story, max_turns=5_000_000)


def test_a_reset_forgets_what_the_provider_met() -> None:
    async def story() -> None:
        async with World({"groq": 1}, faults=[Fault(provider="groq", status=500, times=24)], latency=0.03) as world:
            for _ in range(2):
                await asyncio.gather(*(world.chat(f"groq/m{each}", timeout=0.1) for each in range(6)))
                world.gateway.reset("groq")
            assert world.gateway.adapting.steadiness.opened == Counter()

    virtual.run(story, max_turns=5_000_000)
