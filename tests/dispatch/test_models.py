"""The lists of models: fetched with a key that works, believed for a while, never a reason to fail."""

from __future__ import annotations

from keyturn.simulator import Fault, KeyRule
from tests.support import virtual
from tests.support.world import World


def test_a_refused_key_does_not_hide_the_list() -> None:
    async def main() -> None:
        async with World({"groq": [KeyRule(state="invalid_key"), KeyRule()]}) as world:
            assert [row.provider for row in await world.gateway.models()][:1] == ["groq"]
            assert len(world.upstream.select(kind="models")) == 2

    virtual.run(main)


def test_CAC_10_a_list_is_asked_for_again_when_it_is_old() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            for _ in range(3):
                await world.gateway.models()
            assert len(world.upstream.select(kind="models")) == 1
            await world.clock.sleep_until(world.clock.mono() + 301)
            await world.gateway.models()
            assert len(world.upstream.select(kind="models")) == 2

    virtual.run(main)


def test_a_list_that_fails_keeps_the_old_one() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            before = await world.gateway.models()
            world.upstream.script.add(Fault(kind="models", status=500))
            await world.clock.sleep_until(world.clock.mono() + 301)
            assert await world.gateway.models() == before

    virtual.run(main)


def test_a_disabled_key_is_not_used_for_anything() -> None:
    async def main() -> None:
        async with World({"groq": 1}) as world:
            assert world.gateway.disable("groq-1")
            assert world.gateway.ready() == "no provider has a usable key"
            assert await world.gateway.models() == []
            answer = await world.chat("groq/llama-3.1-8b-instant")
            assert (answer.status, answer.code) == (503, "no_valid_credentials")
            assert world.upstream.log == []
            assert world.gateway.enable("groq-1")
            assert (await world.chat("groq/llama-3.1-8b-instant")).status == 200

    virtual.run(main)
