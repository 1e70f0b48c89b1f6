"""A conversation whose prompt cache is at a key that is full: it waits for that key where that is cheaper."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from keyturn.simulator import KeyRule
from tests.support import virtual
from tests.support.world import Answer, World

MODEL = "openai/gpt-4o"
LONG = "A sentence of the document that is talked about. " * 2500
PAID = {"USE_PAID_MODELS": "true", "LIMITS_OPENAI": "rpm=1"}
Story = Callable[[World], Coroutine[Any, Any, Any]]


def play(story: Story, *, keys: int = 2, environ: dict[str, str] | None = None) -> None:
    async def main() -> None:
        rules = [KeyRule(rpm=1, limiter="rolling")] * keys
        async with World({"openai": rules}, environ=PAID | (environ or {})) as world:
            await story(world)

    virtual.run(main)


async def turn(world: World, number: int, **more: Any) -> Answer:
    """The turn *number* of one conversation, from 1."""
    messages = [{"role": "user", "content": LONG}]
    for each in range(1, number):
        messages += [{"role": "assistant", "content": f"answer {each}"}, {"role": "user", "content": f"and {each}?"}]
    return await world.send("chat", {"model": MODEL, "messages": messages}, **more)


async def rest(world: World, seconds: float) -> None:
    await world.clock.sleep_until(world.clock.mono() + seconds)


def notes(world: World) -> list[str]:
    """What the latest call says of it."""
    return [note for note in world.gateway.recent[next(reversed(world.gateway.recent))].notes if "cache" in note]


def test_a_short_wait_keeps_the_cache() -> None:
    async def story(world: World) -> None:
        await turn(world, 1)
        await rest(world, 56)
        before = world.clock.mono()
        assert (await turn(world, 2)).status == 200
        waited = world.clock.mono() - before
        assert 3 < waited < 6.5
        first, second = world.seen()
        assert first.key == second.key
        assert second.cached_tokens > 0
        (note,) = notes(world)
        assert note.startswith(f"waited {waited:.1f} s for the key that holds the prompt cache: about 0.0")
        assert note.endswith("cached tokens kept")

    play(story)


def test_a_long_wait_is_not_worth_it() -> None:
    async def story(world: World) -> None:
        await turn(world, 1)
        await rest(world, 20)
        before = world.clock.mono()
        assert (await turn(world, 2)).status == 200
        assert world.clock.mono() == before
        first, second = world.seen()
        assert first.key != second.key
        (note,) = notes(world)
        assert note.startswith("moved on from the key that holds the prompt cache, back in 4")

    play(story)


@pytest.mark.parametrize("environ", [{"WAITING_FOR_CACHE": "0"}, {"WAITING_FOR_CACHE": "1"}])
def test_the_owner_says_how_long_at_most(environ: dict[str, str]) -> None:
    async def story(world: World) -> None:
        await turn(world, 1)
        await rest(world, 56)
        before = world.clock.mono()
        await turn(world, 2)
        assert world.clock.mono() == before

    play(story, environ=environ)


def test_the_callers_own_patience_bounds_it() -> None:
    async def story(world: World) -> None:
        await turn(world, 1)
        await rest(world, 56)
        assert (await turn(world, 2, timeout=2)).status == 200
        assert notes(world)[0].startswith("moved on")

    play(story)


def test_what_begins_and_what_is_short_is_not_weighed() -> None:
    async def story(world: World) -> None:
        await turn(world, 1)
        await rest(world, 56)
        before = world.clock.mono()
        await turn(world, 1)
        assert world.clock.mono() == before
        assert notes(world) == []

    play(story)


def test_who_waits_holds_nobody_up_and_may_leave() -> None:
    async def story(world: World) -> None:
        await turn(world, 1)
        await rest(world, 56)
        waiting = asyncio.create_task(turn(world, 2))
        await virtual.idle()
        assert world.held() == 0, "it holds nothing while it waits"
        before = world.clock.mono()
        assert (await world.chat(MODEL)).status == 200
        assert world.clock.mono() == before
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert world.gateway.adapting.holding == 0

    play(story)
